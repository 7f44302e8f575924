// Mailboxes: typed, bounded queues of messages between tasks.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate {

namespace detail {

struct letter {
  letter* next;
  task_id from;
  std::uint64_t sequence;
  std::uint64_t key;
  std::size_t size;
  std::byte* bytes() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};
// A message on its way, in the memory of a node.

struct mail_services {
  errc (*send)(task_id to, std::uint64_t key, const void* data, std::size_t bytes,
               const steady_point* deadline);
  letter* (*take)(std::uint64_t key) noexcept;
  // Null: there is none, and the next one to come ends the task's park.
  letter* (*take_or_await)(std::uint64_t key) noexcept;
  // The same for a task that parks at once: the next one is put into its hand.
  void (*discard)(letter* read) noexcept;
  void (*set_capacity)(std::uint64_t key, std::uint32_t capacity);
  std::size_t (*waiting)(std::uint64_t key) noexcept;
};

inline constinit const mail_services* the_mail = nullptr;

inline constinit std::atomic<void (*)(task_id from, task_id to, node_id other) noexcept> note_message{nullptr};
// Where it is set, told of each message between two tasks of which one is here: `other` is the node of the other one.

template <class T> struct mail_key {
  static inline const char mark = 0;
  static std::uint64_t value() noexcept { return reinterpret_cast<std::uint64_t>(&mark); }
};
// One lane for each type of message: the address is the same on every node.

inline constexpr std::size_t mail_limit = std::size_t{16} << 20;

inline errc send_bytes(task_id to, std::uint64_t key, const void* data, std::size_t bytes,
                       const steady_point* deadline) {
  self();
  safe_point();
  if (bytes > mail_limit) return errc::message_too_large;
  return the_mail->send(to, key, data, bytes, deadline);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void throw_unsent(task_id to, errc why,
                                                                const std::string& by = {}) {
  std::string text = by + "sending to task " + to_string(to) + ": " + make_error_code(why).message();
  if (why == errc::message_too_large) text += "; the limit is 16 MiB: send it in parts";
  throw error(why, text);
}

template <class T>
errc send_value(task_id to, std::uint64_t key, const T& value, const steady_point* deadline) {
  if constexpr (copied_bytewise<T>) {
    return send_bytes(to, key, &value, sizeof value, deadline);
  } else {
    byte_writer bytes;
    bytes.put(value);
    return send_bytes(to, key, bytes.bytes().data(), bytes.bytes().size(), deadline);
  }
}

[[gnu::always_inline]] inline letter* next_letter(std::uint64_t key) {
  // With its park in the user's own function: each return after a switch of stacks is one that the processor
  // has not predicted.
  for (;;) {
    letter* got = the_mail->take_or_await(key);
    if (got != nullptr) return got;
    scheduler::park(*this_worker());
    if (attention.load(std::memory_order_relaxed) != 0) [[unlikely]] {
      // A signal's handler may run here and wait for something else; the wait goes on after it.
      if (letter* came = the_mail->take(key)) return came;
      safe_point();
    }
  }
}

inline letter* next_letter(std::uint64_t key, steady_point deadline) {
  // Null: the deadline passed.
  for (;;) {
    letter* got = the_mail->take(key);
    if (got != nullptr) return got;
    if (!park_until(deadline)) return the_mail->take(key);
    safe_point();
  }
}

template <class T> T open_letter(letter* got) {
  struct closer {
    letter* read;
    ~closer() { the_mail->discard(read); }
  } closing{got};
  byte_reader bytes(got->bytes(), got->size);
  return bytes.get<T>();
}

} // namespace detail

template <class T> void send(task_id to, const T& value) {
  errc failed = detail::send_value(to, detail::mail_key<T>::value(), value, nullptr);
  if (failed != errc::ok) detail::throw_unsent(to, failed);
}
// Puts a message into the mailbox for T of task `to`, wherever it is; waits while the mailbox is full.
// Messages of one sender arrive in order and exactly once while either end moves. Only from a task.
// Throws migrate::error: errc::no_such_task when the receiver has ended, errc::message_too_large,
// errc::home_unreachable or node_lost. A message to another node may be under way when it returns; the
// task does not end before it has arrived.

template <class T, class Rep, class Period>
bool send_for(task_id to, const T& value, const std::chrono::duration<Rep, Period>& limit) {
  detail::steady_point deadline =
      detail::task_now() + std::chrono::duration_cast<std::chrono::nanoseconds>(limit);
  errc failed = detail::send_value(to, detail::mail_key<T>::value(), value, &deadline);
  if (failed == errc::timed_out) return false;
  if (failed != errc::ok) detail::throw_unsent(to, failed);
  return true;
}
// The same, giving up when there is no room within the limit: false, and the message was not sent.

template <class T> struct envelope {
  task_id from;
  T value;
};

template <class T> class mailbox {
public:
  explicit mailbox(std::uint32_t capacity = 1024) {
    detail::self();
    detail::the_mail->set_capacity(detail::mail_key<T>::value(), capacity);
  }
  // The running task's mailbox for T. Messages that came before wait in it; until a mailbox says
  // otherwise 1024 fit. All mailbox<T> objects of one task are the same mailbox.

  [[gnu::always_inline]] T receive() { return receive_envelope().value; }
  // Waits for the next message. The task may have moved when it returns.

  [[gnu::always_inline]] envelope<T> receive_envelope() {
    detail::safe_point();
    return open(detail::next_letter(detail::mail_key<T>::value()));
  }

  std::optional<T> try_receive() {
    detail::safe_point();
    detail::letter* got = detail::the_mail->take(detail::mail_key<T>::value());
    if (got == nullptr) return std::nullopt;
    return detail::open_letter<T>(got);
  }

  template <class Rep, class Period>
  std::optional<T> receive_for(const std::chrono::duration<Rep, Period>& limit) {
    detail::safe_point();
    detail::steady_point deadline =
        detail::task_now() + std::chrono::duration_cast<std::chrono::nanoseconds>(limit);
    detail::letter* got = detail::next_letter(detail::mail_key<T>::value(), deadline);
    if (got == nullptr) return std::nullopt;
    return detail::open_letter<T>(got);
  }

  std::size_t size() const { return detail::the_mail->waiting(detail::mail_key<T>::value()); }

private:
  static envelope<T> open(detail::letter* got) {
    task_id from = got->from;
    return {from, detail::open_letter<T>(got)};
  }
};
// What a task receives. Not thread-safe: it belongs to its task.

} // namespace migrate
