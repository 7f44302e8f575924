// What a host's agent sees, whom it hears, and how it starts and stops. Included by host_agent.hpp.
#pragma once

#include <migrate/cluster/host_agent.hpp>

namespace migrate {

inline host_agent_options host_agent::completed(host_agent_options options) {
  unsigned processors =
      options.watch.processors != 0 ? options.watch.processors : std::thread::hardware_concurrency();
  if (options.slots == 0) options.slots = std::max(1u, processors);
  if (options.host.empty()) options.host = channel_party::of_this_process(protocol::HostRole::AGENT, "").host;
  return options;
}

inline channel_options host_agent::channel_for(const host_agent_options& options, bool reconnect) {
  channel_options made;
  made.self = channel_party::of_this_process(protocol::HostRole::AGENT, "migrate-hostd");
  made.self.host = options.host;
  made.security = options.security;
  made.reconnect = reconnect;
  return made;
}

inline host_agent::host_agent(event_loop& loop, detail::launcher& launches, host_agent_options options,
                              std::vector<std::shared_ptr<detail::idle_source>> sources)
    : loop_(loop), launches_(launches), options_(completed(std::move(options))),
      watch_(options_.watch, [this] { return std::vector<pid_t>{launches_.keeper_process()}; }),
      server_(loop, channel_for(options_, false), told_by_callers_),
      database_(loop, options_.database, channel_for(options_, true), told_by_database_) {
  for (auto& each : sources) watch_.sources().add(std::move(each));
}

inline void host_agent::start() {
  std::optional<detail::socket_address> place;
  if (!detail::path_in(options_.listen)) {
    auto parts = detail::split_address(options_.listen);
    place = detail::socket_address::numeric(parts.host, parts.port);
  }
  if (place && place->any() && options_.advertise.empty())
    throw error(std::make_error_code(std::errc::invalid_argument),
                options_.listen +
                    " is every address of this host, and applications need one; say which (--advertise)");
  server_.start({options_.listen, control_address("agent")});
  started_ = true;
  const std::string& where = server_.addresses()[0];
  address_ = options_.advertise.empty() ? where : options_.advertise + where.substr(where.rfind(':'));
  loop_.run([this] {
    loop_.watch(launches_.keeper_descriptor(), EPOLLIN | EPOLLRDHUP, keeper_);
    look();
  });
  database_.start();
}

inline void host_agent::stop() {
  if (!std::exchange(started_, false)) return;
  loop_.run([this] {
    stopping_ = true;
    loop_.cancel(look_timer_);
    watch_awaited(false);
    act();
    report();
  });
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, options_.leave + std::chrono::seconds(10), [this] { return none_left_; });
  }
  database_.stop();
  server_.stop();
  loop_.run([this] {
    if (broken_.empty()) loop_.unwatch(launches_.keeper_descriptor(), keeper_);
    loop_.cancel(register_timer_);
    for (auto& [number, each] : early_) loop_.cancel(each.limit);
    for (auto& [number, each] : grants_) { // what did not end in time is the keeper's
      if (each->launched.warden) loop_.unwatch(each->launched.warden.get(), *each);
      loop_.cancel(each->swept);
      if (each->link) each->link->close();
    }
  });
  loop_.run([this] { grants_.clear(); });
}

inline bool host_agent::wait_until_broken(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [this] { return broken_seen_; });
}

// ---- what it sees

inline void host_agent::look() {
  if (stopping_) return;
  watch_awaited(false); // a source may close what it opened
  watch_.look(detail::moment::now(), !grants_.empty());
  act();
  report();
  erase_finished();
  watch_awaited(!grants_.empty() && watch_.decisions().work() == detail::owner_decisions::foreign_work::runs);
  look_later();
}

inline void host_agent::look_later() {
  loop_.cancel(look_timer_);
  look_timer_ = loop_.after(grants_.empty() ? options_.look_idle : options_.look_lent, [this] { look(); });
}

inline void host_agent::watch_awaited(bool on) {
  for (int each : std::exchange(watched_, {})) loop_.unwatch(each, awaited_);
  if (!on) return;
  watched_ = watch_.sources().awaited();
  for (int each : watched_) loop_.watch(each, EPOLLIN, awaited_);
}
// Only while it lends: an owner at work moves his mouse a thousand times a second.

inline void host_agent::act() {
  using work = detail::owner_decisions::foreign_work;
  const detail::owner_decisions& decisions = watch_.decisions();
  if (stopping_) return take_all_back(options_.leave, "the agent is stopped");
  if (!broken_.empty()) return take_all_back(options_.leave, broken_);
  if (decisions.work() == work::leaves) {
    std::string why = decisions.obstacle() + ": " + watch_.idle().decided_by;
    return take_all_back(options_.leave, why);
  }
  bool still = decisions.work() == work::stopped;
  for (auto& [number, each] : grants_) {
    if (each->gone || each->at != stage::running || each->still == still) continue;
    each->still = still;
    detail::tell_warden(each->launched, still ? "stop" : "go");
    note("grant " + std::to_string(number) + (still ? " stands still" : " goes on"), decisions.obstacle());
  }
}

inline void host_agent::write_state(protocol::HostState::Builder into) const {
  std::string why = obstacle();
  into.setLendable(why.empty());
  into.setReason(why.empty() ? "idle" : why.c_str());
  into.setSource(watch_.idle().decided_by.c_str());
  into.setIdleMilliseconds(static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(watch_.idle().idle).count()));
  into.setLoadOwn(watch_.load().averages()[0]);
  into.setLoadForeign(watch_.load().foreign());
  into.setPressure(watch_.memory().some);
}

inline std::string host_agent::obstacle() const {
  return !broken_.empty() ? broken_ : stopping_ ? "the agent is stopped" : watch_.decisions().obstacle();
}

inline void host_agent::report() {
  if (std::string why = obstacle(); why != noted_as_) {
    noted_as_ = why;
    note(why.empty() ? "this host may be lent" : "this host may not be lent",
         (why.empty() ? "idle" : why) + " by " + watch_.idle().decided_by);
  }
  if (!registered_) return;
  auto now = std::chrono::steady_clock::now();
  std::string is = obstacle() + "/" + watch_.idle().decided_by;
  if (is == reported_as_ && now - reported_ < options_.report) return;
  auto to = database_.current();
  if (!to || !to->send([this](protocol::HostMessage::Builder into) { write_state(into.initState()); })) return;
  reported_ = now;
  reported_as_ = is;
}

// ---- whom it hears

inline void host_agent::register_at(channel& to) {
  loop_.cancel(register_timer_);
  unreachable_ = false;
  auto fill = [this](protocol::HostMessage::Builder into) {
    auto message = into.initRegister();
    message.setAddress(address().c_str());
    message.setHost(options_.host.c_str());
    message.setSlots(options_.slots);
    std::vector<const grant*> held;
    for (const auto& [number, each] : grants_)
      if (!each->gone) held.push_back(each.get());
    auto list = message.initGrants(static_cast<unsigned>(held.size()));
    for (unsigned i = 0; i < held.size(); ++i) {
      list[i].setGrant(held[i]->number);
      list[i].setApplication(held[i]->application);
      list[i].setSecret(kj::StringPtr(held[i]->secret.c_str(), held[i]->secret.size()).asBytes());
      list[i].setHost(options_.host.c_str());
      list[i].setAgentAddress(address().c_str());
    }
  };
  to.request(fill, [this, weak = to.weak_from_this()](const channel_answer& got) {
    auto same = weak.lock();
    if (stopping_ || !same || database_.current() != same) return;
    if (got.failure != nullptr) {
      note("the database does not take this host", got.failure->what());
      register_timer_ = loop_.after(std::chrono::seconds(5), [this] {
        if (auto again = database_.current()) register_at(*again);
      });
      return;
    }
    registered_ = true;
    reported_as_.clear();
    note("registered at the database", database_.address());
    report();
  });
}

inline void host_agent::database_unreachable(const error& reason) {
  if (!std::exchange(unreachable_, true)) note("the database is unreachable", reason.what());
}

inline void host_agent::hear_database(protocol::HostMessage::Reader message) {
  if (message.isReserved()) {
    reserve(message.getReserved());
  } else if (message.isEnded()) {
    auto ended = message.getEnded();
    std::chrono::milliseconds limit(ended.getMilliseconds());
    if (limit.count() == 0 || limit > options_.leave) limit = options_.leave;
    if (grant* which = find(ended.getGrant())) end(*which, limit, ended.getReason().cStr());
    look();
  }
}

inline void host_agent::hear_caller(channel& from, protocol::HostMessage::Reader message) {
  std::uint64_t call = message.getCall();
  auto only_here = [&](const char* what) {
    if (!from.peer_user())
      throw error(errc::not_authenticated,
                  std::string(what) + " is for programs on the machine itself; say it on " + options_.host);
  };
  auto done = [&] {
    if (call != 0) from.answer(call, [](protocol::HostMessage::Builder into) { into.setDone(); });
  };
  if (message.isLaunch()) {
    hear_launch(from, call, message.getLaunch());
  } else if (message.isStatusOf()) {
    tell_status(from, call);
  } else if (message.isBusy()) {
    only_here("busy");
    watch_.sources().owner().say_busy(detail::moment::now());
    note("the owner says busy", from.peer_name());
    look();
    done();
  } else if (message.isFree()) {
    only_here("free");
    watch_.sources().owner().say_free(detail::moment::now());
    note("the owner says free", from.peer_name());
    look();
    done();
  } else {
    throw error(errc::protocol, from.peer_name() + " asks an agent for something that agents do not do");
  }
}

inline void host_agent::caller_gone(channel& from) {
  for (auto at = early_.begin(); at != early_.end();) {
    auto one = at++;
    if (one->second.asker.get() != &from) continue;
    loop_.cancel(one->second.limit);
    early_.erase(one);
  }
  for (auto& [number, each] : grants_)
    if (!each->gone && each->asker.get() == &from) {
      each->asker.reset();
      each->call = 0;
      end(*each, std::chrono::milliseconds(0), "its application has closed the channel");
    }
  look();
}

inline void host_agent::tell_status(channel& to, std::uint64_t call) {
  auto now = std::chrono::steady_clock::now();
  to.answer(call, [&](protocol::HostMessage::Builder into) {
    auto status = into.initStatus();
    auto line = status.initHosts(1)[0];
    line.setHost(options_.host.c_str());
    line.setAgentAddress(address().c_str());
    write_state(line.initState());
    line.setSlots(options_.slots);
    std::vector<const grant*> held;
    for (const auto& [number, each] : grants_)
      if (!each->gone) held.push_back(each.get());
    auto holders = line.initHolders(static_cast<unsigned>(held.size()));
    for (unsigned i = 0; i < held.size(); ++i) {
      holders[i].setGrant(held[i]->number);
      holders[i].setApplication(held[i]->application);
      holders[i].setApplicationName(held[i]->application_name.c_str());
      holders[i].setUserName(held[i]->user_name.c_str());
    }
    auto events = status.initEvents(static_cast<unsigned>(events_.size()));
    for (unsigned i = 0; i < events_.size(); ++i) {
      events[i].setAge(static_cast<std::uint64_t>(
          std::chrono::duration_cast<std::chrono::milliseconds>(now - events_[i].when).count()));
      events[i].setWhat(events_[i].what.c_str());
      events[i].setReason(events_[i].reason.c_str());
    }
  });
}

inline void host_agent::note(const std::string& what, const std::string& reason) {
  constexpr std::size_t most = 256;
  if (events_.size() == most) events_.pop_front();
  events_.push_back({std::chrono::steady_clock::now(), what, reason});
  if (options_.log) options_.log(what + ": " + reason);
}

} // namespace migrate
