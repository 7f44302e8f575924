// A node: one operating-system process that hosts tasks. Included by the source file that makes one.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/prctl.h>
#include <sys/random.h>

#include <migrate/cluster/addresses.hpp>
#include <migrate/cluster/agent_link.hpp>
#include <migrate/cluster/ask_all.hpp>
#include <migrate/cluster/children.hpp>
#include <migrate/cluster/cluster_event.hpp>
#include <migrate/cluster/cluster_wish.hpp>
#include <migrate/cluster/control_desk.hpp>
#include <migrate/cluster/eviction.hpp>
#include <migrate/cluster/host_client.hpp>
#include <migrate/cluster/host_database.hpp>
#include <migrate/cluster/members.hpp>
#include <migrate/cluster/options.hpp>
#include <migrate/cluster/outside_signals.hpp>
#include <migrate/cluster/own_store.hpp>
#include <migrate/cluster/placement_office.hpp>
#include <migrate/cluster/sleepers.hpp>
#include <migrate/cluster/status.hpp>
#include <migrate/file/c_output.hpp>
#include <migrate/file/descriptor_passing.hpp>
#include <migrate/file/offset_home.hpp>
#include <migrate/file/pipe_home.hpp>
#include <migrate/file/post_office.hpp>
#include <migrate/file/process_streams.hpp>
#include <migrate/file/streams_at_home.hpp>
#include <migrate/file/surroundings_at_home.hpp>
#include <migrate/file/readiness.hpp>
#include <migrate/home/family.hpp>
#include <migrate/home/home_clocks.hpp>
#include <migrate/home/office.hpp>
#include <migrate/home/process_calls.hpp>
#include <migrate/home/request.hpp>
#include <migrate/home/signals.hpp>
#include <migrate/memory/dirty_pages.hpp>
#include <migrate/memory/operators.hpp>
#include <migrate/memory/region_space.hpp>
#include <migrate/nodes.hpp>
#include <migrate/program/office.hpp>
#include <migrate/program/running.hpp>
#include <migrate/rpc/peers.hpp>
#include <migrate/store/store.hpp>
#include <migrate/task.hpp>
#include <migrate/task/exit_handlers.hpp>
#include <migrate/task/faults.hpp>
#include <migrate/transfer/carriers.hpp>
#include <migrate/transfer/checkpointing.hpp>
#include <migrate/transfer/engine.hpp>
#include <migrate/transfer/forking.hpp>
#include <migrate/transfer/moving.hpp>

namespace migrate {

namespace detail {
struct node_calls;
}

class node final : private peer_listener, private detail::agent_link::listener {
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

  node_id id() const noexcept { return id_; }
  bool first() const noexcept { return id_ == detail::family::registrar; }
  std::string address() const { return network_->address(); }
  const std::string& store_path() const noexcept { return options_.store; }

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

  void evict_with(eviction_target choice) { eviction_->choose_with(std::move(choice)); }
  // Chooses from now on where this node's tasks go when it is evicted.

  void on_event(detail::event_log::listener tell) { events_.listen(std::move(tell)); }
  // Tells of what happens to nodes of the cluster, and to this node's tasks. On the thread that it happens on, of which
  // most are not the caller's: it must be brief and must not wait.

  move_statistics statistics();
  // Of all nodes of the cluster that answer. Not from a task.

  std::vector<node_status> status(std::chrono::milliseconds within = std::chrono::seconds(1)) { return status(within, never_); }
  // Of all nodes, in the order of their numbers, with up to 1000 tasks of each. Not from a task.

  std::vector<int> started_processes() { return children_->process_ids(); }
  // Of the nodes that this one started, for tests that end them.

private:
  static id128 random_id();
  static id128 boot_id();
  void open_store();
  void join_cluster();
  void start_siblings();
  void start_sibling(std::uint64_t call);
  std::vector<std::string> sibling_arguments() const;
  void member_came();
  void say(const std::string& line) const;
  void set_tables();
  void set_file_tables();
  void stop_cluster();
  void announce(node_id node, bool left);
  template <class Fill> static void send_on(connection& to, Fill&& fill);
  void on_enter(connection& from);
  void on_welcome(protocol::Welcome::Reader message);
  void on_grant(node_id asker, protocol::GrantRequest::Reader message);
  void on_members(capnp::List<protocol::Member>::Reader list);
  void sweep_regions();
  void checkpoint_from_time_to_time();
  static const detail::host_services* host_table() noexcept;
  void start_hosts();
  void stop_hosts();
  static void serve_hosts(const detail::request& asked, byte_reader& in);
  void report_exception(task_id task, const char* name, const std::byte* bytes, std::size_t size);
  eviction_report clear_out(const std::string& reason, std::chrono::milliseconds within);
  void evict_in_background(std::string reason, std::chrono::milliseconds within,
                           std::function<bool(const eviction_report&)> then);
  // then(report) says whether the node leaves also when some tasks cannot.
  void listen_to_agent(int inherited);
  node_status own_status(std::size_t most_tasks);
  std::vector<node_status> status(std::chrono::milliseconds within, const std::atomic<bool>& give_up);
  detail::failure move_by_command(task_id task, node_id target, std::chrono::milliseconds within,
                                  const std::atomic<bool>& give_up);
  void open_control_desk();
  void leave(const eviction_report& how);
  static void tell(node_id whom, const cluster_event& event);
  void tell_all(const cluster_event& event);
  void on_notice(cluster_event&& event);
  static void serve_cluster(const detail::request& asked, byte_reader& in);

  void on_connected(node_id node, const peer_info& info) override;
  void on_message(connection& from, node_id node, protocol::Message::Reader message,
                  kj::ArrayPtr<const kj::byte> attachment) override;
  void on_disconnected(node_id node, const error& reason, peer_loss how) override;
  void on_unreachable(node_id node, const error& reason, std::size_t dropped) override;
  void on_refused(const std::string& peer, const error& reason) override;
  void on_link_message(detail::agent_link& from, protocol::HostMessage::Reader message) override;
  void on_link_closed(detail::agent_link& which, const error& reason) override;

  node_options options_;
  node_id id_ = no_node;
  id128 cluster_;
  std::optional<detail::own_store> own_store_;
  std::optional<store> images_;
  detail::departed_regions departed_;
  std::optional<detail::region_space> space_;
  std::optional<detail::vacated_regions> vacated_;
  std::optional<detail::page_scanner> scanner_;
  std::optional<detail::fault_guard> faults_;
  event_loop loop_;
  std::optional<peers> network_;
  detail::call_table calls_;
  std::optional<detail::home_office> home_;
  std::optional<detail::post_office> post_;
  std::optional<detail::home_surroundings> surroundings_;
  std::optional<detail::home_clocks> clocks_;
  std::optional<detail::home_streams> streams_;
  std::optional<detail::process_streams> process_streams_;
  std::optional<detail::descriptor_passing> passing_;
  std::optional<detail::readiness> readiness_;
  std::optional<detail::program_office> programs_;
  detail::offset_home offset_home_;
  detail::offset_tokens offset_tokens_;
  detail::pipe_home pipe_home_;
  std::optional<detail::signal_office> signals_;
  detail::carrier_table carriers_;
  peer_options pages_network_; // until the office has it
  std::optional<detail::page_office> pages_;
  std::optional<detail::transfer_engine> engine_;
  std::optional<detail::sleepers> sleepers_;
  std::optional<detail::sleepers> timers_; // of those that may run meanwhile
  std::optional<detail::child_nodes> children_;
  std::optional<detail::outside_signals> outside_;
  std::optional<detail::scheduler> scheduler_;
  std::optional<detail::placement_office> placement_;
  detail::members members_;
  detail::event_log events_;
  std::optional<detail::eviction> eviction_;
  std::optional<detail::control_desk> desk_; // on the first node
  const std::atomic<bool> never_{false};
  std::shared_ptr<detail::agent_link> agent_; // on the I/O thread: who has started this node, if that was an agent
  detail::ledger ledger_; // on the first node
  std::optional<host_database> host_database_;
  std::unique_ptr<detail::host_client> host_client_;

  std::mutex state_lock_;
  std::condition_variable state_changed_;
  bool joined_ = false;
  bool stopped_ = false;
  std::optional<eviction_report> left_behind_; // tasks that an eviction ends
  std::optional<error> join_failure_;
  std::vector<std::uint64_t> wait_for_a_node_; // calls
  std::vector<std::thread> evictors_;

  friend struct detail::node_calls;
};

namespace detail {
inline constinit node* this_node = nullptr;
// The process's node, while it has one.
}

template <class F> int run(int argc, char** argv, F&& main_task) {
  // What main calls when the program is nothing but tasks.
  try {
    node here(node_options::from(argc, argv));
    if (!here.first()) {
      here.serve();
      return 0;
    }
    if constexpr (std::is_void_v<std::invoke_result_t<std::decay_t<F>>>) {
      here.run(std::forward<F>(main_task));
      return 0;
    } else {
      return here.run(std::forward<F>(main_task));
    }
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "migrate: %s\n", problem.what());
    return 1;
  }
}
// Runs main_task() as a task on the cluster's first node, with the other nodes that --migrate-nodes asks
// for, and returns what it returns (0 for void), or 1 after an exception, whose message goes to standard
// error. On the other nodes it serves until the first one ends. The process's exit status.

} // namespace migrate

#include <migrate/node_impl.hpp>
#include <migrate/node_eviction.hpp>
#include <migrate/node_status.hpp>
#include <migrate/node_hosts.hpp>
