// The shell that pmake gives to make: it asks pmake for a place, and becomes the shell that the makefile means, or writes what
// that has written on another machine.
//
// Started for each line of each recipe, it is linked statically and uses nothing but system calls.
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "make/wire.hpp"
#include "shell/plain_line.hpp"

namespace {

namespace wire = pmake::wire;
using pmake::split_plain_line;

constexpr const char* usual = "/bin/sh";

constexpr int ending_signals[] = {SIGINT, SIGTERM, SIGHUP};
volatile std::sig_atomic_t signal_came = 0;
sigset_t outer_mask;

void on_signal(int which) { signal_came = which; }

void take_signals() {
  // They come only while pmake is waited for.
  sigset_t ours;
  ::sigemptyset(&ours);
  for (int each : ending_signals) ::sigaddset(&ours, each);
  ::sigprocmask(SIG_BLOCK, &ours, &outer_mask);
  struct sigaction action = {}, before;
  action.sa_handler = on_signal;
  for (int each : ending_signals)
    if (::sigaction(each, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
      ::sigaction(each, &action, nullptr);
}

void leave_signals() {
  struct sigaction before;
  for (int each : ending_signals)
    if (::sigaction(each, nullptr, &before) == 0 && before.sa_handler == on_signal) ::signal(each, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &outer_mask, nullptr);
}

[[noreturn]] void die_of(int signal) {
  leave_signals();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
  ::_exit(128 + signal);
}

void say(const char* const* parts, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    if (::write(2, parts[i], std::strlen(parts[i])) < 0) break;
}

[[noreturn]] void end_as_not_started(const char* program) {
  const char* reason = std::strerror(errno);
  const char* level = std::getenv("MAKELEVEL"); // that of this line's make, and one
  long depth = level != nullptr ? std::strtol(level, nullptr, 10) - 1 : 0;
  char digits[24];
  char* number = digits + sizeof digits;
  *--number = '\0';
  for (long left = depth; left > 0; left /= 10) *--number = static_cast<char>('0' + left % 10);
  const char* parts[] = {
      "make", depth > 0 ? "[" : "", number, depth > 0 ? "]" : "", ": ", program, ": ", reason, "\n"};
  say(parts, sizeof parts / sizeof *parts);
  ::_exit(127);
}

void start_plain_line(const char* shell, char** arguments) {
  // Make does so too, when its shell is the usual one, and says itself that there is no such program. Returns when the line
  // needs a shell.
  if (std::strcmp(shell, usual) != 0 || arguments[1] == nullptr || arguments[2] == nullptr ||
      arguments[3] != nullptr || std::strcmp(arguments[1], "-c") != 0)
    return;
  static char text[131072];
  static char* words[4096];
  std::size_t size = std::strlen(arguments[2]);
  if (size >= sizeof text) return;
  std::memcpy(text, arguments[2], size + 1);
  if (!split_plain_line(text, words, sizeof words / sizeof *words)) return;
  ::execvp(words[0], words);
  end_as_not_started(words[0]);
}

[[noreturn]] void become(const char* shell, char** arguments) {
  // The makefile's shell may have options of its own: they stand before what make has given.
  static char text[4096];
  std::strncpy(text, shell, sizeof text - 1);
  std::size_t given = 0, count = 0;
  while (arguments[given] != nullptr) ++given;
  auto** words = static_cast<char**>(std::calloc(given + sizeof text, sizeof(char*)));
  if (words == nullptr) ::_exit(127);
  for (char* rest = text; char* word = ::strtok_r(rest, " ", &rest);) words[count++] = word;
  for (std::size_t i = 1; i < given; ++i) words[count++] = arguments[i];
  ::execvp(words[0], words);
  const char* parts[] = {"pmake: ", words[0], ": ", std::strerror(errno), "\n"};
  say(parts, sizeof parts / sizeof *parts);
  ::_exit(127);
}

[[noreturn]] void run_line(const char* shell, char** arguments) {
  start_plain_line(shell, arguments);
  become(shell, arguments);
}

bool send_all(int fd, const char* bytes, std::size_t count) {
  while (count > 0) {
    auto put = ::send(fd, bytes, count, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    bytes += put;
    count -= static_cast<std::size_t>(put);
  }
  return true;
}

std::size_t read_some(int fd, void* into, std::size_t most) {
  // 0 at the end. Tells pmake of the first signal that comes meanwhile.
  for (bool told = false;;) {
    pollfd what{fd, POLLIN, 0};
    int ready = ::ppoll(&what, 1, nullptr, &outer_mask);
    if (ready < 0 && errno == EINTR) {
      char which = static_cast<char>(signal_came);
      if (which != 0 && !told) told = send_all(fd, &which, 1);
      if (which != 0 && !told) return 0;
      continue;
    }
    auto got = ::read(fd, into, most);
    if (got < 0 && errno == EINTR) continue;
    return got > 0 ? static_cast<std::size_t>(got) : 0;
  }
}

bool write_all(int to, const char* bytes, std::size_t count) {
  while (count > 0) {
    auto put = ::write(to, bytes, count);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) {
      pollfd what{to, POLLOUT, 0};
      ::poll(&what, 1, -1);
      continue;
    }
    if (put <= 0) return false;
    bytes += put;
    count -= static_cast<std::size_t>(put);
  }
  return true;
}

void copy(int from, int to, std::size_t count) {
  static char bytes[65536];
  for (bool taken = true; count > 0;) {
    std::size_t got = read_some(from, bytes, count < sizeof bytes ? count : sizeof bytes);
    if (got == 0) return;
    taken = taken && write_all(to, bytes, got);
    count -= got;
  }
}

[[noreturn]] void end_as_elsewhere(int fd) {
  wire::ended how = {};
  for (std::size_t size = 0; size < sizeof how;) {
    std::size_t got = read_some(fd, reinterpret_cast<char*>(&how) + size, sizeof how - size);
    if (got == 0) ::_exit(127);
    size += got;
  }
  copy(fd, 1, how.output);
  copy(fd, 2, how.error);
  if (WIFSIGNALED(how.status)) die_of(WTERMSIG(how.status));
  ::_exit(WEXITSTATUS(how.status));
}

bool jobserver_is_open() {
  // Make closes its jobserver to lines that start no other make.
  const char* flags = std::getenv("MAKEFLAGS");
  const char* found = flags != nullptr ? std::strstr(flags, "--jobserver-auth=") : nullptr;
  if (found == nullptr) return false;
  char* end = nullptr;
  long fd = std::strtol(found + std::strlen("--jobserver-auth="), &end, 10);
  return *end == ',' && ::fcntl(static_cast<int>(fd), F_GETFD) >= 0;
}

} // namespace

int main(int, char** arguments) {
  const char* path = std::getenv(wire::socket_variable);
  const char* level = std::getenv("MAKELEVEL");
  const char* place = std::getenv(wire::place_variable);
  // A make that a line starts unseen, by its name, may mean another shell. Its lines have that one's place.
  bool unseen = place != nullptr && level != nullptr && std::strcmp(place, level) != 0;
  if (path == nullptr || (place != nullptr && !unseen)) {
    const char* shell = std::getenv(wire::shell_variable);
    become(shell != nullptr ? shell : usual, arguments);
  }

  wire::request asked = {0, unseen || jobserver_is_open() ? 1u : 0u}; // before anything else gets that number
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // Without pmake it is a shell all the same: make may be ending, and run a last line.
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    run_line(usual, arguments);

  for (char** each = arguments + 1; *each != nullptr; ++each)
    asked.bytes += static_cast<std::uint32_t>(std::strlen(*each) + 1);
  bool sent = send_all(fd, reinterpret_cast<const char*>(&asked), sizeof asked);
  for (char** each = arguments + 1; sent && *each != nullptr; ++each)
    sent = send_all(fd, *each, std::strlen(*each) + 1);

  take_signals();
  char answer[4096];
  std::size_t size = 0;
  while (sent && size < sizeof answer) {
    // One byte first: what follows run_elsewhere has no end of its own.
    std::size_t got = read_some(fd, answer + size, size == 0 ? 1 : sizeof answer - size);
    if (got == 0) break;
    if (size == 0 && answer[0] == wire::run_elsewhere) end_as_elsewhere(fd);
    size += got;
    if (size > 1 && answer[size - 1] == '\0') break;
  }
  if (signal_came != 0) die_of(signal_came);
  leave_signals();
  if (!sent || size < 2 || answer[size - 1] != '\0') run_line(usual, arguments);
  const char* shell = answer + 1;
  if (answer[0] == wire::run_in_place || unseen) {
    ::setenv(wire::place_variable, level != nullptr ? level : "1", 1);
    ::setenv(wire::shell_variable, shell, 1);
  }
  run_line(shell, arguments);
}
