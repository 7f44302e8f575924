// What a node's moves have cost so far.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include <migrate/task/codec.hpp>
#include <migrate/task/residual.hpp>
#include <migrate/task/spin_lock.hpp>
#include <migrate/task/transfer.hpp>
#include <migrate/transfer/move_cost.hpp>

namespace migrate {

struct move_statistics {
  std::uint64_t moves = 0;               // away from this node
  std::uint64_t failures = 0;            // moves that were begun and undone
  std::uint64_t bytes_flushed = 0;       // pages written to the store or sent
  std::uint64_t bytes_followed = 0;      // pages sent after tasks that had left them behind (copy on reference)
  std::vector<std::uint64_t> freeze_ns;  // of the last moves: from the freeze until the source heard that the task runs

  std::vector<std::uint64_t> made_by;    // moves by each transfer; as many as have names
  std::string last_choice;               // what the library has last chosen by itself, and why

  std::vector<residual_dependency> residual; // of tasks that are here, on nodes that have some of their memory still

  std::uint64_t bytes_compressed = 0; // of what was sent, those that were compressed on the way
  std::uint64_t bytes_instead = 0;    // what travelled instead of them
  std::string last_compression;       // of the last move for which it was tried: how many bytes, and by what measures

  auto migrate_fields() {
    return std::tie(moves, failures, bytes_flushed, bytes_followed, freeze_ns, made_by, last_choice, residual, bytes_compressed,
                    bytes_instead, last_compression);
  }

  std::uint64_t moves_by(transfer how) const {
    auto at = static_cast<std::size_t>(how);
    return at < made_by.size() ? made_by[at] : 0;
  }

  void add(const move_statistics& other) {
    moves += other.moves;
    failures += other.failures;
    bytes_flushed += other.bytes_flushed;
    bytes_followed += other.bytes_followed;
    made_by.resize(std::max(made_by.size(), other.made_by.size()));
    for (std::size_t i = 0; i < other.made_by.size(); ++i) made_by[i] += other.made_by[i];
    if (!other.last_choice.empty()) last_choice = other.last_choice;
    bytes_compressed += other.bytes_compressed;
    bytes_instead += other.bytes_instead;
    if (!other.last_compression.empty()) last_compression = other.last_compression;
    residual.insert(residual.end(), other.residual.begin(), other.residual.end());
    freeze_ns.insert(freeze_ns.end(), other.freeze_ns.begin(), other.freeze_ns.end());
  }

  std::uint64_t freeze_percentile(double percent) const {
    if (freeze_ns.empty()) return 0;
    std::vector<std::uint64_t> sorted = freeze_ns;
    auto at = static_cast<std::size_t>(percent / 100 * static_cast<double>(sorted.size() - 1) + 0.5);
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(at), sorted.end());
    return sorted[at];
  }
  // Nanoseconds; 0 when there was no move.
};

namespace detail {

class move_recorder {
public:
  void moved(std::uint64_t freeze_ns, std::uint64_t bytes, transfer how, const std::string& why_so) {
    held guard(lock_);
    ++total_.moves;
    total_.made_by.resize(std::size(transfer_names));
    ++total_.made_by[static_cast<std::size_t>(how)];
    if (!why_so.empty()) total_.last_choice = why_so;
    total_.bytes_flushed += bytes;
    cost_.measured(static_cast<double>(freeze_ns) * 1e-9, bytes);
    if (total_.freeze_ns.size() < kept)
      total_.freeze_ns.push_back(freeze_ns);
    else
      total_.freeze_ns[total_.moves % kept] = freeze_ns;
  }
  void followed(std::uint64_t bytes) {
    held guard(lock_);
    total_.bytes_followed += bytes;
  }
  void compressed(std::uint64_t before, std::uint64_t after, std::string outcome) {
    if (outcome.empty()) return;
    held guard(lock_);
    total_.bytes_compressed += before;
    total_.bytes_instead += after;
    total_.last_compression = std::move(outcome);
  }
  void failed() {
    held guard(lock_);
    ++total_.failures;
  }
  move_statistics read() {
    held guard(lock_);
    return total_;
  }
  move_cost cost() {
    held guard(lock_);
    return cost_;
  }

private:
  static constexpr std::size_t kept = 4096;
  spin_lock lock_;
  move_statistics total_;
  move_cost cost_;
};

} // namespace detail
} // namespace migrate
