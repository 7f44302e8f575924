// What a node keeps of one task's mail: what came, and what it sent that has not arrived.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <new>
#include <unordered_map>
#include <vector>

#include <migrate/file/mailbox.hpp>
#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/resident.hpp>

namespace migrate::detail {

class letter_stock {
public:
  // Small letters are kept for the next: making and discarding one costs no call to the allocator.

  static letter* make(task_id from, std::uint64_t key, std::uint64_t sequence, const void* data,
                      std::size_t bytes) {
    letter* made = nullptr;
    stock& mine = of_this_thread();
    if (bytes <= small && mine.first != nullptr) {
      made = mine.first;
      mine.first = made->next;
      --mine.count;
    } else {
      node_heap_scope scope;
      void* memory = std::malloc(sizeof(letter) + std::max(bytes, small));
      if (memory == nullptr) throw std::bad_alloc();
      made = new (memory) letter;
    }
    made->next = nullptr;
    made->from = from;
    made->sequence = sequence;
    made->key = key;
    made->size = bytes;
    if (bytes > 0) std::memcpy(made->bytes(), data, bytes);
    return made;
  }

  static void discard(letter* read) noexcept {
    stock& mine = of_this_thread();
    if (read->size <= small && mine.count < 4096) {
      read->next = mine.first;
      mine.first = read;
      ++mine.count;
      return;
    }
    node_heap_scope scope;
    std::free(read);
  }

private:
  static constexpr std::size_t small = 104;
  struct stock {
    letter* first = nullptr;
    std::size_t count = 0;
  };
  [[gnu::noinline]] static stock& of_this_thread() noexcept {
    static constinit thread_local stock mine;
    asm volatile("" : : : "memory");
    return mine;
  }
};

struct mail_waiter {
  // A sender that can go on once the receiver has room, or has arrived.
  task_id from;
  resident* local = nullptr; // waits on this node
  node_id node = no_node;    // or: its node is told
  friend bool operator==(const mail_waiter&, const mail_waiter&) = default;
};

struct mail_queue {
  // Senders that wait. One that moves may stand here for each place that it wrote from: they are told together.
  std::vector<mail_waiter> waiters;

  void add(const mail_waiter& who) {
    if (std::find(waiters.begin(), waiters.end(), who) != waiters.end()) return;
    node_heap_scope scope;
    waiters.push_back(who);
  }
  bool remove(const mail_waiter& who) noexcept { return std::erase(waiters, who) > 0; }
  std::vector<mail_waiter> pop() {
    task_id first = waiters.front().from;
    auto rest = std::stable_partition(waiters.begin(), waiters.end(),
                                      [&](const mail_waiter& each) { return each.from != first; });
    std::vector<mail_waiter> told(rest, waiters.end());
    waiters.erase(rest, waiters.end());
    return told;
  }
  bool empty() const noexcept { return waiters.empty(); }
};

struct mail_lane {
  std::uint64_t key = 0;
  std::uint32_t capacity = 1024;
  std::uint32_t count = 0;
  letter* first = nullptr;
  letter* last = nullptr;
  mail_queue blocked;

  void push(letter* got) noexcept {
    got->next = nullptr;
    (first == nullptr ? first : last->next) = got;
    last = got;
    ++count;
  }
  void put_back(letter* got) noexcept {
    got->next = first;
    if (first == nullptr) last = got;
    first = got;
    ++count;
  }
  letter* pop() noexcept {
    letter* got = first;
    if (got != nullptr) {
      first = got->next;
      --count;
    }
    return got;
  }
};

struct mail_channel {
  // From a task on this node to one that was away when it was last written to.
  task_id to;
  std::uint64_t next_sequence = 0;
  std::deque<letter*> unseen;   // not confirmed, oldest first
  std::size_t under_way = 0;    // of these, how many were sent to `place`
  node_id place = no_node;      // no_node: ask the receiver's home
  std::size_t window = most_under_way;
  std::uint64_t resent_from = ~std::uint64_t{0}; // the last gap that was reported
  bool on_hold = false;         // until mailAgain, or until a connection is lost
  bool early = false;           // mailAgain came before the `full` or `held` that it ends
  std::size_t bytes = 0;
  errc failed = errc::ok;

  static constexpr std::size_t most_under_way = 128;
  bool more() const noexcept { return under_way < std::min(unseen.size(), window); }
};

struct inbox {
  std::vector<std::unique_ptr<mail_lane>> lanes;
  std::unordered_map<task_id, std::uint64_t> expected; // next sequence of senders that wrote from away
  mail_queue held;                                     // told when the task's move is over
  std::vector<std::unique_ptr<mail_channel>> channels;
  std::atomic<std::size_t> unseen{0}; // letters in all channels; only the task makes it larger
  bool settling = false;   // the sender waits for `unseen` to fall
  std::uint64_t first_sequence = 0; // of channels that are made

  inbox() = default;
  inbox(const inbox&) = delete;
  inbox& operator=(const inbox&) = delete;
  ~inbox() {
    for (auto& lane : lanes)
      while (letter* left = lane->pop()) letter_stock::discard(left);
    for (auto& channel : channels)
      for (letter* left : channel->unseen) letter_stock::discard(left);
  }

  mail_lane& lane(std::uint64_t key) {
    for (auto& each : lanes)
      if (each->key == key) return *each;
    node_heap_scope scope;
    lanes.push_back(std::make_unique<mail_lane>());
    lanes.back()->key = key;
    return *lanes.back();
  }
  mail_lane* find_lane(std::uint64_t key) noexcept {
    for (auto& each : lanes)
      if (each->key == key) return each.get();
    return nullptr;
  }
  bool anything_in_lanes() const noexcept {
    return std::any_of(lanes.begin(), lanes.end(),
                       [](const auto& lane) { return lane->count > 0 || !lane->blocked.empty(); });
  }
  mail_channel* find_channel(task_id to) noexcept {
    for (auto& each : channels)
      if (each->to == to) return each.get();
    return nullptr;
  }
  mail_channel& channel(task_id to) {
    if (mail_channel* found = find_channel(to)) return *found;
    channels.push_back(std::make_unique<mail_channel>());
    channels.back()->to = to;
    channels.back()->next_sequence = first_sequence;
    return *channels.back();
  }
  void number_from(std::uint64_t first) {
    // The task was restarted: what it says from now on is new, also what it has said in between. What was under way then
    // may have arrived, and keeps its numbers.
    first_sequence = first;
    for (auto& channel : channels) channel->next_sequence = first;
  }

  void encode(byte_writer& out) const;
  void decode(task_id owner, byte_reader& in);
};
// Guarded by its resident's lock.

inline void inbox::encode(byte_writer& out) const {
  auto put_letter = [&](const letter& each) {
    out.put(each.from);
    out.put(each.sequence);
    out.put(each.key);
    out.put(std::uint64_t{each.size});
    out.put(const_cast<letter&>(each).bytes(), each.size);
  };
  out.put(static_cast<std::uint32_t>(lanes.size()));
  for (const auto& lane : lanes) {
    out.put(lane->key);
    out.put(lane->capacity);
    out.put(lane->count);
    for (letter* each = lane->first; each != nullptr; each = each->next) put_letter(*each);
  }
  out.put(static_cast<std::uint32_t>(expected.size()));
  for (const auto& [from, sequence] : expected) {
    out.put(from);
    out.put(sequence);
  }
  out.put(first_sequence);
  out.put(static_cast<std::uint32_t>(channels.size()));
  for (const auto& channel : channels) {
    out.put(channel->to);
    out.put(channel->next_sequence);
    out.put(channel->failed);
    out.put(static_cast<std::uint32_t>(channel->unseen.size()));
    for (const letter* each : channel->unseen) put_letter(*each);
  }
}

inline void inbox::decode(task_id owner, byte_reader& in) {
  auto get_letter = [&](task_id from_if_none) {
    auto from = in.get<task_id>();
    auto sequence = in.get<std::uint64_t>();
    auto key = in.get<std::uint64_t>();
    auto size = static_cast<std::size_t>(in.get<std::uint64_t>());
    if (size > mail_limit || size > in.left()) throw error(errc::protocol, "a letter longer than its bytes");
    std::vector<std::byte> bytes(size);
    in.get(bytes.data(), size);
    return letter_stock::make(from ? from : from_if_none, key, sequence, bytes.data(), size);
  };
  for (auto left = in.get<std::uint32_t>(); left > 0; --left) {
    auto key = in.get<std::uint64_t>();
    mail_lane& made = lane(key);
    made.capacity = in.get<std::uint32_t>();
    for (auto count = in.get<std::uint32_t>(); count > 0; --count) made.push(get_letter({}));
  }
  for (auto left = in.get<std::uint32_t>(); left > 0; --left) {
    auto from = in.get<task_id>();
    expected[from] = in.get<std::uint64_t>();
  }
  first_sequence = in.get<std::uint64_t>();
  for (auto left = in.get<std::uint32_t>(); left > 0; --left) {
    mail_channel& made = channel(in.get<task_id>());
    made.next_sequence = in.get<std::uint64_t>();
    made.failed = in.get<errc>();
    for (auto count = in.get<std::uint32_t>(); count > 0; --count) {
      made.unseen.push_back(get_letter(owner));
      made.bytes += made.unseen.back()->size;
      ++unseen;
    }
  }
}

} // namespace migrate::detail
