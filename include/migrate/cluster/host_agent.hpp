// A host's agent: says whether the machine may be lent, starts what borrowers run there, and ends it when the owner returns.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/epoll.h>
#include <unistd.h>

#include <migrate/cluster/agent_link.hpp>
#include <migrate/cluster/host_watch.hpp>
#include <migrate/cluster/launcher.hpp>
#include <migrate/error.hpp>
#include <migrate/rpc/channel.hpp>
#include <migrate/rpc/event_loop.hpp>

namespace migrate {

struct host_agent_options {
  std::string database;                // where the host database listens
  std::string listen = "127.0.0.1:0";  // for applications
  std::string advertise;               // the host that they call, when it is not the one in `listen`
  std::optional<credentials> security; // beyond this machine
  std::string host;                    // its name; empty: as the system has it
  unsigned slots = 0;                  // grants at once; 0: one for each processor
  detail::host_watch_options watch;
  detail::launch_limits limits;             // most that a grant may have
  std::chrono::milliseconds leave{2500};    // from an eviction until what is left is killed
  std::chrono::milliseconds look_lent{250}; // how often sources that cannot be awaited are looked at
  std::chrono::milliseconds look_idle{5000};
  std::chrono::milliseconds report{60'000};      // at the latest, to the database
  std::function<void(const std::string&)> log{}; // a line for each event; on the I/O thread
};

class host_agent {
  // Thread safety: start, stop, and the constructor from one thread that is not the I/O thread; all else happens there.

public:
  host_agent(event_loop& loop, detail::launcher& launches, host_agent_options options,
             std::vector<std::shared_ptr<detail::idle_source>> sources = {});
  // `launches` was made before the loop was started, and outlives this.

  ~host_agent() { stop(); }
  host_agent(const host_agent&) = delete;
  host_agent& operator=(const host_agent&) = delete;

  void start();
  // Listens, and connects to the database for as long as it runs. Throws as channel_server::start.

  void stop();
  // Evicts what runs here, waits until it is gone, and says goodbye. A second call does nothing.

  const std::string& address() const { return address_; }
  const std::string& control() const { return server_.addresses()[1]; }

  bool wait_until_broken(std::chrono::milliseconds limit);
  // Whether the process that keeps grants has died. Nothing can be lent then: end this process.

private:
  enum class stage { reserved, starting, running, ending };

  struct grant final : event_loop::watcher, detail::agent_link::listener {
    host_agent* owner = nullptr;
    std::uint64_t number = 0;
    std::uint64_t application = 0;
    std::string application_name, user_name;
    uid_t user = 0;
    std::string secret;
    stage at = stage::reserved;

    detail::launched_grant launched;
    std::shared_ptr<detail::agent_link> link;
    std::shared_ptr<channel> asker; // of the launch
    std::uint64_t call = 0;         // of the launch, until it is answered
    std::string reason;             // of its end
    bool still = false;             // it was told to stand still
    bool gone = false;
    event_loop::timer swept;

    void on_ready(std::uint32_t) noexcept override { owner->take_reports(number); }
    void on_link_message(detail::agent_link&, protocol::HostMessage::Reader message) override {
      if (message.isEvicted()) owner->node_has_left(number);
    }
    void on_link_closed(detail::agent_link&, const error&) override { owner->link_closed(number); }
  };

  struct waiting_launch {
    // It came before the database's word about its grant, which takes another way.
    detail::launch_order order;
    std::string secret;
    std::shared_ptr<channel> asker;
    std::uint64_t call = 0;
    event_loop::timer limit;
  };

  struct event {
    std::chrono::steady_clock::time_point when;
    std::string what, reason;
  };

  struct server_side final : channel_handler {
    explicit server_side(host_agent& agent) : owner(agent) {}
    void on_message(channel& from, protocol::HostMessage::Reader message,
                    kj::ArrayPtr<const kj::byte>) override {
      owner.hear_caller(from, message);
    }
    void on_closed(channel& from, const error&) override { owner.caller_gone(from); }
    void on_refused(const std::string& peer, const error& reason) override {
      owner.note("refused " + peer, reason.what());
    }
    host_agent& owner;
  };

  struct database_side final : channel_handler {
    explicit database_side(host_agent& agent) : owner(agent) {}
    void on_open(channel& to) override { owner.register_at(to); }
    void on_message(channel&, protocol::HostMessage::Reader message, kj::ArrayPtr<const kj::byte>) override {
      owner.hear_database(message);
    }
    void on_closed(channel&, const error& reason) override {
      owner.registered_ = false;
      owner.note("the database is lost", reason.what());
    }
    void on_unreachable(const error& reason) override { owner.database_unreachable(reason); }
    host_agent& owner;
  };

  struct ready final : event_loop::watcher {
    explicit ready(std::function<void()> what) : then(std::move(what)) {}
    void on_ready(std::uint32_t) noexcept override { then(); }
    std::function<void()> then;
  };

  static channel_options channel_for(const host_agent_options& options, bool reconnect);
  static host_agent_options completed(host_agent_options options);

  // What it sees.
  void look();
  void look_later();
  void watch_awaited(bool on);
  void act();
  std::string obstacle() const;
  void report();

  // Whom it hears.
  void register_at(channel& to);
  void hear_database(protocol::HostMessage::Reader message);
  void database_unreachable(const error& reason);
  void hear_caller(channel& from, protocol::HostMessage::Reader message);
  void caller_gone(channel& from);
  void tell_status(channel& to, std::uint64_t call);
  void write_state(protocol::HostState::Builder into) const;

  // Grants.
  void reserve(protocol::Reservation::Reader message);
  void hear_launch(channel& from, std::uint64_t call, protocol::Launch::Reader message);
  void launch(grant& which, waiting_launch order);
  void take_reports(std::uint64_t number) noexcept;
  void node_has_left(std::uint64_t number);
  void link_closed(std::uint64_t number);
  void end(grant& which, std::chrono::milliseconds limit, const std::string& reason);
  void take_back(grant& which, std::chrono::milliseconds limit, const std::string& reason);
  void take_all_back(std::chrono::milliseconds limit, const std::string& reason);
  void finish(grant& which);
  void finish_when_swept(grant& which);
  void erase_finished();
  void keeper_died();

  void note(const std::string& what, const std::string& reason);
  grant* find(std::uint64_t number) {
    auto found = grants_.find(number);
    return found == grants_.end() || found->second->gone ? nullptr : found->second.get();
  }

  event_loop& loop_;
  detail::launcher& launches_;
  const host_agent_options options_;
  detail::host_watch watch_;
  server_side told_by_callers_{*this};
  database_side told_by_database_{*this};
  channel_server server_;
  channel_client database_;
  ready awaited_{[this] { look(); }};
  ready keeper_{[this] { keeper_died(); }};

  // On the I/O thread.
  std::map<std::uint64_t, std::unique_ptr<grant>> grants_;
  std::map<std::uint64_t, waiting_launch> early_; // by a number of their own
  std::uint64_t last_early_ = 0;
  std::vector<int> watched_;
  event_loop::timer look_timer_, register_timer_;
  bool registered_ = false, stopping_ = false, unreachable_ = false;
  std::chrono::steady_clock::time_point reported_{};
  std::string reported_as_, noted_as_ = "nothing yet";
  std::string broken_; // why nothing can be launched
  std::deque<event> events_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false;
  std::string address_;
  bool none_left_ = true, broken_seen_ = false; // under mutex_
};

} // namespace migrate

#include <migrate/cluster/host_agent_grants.hpp>
#include <migrate/cluster/host_agent_impl.hpp>
