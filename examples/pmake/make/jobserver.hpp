// GNU make's jobserver, owned by us: a pipe for make up to 4.3, a named one from 4.4.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

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
  // More tokens are there at once. Fewer: they are taken as makes give them back.

private:
  void take_back();
  void put(unsigned tokens);

  kind kind_;
  std::string path_;
  int read_ = -1, write_ = -1;

  std::mutex mutex_;
  std::condition_variable owes_;
  unsigned tokens_ = 0; // that are there, or with a make
  unsigned owed_ = 0;   // of them to be taken back
  bool ending_ = false;
  std::thread taker_; // reads of a jobserver block, since a make may be faster; from the first token owed on
};

} // namespace pmake
