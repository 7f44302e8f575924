// Executables by their content: the same file on every host, wherever it lies there.
#pragma once

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <migrate/error.hpp>
#include <migrate/hex.hpp>
#include <migrate/store/data_file.hpp>
#include <migrate/store/descriptor.hpp>
#include <migrate/store/directory.hpp>

namespace migrate::detail {

struct content_address {
  std::uint64_t high = 0, low = 0; // XXH3, 128 bits
  std::uint64_t size = 0;          // bytes

  explicit operator bool() const noexcept { return size != 0; }
  friend bool operator==(const content_address&, const content_address&) noexcept = default;
};
// As checksums in a store, it finds accidents and not forgers: those are kept out by who may write to the folders.

inline std::string to_string(const content_address& address) {
  return hex(address.high) + hex(address.low) + "-" + std::to_string(address.size);
}

inline std::optional<content_address> parse_content_address(std::string_view text) {
  content_address made;
  if (text.size() < 34 || text[32] != '-') return {};
  auto number = [](std::string_view digits, std::uint64_t& into, int base) {
    auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), into, base);
    return problem == std::errc() && end == digits.data() + digits.size();
  };
  if (!number(text.substr(0, 16), made.high, 16) || !number(text.substr(16, 16), made.low, 16) ||
      !number(text.substr(33), made.size, 10) || to_string(made) != text)
    return {};
  return made;
}
// The reverse of to_string; none when the text is anything else.

inline std::optional<content_address> copy_content(int from, int to = -1) {
  // What a file holds, from its beginning; copied on the way unless `to` is -1. None, with errno, when that fails.
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_128bits_reset(state.get());
  constexpr std::size_t most = 1 << 20;
  auto bytes = std::make_unique<std::byte[]>(most);
  content_address made;
  for (;;) {
    ssize_t got = ::pread(from, bytes.get(), most, static_cast<off_t>(made.size));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {};
    if (got == 0) break;
    XXH3_128bits_update(state.get(), bytes.get(), static_cast<std::size_t>(got));
    made.size += static_cast<std::size_t>(got);
    for (ssize_t put = 0; to >= 0 && put < got;) {
      ssize_t some = ::write(to, bytes.get() + put, static_cast<std::size_t>(got - put));
      if (some < 0 && errno != EINTR) return {};
      put += std::max<ssize_t>(some, 0);
    }
  }
  XXH128_hash_t digest = XXH3_128bits_digest(state.get());
  made.high = digest.high64;
  made.low = digest.low64;
  return made;
}

class executable_folder {
  // Executables named by their content, in a folder of one user's. Thread safety: any number of processes may use the
  // same folder.

public:
  explicit executable_folder(std::string path) : path_(std::move(path)) {
    // Makes the folder. Throws as a store's folder is refused: it must be its user's alone.
    if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST)
      throw_store_error(errno, "make a folder of executables", path_);
    folder_ = descriptor(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    struct stat status {};
    if (!folder_ || ::fstat(folder_.get(), &status) != 0)
      throw_store_error(errno, "open the folder of executables", path_);
    check_owner(status, "the folder of executables " + path_, "name one of your own with mode 700");
  }

  descriptor find(const content_address& wanted) {
    // An open, verified file; none when it is not here. A damaged one is removed.
    std::string name = to_string(wanted);
    descriptor file(::openat(folder_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!file) return {};
    if (copy_content(file.get()) == wanted) {
      ::futimens(file.get(), nullptr); // used now: see trim()
      return file;
    }
    remove(wanted);
    return {};
  }

  content_address add(int file, const std::string& path) {
    // Copies an executable here. Throws a store's errors; `path` names it in them.
    std::string name = "new." + std::to_string(::getpid()) + "." + std::to_string(++serial_);
    descriptor copy(::openat(folder_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700));
    auto fail = [&](int reason) {
      ::unlinkat(folder_.get(), name.c_str(), 0);
      throw_store_error(reason, "copy the executable " + path, path_ + "/" + name);
    };
    if (!copy) fail(errno);
    auto address = copy_content(file, copy.get());
    if (!address) fail(errno);
    if (int late = copy.close()) fail(late);
    if (::renameat(folder_.get(), name.c_str(), folder_.get(), to_string(*address).c_str()) != 0) fail(errno);
    return *address;
  }

  void remove(const content_address& which) { ::unlinkat(folder_.get(), to_string(which).c_str(), 0); }

  void trim(std::uint64_t most_bytes, const content_address& keep) {
    // Removes those that were not used for longest, until no more than so many bytes are left.
    struct entry {
      std::string name;
      timespec used;
      std::uint64_t bytes;
    };
    std::vector<entry> all;
    std::uint64_t total = 0;
    for_each_name(folder_.get(), ".", [&](std::string_view name) {
      struct stat status {};
      if (::fstatat(folder_.get(), std::string(name).c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;
      all.push_back({std::string(name), status.st_mtim, static_cast<std::uint64_t>(status.st_size)});
      total += all.back().bytes;
    });
    std::sort(all.begin(), all.end(), [](const entry& a, const entry& b) {
      return a.used.tv_sec != b.used.tv_sec ? a.used.tv_sec < b.used.tv_sec : a.used.tv_nsec < b.used.tv_nsec;
    });
    for (const entry& each : all) {
      if (total <= most_bytes) return;
      if (each.name == to_string(keep)) continue;
      ::unlinkat(folder_.get(), each.name.c_str(), 0);
      total -= each.bytes;
    }
  }

private:
  std::string path_;
  descriptor folder_;
  unsigned serial_ = 0;
};

inline std::string executables_of_store(const std::string& store) { return store + "/executables"; }

inline content_address publish_executable(const std::string& store,
                                          const std::string& path = "/proc/self/exe") {
  // Puts an executable where hosts that lack it find it: into the store, once. Throws a store's errors.
  descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) throw_store_error(errno, "read the executable", path);
  auto address = copy_content(file.get());
  if (!address) throw_store_error(errno, "read the executable", path);
  executable_folder folder(executables_of_store(store));
  return folder.find(*address) ? *address : folder.add(file.get(), path);
}

struct wanted_executable {
  content_address address;
  std::string path;  // where it lies on the asker's machine, and perhaps here
  std::string store; // where it is when it lies nowhere here
};

inline descriptor open_executable(const wanted_executable& wanted, const std::string& cache) {
  // Finds the very file that was asked for: at its path, in the cache, or in the store, from where it is put into the
  // cache. Throws errc::not_compatible when what is there is another build, or nothing is.
  constexpr std::uint64_t most_cached = std::uint64_t{2} << 30;
  std::string seen;
  if (descriptor file(::open(wanted.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)); file) {
    struct stat status {};
    if (::fstat(file.get(), &status) == 0 && S_ISREG(status.st_mode)) {
      auto found = copy_content(file.get());
      if (found == wanted.address) return file;
      if (found) seen = "; " + wanted.path + " is another build here, " + to_string(*found);
    }
  }
  executable_folder cached(cache);
  if (descriptor file = cached.find(wanted.address)) return file;
  std::string path = executables_of_store(wanted.store) + "/" + to_string(wanted.address);
  if (descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)); file) {
    content_address copied = cached.add(file.get(), path);
    cached.trim(most_cached, wanted.address);
    if (copied == wanted.address) return cached.find(wanted.address);
    cached.remove(copied);
    seen += "; " + path + " is damaged";
  }
  throw error(errc::not_compatible, "the executable " + to_string(wanted.address) +
                                        " is not on this host: neither " + wanted.path + " nor the cache " +
                                        cache + " nor the store " + wanted.store + " has it" + seen +
                                        "; publish it in the store, or install the same build here");
}

} // namespace migrate::detail
