// Other programs that a test starts, each with a time limit and a process group of its own.
#pragma once

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace migrate_test {

using environment = std::vector<std::pair<std::string, std::string>>;

class program {
public:
  program(std::vector<std::string> command, const environment& extra) {
    int out[2], in[2];
    if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(in, O_CLOEXEC) != 0) std::abort();
    std::vector<char*> argv;
    for (std::string& each : command) argv.push_back(each.data());
    argv.push_back(nullptr);
    process_ = ::fork();
    if (process_ == 0) {
      ::setpgid(0, 0);
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::unsetenv("MIGRATE_TORTURE");
      for (const auto& [name, value] : extra) ::setenv(name.c_str(), value.c_str(), 1);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::setpgid(process_, process_);
    ::close(out[1]);
    ::close(in[0]);
    output_ = out[0];
    input_ = in[1];
  }
  ~program() {
    ::kill(-process_, SIGKILL);
    if (!ended_) ::waitpid(process_, nullptr, 0);
    ::close(output_);
    if (input_ >= 0) ::close(input_);
  }
  program(const program&) = delete;
  program& operator=(const program&) = delete;

  int id() const { return process_; }

  std::string line(std::chrono::seconds limit = std::chrono::seconds(30)) {
    auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
      if (std::size_t end = text_.find('\n'); end != std::string::npos) {
        std::string first = text_.substr(0, end);
        text_.erase(0, end + 1);
        return first;
      }
      if (!read_more(deadline)) return std::exchange(text_, {});
    }
  }
  // The next line that it prints, without its end; what there is when it ends or the limit passes.

  void say(const std::string& line) {
    std::string text = line + "\n";
    if (::write(input_, text.data(), text.size()) < 0) return;
  }

  void close_input() {
    if (input_ >= 0) ::close(std::exchange(input_, -1));
  }

  static constexpr int hung = -1;

  int wait(std::chrono::milliseconds limit) {
    // Its exit status, 128 + the signal that ended it, or `hung`.
    auto deadline = std::chrono::steady_clock::now() + limit;
    while (read_more(deadline)) {}
    int status = 0;
    while (::waitpid(process_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() >= deadline) return hung;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ended_ = true;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  std::string rest() { return std::exchange(text_, {}); }
  // What it has printed that line() did not return.

private:
  bool read_more(std::chrono::steady_clock::time_point deadline) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd what{output_, POLLIN, 0};
    if (left.count() <= 0 || ::poll(&what, 1, static_cast<int>(left.count())) <= 0) return false;
    char bytes[4096];
    auto got = ::read(output_, bytes, sizeof bytes);
    if (got <= 0) return false;
    text_.append(bytes, static_cast<std::size_t>(got));
    return true;
  }

  pid_t process_ = -1;
  int output_ = -1, input_ = -1;
  bool ended_ = false;
  std::string text_;
};

inline std::string own_path() {
  char path[4096];
  auto size = ::readlink("/proc/self/exe", path, sizeof path);
  return size > 0 ? std::string(path, static_cast<std::size_t>(size)) : std::string();
}

} // namespace migrate_test
