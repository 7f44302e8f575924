// on_lent_hosts COMMAND...: runs it where a host database has two hosts to grant, which are this machine under other names.
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "../support/lent_hosts.hpp"

int main(int argc, char** argv) {
  migrate_test::lent_hosts hosts({"one", "two"});
  auto surroundings = hosts.surroundings();
  surroundings.emplace_back("MIGRATE_HOSTS", hosts.address());
  migrate_test::program running(std::vector<std::string>(argv + 1, argv + argc), surroundings);
  int status = running.wait(std::chrono::minutes(9));
  std::fputs(running.rest().c_str(), stdout);
  return status;
}
