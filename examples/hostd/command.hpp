// migrate-hostd: lends this machine while its owner is away.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <migrate/cluster/host_agent.hpp>
#include <migrate/cluster/launcher.hpp>
#include <migrate/cluster/owner_word.hpp>

#ifdef MIGRATE_HAVE_LOGIND
#include "logind.hpp"
#endif

namespace migrate_hostd {

using namespace migrate;
using namespace migrate::detail;

struct settings {
  host_agent_options agent;
  launch_options launch;
  std::string policy = "desktop", start, suspend, go_on, preempt;
  std::string credentials, user;
  std::vector<std::string> idle_files;
  unsigned leave = 2500, look_lent = 250, look_idle = 5000;
  bool as_root = false, no_groups = false, normal = false, quiet = false;
};

inline std::uint64_t memory_of_machine() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

inline void describe(CLI::App& app, settings& to) {
  app.add_option("--database", to.agent.database, "where the host database listens, HOST:PORT or unix:PATH")
      ->required();
  app.add_option("--listen", to.agent.listen,
                 "where applications find this agent; beyond loopback it needs credentials")
      ->capture_default_str();
  app.add_option("--advertise", to.agent.advertise,
                 "the host that applications call, when it listens at 0.0.0.0");
  app.add_option("--credentials", to.credentials, "directory made by migrate-credentials");
  app.add_option("--name", to.agent.host, "of this host, instead of the system's");
  app.add_option("--slots", to.agent.slots, "grants at once (one for each processor)");

  app.add_option("--policy", to.policy, "of the owner: desktop (15 minutes) or sprite (30 seconds)")
      ->check(CLI::IsMember({"desktop", "sprite"}))
      ->capture_default_str();
  app.add_option(
      "--start", to.start,
      "lend it while all of these hold, as idle>900,load1<=0.3; there are idle, load1, load5, load15, busy, "
      "memory, io and suspended");
  app.add_option("--suspend", to.suspend, "what runs here stands still as soon as one of these holds");
  app.add_option("--continue", to.go_on, "it goes on when all of these hold");
  app.add_option("--preempt", to.preempt,
                 "it leaves as soon as one of these holds, as suspended>=0. A node that stands "
                 "still for longer than its cluster's keepalive is given up by the others");
  app.add_option("--idle-file", to.idle_files,
                 "a file with busy, free, or the seconds since the machine was used");
  app.add_flag("--lend-unwatched", to.agent.watch.lend_unwatched_seat,
               "lend it although nothing sees whether somebody sits at its screen");
  app.add_option("--leave", to.leave, "milliseconds that foreign work has to leave in")
      ->capture_default_str();

  app.add_option("--user", to.launch.user.name, "run nodes as this user; root has to say which");
  app.add_flag("--run-as-root", to.as_root, "run nodes as root");
  app.add_option("--memory", to.agent.limits.memory_bytes, "most memory of a grant, in bytes")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--disk", to.agent.limits.scratch_bytes,
                 "most that a grant may write to its TMPDIR, in bytes")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--processes", to.agent.limits.processes, "most processes and threads of a grant");
  app.add_option("--nice", to.agent.limits.nice, "of foreign work")
      ->capture_default_str()
      ->check(CLI::Range(0, 19));
  app.add_flag("--normal-scheduling", to.normal,
               "let foreign work run beside the owner's, not only when nothing else does");
  app.add_flag("--no-control-groups", to.no_groups, "do not use control groups");
  app.add_option("--cache", to.launch.cache, "directory for executables");
  app.add_option("--scratch", to.launch.scratch, "directory for grants' files");
  app.add_flag("--quiet", to.quiet, "no line for each event on standard error");
  app.add_option("--look-lent", to.look_lent, "milliseconds between looks while it lends")->group("");
  app.add_option("--look-idle", to.look_idle, "and while it does not")->group("");
  app.add_option("--dev", to.agent.watch.dev, "instead of /dev")->group("");
  app.add_option("--proc", to.agent.watch.proc, "instead of /proc")->group("");
}

inline void complete(settings& made) {
  owner_policy& policy = made.agent.watch.policy;
  policy = made.policy == "sprite" ? owner_policy::sprite() : owner_policy::desktop();
  for (auto [text, word] : {std::pair{&made.start, &policy.start},
                            {&made.suspend, &policy.suspend},
                            {&made.go_on, &policy.go_on},
                            {&made.preempt, &policy.preempt}})
    if (!text->empty()) *word = condition::parse(*text);

  std::string name = made.launch.user.name;
  made.launch.user = name.empty() ? launch_user::own() : launch_user::named(name);
  if (::geteuid() != 0 && made.launch.user.id != ::geteuid())
    throw error(std::make_error_code(std::errc::operation_not_permitted),
                "only root can run nodes as another user; leave --user away, or start the agent as root");
  if (made.launch.user.id == 0 && !made.as_root)
    throw error(std::make_error_code(std::errc::invalid_argument),
                "this agent runs as root, and foreign programs should not; name a user with --user, or say "
                "--run-as-root");
  made.launch.control_groups = !made.no_groups;
  made.agent.limits.idle_only = !made.normal;
  made.agent.leave = std::chrono::milliseconds(made.leave);
  made.agent.look_lent = std::chrono::milliseconds(made.look_lent);
  made.agent.look_idle = std::chrono::milliseconds(made.look_idle);

  if (!made.credentials.empty()) {
    credentials files;
    files.certificate = made.credentials + "/node.crt";
    files.key = made.credentials + "/node.key";
    files.authority = made.credentials + "/authority.crt";
    made.agent.security = files;
  }
  if (!made.quiet)
    made.agent.log = [](const std::string& line) {
      std::fprintf(stderr, "migrate-hostd: %s\n", line.c_str());
    };
}

inline int lend(settings& how) {
  sigset_t ends, before;
  sigemptyset(&ends);
  for (int each : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&ends, each);
  ::sigprocmask(SIG_BLOCK, &ends, &before);
  ::signal(SIGPIPE, SIG_IGN);

  launcher launches(how.launch); // before the first thread
  event_loop loop;
  loop.start();
  std::vector<std::shared_ptr<idle_source>> sources;
  for (const std::string& path : how.idle_files) sources.push_back(std::make_shared<file_idle>(path));
#ifdef MIGRATE_HAVE_LOGIND
  sources.push_back(std::make_shared<logind_sessions>());
#endif
  int status = 0;
  {
    host_agent agent(loop, launches, how.agent, std::move(sources));
    agent.start();
    std::printf("%s\n", agent.address().c_str());
    std::fflush(stdout);
    for (timespec pause{0, 200'000'000}; ::sigtimedwait(&ends, nullptr, &pause) < 0;)
      if (agent.wait_until_broken(std::chrono::milliseconds(0))) {
        status = 1;
        break;
      }
    agent.stop();
  }
  loop.stop();
  return status;
}

inline int run(int argc, char** argv) {
  CLI::App app("Lends this machine to applications that use migrate while its owner is away, and takes it "
               "back when he\n"
               "returns. Prints where applications find it, and runs until it is stopped.",
               "migrate-hostd");
  settings how;
  how.agent.limits.memory_bytes = memory_of_machine() / 2;
  how.agent.limits.scratch_bytes = std::uint64_t{4} << 30;
  how.agent.limits.processes = 4096;
  describe(app, how);
  CLI11_PARSE(app, argc, argv);
  try {
    complete(how);
    return lend(how);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "migrate-hostd: %s\n", problem.what());
    return 1;
  }
}

} // namespace migrate_hostd
