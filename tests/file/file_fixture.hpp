// What the tests of files have in common.
#pragma once

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/random.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <migrate/file.hpp>
#include <migrate/nodes.hpp>
#include <migrate/posix/fcntl.hpp>
#include <migrate/posix/unistd_files.hpp>

using namespace migrate;
using migrate_test::folder;
using migrate_test::new_seed;
using migrate_test::random_choices;
namespace px = migrate::posix;

namespace {

using text = std::string;

[[maybe_unused]] text all_of(int fd) {
  text whole;
  char bytes[64];
  for (ssize_t got; (got = px::read(fd, bytes, sizeof bytes)) > 0;) whole.append(bytes, static_cast<std::size_t>(got));
  return whole;
}

void be_moved() {
  // To every node but this one, and to where it began.
  node_id begun = this_task::node();
  for (node_id each : nodes())
    if (each != begun) this_task::migrate_to(each);
  this_task::migrate_to(begun);
  node_id last = nodes().back();
  this_task::migrate_to(last != begun ? last : nodes().front());
}

template <class F> void each_way(F function) {
  // function(directory) -> what is wrong, at its home and begun elsewhere.
  for (bool away : {false, true}) {
    folder where;
    INFO((away ? "away" : "at home"));
    text wrong = migrate_test::run(
        [](F body, text directory, bool leave_first) {
          if (leave_first) this_task::migrate_to(nodes().back());
          return body(directory);
        },
        function, where.path, away);
    CHECK(wrong == "");
  }
}

#define EXPECT(condition)                                                                                              \
  if (!(condition)) return text(#condition) + ", errno " + std::to_string(errno)

} // namespace
