// What the searchers tell each other and the coordinator.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include <migrate/id.hpp>

#include "tree.hpp"

namespace uts {

// When everything is searched. Each searcher that has open nodes holds some credit, and gives half of it away with
// the nodes that it gives; one that has none left returns what it holds. So the coordinator has all of it again just when
// nobody has anything left to search, whatever is still on its way. (Mattern 1989.)
inline constexpr std::uint64_t first_credit = std::uint64_t{1} << 60;

enum class note_kind : std::uint8_t {
  want, // from one that has nothing left to search: give me some of yours
  work, // open nodes, and credit for them; none: have none to give
  more, // from the coordinator: credit alone, as asked for
  go,   // from the coordinator: to that node
  stop, // from the coordinator: everything has been searched
};

struct note {
  note_kind kind = note_kind::want;
  migrate::task_id from;
  migrate::node_id node = migrate::no_node;
  std::uint64_t credit = 0;
  std::vector<tree_node> open;

  auto migrate_fields() { return std::tie(kind, from, node, credit, open); }
};
// To a searcher.

struct start_signal {
  std::vector<migrate::task_id> searchers;

  auto migrate_fields() { return std::tie(searchers); }
};
// To each searcher, when all exist. The first one begins with the root and all of the credit.

enum class report_kind : std::uint8_t {
  done,  // has nothing left, and returns its credit
  poor,  // has nodes to give, but no credit to give with them
  state, // how far it is, and where
};

struct report {
  report_kind kind;
  std::uint32_t searcher;
  std::uint64_t credit;
  std::uint64_t nodes; // searched so far
  migrate::node_id node;
};
// To the coordinator.

} // namespace uts
