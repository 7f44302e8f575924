// Several hosts on one machine: each with a network, a host name, a share of a processor and memory of its own. What they
// are made of is in the script test-hosts, which also makes them for use by hand.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

// The build passes the scripts' paths: list the test with HOSTS in tests/CMakeLists.txt.
#ifndef MIGRATE_TEST_HOSTS_SCRIPT
#define MIGRATE_TEST_HOSTS_SCRIPT "tests/support/test-hosts"
#endif
#ifndef MIGRATE_CREDENTIALS_SCRIPT
#define MIGRATE_CREDENTIALS_SCRIPT "examples/credentials/migrate-credentials"
#endif

namespace migrate_test {

struct host_limits {
  unsigned processor = 20;  // percent of one processor; 0: no limit
  std::uint64_t memory = 0; // bytes; 0: no limit
  std::string link = {};    // bits each second in either direction, as tc has it ("100mbit"); empty: no limit
};

class test_hosts {
public:
  explicit test_hosts(unsigned count, const host_limits& limits = {}) {
    static std::atomic<unsigned> last{0};
    name_ = "migrate-test-" + std::to_string(::getpid()) + "-" + std::to_string(++last);
    std::vector<std::string> command{"hold", name_, std::to_string(count)};
    auto limit = [&](const char* what, const std::string& value) {
      command.emplace_back(what);
      command.push_back(value);
    };
    if (limits.processor != 0) limit("--processor", std::to_string(limits.processor));
    if (limits.memory != 0) limit("--memory", std::to_string(limits.memory));
    if (!limits.link.empty()) limit("--link", limits.link);
    hold(command);
    if (!made()) std::printf("skipped: %s\n", why_not_.c_str());
    std::fflush(stdout);
  }
  // Where they are not to be had (no root, no control groups, no namespaces) it says "skipped: " and the reason, and
  // made() is false: the test then returns.

  ~test_hosts() {
    if (lifeline_ >= 0) ::close(lifeline_);
    if (holder_ > 0) ::waitpid(holder_, nullptr, 0);
  }
  // Ends all processes on the hosts and removes the hosts; so does the end of this process, however it comes.

  test_hosts(const test_hosts&) = delete;
  test_hosts& operator=(const test_hosts&) = delete;

  bool made() const { return why_not_.empty(); }
  const std::string& why_not() const { return why_not_; }
  const std::string& name() const { return name_; }

  static std::string address(unsigned host) { return "10.87.0." + std::to_string(host); }
  // Hosts are numbered from 1. This process is on none of them and reaches none, except by network_of.

  std::vector<std::string> on(unsigned host, std::vector<std::string> command) const {
    std::vector<std::string> whole{MIGRATE_TEST_HOSTS_SCRIPT, "on", name_, std::to_string(host)};
    whole.insert(whole.end(), std::make_move_iterator(command.begin()), std::make_move_iterator(command.end()));
    return whole;
  }
  // The command line that runs the command on a host, for `program`; the process's id stays the same.

  std::vector<int> processes(unsigned host) const {
    std::istringstream ids(said({"processes", name_, std::to_string(host)}));
    std::vector<int> all;
    for (int id = 0; ids >> id;) all.push_back(id);
    return all;
  }

  void kill(unsigned host) const { said({"kill", name_, std::to_string(host)}); }
  // Ends all processes there, as when the machine loses its power.

  void loosen(unsigned host) const { said({"loosen", name_, std::to_string(host)}); }
  // Its processor is limited no more.

  void unplug(unsigned host) const { said({"unplug", name_, std::to_string(host)}); }
  void plug(unsigned host) const { said({"plug", name_, std::to_string(host)}); }

private:
  static pid_t start(const std::vector<std::string>& arguments, int in, int out) {
    std::vector<char*> argv{const_cast<char*>(MIGRATE_TEST_HOSTS_SCRIPT)};
    for (const std::string& each : arguments) argv.push_back(const_cast<char*>(each.c_str()));
    argv.push_back(nullptr);
    pid_t process = ::fork();
    if (process != 0) return process;
    ::setsid(); // what ends the test by its process group lets the hosts be removed
    ::dup2(in, 0);
    ::dup2(out, 1);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }

  static std::string said(const std::vector<std::string>& arguments) {
    int out[2];
    if (::pipe2(out, O_CLOEXEC) != 0) return {};
    int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t process = start(arguments, nothing, out[1]);
    ::close(out[1]);
    ::close(nothing);
    std::string text;
    char bytes[1024];
    for (ssize_t got; (got = ::read(out[0], bytes, sizeof bytes)) > 0;) text.append(bytes, static_cast<std::size_t>(got));
    ::close(out[0]);
    ::waitpid(process, nullptr, 0);
    return text;
  }

  void hold(const std::vector<std::string>& arguments) {
    int out[2], in[2];
    if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(in, O_CLOEXEC) != 0) std::abort();
    holder_ = start(arguments, in[0], out[1]);
    lifeline_ = in[1];
    ::close(in[0]);
    ::close(out[1]);
    std::string line;
    for (char c = 0; ::read(out[0], &c, 1) == 1 && c != '\n';) line += c;
    ::close(out[0]);
    if (line != "ready") why_not_ = line.empty() ? "the script test-hosts said nothing" : line;
  }

  std::string name_;
  std::string why_not_;
  int lifeline_ = -1; // the script removes the hosts when this end is closed
  pid_t holder_ = -1;
};

class network_of {
public:
  network_of(const test_hosts& hosts, unsigned host)
      : before_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    std::string path = "/run/netns/" + hosts.name() + "-h" + std::to_string(host);
    int there = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (there < 0 || ::setns(there, CLONE_NEWNET) != 0) std::perror(path.c_str());
    ::close(there);
  }
  ~network_of() {
    ::setns(before_, CLONE_NEWNET);
    ::close(before_);
  }
  network_of(const network_of&) = delete;
  network_of& operator=(const network_of&) = delete;

private:
  int before_;
};
// While it lives, the calling thread, and threads that it starts, make their sockets on the host's network.

class cluster_credentials {
public:
  explicit cluster_credentials(const std::string& folder) : folder_(folder) {
    run("authority");
    run("node", " node");
  }
  const std::string& path() const { return folder_; }
  // For --migrate-credentials: nodes on different hosts need them.

private:
  void run(const std::string& command, const std::string& name = {}) const {
    std::string line = "sh '" MIGRATE_CREDENTIALS_SCRIPT "' " + command + " '" + folder_ + "'" + name + " >/dev/null";
    if (std::system(line.c_str()) != 0) std::fprintf(stderr, "failed: %s\n", line.c_str());
  }
  std::string folder_;
};
// In an empty folder of the test's own.

} // namespace migrate_test
