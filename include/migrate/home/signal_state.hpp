// What a task has of signals: in its region what it has set, on its node what has come for it.
#pragma once

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/scheduler.hpp>

namespace migrate {

struct signal_info {
  std::int32_t number = 0;
  std::int32_t code = SI_USER; // SI_USER, SI_QUEUE, SI_TIMER, CLD_EXITED, ...: why it was sent, as in sigaction(2)
  task_id sender;              // none: not a task. For SIGCHLD, the child
  std::uint32_t user = 0;
  std::int32_t status = 0;     // of SIGCHLD: exit status or signal; of SI_TIMER: the timer
  std::int32_t overrun = 0;    // of SI_TIMER: expirations that sent no signal of their own since the last
  std::uint32_t spare = 0;
  std::uint64_t value = 0;     // of SI_QUEUE and SI_TIMER: the bits of the sigval
};
// One signal as its receiver sees it. Pointers in `value` mean something only to the task that they came from.

namespace detail {

using signal_bits = std::uint64_t; // bit n - 1 stands for signal n

inline constexpr int signal_count = 64;
constexpr bool is_signal(std::int64_t number) noexcept { return number >= 1 && number <= signal_count; }
constexpr signal_bits signal_bit(int number) noexcept { return signal_bits{1} << (number - 1); }

inline constexpr signal_bits never_blocked = signal_bit(SIGKILL) | signal_bit(SIGSTOP);
inline constexpr signal_bits stop_signals =
    signal_bit(SIGSTOP) | signal_bit(SIGTSTP) | signal_bit(SIGTTIN) | signal_bit(SIGTTOU);
inline constexpr int first_queued = 32; // from here on signals queue instead of coalescing

enum class default_action : std::uint8_t { end, ignore, stop };
// SIGCONT is ignored by default because continuing happens when it arrives.

constexpr default_action default_of(int number) noexcept {
  if ((stop_signals & signal_bit(number)) != 0) return default_action::stop;
  constexpr signal_bits ignored =
      signal_bit(SIGCHLD) | signal_bit(SIGCONT) | signal_bit(SIGURG) | signal_bit(SIGWINCH);
  return (ignored & signal_bit(number)) != 0 ? default_action::ignore : default_action::end;
}

struct signal_action {
  enum class kind : std::uint8_t { standard, ignore, call };
  kind what = kind::standard;
  int flags = 0; // SA_RESTART and so on
  signal_bits mask = 0;
  // The handler is a function, of the type that `invoke` knows: code of the program, at the same address on every node.
  void (*function)() = nullptr;
  void (*invoke)(void (*function)(), const signal_info& got, signal_bits& mask_after) = nullptr;
  // Or an object in the task's heap. Shared, as it may be replaced while it runs.
  std::shared_ptr<const std::function<void(const signal_info&)>> object;
};

struct timer_list;

struct signal_stack {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  int flags = 2; // SS_DISABLE
};

struct signal_state {
  std::array<signal_action, signal_count> actions{};
  signal_bits mask = 0;
  int stopped_by = 0;         // the signal; 0: it is not stopped
  signal_stack stack;
  timer_list* timers = nullptr; // see timers.hpp
};
// In the task's heap, made by the first call that changes anything. Only the task itself touches it, or the transfer
// engine while the task is frozen.

struct signal_inbox {
  std::uint64_t last = 0; // number of the last that came from home
  bool any_next = false;  // the task was restarted, and has not heard of home's number yet: the next that comes is right
  signal_bits waiting = 0;
  std::vector<signal_info> pending; // as they came; of a signal below first_queued there is one at most
  bool continued = false;           // SIGCONT has come, and no stop signal after it
  std::int64_t wakes_at = 0;        // when the node is to wake the task for a timer; by the task's clock
  struct numbered {
    std::uint64_t number;
    signal_info info;
  };
  std::vector<numbered> held; // came while the task was frozen: not the task's yet, and home has no word of them

  void add(const signal_info& got) {
    signal_bits bit = signal_bit(got.number);
    if (got.number == SIGCONT) drop(stop_signals);
    if ((bit & stop_signals) != 0) drop(signal_bit(SIGCONT));
    if (got.number == SIGCONT) continued = true;
    if ((bit & stop_signals) != 0) continued = false;
    if (got.number < first_queued && (waiting & bit) != 0) return;
    pending.push_back(got);
    waiting |= bit;
  }

  std::optional<signal_info> take(signal_bits allowed) {
    signal_bits found = waiting & allowed;
    if (found == 0) return std::nullopt;
    int number = (found & signal_bit(SIGKILL)) != 0 ? SIGKILL : __builtin_ctzll(found) + 1;
    auto first = std::find_if(pending.begin(), pending.end(), [&](const auto& each) { return each.number == number; });
    signal_info got = *first;
    pending.erase(first);
    if (std::none_of(pending.begin(), pending.end(), [&](const auto& each) { return each.number == number; }))
      waiting &= ~signal_bit(number);
    return got;
  }
  // The lowest number goes first, and of equal ones the first that came.

  void drop(signal_bits which) {
    if ((waiting & which) == 0) return;
    std::erase_if(pending, [&](const auto& each) { return (signal_bit(each.number) & which) != 0; });
    waiting &= ~which;
  }

  bool is_next(std::uint64_t number) const noexcept {
    if (!held.empty()) return number == held.back().number + 1;
    return any_next || number == last + 1;
  }
  void adopt(std::uint64_t number) noexcept {
    if (std::exchange(any_next, false)) last = number - 1;
  }

  void admit_held() {
    if (!held.empty()) adopt(held.front().number);
    for (const numbered& each : held)
      if (each.number == last + 1) {
        add(each.info);
        last = each.number;
      }
    held.clear();
  }

  void encode(byte_writer& out) const {
    out.put(last);
    out.put(any_next);
    out.put(continued);
    out.put(pending);
  }
  void decode(byte_reader& in) {
    last = in.get<std::uint64_t>();
    any_next = in.get<bool>();
    continued = in.get<bool>();
    pending = in.get<std::vector<signal_info>>();
    for (const signal_info& each : pending) {
      if (!is_signal(each.number)) throw error(errc::protocol, "a pending signal that is none");
      waiting |= signal_bit(each.number);
    }
  }
};
// In the node's memory, guarded by its resident's lock.

inline void raise_attention(resident& task) noexcept {
  if (!task.signalled.exchange(true)) attention.fetch_add(1);
}
inline void lower_attention(resident& task) noexcept {
  if (task.signalled.exchange(false)) attention.fetch_sub(1);
}
// Whether the task's next safe point looks for signals.

} // namespace detail
} // namespace migrate
