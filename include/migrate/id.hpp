// The names of things in a cluster: nodes, tasks, regions.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace migrate {

enum class node_id : std::uint16_t {};
// A node's number in its cluster, given out by the cluster's first node and never used twice in the
// cluster's life. Zero is no node.

inline constexpr node_id no_node{0};

inline constexpr node_id any_node{0xffff};
// Where a node is to be chosen: the one that the placement policy says. No node has this number.

constexpr std::uint16_t number(node_id node) noexcept { return static_cast<std::uint16_t>(node); }

inline std::string to_string(node_id node) { return std::to_string(number(node)); }

class task_id {
public:
  constexpr task_id() noexcept = default;
  constexpr explicit task_id(std::uint64_t bits) noexcept : bits_(bits) {}
  constexpr task_id(node_id home, std::uint32_t slot, std::uint32_t serial) noexcept
      : bits_((std::uint64_t{number(home)} << 48) | (std::uint64_t{serial & 0xff'ffff} << 24) |
              (slot & 0xff'ffff)) {}

  constexpr node_id home() const noexcept { return node_id(static_cast<std::uint16_t>(bits_ >> 48)); }
  constexpr std::uint32_t slot() const noexcept { return static_cast<std::uint32_t>(bits_ & 0xff'ffff); }
  constexpr std::uint32_t serial() const noexcept {
    return static_cast<std::uint32_t>((bits_ >> 24) & 0xff'ffff);
  }
  constexpr std::uint64_t bits() const noexcept { return bits_; }
  constexpr explicit operator bool() const noexcept { return bits_ != 0; }

  friend constexpr auto operator<=>(task_id, task_id) noexcept = default;

private:
  std::uint64_t bits_ = 0;
};
// Names one task for ever. It holds the number of the task's home node, the slot of its home record
// there, and how often that slot was used before, so home finds the record by an array index and an
// old id never names a new task. (Sprite: process id = home machine and index.)

constexpr task_id init_task(node_id home) noexcept { return task_id(home, 0, 0); }
// What a home is among its tasks: parent of those that have none, or none any more, whose children it reaps, and leader
// of the group and session that they are born into. It runs nothing and is never waited for.

inline std::string to_string(task_id id) {
  std::string text = to_string(id.home());
  text += '.';
  text += std::to_string(id.slot());
  if (id.serial() > 0) {
    text += '.';
    text += std::to_string(id.serial());
  }
  return text;
}
// "3.42": the task in slot 42 of node 3; "3.42.7": the same slot's eighth task.

} // namespace migrate

template <> struct std::hash<migrate::task_id> {
  std::size_t operator()(migrate::task_id id) const noexcept {
    return static_cast<std::size_t>((id.bits() ^ (id.bits() >> 29)) * 0x9e37'79b9'7f4a'7c15u);
  }
};
