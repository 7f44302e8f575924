// Places for commands on other machines, whoever provides them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pmake {

struct foreign_order {
  std::vector<std::string> words; // what to execute and its arguments
  bool function = false;          // they name a function of this program instead (see recipe.hpp)
  std::string folder;
  std::vector<std::string> environment;
  mode_t mask = 022;
  std::vector<std::string> outputs; // removed when it is killed
  bool apart = false;               // standard error is kept apart from standard output
};

enum class foreign_outcome {
  ended,
  lost,   // with its host, or the host would not run it: it has to be run again
  stopped // by stop()
};

struct foreign_end {
  std::uint64_t number = 0; // by start()
  foreign_outcome how = foreign_outcome::lost;
  int status = 0;            // of `ended`: in the form of wait(2)
  std::string output, error; // whole
  std::string reason;        // of `lost`
  std::string host;
  unsigned slot = 0;
  std::chrono::steady_clock::time_point begin, end;
};

using host_note = std::function<void(const std::string& host, const std::string& what)>;
// Something that happened to a host just now; host "" is this one.

class foreign_places {
public:
  foreign_places() = default;
  foreign_places(const foreign_places&) = delete;
  foreign_places& operator=(const foreign_places&) = delete;
  virtual ~foreign_places() = default;
  // Nothing that it started runs any more.

  virtual int descriptor() const = 0;
  // Can be read when next() has something to do.
  virtual std::optional<foreign_end> next() = 0;
  // Takes in what has happened to hosts as well.

  virtual std::size_t hosts() const = 0;   // that would take commands
  virtual std::size_t places() const = 0;  // on them in all
  virtual std::size_t running() const = 0; // commands
  virtual std::size_t at_home() const = 0; // of those: functions that had to leave their host and have come here
  virtual bool room(const std::string& but_not_on = {}) const = 0;
  virtual std::uint64_t start(foreign_order what, const std::string& but_not_on = {}) = 0;
  // When there is room. Returns a number of its own, never 0.

  virtual void stop(std::uint64_t number, int signal) = 0;
  // Its end is told by next().
  virtual void stop_all(int signal) = 0;
  // Blocks until all have ended, however unwilling.
};

bool worth_a_second_run(const foreign_end& failed);
// A command that failed may have done so because of where it ran: it was killed, its program was not to be had there, or
// memory or disk ran out. Then what it does at home decides.

} // namespace pmake
