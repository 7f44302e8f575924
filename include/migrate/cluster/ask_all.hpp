// Asking many nodes at once, from a thread that can be told to give up.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <migrate/id.hpp>
#include <migrate/rpc/calls.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/task/wait.hpp>

namespace migrate::detail {

template <class Ask>
std::vector<std::optional<answer>> ask_all(const std::vector<node_id>& whom, Ask&& ask, steady_point deadline,
                                           const std::atomic<bool>& give_up) {
  // ask(node, call number) makes one request, and makes it again when the connection was lost and is there again. The
  // answers in the order of `whom`; none of who has not answered by then, or when it was told to give up. Not
  // from a task, nor on the I/O thread.
  call_table& calls = *this_calling.calls;
  thread_waiter woken;
  std::vector<std::uint64_t> numbers(whom.size());
  std::vector<std::optional<answer>> got(whom.size());
  auto begin = [&](std::size_t i) {
    numbers[i] = calls.open(whom[i], nullptr, &woken);
    ask(whom[i], numbers[i]);
  };
  for (std::size_t i = 0; i < whom.size(); ++i) begin(i);
  for (;;) {
    std::size_t missing = 0;
    for (std::size_t i = 0; i < whom.size(); ++i) {
      if (got[i]) continue;
      got[i] = calls.take(numbers[i]);
      if (got[i] && got[i]->code == errc::cancelled) {
        got[i].reset();
        begin(i);
      }
      if (!got[i]) ++missing;
    }
    auto now = node_now();
    if (missing == 0 || now >= deadline || give_up) break;
    auto look_again = std::min(deadline, now + std::chrono::milliseconds(50)); // whether to give up
    woken.wait(&look_again);
  }
  for (std::size_t i = 0; i < whom.size(); ++i)
    if (!got[i]) calls.close(numbers[i]);
  return got;
}

} // namespace migrate::detail
