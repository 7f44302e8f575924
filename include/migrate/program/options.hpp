// What a program is started with, and how it ended.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <sys/types.h>
#include <sys/wait.h>

#include <migrate/id.hpp>
#include <migrate/task/usage.hpp>

namespace migrate {

class redirection {
  // Where a program's input comes from, or where its output goes.

public:
  enum class kind : std::uint8_t { nothing, inherited, file, append, descriptor, text, capture, with_output };

  static redirection nothing() { return redirection(kind::nothing); }
  // /dev/null.
  static redirection inherited() { return redirection(kind::inherited); }
  // What the task has under the same number: a file or a pipe is the program's too; the standard streams are those of
  // the task's home, where output appears in order with the task's own, whole line by line.
  static redirection descriptor(int of_task) { return redirection(kind::descriptor, {}, of_task); }
  // The same, of any of the task's descriptors.
  static redirection file(std::filesystem::path path) { return redirection(kind::file, std::move(path).native()); }
  // For input read, for output made anew. Relative to the program's directory.
  static redirection append_to(std::filesystem::path path) {
    return redirection(kind::append, std::move(path).native());
  }
  static redirection text(std::string input) { return redirection(kind::text, std::move(input)); }
  static redirection capture(std::size_t most = std::size_t{16} << 20) {
    return redirection(kind::capture, {}, -1, most);
  }
  // Into program_result, in the task's region: at most so many bytes. What comes after them is read and dropped, and
  // counted.
  static redirection with_output() { return redirection(kind::with_output); }
  // Of standard error: to where standard output goes.

  kind what() const noexcept { return what_; }
  const std::string& word() const noexcept { return word_; } // the path or the text
  int number() const noexcept { return number_; }
  std::size_t most() const noexcept { return most_; }

private:
  explicit redirection(kind what, std::string word = {}, int number = -1, std::size_t most = 0)
      : what_(what), word_(std::move(word)), number_(number), most_(most) {}

  kind what_;
  std::string word_;
  int number_;
  std::size_t most_;
};

struct program_limits {
  static constexpr std::uint64_t none = std::numeric_limits<std::uint64_t>::max();

  std::uint64_t processor_seconds = none; // of each process: SIGXCPU then, and SIGKILL a second later
  std::uint64_t memory = none;            // bytes of addresses of each process
  std::uint64_t file_bytes = none;        // of each file that it writes: SIGXFSZ
  std::uint64_t open_files = none;        // of each process
  std::uint64_t processes = none;         // of its user on the machine, others than its own included
  std::uint64_t core_bytes = none;        // of a core file
  std::chrono::milliseconds wall{0};      // then its group gets SIGTERM, and what is left of it SIGKILL; 0: no limit
};
// Beyond what the node itself may use. As setrlimit(2) has it, which does not add up over several processes.

struct program_options {
  std::optional<std::vector<std::string>> environment = {}; // "NAME=value", all of it; none: the task's
  std::vector<std::pair<std::string, std::string>> variables = {}; // set on top of it
  std::filesystem::path directory = {};                     // empty: the task's
  std::optional<mode_t> mask = {};                          // for new files; none: the task's
  redirection input = redirection::nothing();
  redirection output = redirection::inherited();
  redirection error = redirection::inherited();
  std::vector<std::pair<int, int>> descriptors = {}; // more: {the program's number, the task's descriptor}
  program_limits limits = {};
  bool pass_signals = true; // what the task gets by kill() goes to the program's process group as well
  std::chrono::milliseconds grace{2000}; // how long it may take to end after a signal that ends its task, or limits.wall
  bool restartable = false; // it may be killed and run again from its beginning, when its node has to be vacated
  std::vector<std::filesystem::path> outputs = {}; // files that it makes: removed when it is killed, whoever does it
};
// Restartable programs should write to their outputs only, and capture the rest: what they have printed already is
// printed again by the next run.

struct program_result {
  int status = 0;         // in the form of wait(2), for the macros of <sys/wait.h>
  task_usage used;        // by the program and the children that it waited for
  std::string output;     // what redirection::capture() kept of it
  std::string error;
  std::uint64_t lost = 0; // captured bytes that were dropped, of both
  bool timed_out = false; // limits.wall was over
  unsigned starts = 0;    // 1, or more when it had to be run again
  node_id node = no_node; // where it ended

  bool exited() const noexcept { return WIFEXITED(status); }
  int exit_code() const noexcept { return WEXITSTATUS(status); }
  bool killed() const noexcept { return WIFSIGNALED(status); }
  int signal() const noexcept { return WTERMSIG(status); }
  bool succeeded() const noexcept { return status == 0; }

  auto migrate_fields() { return std::tie(status, used, output, error, lost, timed_out, starts, node); }
};

} // namespace migrate
