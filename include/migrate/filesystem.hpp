// The name space of files, as the running task sees it: std::filesystem's functions on paths that the task's working
// directory completes.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include <migrate/error.hpp>
#include <migrate/file/path.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate::filesystem {

// One name space for all nodes: each function is the kernel's call where the task is, and nothing is cached. Every
// function is there twice, as in std::filesystem: one throws std::filesystem::filesystem_error, one takes an
// std::error_code. On a thread that runs no task: errc::not_in_task, thrown as migrate::error or stored.

using std::filesystem::directory_entry;
using std::filesystem::file_status;
using std::filesystem::file_time_type;
using std::filesystem::file_type;
using std::filesystem::filesystem_error;
using std::filesystem::path;
using std::filesystem::perm_options;
using std::filesystem::perms;

inline path absolute(const path& at) {
  migrate::detail::self();
  migrate::detail::safe_point();
  return migrate::detail::resolve(at.native());
}
// Against the task's working directory. With it all else in std::filesystem can be used; but a directory iterator is the
// node's, and is not to be kept across a call into this library.

namespace names {

template <class Call> auto on(const path& name, Call&& call) { return call(filesystem::absolute(name)); }

template <class Call>
auto on(const path& name, std::error_code& code, Call&& call) -> decltype(call(name, code)) {
  code.clear();
  path whole;
  try {
    whole = filesystem::absolute(name);
  } catch (const error& refused) {
    code = refused.code();
    return decltype(call(name, code))();
  }
  return call(whole, code);
}

template <class Call> auto creating(Call&& call) {
  migrate::detail::creation_mask taken_away;
  return call();
}

} // namespace names

inline bool exists(const path& name) {
  return names::on(name, [](const auto& at) { return std::filesystem::exists(at); });
}
inline bool exists(const path& name, std::error_code& code) {
  return names::on(name, code, [](const auto& at, auto& why) { return std::filesystem::exists(at, why); });
}

inline file_status status(const path& name) {
  return names::on(name, [](const auto& at) { return std::filesystem::status(at); });
}
inline file_status status(const path& name, std::error_code& code) {
  return names::on(name, code, [](const auto& at, auto& why) { return std::filesystem::status(at, why); });
}
inline file_status symlink_status(const path& name) {
  return names::on(name, [](const auto& at) { return std::filesystem::symlink_status(at); });
}
inline file_status symlink_status(const path& name, std::error_code& code) {
  return names::on(name, code,
                   [](const auto& at, auto& why) { return std::filesystem::symlink_status(at, why); });
}

inline std::uintmax_t file_size(const path& name) {
  return names::on(name, [](const auto& at) { return std::filesystem::file_size(at); });
}
inline std::uintmax_t file_size(const path& name, std::error_code& code) {
  return names::on(name, code, [](const auto& at, auto& why) { return std::filesystem::file_size(at, why); });
}

inline void resize_file(const path& name, std::uintmax_t bytes) {
  names::on(name, [&](const auto& at) { std::filesystem::resize_file(at, bytes); });
}
inline void resize_file(const path& name, std::uintmax_t bytes, std::error_code& code) {
  names::on(name, code, [&](const auto& at, auto& why) { std::filesystem::resize_file(at, bytes, why); });
}

inline bool create_directory(const path& name) {
  return names::on(name, [](const auto& at) {
    return names::creating([&] { return std::filesystem::create_directory(at); });
  });
}
inline bool create_directory(const path& name, std::error_code& code) {
  return names::on(name, code, [](const auto& at, auto& why) {
    return names::creating([&] { return std::filesystem::create_directory(at, why); });
  });
}
inline bool create_directories(const path& name) {
  return names::on(name, [](const auto& at) {
    return names::creating([&] { return std::filesystem::create_directories(at); });
  });
}
inline bool create_directories(const path& name, std::error_code& code) {
  return names::on(name, code, [](const auto& at, auto& why) {
    return names::creating([&] { return std::filesystem::create_directories(at, why); });
  });
}
// With the task's umask.

inline void create_symlink(const path& target, const path& link) {
  names::on(link, [&](const auto& at) { std::filesystem::create_symlink(target, at); });
}
inline void create_symlink(const path& target, const path& link, std::error_code& code) {
  names::on(link, code, [&](const auto& at, auto& why) { std::filesystem::create_symlink(target, at, why); });
}
// The target stays as it is written: whoever follows the link resolves it.

inline path read_symlink(const path& name) {
  return names::on(name, [](const auto& at) { return std::filesystem::read_symlink(at); });
}
inline path read_symlink(const path& name, std::error_code& code) {
  return names::on(name, code,
                   [](const auto& at, auto& why) { return std::filesystem::read_symlink(at, why); });
}

inline void create_hard_link(const path& to, const path& link) {
  names::on(link, [&](const auto& at) { std::filesystem::create_hard_link(filesystem::absolute(to), at); });
}
inline void create_hard_link(const path& to, const path& link, std::error_code& code) {
  names::on(link, code, [&](const auto& at, auto& why) {
    std::filesystem::create_hard_link(filesystem::absolute(to), at, why);
  });
}

inline void rename(const path& from, const path& to) {
  names::on(from, [&](const auto& at) { std::filesystem::rename(at, filesystem::absolute(to)); });
}
inline void rename(const path& from, const path& to, std::error_code& code) {
  names::on(from, code,
            [&](const auto& at, auto& why) { std::filesystem::rename(at, filesystem::absolute(to), why); });
}

inline bool remove(const path& name) {
  return names::on(name, [](const auto& at) { return std::filesystem::remove(at); });
}
inline bool remove(const path& name, std::error_code& code) {
  return names::on(name, code, [](const auto& at, auto& why) { return std::filesystem::remove(at, why); });
}

inline void permissions(const path& name, perms wanted, perm_options how = perm_options::replace) {
  names::on(name, [&](const auto& at) { std::filesystem::permissions(at, wanted, how); });
}
inline void permissions(const path& name, perms wanted, std::error_code& code) {
  names::on(name, code, [&](const auto& at, auto& why) { std::filesystem::permissions(at, wanted, why); });
}

inline file_time_type last_write_time(const path& name) {
  return names::on(name, [](const auto& at) { return std::filesystem::last_write_time(at); });
}
inline file_time_type last_write_time(const path& name, std::error_code& code) {
  return names::on(name, code,
                   [](const auto& at, auto& why) { return std::filesystem::last_write_time(at, why); });
}
inline void last_write_time(const path& name, file_time_type time) {
  names::on(name, [&](const auto& at) { std::filesystem::last_write_time(at, time); });
}
inline void last_write_time(const path& name, file_time_type time, std::error_code& code) {
  names::on(name, code, [&](const auto& at, auto& why) { std::filesystem::last_write_time(at, time, why); });
}

inline std::vector<directory_entry> list_directory(const path& name, std::error_code& code) {
  return names::on(name, code, [](const auto& at, auto& why) {
    std::vector<directory_entry> all;
    std::filesystem::directory_iterator each(at, why);
    for (; !why && each != std::filesystem::directory_iterator(); each.increment(why)) all.push_back(*each);
    return all;
  });
}
inline std::vector<directory_entry> list_directory(const path& name) {
  std::error_code code;
  auto all = list_directory(name, code);
  if (code == errc::not_in_task) throw error(code, "list_directory: the calling thread runs no task");
  if (code) throw filesystem_error("migrate::filesystem::list_directory", name, code);
  return all;
}
// As it is now: an open directory would stay on the node, a list moves. In no order; without "." and "..".

} // namespace migrate::filesystem
