// Programs of the operating system that tasks run.
#pragma once

#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/program/options.hpp>
#include <migrate/program/running.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate {

class program {
  // A program that the running task has started, on the node where the task is. The task cannot be moved as long as it
  // runs, and a move says so by the program's name and process number. It ends with this object, or with the task: it and
  // all processes that stem from it are killed then, also those that have left its process group and session.
  //
  // What it writes is taken, and what it reads from the task's streams is given, while its task waits for it; until then
  // it waits itself when its pipes are full. Thread safety: none; it is its task's, and in a copy of that task (see
  // fork.hpp) it is no program.

public:
  program() noexcept = default;
  explicit program(std::vector<std::string> arguments, program_options how = {}) {
    if (detail::failure failed = begin(std::move(arguments), std::move(how), true); failed.code)
      throw error(failed.code, failed.what);
  }
  program(std::vector<std::string> arguments, program_options how, std::error_code& code) {
    code = begin(std::move(arguments), std::move(how), true).code;
  }
  // arguments[0] is looked for in the PATH of the program's environment, unless it has a slash. Returns when it runs. It
  // cannot be started: throws migrate::error with the operating system's code, such as ENOENT, EACCES or EMFILE, that
  // names what failed; or stores the code and is no program. errc::not_in_task.

  program(program&& other) noexcept = default;
  program& operator=(program&& other) noexcept {
    if (this != &other) {
      end();
      it_ = std::move(other.it_);
    }
    return *this;
  }
  ~program() { end(); }

  explicit operator bool() const noexcept { return mine(); }

  int process() const noexcept { return mine() ? it_->process : 0; }
  // Its process number on the node where it runs, or ran last; another one when it was run again. Its process group has
  // the same number.

  void kill(int signal = SIGTERM) {
    detail::safe_point();
    if (mine() && it_->runs()) detail::the_programs->signal(it_->serial, signal);
  }
  // To its process group. Nothing happens when it has ended.

  program_result wait() {
    std::optional<program_result> got = wait_until(nullptr, nullptr);
    return std::move(*got);
  }
  program_result wait(std::error_code& code) {
    std::optional<program_result> got = wait_until(nullptr, &code);
    return got ? std::move(*got) : program_result();
  }
  template <class Rep, class Period>
  std::optional<program_result> wait_for(const std::chrono::duration<Rep, Period>& limit) {
    auto deadline = detail::task_now() + std::chrono::duration_cast<std::chrono::nanoseconds>(limit);
    return wait_until(&deadline, nullptr);
  }
  // Returns how it ended, when it has, with all that stemmed from it, and what it wrote has been given on; nothing when
  // the limit comes first. The worker runs other tasks meanwhile. A signal to the task does not end the wait: its handler
  // runs in it; one that ends the task waits until the program has ended by it, at most for program_options::grace.
  // May be repeated. Throws migrate::error when the program was given up and cannot be started again.

private:
  friend program_result run_program(std::vector<std::string>, program_options);
  friend program_result run_program(std::vector<std::string>, program_options, std::error_code&);

  bool mine() const noexcept {
    detail::resident* task = detail::current_task();
    return it_ != nullptr && task != nullptr && it_->owner == task->id;
  }

  detail::failure begin(std::vector<std::string>&& arguments, program_options&& how, bool wait) {
    detail::self();
    it_ = std::make_unique<detail::running_program>(std::move(arguments), std::move(how));
    detail::running::enter(*it_);
    detail::failure failed = detail::running::start_here(*it_);
    if (!failed.code && wait) failed = detail::running::wait_for_start(*it_);
    if (failed.code) end();
    return failed;
  }

  std::optional<program_result> wait_until(const detail::steady_point* deadline, std::error_code* code) {
    if (code != nullptr) code->clear();
    detail::failure failed{make_error_code(errc::no_such_task), "waiting for a program: there is none"};
    bool over = false;
    if (mine()) failed = detail::running::wait(*it_, deadline, over);
    if (failed.code && code == nullptr) throw error(failed.code, failed.what);
    if (failed.code) *code = failed.code;
    return over ? std::optional<program_result>(it_->result) : std::nullopt;
  }

  void end() noexcept {
    if (mine()) {
      detail::running::end(*it_);
      detail::running::leave(*it_);
    }
    it_.reset();
  }

  std::unique_ptr<detail::running_program> it_;
};

inline program_result run_program(std::vector<std::string> arguments, program_options how = {}) {
  program made;
  detail::failure failed = made.begin(std::move(arguments), std::move(how), false);
  bool over = false;
  if (!failed.code) failed = detail::running::wait(*made.it_, nullptr, over);
  if (failed.code) throw error(failed.code, failed.what);
  return std::move(made.it_->result);
}

inline program_result run_program(std::vector<std::string> arguments, program_options how, std::error_code& code) {
  program made;
  detail::failure failed = made.begin(std::move(arguments), std::move(how), false);
  bool over = false;
  if (!failed.code) failed = detail::running::wait(*made.it_, nullptr, over);
  code = failed.code;
  return failed.code ? program_result() : std::move(made.it_->result);
}
// Runs a program and waits for its end, as program() and wait() do.

} // namespace migrate
