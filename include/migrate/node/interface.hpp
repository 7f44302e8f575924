// The class node: what a program has of its node. Included by node.hpp.
#pragma once

#include <chrono>
#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <migrate/cluster/cluster_event.hpp>
#include <migrate/cluster/eviction_report.hpp>
#include <migrate/cluster/node_status.hpp>
#include <migrate/cluster/options.hpp>
#include <migrate/task/spawn.hpp>
#include <migrate/transfer/statistics.hpp>

namespace migrate {

namespace detail {
class node_body;
}

class node final {
public:
  explicit node(node_options options);
  // Makes this process a node: founds a cluster, or joins one. One node for each process, made first thing
  // in main and destroyed by the thread that made it: the program is restarted once, before the first
  // thread, with address randomisation off. Throws migrate::error when the addresses, the store or the
  // cluster are not to be had; the message of errc::not_compatible names the first difference.

  ~node();
  // On the cluster's first node: stops the others that were started here, and waits for them. Tasks that
  // are still here end without running their destructors.

  node(const node&) = delete;
  node& operator=(const node&) = delete;

  node_id id() const noexcept;
  bool first() const noexcept;
  std::string address() const;
  const std::string& store_path() const noexcept;

  template <class F, class... A> auto run(const spawn_options& how, F&& function, A&&... arguments) {
    return spawn(how, std::forward<F>(function), std::forward<A>(arguments)...).join();
  }
  template <class F, class... A>
    requires std::invocable<std::decay_t<F>, std::decay_t<A>...>
  auto run(F&& function, A&&... arguments) {
    return run(spawn_options{.name = "main"}, std::forward<F>(function), std::forward<A>(arguments)...);
  }
  // Runs the function as a task and blocks the calling thread until it has ended. Returns its value or
  // throws its exception.

  void serve();
  // Blocks until the cluster's first node stops this one, or is lost, or this one is evicted. Throws errc::node_leaving,
  // with the tasks named, when it was evicted and some could not leave: they end with it.

  eviction_report evict(const std::string& reason, std::chrono::milliseconds within = std::chrono::seconds(3));
  eviction_report evict(node_id which, const std::string& reason, std::chrono::milliseconds within = std::chrono::seconds(3));
  // Has all tasks leave this node, or another one, at once, and returns when none is left, or after `within`. They go
  // straight to other nodes, each frozen at its next safe point; offers and spawns for the node are refused with
  // errc::node_leaving from then on. Programs that tasks run are stopped. When all have gone and its home is no living
  // task's, the node leaves the cluster: serve() returns. The cluster's first node stays. When some cannot leave, the
  // report names them and the node stays, closed: stay() opens it. Not from a task.

  void stay();
  void stay(node_id which);
  // Ends an eviction that was not completed. Not from a task.

  void evict_with(eviction_target choice);
  // Chooses from now on where this node's tasks go when it is evicted.

  void on_event(std::function<void(const cluster_event&)> tell);
  // Tells of what happens to nodes of the cluster, and to this node's tasks. On the thread that it happens on, of which
  // most are not the caller's: it must be brief and must not wait.

  move_statistics statistics();
  // Of all nodes of the cluster that answer. Not from a task.

  std::vector<node_status> status(std::chrono::milliseconds within = std::chrono::seconds(1));
  // Of all nodes, in the order of their numbers, with up to 1000 tasks of each. Not from a task.

  std::vector<int> started_processes();
  // Of the nodes that this one started, for tests that end them.

private:
  std::unique_ptr<detail::node_body> body_;
};

} // namespace migrate
