// What a node is made of. Included where it is compiled: by node/functions.hpp.
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
#include <migrate/program/office.hpp>
#include <migrate/program/running.hpp>
#include <migrate/rpc/peers.hpp>
#include <migrate/store/store.hpp>
#include <migrate/task/exit_handlers.hpp>
#include <migrate/task/faults.hpp>
#include <migrate/transfer/carriers.hpp>
#include <migrate/transfer/checkpointing.hpp>
#include <migrate/transfer/engine.hpp>
#include <migrate/transfer/forking.hpp>
#include <migrate/transfer/moving.hpp>

namespace migrate::detail {

struct node_calls;

class node_body final : private peer_listener, private agent_link::listener {
public:
  explicit node_body(node_options options);
  ~node_body() { stop_cluster(); }

  node_body(const node_body&) = delete;
  node_body& operator=(const node_body&) = delete;

  node_id id() const noexcept { return id_; }
  bool first() const noexcept { return id_ == family::registrar; }
  std::string address() const { return network_->address(); }
  const std::string& store_path() const noexcept { return options_.store; }

  void serve();
  eviction_report evict(const std::string& reason, std::chrono::milliseconds within);
  eviction_report evict(node_id which, const std::string& reason, std::chrono::milliseconds within);
  void stay();
  void stay(node_id which);
  void evict_with(eviction_target choice) { eviction_->choose_with(std::move(choice)); }
  void on_event(event_log::listener tell) { events_.listen(std::move(tell)); }
  move_statistics statistics();
  std::vector<node_status> status(std::chrono::milliseconds within) { return status(within, never_); }
  std::vector<int> started_processes() { return children_->process_ids(); }

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
  static const host_services* host_table() noexcept;
  void start_hosts();
  void stop_hosts();
  static void serve_hosts(const request& asked, byte_reader& in);
  void report_exception(task_id task, const char* name, const std::byte* bytes, std::size_t size);
  eviction_report clear_out(const std::string& reason, std::chrono::milliseconds within);
  void evict_in_background(std::string reason, std::chrono::milliseconds within,
                           std::function<bool(const eviction_report&)> then);
  // then(report) says whether the node leaves also when some tasks cannot.
  void listen_to_agent(int inherited);
  node_status own_status(std::size_t most_tasks);
  std::vector<node_status> status(std::chrono::milliseconds within, const std::atomic<bool>& give_up);
  failure move_by_command(task_id task, node_id target, std::chrono::milliseconds within,
                                  const std::atomic<bool>& give_up);
  void open_control_desk();
  void leave(const eviction_report& how);
  static void tell(node_id whom, const cluster_event& event);
  void tell_all(const cluster_event& event);
  void on_notice(cluster_event&& event);
  static void serve_cluster(const request& asked, byte_reader& in);

  void on_connected(node_id node, const peer_info& info) override;
  void on_message(connection& from, node_id node, protocol::Message::Reader message,
                  kj::ArrayPtr<const kj::byte> attachment) override;
  void on_disconnected(node_id node, const error& reason, peer_loss how) override;
  void on_unreachable(node_id node, const error& reason, std::size_t dropped) override;
  void on_refused(const std::string& peer, const error& reason) override;
  void on_link_message(agent_link& from, protocol::HostMessage::Reader message) override;
  void on_link_closed(agent_link& which, const error& reason) override;

  node_options options_;
  node_id id_ = no_node;
  id128 cluster_;
  std::optional<own_store> own_store_;
  std::optional<store> images_;
  departed_regions departed_;
  std::optional<region_space> space_;
  std::optional<vacated_regions> vacated_;
  std::optional<page_scanner> scanner_;
  std::optional<fault_guard> faults_;
  event_loop loop_;
  std::optional<peers> network_;
  call_table calls_;
  std::optional<home_office> home_;
  std::optional<post_office> post_;
  std::optional<home_surroundings> surroundings_;
  std::optional<home_clocks> clocks_;
  std::optional<home_streams> streams_;
  std::optional<process_streams> process_streams_;
  std::optional<descriptor_passing> passing_;
  std::optional<readiness> readiness_;
  std::optional<program_office> programs_;
  offset_home offset_home_;
  offset_tokens offset_tokens_;
  pipe_home pipe_home_;
  std::optional<signal_office> signals_;
  carrier_table carriers_;
  peer_options pages_network_; // until the office has it
  std::optional<page_office> pages_;
  std::optional<transfer_engine> engine_;
  std::optional<sleepers> sleepers_;
  std::optional<sleepers> timers_; // of those that may run meanwhile
  std::optional<child_nodes> children_;
  std::optional<outside_signals> outside_;
  std::optional<scheduler> scheduler_;
  std::optional<placement_office> placement_;
  members members_;
  event_log events_;
  std::optional<eviction> eviction_;
  std::optional<control_desk> desk_; // on the first node
  const std::atomic<bool> never_{false};
  std::shared_ptr<agent_link> agent_; // on the I/O thread: who has started this node, if that was an agent
  ledger ledger_; // on the first node
  std::optional<host_database> host_database_;
  std::unique_ptr<host_client> host_client_;

  std::mutex state_lock_;
  std::condition_variable state_changed_;
  bool joined_ = false;
  bool stopped_ = false;
  std::optional<eviction_report> left_behind_; // tasks that an eviction ends
  std::optional<error> join_failure_;
  std::vector<std::uint64_t> wait_for_a_node_; // calls
  std::vector<std::thread> evictors_;

  friend struct node_calls;
};

inline constinit node_body* this_node = nullptr;
// The process's node, while it has one.

} // namespace migrate::detail
