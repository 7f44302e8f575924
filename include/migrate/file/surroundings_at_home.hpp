// Surroundings on the home's side: what the process has when its node starts, and giving it to tasks.
#pragma once

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <migrate/file/surroundings.hpp>
#include <migrate/home/request.hpp>

extern "C" char** environ;

namespace migrate::detail {

inline home_surroundings home_surroundings::of_this_process(std::vector<std::string> arguments) {
  home_surroundings made;
  char* directory = ::getcwd(nullptr, 0);
  if (directory == nullptr) throw std::system_error(errno, std::generic_category(), "the working directory");
  made.directory = directory;
  std::free(directory);
  made.mask = ::umask(0);
  ::umask(made.mask);
  made.nice = ::getpriority(PRIO_PROCESS, 0);
  rlimit files{};
  made.open_files = ::getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur : RLIM_INFINITY;
  for (char** at = environ; at != nullptr && *at != nullptr; ++at) made.environment.append(*at).push_back(0);
  made.arguments = std::move(arguments);
  made.identity = {::getuid(), ::geteuid(), ::getgid(), ::getegid(), {}};
  int count = ::getgroups(0, nullptr);
  if (count > 0) {
    made.identity.groups.resize(static_cast<std::size_t>(count));
    count = ::getgroups(count, made.identity.groups.data());
  }
  made.identity.groups.resize(static_cast<std::size_t>(count > 0 ? count : 0));
  utsname names{};
  ::uname(&names);
  made.names = {names.sysname, names.nodename, names.release, names.version, names.machine};
  for (int stream = 0; stream < 3; ++stream) made.terminals |= static_cast<unsigned>(::isatty(stream) == 1) << stream;
  return made;
}

namespace surroundings_at_home {

inline const home_surroundings* of_this_home = nullptr;
// Set before the node's first task, and the same ever after.

inline void on_request(const request& asked, byte_reader&) {
  byte_writer bytes;
  bytes.put(*of_this_home);
  answer result;
  result.bytes = {bytes.bytes().data(), bytes.bytes().size()};
  reply(asked, std::move(result));
}

inline failure of_home(home_surroundings& into) {
  for (;;) {
    node_id home = self().id.home();
    if (home == this_home->here()) {
      into = *of_this_home;
      return {};
    }
    called made = ask_home(home, service::surroundings, [](byte_writer&) {});
    if (made.how == waited::moved) continue;
    if (made.got.code != errc::ok) return {make_error_code(made.got.code), std::string(made.got.what.c_str())};
    byte_reader in(made.got.bytes.data(), made.got.bytes.size());
    into = in.get<home_surroundings>();
    return {};
  }
}

inline constexpr surroundings_services services{of_home};

} // namespace surroundings_at_home
} // namespace migrate::detail
