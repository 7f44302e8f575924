#include "searcher.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <system_error>

#include <migrate/mailbox.hpp>
#include <migrate/task.hpp>

#include "messages.hpp"

namespace uts {

namespace {

class searcher {
public:
  searcher(const tree& which, unsigned granularity, unsigned index, migrate::task_id coordinator,
           std::vector<migrate::task_id> all)
      : tree_(which), granularity_(granularity), index_(index), coordinator_(coordinator), all_(std::move(all)),
        where_(all_.size()), random_(index * 2654435761u + 1) {
    if (index_ == 0) {
      open_.push_back(root_of(tree_));
      credit_ = first_credit;
    }
  }

  found run() {
    do {
      while (!open_.empty()) {
        search_some();
        while (auto came = notes_.try_receive()) answer(*came);
        migrate::this_task::yield();
      }
    } while (find_work());
    result_.moves = migrate::this_task::moves();
    return std::move(result_);
  }

private:
  static constexpr unsigned batch = 512;        // nodes between two looks at what others want
  static constexpr std::size_t least_kept = 4;  // open nodes of one that gives some away
  static constexpr unsigned asked_here = 4;     // of one's own node, before one is asked that may be elsewhere
  static constexpr std::uint64_t report_every = 1 << 17;

  void search_some() {
    std::uint64_t before = result_.total.nodes;
    unsigned most = std::max(1u, batch / granularity_);
    for (unsigned i = 0; i < most && !open_.empty(); ++i) expand(tree_, granularity_, open_, result_.total);
    note_place(result_.total.nodes - before);
    if (result_.total.nodes / report_every != before / report_every) tell_coordinator(report_kind::state, 0);
  }

  void note_place(std::uint64_t nodes) {
    std::uint16_t here = number(migrate::this_task::node());
    for (auto& [node, searched] : result_.by_node)
      if (node == here) {
        searched += nodes;
        return;
      }
    result_.by_node.emplace_back(here, nodes);
  }

  void tell_coordinator(report_kind kind, std::uint64_t credit) {
    migrate::send(coordinator_, report{kind, index_, credit, result_.total.nodes, migrate::this_task::node()});
  }

  void answer(const note& came) {
    switch (came.kind) {
    case note_kind::want: give(came.from); return;
    case note_kind::work:
      note_where(came.from, came.node);
      open_.insert(open_.end(), came.open.begin(), came.open.end());
      [[fallthrough]];
    case note_kind::more:
      credit_ += came.credit;
      poor_ = poor_ && came.kind != note_kind::more;
      return;
    case note_kind::go: {
      std::error_code refused; // then it searches on where it is
      migrate::this_task::migrate_to(came.node, refused);
      return;
    }
    case note_kind::stop: stopped_ = true; return;
    }
  }

  void give(migrate::task_id to) {
    // The older half of the open nodes, which have the most below them.
    note answer{note_kind::work, migrate::this_task::id(), migrate::this_task::node(), 0, {}};
    if (open_.size() > least_kept && credit_ >= 2) {
      auto half = open_.begin() + static_cast<std::ptrdiff_t>(open_.size() / 2);
      answer.open.assign(open_.begin(), half);
      open_.erase(open_.begin(), half);
      answer.credit = credit_ / 2;
      credit_ -= answer.credit;
      ++result_.given;
    } else if (open_.size() > least_kept && !poor_) {
      poor_ = true;
      tell_coordinator(report_kind::poor, 0);
    }
    send(to, answer);
  }

  bool send(migrate::task_id to, const note& what) {
    try {
      migrate::send(to, what);
      return true;
    } catch (const migrate::error& problem) {
      if (problem.code() == migrate::errc::no_such_task) return false; // it has been told to stop, and so shall we
      throw;
    }
  }

  bool find_work() {
    // Asks some that were on this node when last heard of, which costs next to nothing, then any, drawn at random; and
    // less often the longer nobody has any.
    std::chrono::microseconds pause(500);
    while (!stopped_ && open_.empty()) {
      if (credit_ > 0) tell_coordinator(report_kind::done, std::exchange(credit_, 0));
      for (unsigned i = 0; i < asked_here && wants_more(); ++i)
        if (auto near = neighbour()) ask(*near);
      if (wants_more() && all_.size() > 1) ask(any_other());
      if (!wants_more()) break;
      if (auto came = notes_.receive_for(pause)) answer(*came);
      pause = std::min(pause * 2, std::chrono::microseconds(50'000));
    }
    return !open_.empty();
  }

  bool wants_more() const { return !stopped_ && open_.empty(); }

  void ask(std::size_t other) {
    ++result_.asked;
    if (send(all_[other], {note_kind::want, migrate::this_task::id(), migrate::no_node, 0, {}})) await_answer();
  }

  void note_where(migrate::task_id who, migrate::node_id node) {
    auto found = std::find(all_.begin(), all_.end(), who);
    if (found != all_.end()) where_[static_cast<std::size_t>(found - all_.begin())] = node;
  }

  std::optional<std::size_t> neighbour() {
    migrate::node_id here = migrate::this_task::node();
    auto near = static_cast<std::size_t>(std::count(where_.begin(), where_.end(), here));
    if (near == 0) return std::nullopt;
    std::size_t skip = next_random() % near;
    for (std::size_t i = 0; i < where_.size(); ++i)
      if (where_[i] == here && skip-- == 0) return i == index_ ? std::nullopt : std::optional(i);
    return std::nullopt;
  }

  void await_answer() {
    while (!stopped_) {
      note came = notes_.receive();
      answer(came);
      if (came.kind == note_kind::work) return;
    }
  }

  std::size_t any_other() {
    std::size_t other = next_random() % (all_.size() - 1);
    return other < index_ ? other : other + 1;
  }

  std::uint32_t next_random() {
    random_ ^= random_ << 13, random_ ^= random_ >> 17, random_ ^= random_ << 5; // xorshift
    return random_;
  }

  tree tree_;
  unsigned granularity_;
  std::uint32_t index_;
  migrate::task_id coordinator_;
  std::vector<migrate::task_id> all_;
  std::vector<migrate::node_id> where_; // they were when last heard of
  std::uint32_t random_;
  migrate::mailbox<note> notes_;
  std::vector<tree_node> open_;
  std::uint64_t credit_ = 0;
  bool poor_ = false;
  bool stopped_ = false;
  found result_;
};

} // namespace

found run_searcher(const tree& which, unsigned granularity, unsigned index, migrate::task_id coordinator) {
  auto started = migrate::mailbox<start_signal>().receive();
  return searcher(which, granularity, index, coordinator, std::move(started.searchers)).run();
}

} // namespace uts
