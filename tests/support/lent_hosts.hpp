// A host database and agents on loopback, with the programs as they are installed: this machine, lent several times.
#pragma once

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <unistd.h>

#include "folder.hpp"
#include "program.hpp"

#ifndef MIGRATE_EXAMPLES_DIR
#define MIGRATE_EXAMPLES_DIR "examples"
#endif

namespace migrate_test {

class lent_hosts {
public:
  explicit lent_hosts(const std::vector<std::string>& names)
      : database_(std::vector<std::string>{MIGRATE_EXAMPLES_DIR "/migrated", "--listen", "127.0.0.1:0", "--quiet"},
                  surroundings()) {
    std::ofstream((proc_.path / "loadavg").string()) << "0.00 0.00 0.00 1/100 1\n"; // whatever else this machine does
    address_ = database_.line();
    for (const std::string& name : names) {
      std::vector<std::string> agent{MIGRATE_EXAMPLES_DIR "/migrate-hostd", "--database", address_, "--name", name,
                                     "--slots", "1", "--start", "idle>=1", "--suspend", "idle<1", "--continue",
                                     "idle>=1", "--preempt", "suspended>=0", "--lend-unwatched", "--quiet", "--proc",
                                     proc_.path.string()};
      if (::geteuid() == 0) agent.push_back("--run-as-root");
      agents_.push_back(std::make_unique<program>(agent, surroundings()));
    }
    for (const auto& each : agents_) addresses_.push_back(each->line()); // they listen
  }

  const std::string& address() const { return address_; }
  environment surroundings() const {
    return {{"XDG_RUNTIME_DIR", runtime_.path.string()}, {"MIGRATE_NODES", "1"}};
  }
  // For programs that are to find them.

  void kill(std::size_t which) { ::kill(agents_.at(which)->id(), SIGKILL); }
  // The agent, and with it all that runs there, as when the machine loses its power.

  int busy() const {
    // Their owners are back, all of them.
    program said({MIGRATE_EXAMPLES_DIR "/migrate", "busy"}, surroundings());
    return said.wait(std::chrono::seconds(20));
  }

  int busy(std::size_t which) const {
    program said({MIGRATE_EXAMPLES_DIR "/migrate", "busy", "--agent", addresses_.at(which)}, surroundings());
    return said.wait(std::chrono::seconds(20));
  }

private:
  folder runtime_, proc_;
  program database_;
  std::string address_;
  std::vector<std::unique_ptr<program>> agents_;
  std::vector<std::string> addresses_; // of the agents
};

} // namespace migrate_test
