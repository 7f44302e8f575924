// migrated: the host database, which grants idle hosts to applications.
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <signal.h>

#include <CLI/CLI.hpp>

#include <migrate/cluster/host_database.hpp>

namespace {

int serve(migrate::host_database_options options) {
  sigset_t ends;
  sigemptyset(&ends);
  for (int each : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&ends, each);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  migrate::event_loop loop;
  loop.start();
  {
    migrate::host_database database(loop, std::move(options));
    database.start();
    for (const std::string& each : database.addresses()) std::printf("%s\n", each.c_str());
    std::fflush(stdout);
    int which = 0;
    while (::sigwait(&ends, &which) != 0) {
    }
  }
  loop.stop();
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app("Grants hosts whose owners are away to applications that use migrate. Agents (migrate-hostd) "
               "tell it of hosts,\n"
               "applications ask it with --migrate-hosts. Prints where it listens, and runs until it is "
               "stopped; it keeps\n"
               "nothing on disk, and may be started anew at any time: whoever holds a host keeps it.",
               "migrated");
  std::vector<std::string> listen;
  std::string credentials;
  unsigned stale = 180, alone = 30;
  bool quiet = false;
  app.add_option(
      "--listen", listen,
      "HOST:PORT or unix:PATH, perhaps several; beyond loopback it needs credentials (127.0.0.1:7400)");
  app.add_option("--credentials", credentials, "directory made by migrate-credentials");
  app.add_option("--stale", stale, "seconds after which a silent host is granted to nobody")
      ->capture_default_str();
  app.add_option("--alone", alone,
                 "seconds for which fair share leaves an application alone that it took a host from")
      ->capture_default_str();
  app.add_flag("--quiet", quiet, "no line for each event on standard error");
  CLI11_PARSE(app, argc, argv);
  try {
    migrate::host_database_options options;
    options.listen = listen.empty() ? std::vector<std::string>{"127.0.0.1:7400"} : listen;
    options.listen.push_back(migrate::control_address("database"));
    if (!credentials.empty()) options.security = migrate::credentials::in(credentials);
    options.limits.stale = std::chrono::seconds(stale);
    options.limits.alone = std::chrono::seconds(alone);
    if (!quiet)
      options.log = [](const std::string& line) { std::fprintf(stderr, "migrated: %s\n", line.c_str()); };
    return serve(std::move(options));
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "migrated: %s\n", problem.what());
    return 1;
  }
}
