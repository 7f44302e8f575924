// Groups of tasks that compute together: barrier, reduction, gather and broadcast.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/file/mailbox.hpp>
#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>

namespace migrate {

namespace detail {

enum class group_call : std::uint32_t { barrier, reduce, gather, gather_all, broadcast };

inline const char* name_of(group_call call) noexcept {
  static constexpr const char* names[] = {"barrier", "reduce", "gather", "gather_all", "broadcast"};
  auto index = static_cast<std::size_t>(call);
  return index < std::size(names) ? names[index] : "unknown call";
}

struct group_stamp {
  std::uint32_t ordinal; // of the sender's calls on the group
  group_call call;
  friend constexpr bool operator==(group_stamp, group_stamp) noexcept = default;
};
// In front of every message, so that members that disagree about what they do together are told.

constexpr std::uint64_t mix_bits(std::uint64_t x) noexcept { // splitmix64
  x += 0x9e37'79b9'7f4a'7c15u;
  x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9u;
  x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11ebu;
  return x ^ (x >> 31);
}

} // namespace detail

class group {
  // A binomial tree over the ranks: rank r hears from r + 1, r + 2, r + 4, ... and then answers to r less
  // its lowest bit, so that what it hears from r + 2^k covers exactly the ranks [r + 2^k, r + 2^(k + 1)).

public:
  explicit group(std::vector<task_id> members, std::uint64_t number = 0);
  // The running task's view of a group: `members` is the same list for each member, in the same order, and
  // has the running task in it once. Two groups that have the same members must differ in `number`: the
  // group's messages go by the list and the number, and by nothing else. Groups with different lists never
  // mix, whatever members they share. Throws migrate::error (std::errc::invalid_argument) when a task is in
  // the list twice, or the running task is not in it.

  group(group&&) noexcept = default;
  group& operator=(group&&) noexcept = default;

  std::size_t size() const noexcept { return members_.size(); }
  std::size_t rank() const noexcept { return rank_; }
  // The running task's place in the list.
  const std::vector<task_id>& members() const noexcept { return members_; }

  // Each member calls the same functions in the same order. All wait, and the task may have moved when
  // they return. The depth is logarithmic in the number of members. They throw what send() throws, and
  // migrate::error with errc::protocol when another member is in another call. When a member has died the
  // others wait for it for ever: whoever joins the members sees it, and ends the others.

  void barrier();
  // Returns when all members have called it.

  template <class T, class Op> T reduce(const T& mine, Op op);
  // op(...op(op(m0, m1), m2)..., mN) of the members' values, on each member. `op` must be associative; it
  // need not be commutative: values are combined in the order of ranks, and in the same tree each time, so
  // that results of floating point are the same bit for bit whatever the timing.

  template <class T> T sum(const T& mine) { return reduce(mine, std::plus<>{}); }
  template <class T> T min(const T& mine) {
    return reduce(mine, [](const T& a, const T& b) { return b < a ? b : a; });
  }
  template <class T> T max(const T& mine) {
    return reduce(mine, [](const T& a, const T& b) { return a < b ? b : a; });
  }

  template <class T> std::vector<T> gather(const T& mine);
  // The members' values in the order of ranks on rank 0; empty on the others, which do not wait for it.

  template <class T> std::vector<T> gather_all(const T& mine);
  // The same on each member.

  template <class T> T broadcast(const T& value, std::size_t root = 0);
  // Rank `root`'s value, on each member.

private:
  std::uint64_t lane_from(std::size_t sender) const noexcept {
    // With the highest bit set, which no mail_key has: those are addresses.
    return detail::mix_bits(id_ ^ members_[sender].bits()) | (std::uint64_t{1} << 63);
  }
  void begin(detail::group_call call) noexcept { now_ = {now_.ordinal + 1, call}; }
  template <class T> void give(std::size_t to, const T& value);
  template <class T> T take(std::size_t from);
  template <class T, class Op> T up(T mine, Op op);
  template <class T> T down(T mine);

  std::vector<task_id> members_;
  std::size_t rank_ = 0;
  std::uint64_t id_ = 0;
  detail::group_stamp now_{0, detail::group_call::barrier};
};
// Built on mailboxes, with a lane for each member that a member hears from. All that a group knows is in
// its task's own memory. It belongs to its task; not thread-safe.

// ---------------------------------------------------------------------------------------------------

inline group::group(std::vector<task_id> members, std::uint64_t number) : members_(std::move(members)) {
  auto refuse = [&](const std::string& why) {
    throw error(std::make_error_code(std::errc::invalid_argument),
                "group of " + std::to_string(members_.size()) + " tasks: " + why);
  };
  task_id self = this_task::id();
  auto found = std::find(members_.begin(), members_.end(), self);
  if (found == members_.end()) refuse("task " + to_string(self) + " makes it and is not in it");
  rank_ = static_cast<std::size_t>(found - members_.begin());
  std::vector<task_id> sorted = members_;
  std::sort(sorted.begin(), sorted.end());
  if (auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
    refuse("task " + to_string(*twice) + " is in it twice");
  id_ = detail::mix_bits(number);
  for (task_id member : members_) id_ = detail::mix_bits(id_ ^ member.bits());
}

template <class T> void group::give(std::size_t to, const T& value) {
  byte_writer bytes;
  bytes.put(now_);
  bytes.put(value);
  errc failed =
      detail::send_bytes(members_[to], lane_from(rank_), bytes.bytes().data(), bytes.bytes().size(), nullptr);
  if (failed != errc::ok)
    detail::throw_unsent(members_[to], failed, std::string("group ") + detail::name_of(now_.call) + ": ");
}

template <class T> T group::take(std::size_t from) {
  detail::safe_point();
  detail::letter* got = detail::next_letter(lane_from(from));
  struct closer {
    detail::letter* read;
    ~closer() { detail::the_mail->discard(read); }
  } closing{got};
  byte_reader bytes(got->bytes(), got->size);
  auto theirs = bytes.get<detail::group_stamp>();
  if (theirs != now_) {
    auto said = [](detail::group_stamp stamp) {
      return std::string(detail::name_of(stamp.call)) + " as call " + std::to_string(stamp.ordinal);
    };
    throw error(errc::protocol, "group: task " + to_string(members_[from]) + " is in " + said(theirs) +
                                    ", task " + to_string(members_[rank_]) + " in " + said(now_) +
                                    "; members call the same functions in the same order");
  }
  return bytes.get<T>();
}

template <class T, class Op> T group::up(T mine, Op op) {
  for (std::size_t step = 1; step < size(); step *= 2) {
    if ((rank_ & step) != 0) {
      give(rank_ - step, mine);
      break;
    }
    if (rank_ + step < size()) mine = op(std::move(mine), take<T>(rank_ + step));
  }
  return mine;
}

template <class T> T group::down(T mine) {
  std::size_t step = 1;
  while (step < size() && (rank_ & step) == 0) step *= 2;
  if (rank_ != 0) mine = take<T>(rank_ - step);
  while ((step /= 2) > 0)
    if (rank_ + step < size()) give(rank_ + step, mine);
  return mine;
}

inline void group::barrier() {
  begin(detail::group_call::barrier);
  down(up(char{}, [](char a, char) { return a; }));
}

template <class T, class Op> T group::reduce(const T& mine, Op op) {
  begin(detail::group_call::reduce);
  return down(up(T(mine), [&](T&& a, T&& b) -> T { return op(std::move(a), std::move(b)); }));
}

template <class T> std::vector<T> group::gather(const T& mine) {
  begin(detail::group_call::gather);
  auto all = up(std::vector<T>(1, mine), [](std::vector<T>&& a, std::vector<T>&& b) {
    a.insert(a.end(), std::make_move_iterator(b.begin()), std::make_move_iterator(b.end()));
    return std::move(a);
  });
  if (rank_ != 0) all.clear();
  return all;
}

template <class T> std::vector<T> group::gather_all(const T& mine) {
  begin(detail::group_call::gather_all);
  return down(up(std::vector<T>(1, mine), [](std::vector<T>&& a, std::vector<T>&& b) {
    a.insert(a.end(), std::make_move_iterator(b.begin()), std::make_move_iterator(b.end()));
    return std::move(a);
  }));
}

template <class T> T group::broadcast(const T& value, std::size_t root) {
  begin(detail::group_call::broadcast);
  if (root >= size())
    throw error(std::make_error_code(std::errc::invalid_argument), "group broadcast: there is no rank " +
                                                                       std::to_string(root) + " among " +
                                                                       std::to_string(size()));
  if (root != 0 && rank_ == root) give(0, value);
  return down(root != 0 && rank_ == 0 ? take<T>(root) : T(value));
}

} // namespace migrate
