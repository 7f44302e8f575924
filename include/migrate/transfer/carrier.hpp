// Carriers: how each kind of a task's state gets from one node to another.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include <migrate/task/codec.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/services.hpp>

namespace migrate::detail {

using memory_visitor = const std::function<void(const void* address, std::size_t bytes)>&;

struct carrier {
  const char* name;
  std::uint16_t version; // of what encapsulate() writes; nodes of another version refuse the task
  failure (*prepare)(resident& task);
  // On the source, with the task frozen, before anything is changed: may refuse the move.
  void (*encapsulate)(resident& task, byte_writer& out);
  // On the source: writes the state, which must stay as it is until release().
  void (*restore)(resident& task, byte_reader& in);
  // On the target, with the task's memory in place and the task frozen. Throws when it cannot.
  void (*release)(resident& task, bool moved) noexcept;
  // moved: the state is of no more use on this node: the task runs elsewhere, or never came to run here.
  // Otherwise the task goes on, or begins to run, here. Called at the end of every attempt, however far it came.
  void (*copy)(resident& task, task_id child, byte_writer& out) = nullptr;
  void (*restore_copy)(resident& child, byte_reader& in) = nullptr;
  // The same two steps for a copy of the task, made by fork(); without them a copy begins with none of that state.
  void (*refused)(task_id task, std::uint64_t epoch) noexcept = nullptr;
  // On the target, of an offer that it refuses, perhaps before restore(): what came beside the offer goes.
  void (*checkpoint)(resident& task, byte_writer& out) = nullptr;
  // For encapsulate(), when the bytes are to be used after this node's death and perhaps never or twice. Throws, naming
  // what cannot be part of a checkpoint.
  void (*restarted)(resident& task, std::uint64_t from) = nullptr;
  // On the target after restore(), of a task that goes on from a checkpoint: it numbers what it says from there on.
  void (*look)(resident& task, memory_visitor visit) = nullptr;
  // On the source: visits what of the task's memory restore() and release() look at on the target, which must be there.
};
// Follows Sprite's table of migration modules (Douglis and Ousterhout 1991, section 4): the engine runs
// the table and knows no module. A new kind of state adds an entry and its test.

class carrier_table {
public:
  void add(const carrier& added) { entries_.at(count_++) = added; }
  std::size_t size() const noexcept { return count_; }

  failure prepare(resident& task) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (failure refused = entries_[i].prepare(task); refused.code) return refused;
    return {};
  }

  void encapsulate(resident& task, byte_writer& out) const {
    out.put(static_cast<std::uint32_t>(count_));
    for (std::size_t i = 0; i < count_; ++i) {
      out.put(entries_[i].version);
      entries_[i].encapsulate(task, out);
    }
  }

  void checkpoint(resident& task, byte_writer& out) const {
    out.put(static_cast<std::uint32_t>(count_));
    for (std::size_t i = 0; i < count_; ++i) {
      out.put(entries_[i].version);
      (entries_[i].checkpoint != nullptr ? entries_[i].checkpoint : entries_[i].encapsulate)(task, out);
    }
  }

  void restarted(resident& task, std::uint64_t from) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (entries_[i].restarted != nullptr) entries_[i].restarted(task, from);
  }

  void restore(resident& task, byte_reader& in) const {
    if (in.get<std::uint32_t>() != count_)
      throw error(errc::not_compatible, "the source has other carriers than this node");
    for (std::size_t i = 0; i < count_; ++i) {
      auto version = in.get<std::uint16_t>();
      if (version != entries_[i].version)
        throw error(errc::not_compatible, std::string("carrier '") + entries_[i].name + "' has version " +
                                              std::to_string(version) + " on the source and " +
                                              std::to_string(entries_[i].version) + " here");
      entries_[i].restore(task, in);
    }
  }

  void copy(resident& task, task_id child, byte_writer& out) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (entries_[i].copy != nullptr) entries_[i].copy(task, child, out);
  }

  void restore_copy(resident& child, byte_reader& in) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (entries_[i].restore_copy != nullptr) entries_[i].restore_copy(child, in);
  }

  void refused(task_id task, std::uint64_t epoch) const noexcept {
    for (std::size_t i = 0; i < count_; ++i)
      if (entries_[i].refused != nullptr) entries_[i].refused(task, epoch);
  }

  void look(resident& task, memory_visitor visit) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (entries_[i].look != nullptr) entries_[i].look(task, visit);
  }

  void release(resident& task, bool moved) const noexcept {
    for (std::size_t i = count_; i-- > 0;) entries_[i].release(task, moved);
  }

private:
  std::array<carrier, 16> entries_{};
  std::size_t count_ = 0;
};

} // namespace migrate::detail
