#include <migrate/transfer/compressor.hpp>

#include <migrate/transfer/compressed_pages.hpp>
#include <migrate/transfer/offer_reader.hpp>
#include <migrate/transfer/pages_reader.hpp>
#include <migrate/transfer/reference_reader.hpp>

#include <catch2/catch.hpp>

#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include <capnp/message.h>

using namespace migrate;
using detail::compressor;
using detail::page_decompressor;
using detail::page_size;

namespace {

constexpr std::size_t pages = 64;
using memory = std::vector<std::uint64_t>;

memory counting(std::size_t words = pages * page_size / 8) {
  memory made(words);
  std::iota(made.begin(), made.end(), 1);
  return made;
}
memory noise(std::size_t words = pages * page_size / 8) {
  memory made(words);
  std::mt19937_64 random(1);
  for (std::uint64_t& each : made) each = random();
  return made;
}
std::size_t bytes_of(const memory& of) { return of.size() * 8; }

iovec all_of(memory& of) { return {of.data(), bytes_of(of)}; }

const detail::region_number region(region_class::small, 3);

using message = capnp::MallocMessageBuilder;
capnp::List<protocol::Pages>::Reader ranges(message& in, std::vector<std::uint32_t> counts) {
  auto list = in.initRoot<protocol::PagesAhead>().initPages(static_cast<unsigned>(counts.size()));
  for (unsigned i = 0; i < list.size(); ++i) {
    list[i].setAddress(region.address() + (1 + i) * page_size);
    list[i].setCount(counts[i]);
  }
  return list.asReader();
}

kj::ArrayPtr<const kj::byte> bytes_of(std::span<const std::byte> block) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(block.data()), block.size());
}

} // namespace

TEST_CASE("pages that were compressed are what they were") {
  memory first = counting(), second = counting(3 * page_size / 8);
  compressor compress(compression::always);
  iovec both[] = {all_of(first), all_of(second)};
  std::span<const std::byte> block = compress.compress(both);
  REQUIRE_FALSE(block.empty());
  CHECK(block.size() < bytes_of(first) * 3 / 4);
  CHECK(compress.before() == bytes_of(first) + bytes_of(second));
  CHECK(compress.after() == block.size());
  message in;
  page_decompressor decompress;
  auto got = decompress.pages(ranges(in, {pages, 3}), bytes_of(block));
  REQUIRE(got.size() == bytes_of(first) + bytes_of(second));
  CHECK(std::memcmp(got.begin(), first.data(), bytes_of(first)) == 0);
  CHECK(std::memcmp(got.begin() + bytes_of(first), second.data(), bytes_of(second)) == 0);
}

TEST_CASE("pages that do not shrink travel as they are, also when compression is asked for") {
  memory random = noise();
  compressor compress(compression::always);
  iovec part = all_of(random);
  for (int i = 0; i < 40; ++i) CHECK(compress.compress({&part, 1}).empty());
  CHECK(compress.before() == 0);
  CHECK(compress.outcome().starts_with("0 KiB compressed"));
}

TEST_CASE("memory that did not shrink is tried again, ever more seldom") {
  memory random = noise(), regular = counting();
  compressor compress(compression::always);
  iovec part = all_of(random), other = all_of(regular);
  for (int i = 0; i < 8; ++i) compress.compress({&part, 1});
  int turns = 0;
  while (compress.compress({&other, 1}).empty() && turns < 1000) ++turns;
  CHECK(turns > 0);
  CHECK(turns <= 32);
}

TEST_CASE("whether pages are compressed is decided by the link's speed, and not before that is known") {
  memory regular = counting();
  iovec part = all_of(regular);
  compressor unknown(compression::automatic);
  CHECK(unknown.wants_link());
  CHECK(unknown.compress({&part, 1}).empty());
  CHECK(unknown.outcome().empty());

  compressor slow(compression::automatic), fast(compression::automatic), never(compression::never);
  slow.set_link(1e6);
  CHECK_FALSE(slow.wants_link());
  CHECK_FALSE(slow.compress({&part, 1}).empty());
  fast.set_link(1e13);
  CHECK(fast.compress({&part, 1}).empty());
  CHECK_FALSE(never.wants_link());
  CHECK(never.compress({&part, 1}).empty());
}

TEST_CASE("a block that holds less, more or other than it says is refused by name") {
  memory regular = counting();
  compressor compress(compression::always);
  iovec part = all_of(regular);
  std::span<const std::byte> block = compress.compress({&part, 1});
  REQUIRE_FALSE(block.empty());
  page_decompressor decompress;
  auto refused = [&](std::vector<std::uint32_t> counts, std::span<const std::byte> bytes) {
    message in;
    try {
      decompress.pages(ranges(in, std::move(counts)), bytes_of(bytes));
    } catch (const error& reason) {
      return reason.code() == errc::protocol &&
             std::string(reason.what()).starts_with("compressed pages came that");
    }
    return false;
  };
  CHECK(refused({pages - 1}, block));
  CHECK(refused({pages + 1}, block));
  CHECK(refused({}, block));
  CHECK(refused({pages}, block.first(block.size() / 2)));
  CHECK(refused({pages}, block.first(0)));
  CHECK(refused({1u << 20}, block));
  CHECK(refused(std::vector<std::uint32_t>(1000, ~0u), block));
  std::vector<std::byte> forged(block.begin(), block.end());
  std::mt19937 random(2);
  for (int i = 0; i < 2000; ++i) { // whatever comes of it stays within its bounds
    std::vector<std::byte> each = forged;
    each[random() % each.size()] = static_cast<std::byte>(random());
    message in;
    try {
      auto got = decompress.pages(ranges(in, {pages}), bytes_of(each));
      CHECK(got.size() == bytes_of(regular));
    } catch (const error& reason) {
      CHECK(reason.code() == errc::protocol);
    }
  }
}

TEST_CASE("an offer whose pages are compressed has them behind its bundle") {
  memory regular = counting(2 * page_size / 8);
  compressor compress(compression::always);
  iovec part = all_of(regular);
  std::span<const std::byte> block = compress.compress({&part, 1});
  std::vector<kj::byte> attached(16 + block.size());
  std::memcpy(attached.data() + 16, block.data(), block.size());
  message in;
  auto offer = in.initRoot<protocol::Offer>();
  offer.setRegion(region.bits());
  offer.setControl(region.address() + 8 * page_size);
  offer.setBundle(16);
  offer.setCompressed(true);
  auto list = offer.initPages(1);
  list[0].setAddress(region.address() + 2 * page_size);
  list[0].setCount(2);
  auto read = [&] {
    return detail::read_offer(node_id(2), offer.asReader(), kj::arrayPtr(attached.data(), attached.size()));
  };
  auto offered = read();
  detail::check_offer(*offered);
  detail::for_each_range(*offered, [&](const page_range& range, const std::byte* bytes) {
    CHECK(range.bytes == bytes_of(regular));
    CHECK(std::memcmp(bytes, regular.data(), range.bytes) == 0);
  });
  attached.resize(attached.size() - 5);
  CHECK_THROWS_AS(read(), error);
}
