// The store's folder: making it, opening it, and what must hold before it is used.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/store/data_file.hpp>
#include <migrate/store/descriptor.hpp>
#include <migrate/store/directory.hpp>
#include <migrate/store/store_id.hpp>
#include <migrate/store/store_state.hpp>

namespace migrate::detail {

inline constexpr unsigned store_format = 1;

inline store_id random_store_id() {
  store_id id;
  while (!id)
    if (::getrandom(&id, sizeof id, 0) != static_cast<ssize_t>(sizeof id) && errno != EINTR)
      throw error(errc::store_io, "cannot draw a store's id: getrandom: " + system_message(errno));
  return id;
}

inline std::optional<store_id> read_store_file(int root, const std::string& path) {
  descriptor file(::openat(root, "store", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY));
  if (!file) {
    if (errno == ENOENT) return std::nullopt;
    if (errno != ELOOP) throw_store_error(errno, "open the store", path + "/store");
  }
  struct stat status;
  char text[256];
  ssize_t got = -1;
  if (file && ::fstat(file.get(), &status) == 0 && S_ISREG(status.st_mode)) {
    check_owner(status, path + "/store", "use a store of your own");
    got = ::read(file.get(), text, sizeof text);
    if (got < 0) throw_store_error(errno, "read the store's name", path + "/store");
  }
  std::string_view rest(text, got > 0 ? static_cast<std::size_t>(got) : 0);
  auto line = [&rest](std::string_view name) -> std::optional<std::string_view> {
    std::size_t end = rest.find('\n');
    if (end == rest.npos || rest.substr(0, name.size()) != name) return std::nullopt;
    std::string_view value = rest.substr(name.size(), end - name.size());
    rest.remove_prefix(end + 1);
    return value;
  };
  auto mismatch = [&path](const std::string& why) {
    return error(errc::store_mismatch, path + " is no store of migrate that can be used: " + why +
                                           "; name another directory, or an empty one to be made a store");
  };
  auto version = line("migrate store, format ");
  auto format = version ? parse_number(*version, ~0u) : std::nullopt;
  if (!format) throw mismatch("its file 'store' does not begin as it should");
  if (*format != store_format)
    throw mismatch("it has format " + std::to_string(*format) + ", this library knows format " +
                   std::to_string(store_format));
  auto name = line("id ");
  auto id = name ? parse_store_id(*name) : std::nullopt;
  if (!id || !*id) throw mismatch("its file 'store' holds no id");
  return id;
}
// None when there is no such file.

inline void make_store_file(int root, const std::string& path) {
  // A hard link is made or not, on every file system; if another node was faster, its store it is.
  store_id id = random_store_id();
  std::string text = "migrate store, format " + std::to_string(store_format) + "\nid " + to_string(id) + "\n";
  std::string name = "store." + to_string(id);
  auto fail = [&](int reason) {
    ::unlinkat(root, name.c_str(), 0);
    throw_store_error(reason, "make a store", path);
  };
  descriptor file(::openat(root, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) throw_store_error(errno, "make a store", path);
  ssize_t put = ::write(file.get(), text.data(), text.size());
  if (put != static_cast<ssize_t>(text.size())) fail(put < 0 ? errno : ENOSPC);
  if (::fsync(file.get()) != 0) fail(errno);
  if (int late = file.close()) fail(late);
  if (::linkat(root, name.c_str(), root, "store", 0) != 0 && errno != EEXIST) fail(errno);
  ::unlinkat(root, name.c_str(), 0);
  ::fsync(root);
}

inline void check_empty(int root, const std::string& path) {
  std::string other;
  int reason = for_each_name(root, ".", [&](std::string_view name) {
    if (name != "images" && name != "lost+found" && name.substr(0, 5) != "store") other = std::string(name);
  });
  if (reason != 0) throw_store_error(reason, "list the directory", path);
  if (!other.empty())
    throw error(errc::store_mismatch, path + " is no store, and holds other things (" + other +
                                          "), so none is made there; name an empty or a new directory");
}

inline std::unique_ptr<store_state> open_store(const std::string& path, const store_options& options) {
  auto state = std::make_unique<store_state>();
  state->path = path;
  state->options = options;
  constexpr int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  if (options.create && ::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    throw_store_error(errno, "make a store", path);
  state->root = descriptor(::open(path.c_str(), flags));
  if (!state->root) {
    int reason = errno;
    if (reason == ENOTDIR)
      throw error(errc::store_mismatch, path + " is not a directory, so it is no store; name a directory");
    if (reason == EACCES)
      throw error(errc::store_owner,
                  "cannot open the store " + path +
                      ": permission denied; use a store that belongs to this process's user");
    throw_store_error(reason, "open the store", path);
  }
  int root = state->root.get();
  struct stat status;
  if (::fstat(root, &status) != 0) throw_store_error(errno, "examine the store", path);
  check_owner(status, "the store " + path, "name a directory of your own with mode 700, or one that is not there yet");

  auto id = read_store_file(root, path);
  if (!id && options.create) {
    check_empty(root, path);
    make_store_file(root, path);
    id = read_store_file(root, path);
  }
  if (!id)
    throw error(
        errc::store_mismatch,
        path +
            " is a directory but no store: it has no file 'store'; name a store, or ask for it to be made");
  state->id = *id;

  if (::mkdirat(root, "images", 0700) != 0 && errno != EEXIST && !(errno == EROFS && options.read_only))
    throw_store_error(errno, "make the store's folder of images", path + "/images");
  state->images = descriptor(::openat(root, "images", flags | O_NOFOLLOW));
  if (!state->images || ::fstat(state->images.get(), &status) != 0)
    throw_store_error(errno, "open the store's folder of images", path + "/images");
  check_owner(status, path + "/images", "use a store of your own, with mode 700");
  if (!options.read_only && ::faccessat(root, "images", W_OK | X_OK, AT_EACCESS) != 0)
    throw_store_error(errno, "write to the store", path);
  // Commits sync what lies below `images`. What they lie in may have been made just now, by whoever was the first.
  if (options.durable && !options.read_only && ::syncfs(root) != 0)
    throw_store_error(errno, "sync the store", path);
  return state;
}
// Throws as store::open.

} // namespace migrate::detail
