// Requests under way from this node, and their answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/task/outcome.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/task/spin_lock.hpp>
#include <migrate/task/wait.hpp>

namespace migrate::detail {

struct answer {
  errc code = errc::ok;
  std::string what;
  std::uint64_t first = 0;
  std::uint64_t second = 0;
  node_bytes bytes;
};

class call_table {
public:
  std::uint64_t open(node_id peer, resident* task, thread_waiter* thread) {
    held guard(lock_);
    std::uint64_t number = ++last_;
    calls_.emplace(number, entry{peer, task, thread, std::nullopt});
    return number;
  }
  // `task` or `thread` is woken by the answer.

  void complete(std::uint64_t number, answer&& got) {
    held guard(lock_);
    auto found = calls_.find(number);
    if (found == calls_.end() || found->second.got) return; // given up, or answered twice
    found->second.got = std::move(got);
    wake(found->second);
  }

  void fail(node_id peer, errc code, const std::string& what) {
    held guard(lock_);
    for (auto& [number, call] : calls_)
      if (call.peer == peer && !call.got) {
        call.got = answer{code, what, 0, 0, {}};
        wake(call);
      }
  }
  // Every call to that node that has no answer gets this one.

  std::optional<answer> take(std::uint64_t number) {
    held guard(lock_);
    auto found = calls_.find(number);
    if (found == calls_.end() || !found->second.got) return std::nullopt;
    std::optional<answer> got = std::move(found->second.got);
    calls_.erase(found);
    return got;
  }
  // The answer, if there is one; the call is over then.

  void close(std::uint64_t number) {
    held guard(lock_);
    calls_.erase(number);
  }

private:
  struct entry {
    node_id peer;
    resident* task;
    thread_waiter* thread;
    std::optional<answer> got;
  };

  static void wake(entry& call) {
    if (call.thread != nullptr) call.thread->wake();
    if (call.task != nullptr) this_scheduler->wake(*call.task); // whoever it is by now: see resident.hpp
  }

  spin_lock lock_;
  std::uint64_t last_ = 0;
  std::unordered_map<std::uint64_t, entry> calls_;
};
// Thread safety: any thread, inside a node_heap_scope where a task runs. Every call ends: by its answer,
// or by fail() when its node is lost.

} // namespace migrate::detail
