// Agents and applications as a host database sees them, and what a test hears of them.
#pragma once

#include <migrate/cluster/host_database.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

namespace migrate_test {

using namespace migrate;
using namespace std::chrono_literals;

struct heard {
  std::string kind;
  std::uint64_t grant = 0;
  std::string text;
  std::string secret;
  std::uint32_t milliseconds = 0;
  std::error_code code;
};

class hearing {
  // What one party has heard, which a test waits for.

public:
  void add(heard what) {
    std::lock_guard lock(mutex_);
    all_.push_back(std::move(what));
    changed_.notify_all();
  }
  heard wait(const std::string& kind, std::chrono::milliseconds limit = 30s) {
    // The first of the kind that was not taken before; kind "" when there is none in time.
    std::unique_lock lock(mutex_);
    auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
      for (auto at = all_.begin(); at != all_.end(); ++at)
        if (at->kind == kind) {
          heard found = *at;
          all_.erase(at);
          return found;
        }
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) return {};
    }
  }
  std::size_t count(const std::string& kind) {
    std::lock_guard lock(mutex_);
    std::size_t n = 0;
    for (const heard& each : all_) n += each.kind == kind;
    return n;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<heard> all_;
};

struct running_loop : event_loop {
  running_loop() { start(); }
  ~running_loop() { stop(); }
};

inline std::string bytes_of(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}

class party : public channel_handler {
public:
  party(const std::string& database, protocol::HostRole role, const std::string& name,
        const std::string& host, std::optional<credentials> security = {})
      : link(loop, database, options(role, name, host, std::move(security)), *this) {}
  ~party() = default; // whoever derives from it stops the link

  void on_open(channel&) override { told.add({"open", 0, "", "", 0, {}}); }
  void on_message(channel&, protocol::HostMessage::Reader, kj::ArrayPtr<const kj::byte>) override {}
  void on_closed(channel&, const error& reason) override {
    told.add({"closed", 0, reason.what(), "", 0, reason.code()});
  }
  void on_unreachable(const error& reason) override {
    told.add({"unreachable", 0, reason.what(), "", 0, reason.code()});
  }

  template <class Fill> void request(Fill&& fill) {
    link.wait_open()->call(fill, [](protocol::HostMessage::Reader) {});
  }
  // Throws what the database says.

  running_loop loop;
  hearing told;
  channel_client link;

private:
  static channel_options options(protocol::HostRole role, const std::string& name, const std::string& host,
                                 std::optional<credentials> security) {
    channel_options made;
    made.self = channel_party::of_this_process(role, name);
    made.self.host = host;
    made.security = std::move(security);
    made.reconnect = true;
    made.most_pause = 50ms;
    return made;
  }
};

class fake_agent final : public party {
  // Ends what it is told to end at once, unless it is told to hold on.

public:
  fake_agent(const std::string& database, const std::string& its_host, unsigned its_slots = 1,
             std::optional<credentials> security = {})
      : party(database, protocol::HostRole::AGENT, "agent of " + its_host, its_host, std::move(security)),
        host(its_host), address("agent of " + its_host), slots(its_slots) {
    link.start();
    register_host();
  }
  ~fake_agent() { link.stop(); }

  void register_host() {
    request([&](protocol::HostMessage::Builder out) { write(out.initRegister()); });
    tell(true);
  }
  void tell(bool lendable, std::chrono::milliseconds idle = 1min) {
    request([&](protocol::HostMessage::Builder out) { write(out.initState(), lendable, idle); });
  }
  void takes_back(std::uint64_t grant, const std::string& why) {
    request([&](protocol::HostMessage::Builder out) {
      auto said = out.initRevoked();
      said.setGrant(grant);
      said.setReason(why.c_str());
      said.setMilliseconds(2500);
    });
  }
  void ended(std::uint64_t grant) {
    {
      std::lock_guard lock(mutex_);
      held_.erase(grant);
    }
    request([&](protocol::HostMessage::Builder out) { out.initGrantEnded().setGrant(grant); });
  }
  std::size_t holds() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }

  void on_open(channel& to) override {
    if (again_) { // as an agent does when its database is back
      to.send([&](protocol::HostMessage::Builder out) { write(out.initRegister()); });
      to.send([&](protocol::HostMessage::Builder out) { write(out.initState(), true, 1min); });
    }
    again_ = true;
    party::on_open(to);
  }
  void on_message(channel& from, protocol::HostMessage::Reader message,
                  kj::ArrayPtr<const kj::byte>) override {
    if (message.isReserved()) {
      auto said = message.getReserved();
      {
        std::lock_guard lock(mutex_);
        held_[said.getGrant()] = said.getApplication();
      }
      told.add(
          {"reserved", said.getGrant(), said.getApplicationName().cStr(), bytes_of(said.getSecret()), 0, {}});
    } else if (message.isEnded()) {
      auto said = message.getEnded();
      std::uint64_t grant = said.getGrant();
      if (!holds_on) {
        {
          std::lock_guard lock(mutex_);
          held_.erase(grant);
        }
        from.send([&](protocol::HostMessage::Builder out) { out.initGrantEnded().setGrant(grant); });
      }
      told.add({"ended", grant, said.getReason().cStr(), "", said.getMilliseconds(), {}});
    }
  }

  const std::string host, address;
  const unsigned slots;
  std::atomic<bool> holds_on{false};

private:
  void write(protocol::HostRegistration::Builder out) {
    out.setAddress(address.c_str());
    out.setHost(host.c_str());
    out.setSlots(slots);
    std::lock_guard lock(mutex_);
    auto list = out.initGrants(static_cast<unsigned>(held_.size()));
    unsigned at = 0;
    for (const auto& [grant, application] : held_) {
      list[at].setGrant(grant);
      list[at++].setApplication(application);
    }
  }
  static void write(protocol::HostState::Builder out, bool lendable, std::chrono::milliseconds idle) {
    out.setLendable(lendable);
    out.setReason(lendable ? "idle" : "the owner is back");
    out.setSource("test");
    out.setIdleMilliseconds(static_cast<std::uint64_t>(idle.count()));
  }

  std::mutex mutex_;
  std::map<std::uint64_t, std::uint64_t> held_; // and for which application
  bool again_ = false;
};

} // namespace migrate_test
