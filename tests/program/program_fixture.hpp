// What the tests of programs have in common.
#pragma once

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include <migrate/nodes.hpp>
#include <migrate/program.hpp>

using namespace migrate;
using migrate_test::folder;
using migrate_test::run;
using namespace std::chrono_literals;

namespace {

using text = std::string;
using words = std::vector<std::string>;

#define EXPECT(condition)                                                                                              \
  if (!(condition)) return text(#condition)
#define EXPECT_EQUAL(found, wanted)                                                                                    \
  if (auto found_ = (found); !(found_ == (wanted))) return text(#found " is ") + show(found_)

[[maybe_unused]] text show(const text& value) { return "'" + value + "'"; }
[[maybe_unused]] text show(int value) { return std::to_string(value); }

template <class F, class... A> void at_home_and_away(F function, A... arguments) {
  // function(arguments...) -> what is wrong.
  for (bool away : {false, true}) {
    INFO((away ? "away" : "at home"));
    text wrong = run(
        [](F body, bool leave_first, A... with) {
          if (leave_first) this_task::migrate_to(nodes().back());
          return body(with...);
        },
        function, away, arguments...);
    CHECK(wrong == "");
  }
}

[[maybe_unused]] text output_of(words arguments, program_options how = {}) {
  how.output = redirection::capture();
  return run_program(std::move(arguments), std::move(how)).output;
}

[[maybe_unused]] text shell(const text& script, program_options how = {}) {
  return output_of({"sh", "-c", script}, std::move(how));
}

[[maybe_unused]] text contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

[[maybe_unused]] void pause() {
  if (detail::current_task() != nullptr)
    this_task::sleep_for(1ms);
  else
    std::this_thread::sleep_for(1ms);
}

template <class F> bool becomes_true(F&& condition) {
  for (auto limit = std::chrono::steady_clock::now() + 20s; !condition(); pause())
    if (std::chrono::steady_clock::now() >= limit) return false;
  return true;
}
// Of what nobody tells: files and processes of others.

[[maybe_unused]] text when_there(const std::filesystem::path& path) {
  // The first line that somebody writes there, once it has its end.
  text all;
  becomes_true([&] { return (all = contents(path)).find('\n') != all.npos; });
  return all.substr(0, all.find('\n'));
}

[[maybe_unused]] bool is_gone(int process) { return ::kill(process, 0) != 0 && errno == ESRCH; }

} // namespace
