// What the first node of a cluster does to have hosts: asks the database, has agents start nodes, and gives hosts back.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include <migrate/cluster/host_services.hpp>
#include <migrate/error.hpp>
#include <migrate/home/reply.hpp>
#include <migrate/rpc/channel.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/store/descriptor.hpp>
#include <migrate/task/codec.hpp>

namespace migrate::detail {

struct launch_terms {
  std::string executable; // its content address, as text
  std::string path;       // where it lies here, and perhaps there
  std::string store;
  std::vector<std::string> arguments; // the grant's number is added
  std::vector<std::string> environment;
  std::string directory;
};

class host_client final : private channel_handler {
  // Thread safety: start and stop from one thread that is not the I/O thread; node_came and node_gone on the I/O thread; the
  // rest from any, in a node_heap_scope.

public:
  host_client(event_loop& loop, std::string database, std::optional<credentials> security, std::string name,
              std::function<launch_terms()> terms)
      : loop_(loop), terms_(std::move(terms)), options_(made_of(std::move(security), std::move(name))),
        database_(loop, std::move(database), options_, *this) {
    while (id_ == 0)
      if (::getrandom(&id_, sizeof id_, 0) != sizeof id_) throw error(errc::cancelled, "getrandom failed");
  }
  // `terms` is called once, before the first launch, on the I/O thread.
  ~host_client() { stop(); }

  void start() { database_.start(); }
  void stop() {
    database_.stop(); // the database has the agents end what is left
    try {
      loop_.run([this] {
        stopped_ = true;
        loop_.cancel(again_);
        end_waits([](const event_waiter& each) {
          reply_event(each.asked, each.number, nullptr);
          return true;
        });
      });
    } catch (const error&) { // the loop has been stopped
    }
    for (auto& [address, each] : agents_) each->link.stop();
    agents_.clear();
  }

  void ask(const host_request& what, bool only_how_many) {
    loop_.post([this, what, only_how_many] {
      host_request next = what;
      if (only_how_many) {
        next = wanted_;
        next.wanted = what.wanted;
        next.least = std::min(next.least, next.wanted);
      }
      wanted_ = next;
      while (used() > wanted_.wanted) give_back_newest();
      tell_wish(false);
    });
  }
  void give_back(std::uint64_t grant) {
    loop_.post([this, grant] {
      auto found = grants_.find(grant);
      if (found == grants_.end() || found->second.leaving) return;
      if (wanted_.wanted > 0) --wanted_.wanted;
      wanted_.least = std::min(wanted_.least, wanted_.wanted);
      return_grant(found->second, "", "given back", 1);
    });
  }

  std::vector<granted_host> hosts() const {
    std::lock_guard lock(mutex_);
    return hosts_;
  }
  void event(const request& asked, std::uint64_t number, int watched, std::chrono::nanoseconds limit) {
    if (answer_event(asked, number, watched)) return;
    if (limit <= limit.zero()) return reply_event(asked, number, nullptr);
    loop_.post([this, asked, number, watched, limit] {
      if (answer_event(asked, number, watched)) return;
      if (stopped_) return reply_event(asked, number, nullptr);
      if (asked.task != task_id()) // it asks again: it has moved, or its connection was lost
        end_waits([&](const event_waiter& each) { return each.asked.task == asked.task; });
      const std::uint64_t waiter = ++last_waiter_;
      event_waiters_[waiter] = {asked, number, watched, loop_.after(limit, [this, waiter] {
                                  auto late = event_waiters_.extract(waiter);
                                  reply_event(late.mapped().asked, late.mapped().number, nullptr);
                                })};
    });
  }
  // Replies with the first event from `number` on and the number after it, as soon as there is one; with none after the limit.

  int event_descriptor() {
    std::lock_guard lock(mutex_);
    descriptor made(::eventfd(events_.empty() ? 0 : 1, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!made)
      throw error(std::error_code(errno, std::system_category()),
                  std::string("eventfd: ") + std::strerror(errno));
    event_descriptors_.push_back(std::move(made));
    return event_descriptors_.back().get();
  }
  // Readable from an event on until event() was called with it and found none.

  void node_came(std::uint64_t grant, node_id node) {
    auto found = grants_.find(grant);
    if (found == grants_.end()) return;
    found->second.what.node = node;
    if (!found->second.leaving) say(host_event::kind::came, found->second, "");
  }
  void node_gone(node_id node, const std::string& reason) {
    for (auto& [number, each] : grants_)
      if (each.what.node == node) return lost(number, reason);
  }

private:
  struct lent {
    granted_host what;
    std::string address, secret;
    bool asked = false; // the agent, to start a node
    bool leaving = false;
  };

  struct event_waiter {
    request asked;
    std::uint64_t number = 0;
    int watched = -1;
    event_loop::timer limit;
  };

  struct agent final : channel_handler {
    agent(host_client& its, const std::string& address)
        : owner(its), link(its.loop_, address, its.options_, *this) {}
    void on_open(channel& to) override { owner.launch_at(*this, to); }
    void on_message(channel&, protocol::HostMessage::Reader message, kj::ArrayPtr<const kj::byte>) override {
      if (message.isEnded()) owner.lost(message.getEnded().getGrant(), message.getEnded().getReason().cStr());
    }
    void on_closed(channel&, const error& reason) override {
      owner.agent_lost(link.address(), reason.what(), true);
    }
    void on_unreachable(const error& reason) override {
      owner.agent_lost(link.address(), reason.what(), false);
    }

    host_client& owner;
    channel_client link;
  };

  static channel_options made_of(std::optional<credentials> security, std::string name) {
    channel_options made;
    made.self = channel_party::of_this_process(protocol::HostRole::APPLICATION, std::move(name));
    made.security = std::move(security);
    made.reconnect = true;
    return made;
  }

  void on_open(channel&) override { tell_wish(true); }
  void on_closed(channel&, const error&) override {} // what is held is kept
  void on_message(channel&, protocol::HostMessage::Reader message, kj::ArrayPtr<const kj::byte>) override {
    if (message.isGranted()) {
      auto said = message.getGranted();
      lent& made = grants_[said.getGrant()];
      made.what = {said.getGrant(), said.getHost().cStr(), no_node, said.getProcessors()};
      made.address = said.getAgentAddress().cStr();
      made.secret.assign(reinterpret_cast<const char*>(said.getSecret().begin()), said.getSecret().size());
      if (used() > wanted_.wanted) return return_grant(made, "", "not wanted any more");
      launch(made);
    } else if (message.isRevoked()) {
      auto said = message.getRevoked();
      auto found = grants_.find(said.getGrant());
      if (found == grants_.end()) return;
      if (said.getMilliseconds() == 0) return lost(said.getGrant(), said.getReason().cStr());
      leave(found->second, said.getReason().cStr(), said.getMilliseconds());
    }
  }

  std::size_t used() const {
    return static_cast<std::size_t>(
        std::count_if(grants_.begin(), grants_.end(), [](const auto& each) { return !each.second.leaving; }));
  }

  void tell_wish(bool back) {
    auto to = database_.current();
    if (!to) return; // it is told when there is one
    to->send([&](protocol::HostMessage::Builder out) {
      auto ask = out.initAsk();
      ask.setApplication(id_);
      ask.setWanted(held_back_ ? static_cast<std::uint32_t>(used()) : wanted_.wanted);
      ask.setLeast(wanted_.least);
      ask.setPriority(wanted_.priority);
      ask.setLongRunning(wanted_.long_running);
      ask.setBack(back);
      if (!back) return;
      auto list = ask.initHeld(static_cast<unsigned>(used()));
      unsigned at = 0;
      for (const auto& [number, each] : grants_) {
        if (each.leaving) continue;
        list[at].setGrant(number);
        list[at].setHost(each.what.host.c_str());
        list[at++].setAgentAddress(each.address.c_str());
      }
    });
  }

  void give_back_newest() {
    for (auto at = grants_.rbegin(); at != grants_.rend(); ++at)
      if (!at->second.leaving) return return_grant(at->second, "", "fewer are wanted", 1);
  }

  void return_grant(lent& which, const std::string& unusable, const std::string& reason, unsigned fewer = 0) {
    const std::uint64_t number = which.what.grant;
    if (auto to = database_.current())
      to->send([&](protocol::HostMessage::Builder out) {
        auto back = out.initGiveBack();
        back.setGrant(number);
        back.setUnusable(unusable.c_str());
        back.setFewer(fewer);
      });
    if (which.what.node == no_node && !which.asked) {
      grants_.erase(number); // nobody has heard of it
      return;
    }
    leave(which, reason, 3000);
  }

  void launch(lent& which) {
    auto& at = agents_[which.address];
    if (!at) {
      at = std::make_unique<agent>(*this, which.address);
      at->link.start();
      return; // when it is connected
    }
    if (auto to = at->link.current()) launch_at(*at, *to);
  }

  void launch_at(agent& at, channel& to) {
    if (!launching_) launching_ = terms_();
    const launch_terms& terms = *launching_;
    for (auto& entry : grants_) {
      auto& each = entry.second;
      if (each.address != at.link.address() || each.asked || each.leaving) continue;
      each.asked = true;
      to.request(
          [&, grant = entry.first](protocol::HostMessage::Builder out) {
            auto order = out.initLaunch();
            order.setGrant(grant);
            order.setSecret(
                kj::arrayPtr(reinterpret_cast<const kj::byte*>(each.secret.data()), each.secret.size()));
            order.setExecutable(kj::arrayPtr(reinterpret_cast<const kj::byte*>(terms.executable.data()),
                                             terms.executable.size()));
            order.setPath(terms.path.c_str());
            order.setStore(terms.store.c_str());
            auto arguments = order.initArguments(static_cast<unsigned>(terms.arguments.size() + 1));
            for (unsigned i = 0; i + 1 < arguments.size(); ++i) arguments.set(i, terms.arguments[i].c_str());
            arguments.set(arguments.size() - 1, ("--migrate-grant=" + std::to_string(grant)).c_str());
            std::string host = split_address(each.address).host;
            auto environment = order.initEnvironment(static_cast<unsigned>(terms.environment.size() + 1));
            for (unsigned i = 0; i + 1 < environment.size(); ++i)
              environment.set(i, terms.environment[i].c_str());
            std::string listen =
                "MIGRATE_LISTEN=" + (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":0";
            environment.set(environment.size() - 1, listen.c_str());
            order.setDirectory(terms.directory.c_str());
          },
          [this, grant = entry.first](const channel_answer& got) {
            if (got.failure != nullptr) refused(grant, got.failure->what());
          },
          std::chrono::seconds(60));
    }
  }

  void refused(std::uint64_t grant, const std::string& reason) {
    auto found = grants_.find(grant);
    if (found == grants_.end()) return;
    const bool leaving = found->second.leaving;
    if (!leaving) return_grant(found->second, reason, reason);
    lost(grant, "no node could be started there: " + reason);
    if (leaving) return;
    // Not again at once: the next host may refuse for the same reason.
    held_back_ = true;
    tell_wish(false);
    loop_.cancel(again_);
    again_ = loop_.after(pause_, [this] {
      held_back_ = false;
      tell_wish(false);
    });
    pause_ = std::min<std::chrono::milliseconds>(pause_ * 2, std::chrono::seconds(30));
  }

  void agent_lost(const std::string& address, const std::string& reason, bool was_open) {
    std::vector<std::uint64_t> there;
    for (const auto& [number, each] : grants_)
      if (each.address == address && (was_open || !each.asked)) there.push_back(number);
    for (std::uint64_t each : there) {
      if (was_open)
        lost(each, "its agent is gone: " + reason);
      else
        refused(each, reason);
    }
  }

  bool answer_event(const request& asked, std::uint64_t number, int watched) {
    host_event found;
    {
      std::lock_guard lock(mutex_);
      number = std::max(number, first_event_);
      if (number - first_event_ >= events_.size()) {
        std::uint64_t count = 0;
        for (const auto& each : event_descriptors_)
          if (each.get() == watched && ::read(watched, &count, sizeof count) < 0 && errno != EAGAIN)
            throw error(std::error_code(errno, std::system_category()),
                        std::string("eventfd: ") + std::strerror(errno));
        return false;
      }
      found = events_[static_cast<std::size_t>(number++ - first_event_)];
    }
    reply_event(asked, number, &found);
    return true;
  }
  template <class F> void end_waits(F&& suits) {
    for (auto at = event_waiters_.begin(); at != event_waiters_.end();)
      if (suits(at->second)) {
        loop_.cancel(at->second.limit);
        at = event_waiters_.erase(at);
      } else {
        ++at;
      }
  }
  static void reply_event(const request& asked, std::uint64_t number, const host_event* found) {
    answer result;
    byte_writer bytes;
    result.first = number;
    result.second = found != nullptr;
    if (found != nullptr) bytes.put(*found);
    result.bytes = {bytes.bytes().data(), bytes.bytes().size()};
    reply(asked, std::move(result));
  }

  void leave(lent& which, const std::string& reason, std::uint32_t left) {
    if (std::exchange(which.leaving, true)) return;
    say(host_event::kind::leaving, which, reason, left);
  }

  void lost(std::uint64_t grant, const std::string& reason) {
    auto gone = grants_.extract(grant);
    if (gone.empty()) return;
    gone.mapped().leaving = true;
    say(host_event::kind::gone, gone.mapped(), reason);
  }

  void say(host_event::kind what, const lent& which, const std::string& reason, std::uint32_t left = 0) {
    constexpr std::size_t most = 4096;
    if (what == host_event::kind::came) pause_ = std::chrono::milliseconds(500);
    {
      std::lock_guard lock(mutex_);
      if (events_.size() == most) {
        events_.pop_front();
        ++first_event_;
      }
      events_.push_back({what, which.what, reason, left});
      std::erase_if(hosts_, [&](const granted_host& each) { return each.grant == which.what.grant; });
      if (what == host_event::kind::came) hosts_.push_back(which.what);
      for (const auto& each : event_descriptors_) ::eventfd_write(each.get(), 1);
    }
    end_waits([&](const event_waiter& each) { return answer_event(each.asked, each.number, each.watched); });
  }

  event_loop& loop_;
  const std::function<launch_terms()> terms_;
  const channel_options options_;
  channel_client database_;
  std::uint64_t id_ = 0;

  // On the I/O thread.
  host_request wanted_{.wanted = 0, .name = {}};
  std::map<std::uint64_t, lent> grants_;
  std::map<std::string, std::unique_ptr<agent>>
      agents_; // kept: a channel is not closed by the thread that serves it
  std::optional<launch_terms> launching_;
  bool held_back_ = false; // asks for no more than it has
  event_loop::timer again_;
  std::chrono::milliseconds pause_{500};
  std::map<std::uint64_t, event_waiter> event_waiters_;
  std::uint64_t last_waiter_ = 0;
  bool stopped_ = false;

  mutable std::mutex mutex_;
  std::vector<granted_host> hosts_;           // under mutex_
  std::deque<host_event> events_;             // under mutex_
  std::uint64_t first_event_ = 0;             // under mutex_
  std::vector<descriptor> event_descriptors_; // under mutex_
};

} // namespace migrate::detail
