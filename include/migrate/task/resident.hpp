// A task's record on the node that runs it. Lies in the node's memory, never in a region.
#pragma once

#include <atomic>
#include <cstdint>

#include <migrate/id.hpp>
#include <migrate/task/spin_lock.hpp>

namespace migrate::detail {

struct control_block;
struct inbox;
struct letter;
struct move_order;
struct signal_inbox;

enum class run_state : std::uint8_t {
  none,    // no task here
  ready,   // in a run queue
  running, // on a worker, or about to park, or in a run queue after a yield
  woken,   // running, and its next park returns at once
  parked,  // waits for wake()
  frozen,  // taken out of scheduling by the transfer engine
};

enum want : std::uint8_t {
  want_move = 1, // the transfer engine has a move_order for it
  want_end = 2,  // home or the node asked for its end
};

struct resident {
  std::atomic<run_state> state{run_state::none};
  std::atomic<std::uint8_t> wants{0}; // seen at every dequeue and safe point
  std::atomic<std::uint16_t> pins{0}; // while not zero the task is not frozen
  std::atomic<bool> signalled{false}; // something is pending that was not yet looked at
  spin_lock lock;                     // guards mail, signals and move
  std::atomic<bool> anything_in{false}; // mail may hold letters, or senders that wait for room
  resident* next = nullptr;           // in a run queue or a free list
  control_block* control = nullptr;
  task_id id;
  std::uint64_t epoch = 0; // as home gave it to this node
  inbox* mail = nullptr;
  signal_inbox* signals = nullptr; // null: none came
  std::atomic<std::uint64_t> awaits{0};  // the lane whose next letter ends the park; 0: none
  std::atomic<letter*> in_hand{nullptr}; // that letter, given by whoever ended the park
  move_order* move = nullptr;
  std::uint64_t open_call = 0; // the forwarded call whose answer the task waits for
  std::atomic<bool> hides_pages{false}; // from the kernel: see presence.hpp
  std::atomic<node_id> lost_from{no_node}; // that had some of the task's memory, and is lost: the task must end
};
// Records are recycled but never freed, so a late wake() through a stale pointer finds some task's
// record and at worst wakes it for nothing; every wait in the library looks at its condition again.

} // namespace migrate::detail
