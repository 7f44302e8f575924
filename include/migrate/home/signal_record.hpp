// What home keeps of the signals that go to one of its tasks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>

#include <migrate/home/signal_state.hpp>
#include <migrate/id.hpp>

namespace migrate::detail {

struct signal_record {
  std::uint64_t last = 0; // the number of the newest
  std::deque<signal_inbox::numbered> unseen; // the task's node has not confirmed them; oldest first
  bool trying_again = false;
  std::uint64_t last_change = 0; // the task's number for the last stop or continuation that it told
  struct sender {
    task_id task;
    std::uint64_t number;
  };
  std::deque<sender> heard;

  bool is_repeated(task_id from, std::uint64_t number) {
    // A request that was asked again because its answer was lost: a task has one at a time, so its last is enough.
    if (!from || number == 0) return false;
    auto known = std::find_if(heard.begin(), heard.end(), [&](const sender& each) { return each.task == from; });
    if (known == heard.end()) {
      if (heard.size() == most_heard) heard.pop_front();
      heard.push_back({from, number});
      return false;
    }
    if (number <= known->number) return true;
    known->number = number;
    return false;
  }

  void seen(std::uint64_t upto) {
    while (!unseen.empty() && unseen.front().number <= upto) unseen.pop_front();
  }

  static constexpr std::size_t most_heard = 256;
  static constexpr std::size_t most_unseen = 16384;
};
// Guarded by the home record's lock. Made by the task's first signal.

} // namespace migrate::detail
