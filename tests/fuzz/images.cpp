// What is read from a store: manifests, as offers carry them too, whole files of generations, and the store's own file.
#include "fuzz.hpp"

#include <migrate/store.hpp>

#include <sys/mman.h>

using namespace migrate;

namespace {

// The first byte says what the others are.
enum : std::uint8_t {
  manifest,
  manifest_with_a_right_checksum,
  generation,
  generation_with_right_checksums,
  store_file
};

const task_id task(node_id(3), 42, 0);
const detail::region_number region(region_class::small, 7);

class place {
public:
  place() {
    std::string name = "/dev/shm/migrate-fuzz-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
    opened_.push_back(store::open(path_ + "/store", {.create = true}));
    void* got = ::mmap(region.base(), region.size(), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got != region.base()) std::abort();
  }
  ~place() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  store& images() { return opened_[0]; }
  std::string folder() const { return path_ + "/store"; }
  void put(const std::string& name, std::span<const std::uint8_t> bytes) const {
    std::string path = path_ + "/" + name;
    int to = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0 || ::write(to, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
    ::close(to);
  }
  std::string path() const { return path_; }

private:
  std::string path_;
  std::vector<store> opened_;
};

place& here() {
  static place made;
  return made;
}

image commit_some(std::size_t pages) {
  store& images = here().images();
  std::vector<page_range> live;
  for (std::size_t i = 0; i < pages; ++i) {
    live.push_back({region.base() + (1 + 2 * i) * detail::page_size, detail::page_size});
    std::memset(live.back().address, static_cast<int>(i + 1), live.back().bytes);
  }
  std::byte metadata[5] = {};
  return images.commit(task, region, nullptr, live, live, metadata);
}

void set_right(std::span<std::uint8_t> manifest) {
  detail::manifest_header header;
  if (manifest.size() < sizeof header) return;
  std::memcpy(&header, manifest.data(), sizeof header);
  header.magic = detail::manifest_magic;
  header.bytes = manifest.size();
  header.version = detail::manifest_version;
  std::memcpy(manifest.data(), &header, sizeof header);
  header.checksum = detail::checksum(manifest.data() + detail::manifest_checked_from,
                                     manifest.size() - detail::manifest_checked_from);
  std::memcpy(manifest.data(), &header, sizeof header);
}

void set_right_in_file(std::vector<std::uint8_t>& file) {
  detail::image_trailer trailer;
  if (file.size() < sizeof trailer) return;
  std::uint8_t* at = file.data() + file.size() - sizeof trailer;
  std::memcpy(&trailer, at, sizeof trailer);
  trailer.magic = detail::trailer_magic;
  trailer.bytes = file.size();
  trailer.manifest = std::min<std::uint64_t>(trailer.manifest, file.size() - sizeof trailer);
  trailer.checksum = trailer.sum();
  std::memcpy(at, &trailer, sizeof trailer);
  set_right({at - trailer.manifest, static_cast<std::size_t>(trailer.manifest)});
}

void use(const image& of) {
  if (of.encode() != image::parse(of.encode()).encode()) std::abort();
  if (of.region() != region || of.bytes() > region.size()) return;
  here().images().verify(of);
  here().images().resume_into(of, region.base());
}

} // namespace

std::vector<migrate_fuzz::input> migrate_fuzz::seeds() {
  std::vector<input> all;
  for (std::size_t pages : {1, 3}) {
    image made = commit_some(pages);
    std::vector<std::byte> bytes = made.encode();
    for (std::uint8_t how : {manifest, manifest_with_a_right_checksum}) {
      all.push_back({how});
      append(all.back(), bytes.data(), bytes.size());
    }
    std::ifstream file(here().folder() + "/images/" + detail::image_name(task, made.generation()).str(),
                       std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    for (std::uint8_t how : {generation, generation_with_right_checksums}) {
      all.push_back({how});
      append(all.back(), text.data(), text.size());
    }
    here().images().remove(task);
  }
  std::string text = "migrate store, format 1\nid " + to_string(here().images().id()) + "\n";
  all.push_back({store_file});
  append(all.back(), text.data(), text.size());
  return all;
}

bool migrate_fuzz::feed(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return false;
  std::vector<std::uint8_t> rest(bytes.begin() + 1, bytes.end());
  try {
    switch (bytes[0] % 5) {
    case manifest_with_a_right_checksum: set_right(rest); [[fallthrough]];
    case manifest: {
      image of = image::parse(std::as_bytes(std::span(rest)));
      try {
        use(of);
      } catch (const error&) {
        // Its data files are not there.
      }
      return true;
    }
    case generation_with_right_checksums: set_right_in_file(rest); [[fallthrough]];
    case generation: {
      std::string folder = here().folder() + "/images/" + detail::image_name(task).str();
      std::filesystem::create_directories(folder);
      ::chmod(folder.c_str(), 0700);
      here().put("store/images/" + detail::image_name(task, 1).str(), rest);
      use(here().images().load(task));
      return true;
    }
    default: {
      std::filesystem::create_directories(here().path() + "/other");
      ::chmod((here().path() + "/other").c_str(), 0700);
      here().put("other/store", rest);
      static_cast<void>(store::open(here().path() + "/other"));
      return true;
    }
    }
  } catch (const error&) {
    return false;
  }
}
