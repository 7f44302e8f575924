// A move that was asked for, until it is made or given up.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/rpc/identity.hpp>
#include <migrate/store/image.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/transfer.hpp>

namespace migrate::detail {

enum class move_reason : std::uint8_t {
  asked,    // by a task or the program
  spawned,  // a task begins elsewhere than where it was spawned
  command,  // by a person
  balanced, // by the policy that evens out the load
  evicted,  // the node is leaving its host
  checkpoint, // it stays: the time for a checkpoint has come
};

inline constexpr const char* move_reason_names[] = {"asked", "spawned", "command", "balanced", "evicted", "checkpoint"};

struct move_asker {
  node_id node = no_node; // none: the task itself, or nobody
  std::uint64_t call = 0;
  task_id by{}; // none: no task, but who runs that node
  move_reason reason = move_reason::asked;
  void (*told)(std::uint64_t call, const failure& how) noexcept = nullptr;
  // By this node itself: called when the task has left or stays, on any thread. Without it the call is answered.
};

enum class move_phase : std::uint8_t {
  asked,    // the task is to be frozen and offered
  ahead,    // it runs, or is frozen, and its pages go ahead of its offer: see ahead.hpp
  offered,  // frozen here; the target has the offer
  vacating, // the task runs on the target; its memory here goes
  failed,   // the task goes on here; it reads the reason itself
  arriving, // on the target: to be laid out
  claiming, // on the target: laid out; home decides
};

struct carriage;  // on the source: pages that go ahead
struct reception; // on the target: pages that have come ahead

struct arrival {
  // An offer as it came.
  node_id source;
  std::uint64_t epoch = 0;
  task_id original; // valid: it is a copy of that task
  region_number region;
  std::uintptr_t control = 0;
  char* garbage_end = nullptr; // below it the region holds an earlier visit's garbage
  std::int64_t clock = 0;
  id128 boot;
  std::vector<std::byte> manifest;
  std::vector<page_range> pages;
  std::span<const std::byte> bytes; // the bundle, then the pages: in the message until keep()
  std::vector<std::byte> kept;
  std::size_t bundle = 0;
  std::shared_ptr<reception> ahead; // pages that lie there already
  bool unlaid = false;              // the image is only to be known
  bool opened = false;              // the region is open here for it
  bool restarted = false; // by its home, from a checkpoint
  std::uint16_t office_port = 0; // of the page office that keeps the rest of the memory; 0: there is none
  std::uint64_t office_number = 0;
  std::uintptr_t missing_from = 0, missing_to = 0;

  void keep() {
    if (!kept.empty() || bytes.empty()) return;
    kept.assign(bytes.begin(), bytes.end());
    bytes = kept;
  }
  // The message is about to go.
};

struct move_order {
  node_id target = no_node;
  move_phase phase = move_phase::asked;
  move_asker asker;
  transfer how = transfer::by_default;
  std::string why_so;                           // if the library chose how: by what measures
  std::shared_ptr<carriage> carried;            // what goes ahead of the offer, if anything does
  failure why;
  std::uint64_t epoch = 0;                      // before the move
  std::uint64_t claimed = 0;                    // the epoch that this node last asked home to follow
  std::size_t bytes = 0;                        // of dirty pages
  task_id copy;                                 // valid: the task stays, and this copy of it is offered
  bool checkpoint = false;                      // the task stays, and an image of it is committed
  bool gathers = false;                         // waits until the task's memory is here
  std::uint16_t office_port = 0;                // the task leaves memory behind, which this port serves
  std::uint64_t office_number = 0;
  char *missing_from = nullptr, *missing_to = nullptr;
  bool target_lost = false;                     // offered, and the target cannot be heard
  bool target_gone = false;                     // its process has ended, too
  image offered;                                // the generation made for this move, if one was
  std::unique_ptr<arrival> incoming;            // on the target; on the source: the task comes back already
  std::chrono::steady_clock::time_point frozen_at;

  bool asked_itself() const noexcept {
    return asker.node == no_node && asker.reason == move_reason::asked && asker.told == nullptr;
  }
  // The task waits for it in move_me(), and reads there what came of it.
};
// Guarded by its resident's lock; the phases `asked`, `vacating` and `arriving` belong to the worker that
// serves the task, the others to the I/O thread.

} // namespace migrate::detail
