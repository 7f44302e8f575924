#include "../support/test_hosts.hpp"

#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <filesystem>
#include <thread>

#include <netinet/in.h>
#include <sys/socket.h>

using namespace migrate_test;
using namespace std::chrono_literals;

namespace {

bool there(const std::string& name) {
  return std::filesystem::exists("/run/netns/" + name + "-h1") || std::filesystem::exists("/run/netns/" + name + "-switch");
}

} // namespace

TEST_CASE("a program runs on a host with the host's name, network and limits") {
  test_hosts hosts(2, {.processor = 50, .memory = 64 << 20, .link = "100mbit"});
  if (!hosts.made()) return;
  program name(hosts.on(2, {"/bin/cat", "/proc/sys/kernel/hostname"}), {});
  CHECK(name.line() == "host2");
  CHECK(name.wait(10s) == 0);

  // Host 1 listens, host 2 connects.
  program listens(hosts.on(1, {"/bin/bash", "-c", "read -r -n 1; echo up"}), {});
  program hog(hosts.on(1, {"/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=256M count=1 2>/dev/null"}), {});
  CHECK(hog.wait(20s) != 0); // 256 MiB in a host of 64 MiB
  CHECK(hosts.processes(1) == std::vector<int>{listens.id()});
  CHECK(hosts.processes(2).empty());
  hosts.kill(1);
  CHECK(listens.wait(10s) == 128 + SIGKILL);
}

TEST_CASE("hosts reach each other, unless one is unplugged") {
  test_hosts hosts(2, {.processor = 0});
  if (!hosts.made()) return;
  int listener = -1;
  {
    network_of host(hosts, 1);
    listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_port = htons(7000);
    here.sin_addr.s_addr = htonl(INADDR_ANY);
    REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&here), sizeof here) == 0);
    REQUIRE(::listen(listener, 4) == 0);
  }
  std::string connect = "exec 3<>/dev/tcp/" + test_hosts::address(1) + "/7000";
  auto reaches = [&](unsigned from) {
    program client(hosts.on(from, {"/usr/bin/timeout", "2", "/bin/bash", "-c", connect}), {});
    return client.wait(20s) == 0;
  };
  CHECK(reaches(2));
  hosts.unplug(1);
  CHECK_FALSE(reaches(2));
  hosts.plug(1);
  CHECK(reaches(2));
  ::close(listener);
}

TEST_CASE("nothing is left of hosts whose owner was killed, nor of what ran there") {
  int report[2];
  REQUIRE(::pipe2(report, O_CLOEXEC) == 0);
  pid_t owner = ::fork();
  if (owner == 0) {
    test_hosts hosts(1);
    std::string said = "-";
    if (hosts.made()) {
      program sleeper(hosts.on(1, {"/bin/sh", "-c", "echo up; exec sleep 1000"}), {});
      said = sleeper.line() == "up" ? hosts.name() + " " + std::to_string(sleeper.id()) : "?";
      if (::write(report[1], said.data(), said.size()) < 0) ::_exit(1);
      ::raise(SIGKILL);
    }
    if (::write(report[1], said.data(), said.size()) < 0) ::_exit(1);
    ::_exit(0);
  }
  ::close(report[1]);
  std::string said;
  char bytes[256];
  for (ssize_t got; (got = ::read(report[0], bytes, sizeof bytes)) > 0;) said.append(bytes, static_cast<std::size_t>(got));
  ::close(report[0]);
  ::waitpid(owner, nullptr, 0);
  if (said == "-") return;
  auto space = said.find(' ');
  REQUIRE(space != std::string::npos);
  std::string name = said.substr(0, space);
  pid_t sleeper = std::stoi(said.substr(space + 1));
  auto deadline = std::chrono::steady_clock::now() + 20s;
  while ((there(name) || ::kill(sleeper, 0) == 0) && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(10ms); // another process removes them, of which this one is not told
  CHECK_FALSE(there(name));
  CHECK(::kill(sleeper, 0) != 0);
}

TEST_CASE("what is left when that did not work either, the next hosts sweep away") {
  pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  std::string name = "migrate-test-" + std::to_string(dead) + "-1";
  if (test_hosts probe(1); !probe.made()) return;
  REQUIRE(std::system(("ip netns add " + name + "-switch && ip netns add " + name + "-h1").c_str()) == 0);
  CHECK(there(name));
  test_hosts next(1);
  CHECK_FALSE(there(name));
  CHECK(there(next.name()));
}
