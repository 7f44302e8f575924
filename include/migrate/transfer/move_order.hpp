// A move that was asked for, until it is made or given up.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/rpc/identity.hpp>
#include <migrate/store/image.hpp>
#include <migrate/task/services.hpp>

namespace migrate::detail {

struct move_asker {
  node_id node = no_node; // none: the task itself
  std::uint64_t call = 0;
  task_id by{}; // none: no task, but who runs that node
  void (*told)(std::uint64_t call, const failure& how) noexcept = nullptr;
  // By this node itself: called when the task has left or stays, on any thread. Without it the call is answered.
};

enum class move_phase : std::uint8_t {
  asked,    // the task is to be frozen and offered
  offered,  // frozen here; the target has the offer
  vacating, // the task runs on the target; its memory here goes
  failed,   // the task goes on here; it reads the reason itself
  arriving, // on the target: to be laid out
  claiming, // on the target: laid out; home decides
};

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
  std::vector<std::byte> bytes; // the bundle, then the pages
  std::size_t bundle = 0;
};

struct move_order {
  node_id target = no_node;
  move_phase phase = move_phase::asked;
  move_asker asker;
  failure why;
  std::uint64_t epoch = 0;                      // before the move
  std::uint64_t claimed = 0;                    // the epoch that this node last asked home to follow
  std::size_t bytes = 0;                        // of dirty pages
  task_id copy;                                 // valid: the task stays, and this copy of it is offered
  bool spawning = false;                        // the task has yet to begin: spawned for another node
  bool target_lost = false;                     // offered, and the target cannot be heard
  bool target_gone = false;                     // its process has ended, too
  image offered;                                // the generation made for this move, if one was
  std::unique_ptr<arrival> incoming;            // on the target; on the source: the task comes back already
  std::chrono::steady_clock::time_point frozen_at;
};
// Guarded by its resident's lock; the phases `asked`, `vacating` and `arriving` belong to the worker that
// serves the task, the others to the I/O thread.

} // namespace migrate::detail
