#include <migrate/store/image.hpp>

#include "store_fixture.hpp"

using namespace store_test;
using migrate::errc;
using migrate::image;
using migrate::image_extent;
using migrate::image_file;

namespace {

const migrate::detail::region_number medium(migrate::region_class::medium, 5);

image example(std::vector<image_file> files, std::vector<image_extent> extents) {
  return migrate::detail::image_access::make(task, medium, 9, {1, 2}, 3, std::move(files), std::move(extents),
                                             bytes("metadata"));
}

image example() {
  return example({{4, 100 * (page + 8), 11, 100, 0}, {9, 50 * (page + 8), 12, 50, 0}},
                 {{0, 10, 0, 0}, {10, 5, 1, 3}, {100, 50, 0, 50}, {16000, 40, 1, 10}});
}

void seal(std::vector<std::byte>& manifest) {
  // Makes the checksum right again, as a hostile or a newer writer would.
  std::uint64_t sum = migrate::detail::checksum(manifest.data() + migrate::detail::manifest_checked_from,
                                                manifest.size() - migrate::detail::manifest_checked_from);
  std::memcpy(manifest.data() + offsetof(migrate::detail::manifest_header, checksum), &sum, sizeof sum);
}

bool refused(const std::error_code& code) {
  return code == errc::image_damaged || code == errc::image_truncated || code == errc::image_version;
}

errc parse_result(const std::vector<std::byte>& manifest) {
  return static_cast<errc>(caught([&] { image::parse(manifest); }).code().value());
}

} // namespace

TEST_CASE("a manifest survives its encoding") {
  image of = example();
  image again = image::parse(of.encode());
  CHECK(again == of);
  CHECK(again.task() == task);
  CHECK(again.region() == medium);
  CHECK(again.generation() == 9);
  CHECK(again.bytes() == 105 * page);
  CHECK(again.bytes_written() == 50 * page);
  CHECK(image::parse(example({}, {}).encode()).extents().empty());
}

TEST_CASE("a manifest cut anywhere is refused") {
  auto whole = example().encode();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    std::vector<std::byte> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK(parse_result(part) == errc::image_truncated);
  }
  whole.push_back(std::byte{0});
  CHECK(parse_result(whole) == errc::image_damaged);
}

TEST_CASE("a manifest with any bit flipped is refused") {
  auto whole = example().encode();
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    auto flipped = whole;
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    CHECK(refused(caught([&] { image::parse(flipped); }).code()));
  }
}

TEST_CASE("a manifest of a newer version is refused as such") {
  auto newer = example().encode();
  std::uint32_t version = migrate::detail::manifest_version + 1;
  std::memcpy(newer.data() + offsetof(migrate::detail::manifest_header, version), &version, sizeof version);
  seal(newer);
  auto problem = caught([&] { image::parse(newer); });
  CHECK(problem.code() == errc::image_version);
  CHECK(says(problem, "version 2"));
  CHECK(says(problem, "same build"));
}

TEST_CASE("extents and files that make no sense are refused although the checksum holds") {
  const image_file good{4, 100 * (page + 8), 11, 100, 0};
  auto refuses = [&](std::vector<image_file> files, std::vector<image_extent> extents) {
    return parse_result(example(std::move(files), std::move(extents)).encode()) == errc::image_damaged;
  };
  const std::uint32_t region_pages = static_cast<std::uint32_t>(medium.size() / page);
  CHECK(refuses({good}, {{0, 10, 0, 0}, {9, 10, 0, 50}}));  // overlap
  CHECK(refuses({good}, {{20, 1, 0, 0}, {0, 1, 0, 1}}));    // out of order
  CHECK(refuses({good}, {{0, 0, 0, 0}}));                   // empty
  CHECK(refuses({good}, {{0, 1, 1, 0}}));                   // no such file
  CHECK(refuses({good}, {{0, 2, 0, 99}}));                  // past the file's pages
  CHECK(refuses({good}, {{0, 2, 0, 0xffff'ffff}}));         // overflow in the file
  CHECK(refuses({good}, {{region_pages - 1, 2, 0, 0}}));    // past the region
  CHECK(refuses({good}, {{0xffff'ffff, 2, 0, 0}}));         // overflow in the region
  CHECK(refuses({good}, {{0, 0xffff'ffff, 0, 0}}));         // enormous
  CHECK(refuses({good, good}, {}));                         // the same file twice
  CHECK(refuses({{10, 100 * (page + 8), 11, 100, 0}}, {})); // written by a later generation
  CHECK(refuses({{0, 100 * (page + 8), 11, 100, 0}}, {}));  // by none
  CHECK(refuses({{4, 99 * (page + 8), 11, 100, 0}}, {}));   // shorter than its pages
  CHECK(refuses({{4, page, 11, 0xffff'ffff, 0}}, {}));      // much shorter
  CHECK(refuses({{4, 100 * (page + 8), 11, 0, 0}}, {}));    // no pages
}

TEST_CASE("random bytes with a right checksum are refused or parsed, and nothing worse") {
  const std::uint64_t seed = new_seed();
  std::printf("image_test: MIGRATE_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  INFO("MIGRATE_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const auto whole = example().encode();
  std::size_t accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    auto bytes = whole;
    std::size_t changes = 1 + random() % 6;
    for (std::size_t i = 0; i < changes; ++i) {
      // Behind the prefix whose meaning is the same in every version.
      std::size_t at = migrate::detail::manifest_checked_from + 4 + random() % (bytes.size() - 28);
      static constexpr unsigned char values[] = {0, 1, 0x7f, 0x80, 0xff};
      bytes[at] = std::byte{random() % 2 == 0 ? values[random() % 5] : static_cast<unsigned char>(random())};
    }
    seal(bytes);
    try {
      image of = image::parse(bytes);
      ++accepted;
      for (const image_extent& extent : of.extents()) {
        REQUIRE(extent.file < of.files().size());
        REQUIRE(std::uint64_t{extent.first} + extent.pages <= of.region().size() / page);
      }
      REQUIRE(image::parse(of.encode()) == of);
    } catch (const migrate::error& problem) {
      REQUIRE(refused(problem.code()));
    }
  }
  CHECK(accepted > 0);
}
