// The functions of host_agent. Included by host_agent.hpp.
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
  server_.start({options_.listen, control_address("agent")});
  started_ = true;
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
  if (stopping_) return end_all(options_.leave, "the agent is stopped");
  if (!broken_.empty()) return end_all(options_.leave, broken_);
  if (decisions.work() == work::leaves) {
    std::string why = decisions.obstacle() + ": " + watch_.idle().decided_by;
    return end_all(options_.leave, why);
  }
  bool still = decisions.work() == work::stopped;
  for (auto& [number, each] : grants_) {
    if (each->gone || each->at != stage::running || each->still == still) continue;
    each->still = still;
    detail::tell_warden(each->launched, still ? "stop" : "go");
    note("grant " + std::to_string(number) + (still ? " stands still" : " goes on"), decisions.obstacle());
  }
}

inline void host_agent::write_state(protocol::HostState::Builder out) const {
  std::string why = obstacle();
  out.setLendable(why.empty());
  out.setReason(why.empty() ? "idle" : why.c_str());
  out.setSource(watch_.idle().decided_by.c_str());
  out.setIdleMilliseconds(static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(watch_.idle().idle).count()));
  out.setLoadOwn(watch_.load().averages()[0]);
  out.setLoadForeign(watch_.load().foreign());
  out.setPressure(watch_.memory().some);
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
  if (!to || !to->send([this](protocol::HostMessage::Builder out) { write_state(out.initState()); })) return;
  reported_ = now;
  reported_as_ = is;
}

// ---- whom it hears

inline void host_agent::register_at(channel& to) {
  loop_.cancel(register_timer_);
  unreachable_ = false;
  auto fill = [this](protocol::HostMessage::Builder out) {
    auto message = out.initRegister();
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
    if (call != 0) from.answer(call, [](protocol::HostMessage::Builder out) { out.setDone(); });
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
  to.answer(call, [&](protocol::HostMessage::Builder out) {
    auto status = out.initStatus();
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

// ---- grants

namespace detail {

inline std::string bytes_of(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}

inline bool same_secret(const std::string& one, const std::string& other) {
  // Takes as long wherever they differ.
  unsigned difference = one.size() != other.size() || one.empty();
  for (std::size_t i = 0; i < std::min(one.size(), other.size()); ++i)
    difference |= static_cast<unsigned char>(one[i]) ^ static_cast<unsigned char>(other[i]);
  return difference == 0;
}

} // namespace detail

inline void host_agent::reserve(protocol::Reservation::Reader message) {
  std::uint64_t number = message.getGrant();
  if (grants_.contains(number)) return; // said again
  auto made = std::make_unique<grant>();
  made->owner = this;
  made->number = number;
  made->application = message.getApplication();
  made->application_name = message.getApplicationName().cStr();
  made->user = message.getUser();
  made->user_name = message.getUserName().cStr();
  made->secret = detail::bytes_of(message.getSecret());
  note("grant " + std::to_string(number) + " is reserved", "for " + made->application_name);
  grant& here = *(grants_[number] = std::move(made));
  std::size_t held = static_cast<std::size_t>(
      std::count_if(grants_.begin(), grants_.end(), [](const auto& each) { return !each.second->gone; }));
  {
    std::lock_guard lock(mutex_);
    none_left_ = false;
  }
  // The database may not have heard yet.
  if (held > options_.slots)
    end(here, std::chrono::milliseconds(0), "all slots are taken");
  else if (std::string why = obstacle(); !why.empty())
    end(here, std::chrono::milliseconds(0), "this host may not be lent: " + why);
  for (auto at = early_.begin(); at != early_.end();) {
    auto one = at++;
    if (one->second.order.grant != number) continue;
    waiting_launch order = std::move(one->second);
    early_.erase(one);
    loop_.cancel(order.limit);
    launch(here, std::move(order));
  }
  look();
}

inline void host_agent::hear_launch(channel& from, std::uint64_t call, protocol::Launch::Reader message) {
  if (from.peer().role != protocol::HostRole::APPLICATION)
    throw error(errc::not_authenticated,
                from.peer_name() + " is no application, so it cannot launch anything");
  waiting_launch asked;
  asked.asker = from.shared_from_this();
  asked.call = call;
  asked.secret = detail::bytes_of(message.getSecret());
  detail::launch_order& order = asked.order;
  order.grant = message.getGrant();
  auto address = detail::parse_content_address(detail::bytes_of(message.getExecutable()));
  if (!address)
    throw error(errc::protocol,
                "'" + detail::bytes_of(message.getExecutable()) + "' is no content address of an executable");
  order.executable = {*address, message.getPath().cStr(), message.getStore().cStr()};
  for (auto each : message.getArguments()) order.arguments.emplace_back(each.cStr());
  if (order.arguments.empty()) order.arguments.push_back(order.executable.path);
  for (auto each : message.getEnvironment()) order.environment.emplace_back(each.cStr());
  order.directory = message.getDirectory().cStr();
  order.limits = options_.limits;
  auto least = [](auto own, auto asked_for) {
    return own == 0 || (asked_for != 0 && asked_for < own) ? asked_for : own;
  };
  order.limits.memory_bytes = least(order.limits.memory_bytes, message.getMemoryBytes());
  order.limits.processes = least(order.limits.processes, message.getProcesses());

  if (grant* which = find(order.grant)) return launch(*which, std::move(asked));
  constexpr std::size_t most_early = 64;
  if (early_.size() >= most_early)
    throw error(errc::no_such_node, "there is no grant " + std::to_string(order.grant) + " here");
  std::uint64_t number = ++last_early_;
  asked.limit = loop_.after(std::chrono::seconds(2), [this, number] {
    auto late = early_.extract(number);
    if (late.empty()) return;
    const waiting_launch& was = late.mapped();
    was.asker->fail(was.call,
                    error(errc::not_authenticated, "the host database has reserved no grant " +
                                                       std::to_string(was.order.grant) + " on this host"));
  });
  early_.emplace(number, std::move(asked));
}

inline void host_agent::launch(grant& which, waiting_launch asked) {
  auto refuse = [&](errc code, const std::string& why) {
    note("a launch for grant " + std::to_string(which.number) + " is refused", why);
    asked.asker->fail(asked.call, error(code, why));
  };
  std::string name = "grant " + std::to_string(which.number);
  if (!detail::same_secret(which.secret, asked.secret))
    return refuse(errc::not_authenticated, asked.asker->peer_name() + " does not know the secret of " + name);
  if (which.gone || which.at == stage::ending)
    return refuse(errc::cancelled, name + " has ended: " + which.reason);
  if (which.at != stage::reserved) return refuse(errc::protocol, name + " has its node already");
  uid_t user = launches_.places().user.id;
  if (which.user != user)
    return refuse(errc::not_compatible,
                  "the application runs as user " + std::to_string(which.user) +
                      " and this host's agent starts nodes as user " + std::to_string(user) +
                      "; a cluster's nodes have one user: start the agent as that user, or "
                      "as root with --user");
  try {
    which.launched = launches_.launch(asked.order);
  } catch (const error& problem) {
    refuse(errc::cancelled, problem.what());
    which.reason = problem.what();
    return finish(which);
  }
  which.at = stage::starting;
  which.asker = std::move(asked.asker);
  which.call = asked.call;
  which.link = detail::agent_link::adopt(loop_, which.launched.node.release(), which, "the node of " + name);
  loop_.watch(which.launched.warden.get(), EPOLLIN | EPOLLRDHUP, which);
}

inline void host_agent::take_reports(std::uint64_t number) noexcept {
  grant* which = find(number);
  if (which == nullptr) return;
  bool closed = false;
  while (auto said = detail::take_report(which->launched, closed)) {
    std::string name = "grant " + std::to_string(number);
    using kind = detail::warden_report::kind;
    if (said->what == kind::started) {
      if (which->at == stage::starting) which->at = stage::running;
      note(name + " runs process " + std::to_string(said->process), said->text);
      if (which->asker && which->call != 0)
        which->asker->answer(std::exchange(which->call, 0), [&](protocol::HostMessage::Builder out) {
          out.initLaunched().setProcess(static_cast<std::uint32_t>(said->process));
        });
    } else if (said->what == kind::stuck) {
      note(name + " does not die", said->text);
    } else {
      std::string text = said->text;
      if (!said->last_words.empty()) text += "; its last words: " + said->last_words;
      note(name + (said->what == kind::failed ? " could not be started" : " is gone"), text);
      if (which->asker && which->call != 0)
        which->asker->fail(std::exchange(which->call, 0), error(errc::not_compatible, said->text));
      if (which->reason.empty()) which->reason = said->text;
      return finish(*which);
    }
  }
  if (!closed) return;
  loop_.unwatch(which->launched.warden.get(), *which);
  which->launched.warden.close();
  note("the warden of grant " + std::to_string(number) + " was killed", "its processes are being ended");
  finish_when_swept(*which);
}

inline void host_agent::finish_when_swept(grant& which) {
  // Its folder is the last that the keeper removes.
  if (which.asker && which.call != 0)
    which.asker->fail(std::exchange(which.call, 0), error(errc::cancelled, "the program was killed"));
  which.at = stage::ending;
  std::string folder =
      launches_.places().scratch + "/" + detail::grant_name(launches_.places(), which.number);
  if (!broken_.empty() || ::access(folder.c_str(), F_OK) != 0) return finish(which);
  which.swept = loop_.after(std::chrono::milliseconds(10), [this, number = which.number] {
    if (grant* left = find(number)) finish_when_swept(*left);
  });
}

inline void host_agent::node_has_left(std::uint64_t number) {
  grant* which = find(number);
  if (which == nullptr || which->at != stage::ending) return;
  note("the node of grant " + std::to_string(number) + " has given up all its tasks", which->reason);
  detail::tell_warden(which->launched, "end 0");
}

inline void host_agent::link_closed(std::uint64_t number) {
  auto found = grants_.find(number);
  if (found == grants_.end()) return;
  found->second->link.reset();
  loop_.post([this] { erase_finished(); });
}

inline void host_agent::end(grant& which, std::chrono::milliseconds limit, const std::string& reason) {
  if (which.gone) return;
  if (which.reason.empty()) which.reason = reason;
  if (which.at == stage::reserved) {
    note("grant " + std::to_string(which.number) + " ends before it was used", reason);
    return finish(which);
  }
  if (which.at == stage::ending && limit.count() > 0) return;
  bool first = which.at != stage::ending;
  which.at = stage::ending;
  if (first) note("grant " + std::to_string(which.number) + " is evicted", reason);
  if (first && which.link && limit.count() > 0)
    which.link->send([&](protocol::HostMessage::Builder out) {
      auto eviction = out.initEvict();
      eviction.setMilliseconds(static_cast<std::uint32_t>(limit.count()));
      eviction.setReason(reason.c_str());
    });
  detail::tell_warden(which.launched, "end " + std::to_string(limit.count()));
}

inline void host_agent::end_all(std::chrono::milliseconds limit, const std::string& reason) {
  for (auto& [number, each] : grants_) end(*each, limit, reason);
}

inline void host_agent::finish(grant& which) {
  // The object stays until nothing of it is being called any more.
  which.gone = true;
  if (which.launched.warden) loop_.unwatch(which.launched.warden.get(), which);
  which.launched.warden.close();
  loop_.cancel(which.swept);
  if (which.link) which.link->close();
  if (registered_)
    if (auto to = database_.current())
      to->send([&](protocol::HostMessage::Builder out) { out.initGrantEnded().setGrant(which.number); });
  if (which.asker)
    which.asker->send([&](protocol::HostMessage::Builder out) {
      auto ended = out.initEnded();
      ended.setGrant(which.number);
      ended.setReason(which.reason.c_str());
    });
  loop_.post([this] {
    erase_finished();
    if (!stopping_) look();
  });
}

inline void host_agent::erase_finished() {
  std::erase_if(grants_, [](const auto& each) { return each.second->gone && !each.second->link; });
  if (!grants_.empty()) return;
  std::lock_guard lock(mutex_);
  none_left_ = true;
  changed_.notify_all();
}

inline void host_agent::keeper_died() {
  if (!broken_.empty()) return;
  loop_.unwatch(launches_.keeper_descriptor(), keeper_);
  broken_ = "the process that keeps grants has died; start the agent again";
  note("nothing can be lent any more", broken_);
  {
    std::lock_guard lock(mutex_);
    broken_seen_ = true;
  }
  changed_.notify_all();
  look();
}

inline void host_agent::note(const std::string& what, const std::string& reason) {
  constexpr std::size_t most = 256;
  if (events_.size() == most) events_.pop_front();
  events_.push_back({std::chrono::steady_clock::now(), what, reason});
  if (options_.log) options_.log(what + ": " + reason);
}

} // namespace migrate
