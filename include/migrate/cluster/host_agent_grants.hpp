// What a host's agent does for a grant, from its reservation to its end. Included by host_agent.hpp.
#pragma once

#include <migrate/cluster/host_agent.hpp>

namespace migrate {

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
    take_back(here, std::chrono::milliseconds(0), "all slots are taken");
  else if (std::string why = obstacle(); !why.empty())
    take_back(here, std::chrono::milliseconds(0), "this host may not be lent: " + why);
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
        which->asker->answer(std::exchange(which->call, 0), [&](protocol::HostMessage::Builder into) {
          into.initLaunched().setProcess(static_cast<std::uint32_t>(said->process));
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
  detail::tell_warden(which->launched, "end 300"); // it says goodbye to its cluster meanwhile
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
  if (first)
    note("grant " + std::to_string(which.number) + (limit.count() > 0 ? " is evicted" : " ends"), reason);
  if (first && which.link && limit.count() > 0)
    which.link->send([&](protocol::HostMessage::Builder into) {
      auto eviction = into.initEvict();
      eviction.setMilliseconds(static_cast<std::uint32_t>(limit.count()));
      eviction.setReason(reason.c_str());
    });
  detail::tell_warden(which.launched, "end " + std::to_string(limit.count()));
}

inline void host_agent::take_back(grant& which, std::chrono::milliseconds limit, const std::string& reason) {
  // The application hears why from the database.
  if (which.gone || which.at == stage::ending) return;
  auto to = registered_ ? database_.current() : nullptr;
  if (to)
    to->send([&](protocol::HostMessage::Builder into) {
      auto revoked = into.initRevoked();
      revoked.setGrant(which.number);
      revoked.setReason(reason.c_str());
      revoked.setMilliseconds(static_cast<std::uint32_t>(limit.count()));
    });
  end(which, limit, reason);
}

inline void host_agent::take_all_back(std::chrono::milliseconds limit, const std::string& reason) {
  for (auto& [number, each] : grants_) take_back(*each, limit, reason);
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
      to->send([&](protocol::HostMessage::Builder into) { into.initGrantEnded().setGrant(which.number); });
  if (which.asker)
    which.asker->send([&](protocol::HostMessage::Builder into) {
      auto ended = into.initEnded();
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

} // namespace migrate
