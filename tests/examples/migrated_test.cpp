// The program migrated, as it is installed.
#include "../cluster/host_fixture.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <string>

#include <catch2/catch.hpp>

using namespace migrate_test;

#ifndef MIGRATE_EXAMPLES_DIR
#define MIGRATE_EXAMPLES_DIR "examples"
#endif

namespace {

const std::string path = MIGRATE_EXAMPLES_DIR "/migrated";

} // namespace

TEST_CASE("migrated prints where it listens, may be killed and started again, and ends when it is told to") {
  folder runtime;
  environment with{{"XDG_RUNTIME_DIR", runtime.path.string()}};
  std::string address;
  for (bool first : {true, false}) {
    program database({path, "--listen", first ? "127.0.0.1:0" : address, "--quiet"}, with);
    std::string shown = database.line();
    REQUIRE(shown.starts_with("127.0.0.1:"));
    if (!first) CHECK(shown == address);
    address = shown;
    std::string control = database.line();
    CHECK(control.find("/database-" + std::to_string(database.id()) + ".sock") != std::string::npos);
    fake_agent agent(address, "host");
    party command(control, protocol::HostRole::COMMAND, "status", "home");
    command.link.start();
    auto hosts = command.link.wait_open()->call(
        [](protocol::HostMessage::Builder out) { out.setStatusOf(); },
        [](protocol::HostMessage::Reader message) { return message.getStatus().getHosts().size(); });
    CHECK(hosts == 1);
    ::kill(database.id(), first ? SIGKILL : SIGTERM);
    CHECK(database.wait(10s) == (first ? 128 + SIGKILL : 0));
    command.link.stop();
    agent.told.wait("closed");
  }
}

TEST_CASE("migrated says what it does, and why it cannot") {
  folder runtime;
  environment with{{"XDG_RUNTIME_DIR", runtime.path.string()}};
  program talking({"/bin/sh", "-c", "exec " + path + " --listen 127.0.0.1:0 2>&1"}, with);
  std::string address = talking.line();
  talking.line();
  fake_agent agent(address, "host");
  CHECK(talking.line() == "migrated: host offers 1 slot");
  CHECK(talking.line() == "migrated: host may be lent: idle");
  program refused({"/bin/sh", "-c", "exec " + path + " --listen 0.0.0.0:0 2>&1"}, with);
  CHECK(refused.line().find("without credentials") != std::string::npos);
  CHECK(refused.wait(10s) == 1);
  program taken({"/bin/sh", "-c", "exec " + path + " --listen " + address + " 2>&1"}, with);
  CHECK(taken.line().find("cannot listen on " + address) != std::string::npos);
  CHECK(taken.wait(10s) == 1);
}
