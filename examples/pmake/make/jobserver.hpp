// GNU make's jobserver, owned by us: a pipe for make up to 4.3, a named one from 4.4.
#pragma once

#include <string>

namespace pmake {

class jobserver {
public:
  enum class kind { pipe, fifo };

  jobserver(kind what, const std::string& folder, unsigned at_once);
  // So many commands at once: a make has one place of its own, and each token is one more. Throws build_error.
  ~jobserver();
  jobserver(const jobserver&) = delete;
  jobserver& operator=(const jobserver&) = delete;

  std::string flag() const;
  // For MAKEFLAGS.

  void set(unsigned at_once);
  // More tokens are there at once. Fewer: they are taken as they come back, by take_back().
  int wanted() const noexcept { return owed_ > 0 ? read_ : -1; }
  // What to poll for reading while there are tokens to be taken back.
  void take_back() noexcept;

private:
  kind kind_;
  std::string path_;
  int read_ = -1, write_ = -1;
  unsigned tokens_ = 0; // that are there, or with a make
  unsigned owed_ = 0;   // of them to be taken back
};

} // namespace pmake
