#include <migrate/posix/directory.hpp>
#include <migrate/posix/environment.hpp>
#include <migrate/posix/identity.hpp>

#include "../support/cluster.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <unistd.h>

#include <migrate/nodes.hpp>

namespace posix = migrate::posix;
using migrate_test::run;

namespace {

template <class F> std::vector<std::string> everywhere(F look) {
  // In a task: what look() says at home, on every other node, and at home again.
  std::vector<std::string> seen{look()};
  for (migrate::node_id node : migrate::nodes()) {
    migrate::this_task::migrate_to(node);
    seen.push_back(look());
  }
  migrate::this_task::migrate_to(migrate::this_task::home());
  seen.push_back(look());
  return seen;
}

template <class T> void check_all(const std::vector<std::string>& seen, const T& expected) {
  REQUIRE(seen.size() >= 4);
  for (const std::string& each : seen) CHECK(each == expected);
}

void go_away() {
  for (migrate::node_id node : migrate::nodes())
    if (node != migrate::this_task::home()) {
      migrate::this_task::migrate_to(node);
      return;
    }
}

} // namespace

TEST_CASE("a working directory belongs to its task and goes along") {
  std::string before = std::filesystem::current_path();
  auto seen = run([] {
    if (posix::chdir("/usr") != 0 || posix::chdir("../usr/./bin/..") != 0) return std::vector<std::string>{};
    return everywhere([] {
      char here[256];
      return std::string(posix::getcwd(here, sizeof here) == here ? here : "?") + " " +
             migrate::detail::resolve("x/y") + " " + migrate::detail::resolve("/x");
    });
  });
  check_all(seen, "/usr /usr/x/y /x");
  CHECK(std::filesystem::current_path() == before);
  check_all(run([] { return everywhere([] { return migrate::working_directory().string(); }); }), before);
}

TEST_CASE("a child begins in its parent's directory and leaves it where it is") {
  auto seen = run([] {
    migrate::change_directory("/usr");
    go_away();
    auto child = migrate::spawn([] {
      std::string began = migrate::working_directory();
      migrate::change_directory("/");
      return began + " " + migrate::working_directory().string();
    });
    return child.join() + " " + migrate::working_directory().string();
  });
  CHECK(seen == "/usr / /usr");
}

TEST_CASE("a directory that cannot be entered is refused with the reason") {
  auto seen = run([] {
    go_away();
    std::vector<int> found;
    auto reason = [&](auto&& call) {
      errno = 0;
      found.push_back(call() == -1 ? errno : 0);
    };
    reason([] { return posix::chdir("/no/such/place"); });
    reason([] { return posix::chdir("/proc/version"); });
    reason([] { return posix::chdir(""); });
    char small[2];
    reason([&] { return posix::chdir("/usr"); });
    reason([&] { return posix::getcwd(small, sizeof small) == nullptr ? -1 : 0; });
    std::error_code code;
    migrate::change_directory("/no/such/place", code);
    found.push_back(code.value());
    char* made = posix::getcwd(nullptr, 0);
    found.push_back(std::string(made) == "/usr" ? 1 : 0);
    std::free(made);
    return found;
  });
  CHECK(seen == std::vector<int>{ENOENT, ENOTDIR, ENOENT, 0, ERANGE, ENOENT, 1});
}

TEST_CASE("a umask belongs to its task and goes along") {
  auto seen = run([] {
    std::string first = std::to_string(posix::umask(027));
    auto all = everywhere([] {
      mode_t mine = posix::umask(0);
      posix::umask(mine);
      mode_t kernels;
      {
        migrate::detail::creation_mask scope;
        kernels = ::umask(0);
        ::umask(kernels);
      }
      return std::to_string(mine) + " " + std::to_string(kernels) + " " +
             std::to_string(migrate::detail::permissions(0666));
    });
    all.push_back(migrate::spawn([] { return std::to_string(static_cast<unsigned>(migrate::file_mask())); }).join());
    all.push_back(first);
    return all;
  });
  mode_t process = ::umask(0);
  ::umask(process);
  CHECK(seen.back() == std::to_string(process));
  seen.pop_back();
  CHECK(seen.back() == std::to_string(027));
  seen.pop_back();
  check_all(seen, std::to_string(027) + " " + std::to_string(027) + " " + std::to_string(0640));
}

TEST_CASE("an environment belongs to its task and goes along") {
  ::setenv("MIGRATE_TEST_LATE", "set after the node started", 1);
  auto seen = run([] {
    static char put[] = "PUT=there";
    posix::setenv("ONE", "1", 1);
    posix::setenv("ONE", "2", 0);
    posix::setenv("TWO", "old", 1);
    posix::setenv("TWO", "new", 1);
    posix::putenv(put);
    posix::unsetenv("HOME");
    return everywhere([] {
      auto say = [](const char* name) {
        const char* value = posix::getenv(name);
        return std::string(value != nullptr ? value : "-") + " ";
      };
      std::size_t twos = 0;
      for (char** at = posix::environ(); *at != nullptr; ++at) twos += std::string(*at).starts_with("TWO=") ? 1 : 0;
      return say("ONE") + say("TWO") + say("PUT") + say("HOME") + say("MIGRATE_TEST_LATE") + std::to_string(twos) +
             (posix::getenv("PATH") != nullptr ? " path" : "");
    });
  });
  check_all(seen, "1 new there - - 1 path");
  ::unsetenv("MIGRATE_TEST_LATE");
}

TEST_CASE("a child begins with its parent's environment") {
  auto seen = run([] {
    migrate::set_environment("SHARED", "parent");
    go_away();
    auto child = migrate::spawn({.on = migrate::this_task::home()}, [] {
      std::string began = migrate::get_environment("SHARED").value_or("-");
      migrate::set_environment("SHARED", "child");
      migrate::set_environment("MORE", "");
      return began;
    });
    return child.join() + " " + migrate::get_environment("SHARED").value_or("-") + " " +
           (migrate::get_environment("MORE") ? "more" : "-");
  });
  CHECK(seen == "parent parent -");
}

TEST_CASE("an environment that is emptied or replaced stays so") {
  auto seen = run([] {
    std::string found;
    posix::clearenv();
    go_away();
    found += posix::getenv("PATH") == nullptr ? "empty " : "full ";
    posix::setenv("A", "1", 1);
    static char b[] = "B=2";
    static char* own[] = {b, nullptr};
    posix::environ() = own;
    migrate::this_task::migrate_to(migrate::this_task::home());
    found += posix::getenv("A") == nullptr && posix::getenv("B") == std::string("2") ? "replaced " : "kept ";
    posix::setenv("C", "3", 1);
    found += posix::getenv("B") + std::string(posix::getenv("C"));
    errno = 0;
    if (posix::setenv("", "x", 1) == -1 && errno == EINVAL && posix::unsetenv("A=B") == -1) found += " refused";
    return found;
  });
  CHECK(seen == "empty replaced 23 refused");
}

TEST_CASE("a task has its home's arguments, names and identity") {
  char host[256] = {};
  REQUIRE(::gethostname(host, sizeof host - 1) == 0);
  std::string expected = std::string(host) + " " + std::to_string(::getuid()) + " " +
                         std::to_string(::getegid()) + " " + std::to_string(::getgroups(0, nullptr)) + " Linux";
  auto seen = run([] {
    return everywhere([] {
      char name[256] = {};
      posix::gethostname(name, sizeof name);
      utsname system{};
      posix::uname(&system);
      return std::string(name) + " " + std::to_string(posix::getuid()) + " " + std::to_string(posix::getegid()) + " " +
             std::to_string(posix::getgroups(0, nullptr)) + " " + system.sysname;
    });
  });
  check_all(seen, expected);
  auto names = run([] { return everywhere([] { return migrate::arguments().at(0); }); });
  check_all(names, std::string(program_invocation_name));
}

TEST_CASE("only a task has surroundings") {
  errno = 0;
  CHECK(posix::getenv("PATH") == nullptr);
  CHECK(errno == ENOSYS);
  CHECK_THROWS_AS(migrate::working_directory(), migrate::error);
}
