// posix_spawn(3): a child that is a program.
#pragma once

#include <cerrno>
#include <csignal>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h> // the names of the flags
#include <sys/types.h>

#include <migrate/posix/directory.hpp>
#include <migrate/posix/exec.hpp>
#include <migrate/posix/fcntl.hpp>
#include <migrate/posix/process.hpp>
#include <migrate/posix/signal.hpp>
#include <migrate/posix/unistd_files.hpp>

namespace migrate::posix {

struct posix_spawn_file_actions_t {
  struct action {
    enum class kind : std::uint8_t { open, close, duplicate, directory };
    kind what;
    int descriptor = -1;
    int other = 0; // the flags of `open`, what is duplicated
    mode_t mode = 0;
    std::string path;
  };
  std::vector<action> all;
};

struct posix_spawnattr_t {
  short flags = 0;
  pid_t group = 0;
  sigset_t mask{};
  sigset_t standard{};
};
// In the task's memory. They need no destroying, and no initialising.

inline int posix_spawn_file_actions_init(posix_spawn_file_actions_t* actions) {
  actions->all.clear();
  return 0;
}
inline int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t* actions) {
  actions->all.clear();
  return 0;
}
inline int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t* actions, int fd, const char* path, int flags,
                                            mode_t mode) {
  if (fd < 0) return EBADF;
  actions->all.push_back({posix_spawn_file_actions_t::action::kind::open, fd, flags, mode, path});
  return 0;
}
inline int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t* actions, int fd) {
  if (fd < 0) return EBADF;
  actions->all.push_back({posix_spawn_file_actions_t::action::kind::close, fd, 0, 0, {}});
  return 0;
}
inline int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t* actions, int fd, int onto) {
  if (fd < 0 || onto < 0) return EBADF;
  actions->all.push_back({posix_spawn_file_actions_t::action::kind::duplicate, onto, fd, 0, {}});
  return 0;
}
inline int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t* actions, const char* path) {
  actions->all.push_back({posix_spawn_file_actions_t::action::kind::directory, -1, 0, 0, path});
  return 0;
}

inline int posix_spawnattr_init(posix_spawnattr_t* how) {
  *how = {};
  return 0;
}
inline int posix_spawnattr_destroy(posix_spawnattr_t*) { return 0; }
inline int posix_spawnattr_setflags(posix_spawnattr_t* how, short flags) {
  constexpr int known = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID |
                        POSIX_SPAWN_RESETIDS | POSIX_SPAWN_USEVFORK;
  if ((flags & ~known) != 0) return EINVAL;
  how->flags = flags;
  return 0;
}
inline int posix_spawnattr_setpgroup(posix_spawnattr_t* how, pid_t group) {
  how->group = group;
  return 0;
}
inline int posix_spawnattr_setsigmask(posix_spawnattr_t* how, const sigset_t* mask) {
  how->mask = *mask;
  return 0;
}
inline int posix_spawnattr_setsigdefault(posix_spawnattr_t* how, const sigset_t* standard) {
  how->standard = *standard;
  return 0;
}

namespace detail {

inline bool carry_out(const posix_spawn_file_actions_t& actions) {
  using kind = posix_spawn_file_actions_t::action::kind;
  for (const auto& each : actions.all) {
    int made = -1;
    switch (each.what) {
    case kind::close: close(each.descriptor); continue; // one that is not open is no error
    case kind::directory: made = chdir(each.path.c_str()); break;
    case kind::duplicate:
      made = each.other == each.descriptor ? fcntl(each.descriptor, F_SETFD, 0) : dup2(each.other, each.descriptor);
      break;
    case kind::open:
      made = open(each.path.c_str(), each.other, each.mode);
      if (made >= 0 && made != each.descriptor) {
        int opened = std::exchange(made, dup2(made, each.descriptor));
        close(opened);
      }
      break;
    }
    if (made < 0) return false;
  }
  return true;
}

inline bool take_on(const posix_spawnattr_t& how) {
  if ((how.flags & POSIX_SPAWN_SETSID) != 0 && setsid() < 0) return false;
  if ((how.flags & POSIX_SPAWN_SETPGROUP) != 0 && setpgid(0, how.group) != 0) return false;
  if ((how.flags & POSIX_SPAWN_SETSIGDEF) != 0)
    for (int number = 1; number < NSIG; ++number)
      if (posix::sigismember(&how.standard, number) == 1) posix::signal(number, SIG_DFL);
  return (how.flags & POSIX_SPAWN_SETSIGMASK) == 0 || posix::sigprocmask(SIG_SETMASK, &how.mask, nullptr) == 0;
}

inline int be_spawned(const std::string& file, bool search, const posix_spawn_file_actions_t& actions,
                      const posix_spawnattr_t& how, const std::vector<std::string>& arguments,
                      const std::vector<std::string>& environment) {
  if (take_on(how) && carry_out(actions)) exec(file.c_str(), search, arguments, environment);
  _exit(127);
}

inline int spawn(pid_t* child, const char* file, bool search, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* how, char* const argv[], char* const envp[]) noexcept {
  // What can be seen to fail is told at once; else the child ends with status 127, as POSIX allows.
  int failed = posix_call([&]() -> long {
    std::vector<std::string> environment = words_of(envp);
    if (actions == nullptr || actions->all.empty()) {
      int reason = ENOENT;
      namespace running = migrate::detail::running;
      for (const std::string& each : search ? running::candidates(file, running::search_path(environment))
                                            : std::vector<std::string>{file}) {
        if (access(each.c_str(), X_OK) == 0) {
          reason = 0;
          break;
        }
        if (errno != ENOENT && errno != ENOTDIR) reason = errno;
      }
      if (reason != 0) return -reason;
    }
    task_id made = start_child(spawn_options{.name = file}, be_spawned, std::string(file), search,
                               actions != nullptr ? *actions : posix_spawn_file_actions_t{},
                               how != nullptr ? *how : posix_spawnattr_t{}, words_of(argv), environment);
    if (child != nullptr) *child = to_pid(made);
    return 0;
  });
  return failed == 0 ? 0 : errno;
}

} // namespace detail

inline int posix_spawn(pid_t* child, const char* path, const posix_spawn_file_actions_t* actions,
                       const posix_spawnattr_t* how, char* const argv[], char* const envp[]) noexcept {
  return detail::spawn(child, path, false, actions, how, argv, envp);
}
inline int posix_spawnp(pid_t* child, const char* file, const posix_spawn_file_actions_t* actions,
                        const posix_spawnattr_t* how, char* const argv[], char* const envp[]) noexcept {
  return detail::spawn(child, file, true, actions, how, argv, envp);
}
// Starts a child task that becomes the program (see exec.hpp), whose id waitpid() knows. Returns zero or an errno.

} // namespace migrate::posix
