// Where a person's command asks a program how its tasks are, and has one moved.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <migrate/cluster/status.hpp>
#include <migrate/error.hpp>
#include <migrate/rpc/channel.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/task/services.hpp>

namespace migrate::detail {

inline void write_status(const std::vector<node_status>& nodes, protocol::HostStatus::Builder out) {
  std::size_t tasks = 0;
  std::vector<cluster_event> events;
  for (const node_status& each : nodes) {
    tasks += each.tasks.size();
    events.insert(events.end(), each.events.begin(), each.events.end());
  }
  std::stable_sort(events.begin(), events.end(),
                   [](const auto& a, const auto& b) { return a.when > b.when; });
  auto node_lines = out.initNodes(static_cast<unsigned>(nodes.size()));
  auto task_lines = out.initTasks(static_cast<unsigned>(tasks));
  auto event_lines = out.initEvents(static_cast<unsigned>(events.size()));
  unsigned i = 0, t = 0, e = 0;
  for (const node_status& each : nodes) {
    auto line = node_lines[i++];
    line.setNode(number(each.node));
    line.setHost(each.host.c_str());
    line.setProcess(each.process);
    line.setAddress(each.address.c_str());
    line.setWorkers(each.workers);
    line.setTasks(each.tasks_here);
    line.setState(each.state.c_str());
    for (const task_status& task : each.tasks) {
      auto one = task_lines[t++];
      one.setTask(task.task.bits());
      one.setName(task.name.c_str());
      one.setHome(number(task.task.home()));
      one.setPlace(number(task.place));
      one.setState(task.state.c_str());
      one.setMoves(task.moves);
      one.setBytes(task.bytes);
    }
  }
  for (const cluster_event& event : events) {
    auto line = event_lines[e++];
    line.setAge(static_cast<std::uint64_t>(std::max<std::int64_t>(event.when, 0)) / 1'000'000);
    line.setWhat(text_of(event).c_str());
    line.setReason(event.reason.c_str());
  }
}

class control_desk final : private channel_handler {
  // On a Unix socket that only this user, and root, can reach; see control_socket.hpp. A request is served by a thread
  // of its own, since it asks other nodes and must be served also while all workers compute.

public:
  struct functions {
    std::function<std::vector<node_status>(const std::atomic<bool>& give_up)> status;
    std::function<failure(task_id, node_id, const std::atomic<bool>& give_up)> move;
  };

  control_desk(event_loop& loop, functions with) : with_(std::move(with)), server_(loop, options(), *this) {}
  ~control_desk() { stop(); }

  void open() { server_.start({control_address("node")}); }
  // Throws what channel_server::start does.

  void stop() {
    stopping_ = true;
    server_.stop(); // the last words first
    std::list<job> left;
    {
      std::lock_guard guard(lock_);
      left.swap(jobs_);
    }
    for (job& each : left) each.thread.join();
  }
  // Before the loop is stopped.

private:
  struct job {
    std::thread thread;
    std::atomic<bool> done{false};
  };

  static channel_options options() {
    channel_options made;
    made.self =
        channel_party::of_this_process(protocol::HostRole::APPLICATION, program_invocation_short_name);
    return made;
  }

  void on_message(channel& from, protocol::HostMessage::Reader message,
                  kj::ArrayPtr<const kj::byte>) override {
    auto back = from.shared_from_this();
    std::uint64_t call = message.getCall();
    if (message.isStatusOf()) {
      serve([this, back, call] {
        std::vector<node_status> all = with_.status(stopping_);
        back->answer(call, [&](protocol::HostMessage::Builder out) { write_status(all, out.initStatus()); });
      });
    } else if (message.isMoveTask()) {
      task_id task(message.getMoveTask().getTask());
      node_id node{message.getMoveTask().getNode()};
      serve([this, back, call, task, node] {
        failure refused = with_.move(task, node, stopping_);
        if (refused.code)
          back->fail(call, error(refused.code, refused.what));
        else
          back->answer(call, [](protocol::HostMessage::Builder out) { out.setDone(); });
      });
    } else {
      throw error(errc::protocol, "a program with tasks answers to status and move only");
    }
  }

  template <class F> void serve(F&& request) {
    std::lock_guard guard(lock_);
    for (auto each = jobs_.begin(); each != jobs_.end();) {
      if (each->done) {
        each->thread.join();
        each = jobs_.erase(each);
      } else {
        ++each;
      }
    }
    if (stopping_) throw error(errc::shutting_down, "the program is ending");
    if (jobs_.size() >= most_jobs)
      throw error(errc::timed_out,
                  "the program serves " + std::to_string(most_jobs) +
                      " such requests already; some wait for a task that cannot move; try again");
    job& made = jobs_.emplace_back();
    made.thread = std::thread([request = std::forward<F>(request), &made] {
      request();
      made.done = true;
    });
  }

  static constexpr std::size_t most_jobs = 16;

  functions with_;
  std::atomic<bool> stopping_{false};
  std::mutex lock_;
  std::list<job> jobs_;
  channel_server server_;
};

} // namespace migrate::detail
