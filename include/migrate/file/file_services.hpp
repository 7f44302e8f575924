// What the calls on files need of their node: the layers above fill in the table.
#pragma once

#include <cstddef>
#include <cstdint>

#include <migrate/file/home_pipe.hpp>
#include <migrate/file/shared_offset.hpp>

namespace migrate::detail {

struct file_services {
  void (*wake_when)(int kernel, std::uint32_t events);
  // The running task is woken, once, when one of epoll(7)'s events holds. May be woken for nothing.
  void (*forget)(int kernel) noexcept;
  // Before a descriptor that was given to wake_when() is closed.
  offset_sharing sharing; // how offsets are to be shared from now on
  offset_range (*step_offset)(const shared_offset& which, const offset_step& step, std::uint64_t number);
  std::int64_t (*take_token)(const shared_offset& which);
  void (*put_token)(const shared_offset& which, std::int64_t offset);
  // step_offset and take_token may wait. Between take_token and put_token the task must not.
  void (*holders_change)(const shared_offset& which, bool more);

  bool pipes_at_home; // pipes are made so that their ends can be on several machines
  long (*read_pipe)(const pipe_end& end, std::uint64_t number, bool wait, void* into, std::size_t bytes);
  long (*write_pipe)(const pipe_end& end, std::uint64_t number, bool wait, const void* from, std::size_t bytes);
  long (*look_at_pipe)(const pipe_end& end, pipe_state& into);
  // These three wait for the pipe's home.
  void (*give_pipe)(const pipe_end& end, task_id giver, task_id child);
  void (*leave_pipe)(const pipe_end& end);
};

inline constinit const file_services* the_files = nullptr;

} // namespace migrate::detail
