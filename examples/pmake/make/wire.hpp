// What the shell that pmake gives to make, and pmake, say to each other over a Unix socket.
//
// The shell sends one request: its words, each followed by a zero byte, with a number of bytes before them. It is answered by one
// byte, and unless that is run_elsewhere by the shell that the makefile means, up to a zero byte. Then it becomes that
// shell, in the same process, so that its place is free again when the process ends. After run_elsewhere it has run on
// another machine: what it has written and how it ended follow, and the shell does as it would have.
//
// A shell that gets a signal meanwhile says so by one more byte, and ends by that signal when its connection is closed: then
// nothing of it runs any more, wherever that was.
#pragma once

#include <cstdint>

namespace pmake::wire {

inline constexpr const char* socket_variable = "PMAKE_SOCKET"; // where pmake listens
inline constexpr const char* shell_variable = "PMAKE_SHELL";   // the shell meant, for shells within a place
inline constexpr const char* place_variable =
    "PMAKE_PLACE"; // set within a place to its MAKELEVEL: what is started there has it already

struct request {
  std::uint32_t bytes;     // of the words that follow
  std::uint32_t recursive; // make has lent its jobserver to this line: another make is going to run
};

inline constexpr char run_in_place = 'P', run_freely = 'F', run_elsewhere = 'E';

struct ended {
  std::int32_t status;         // in the form of wait(2)
  std::uint32_t output, error; // bytes that follow, for standard output and then for standard error
};

} // namespace pmake::wire
