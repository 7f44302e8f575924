// The shell that pmake gives to make: it asks pmake for a place, and becomes the shell that the makefile means.
//
// Started for each line of each recipe, it is linked statically and uses nothing but system calls.
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "make/wire.hpp"

namespace {

namespace wire = pmake::wire;

constexpr const char* usual = "/bin/sh";

[[noreturn]] void become(const char* shell, char** arguments) {
  arguments[0] = const_cast<char*>(shell);
  ::execvp(shell, arguments);
  const char* parts[] = {"pmake: ", shell, ": ", std::strerror(errno), "\n"};
  for (const char* part : parts)
    if (::write(2, part, std::strlen(part)) < 0) break;
  ::_exit(127);
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
  if (path == nullptr || std::getenv(wire::place_variable) != nullptr) {
    const char* shell = std::getenv(wire::shell_variable);
    become(shell != nullptr ? shell : usual, arguments);
  }

  wire::request asked = {0, jobserver_is_open() ? 1u : 0u}; // before anything else gets that number
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // Without pmake it is a shell all the same: make may be ending, and run a last line.
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    become(usual, arguments);

  for (char** each = arguments + 1; *each != nullptr; ++each)
    asked.bytes += static_cast<std::uint32_t>(std::strlen(*each) + 1);
  bool sent = send_all(fd, reinterpret_cast<const char*>(&asked), sizeof asked);
  for (char** each = arguments + 1; sent && *each != nullptr; ++each)
    sent = send_all(fd, *each, std::strlen(*each) + 1);

  char answer[4096];
  std::size_t size = 0;
  while (sent && size < sizeof answer) {
    auto got = ::read(fd, answer + size, sizeof answer - size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) become(usual, arguments);
    size += static_cast<std::size_t>(got);
    if (answer[size - 1] == '\0') break;
  }
  if (!sent || size == 0 || answer[size - 1] != '\0') become(usual, arguments);
  const char* shell = answer + 1;
  if (answer[0] == wire::run_in_place) {
    ::setenv(wire::place_variable, "1", 1);
    ::setenv(wire::shell_variable, shell, 1);
  }
  become(shell, arguments);
}
