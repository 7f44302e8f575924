// The host database: agents tell it of their hosts, applications ask it for some, and the ledger decides.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sys/random.h>

#include <migrate/cluster/grant_ledger.hpp>
#include <migrate/error.hpp>
#include <migrate/rpc/channel.hpp>
#include <migrate/rpc/event_loop.hpp>

namespace migrate {

struct host_database_options {
  std::vector<std::string> listen{"127.0.0.1:0"};
  std::optional<credentials> security; // none: agents and applications of this user on this machine only
  std::string name = "migrated";
  detail::ledger_limits limits;
  std::chrono::milliseconds silence{20'000};     // a peer that is silent for so long is gone
  std::function<void(const std::string&)> log{}; // a line for each event; on the I/O thread
};

class host_database final : private channel_handler {
  // Knows nothing that it would have to keep: when it dies and comes back, agents and applications tell what they have.
  // Thread safety: start, stop and the constructor from one thread that is not the I/O thread; status() from any other
  // than the I/O thread.

public:
  host_database(event_loop& loop, host_database_options options);
  ~host_database() { stop(); }
  host_database(const host_database&) = delete;
  host_database& operator=(const host_database&) = delete;

  void start();
  // Listens. Throws as channel_server::start.

  void stop();
  // Sends what is queued and says goodbye. Whoever holds a grant keeps it. Before the loop is stopped.

  const std::vector<std::string>& addresses() const noexcept { return server_.addresses(); }

  template <class F> void look(F&& function) {
    loop_.run([&] { function(std::as_const(ledger_)); });
  }
  // function(const detail::grant_ledger&) on the I/O thread, while the caller waits.

private:
  struct party {
    std::shared_ptr<channel> over;
    std::string agent;             // its address, once it has registered
    std::uint64_t application = 0; // its id, once it has asked
  };

  void on_open(channel& from) override;
  void on_message(channel& from, protocol::HostMessage::Reader message,
                  kj::ArrayPtr<const kj::byte>) override;
  void on_closed(channel& from, const error& reason) override;
  void on_refused(const std::string& peer, const error& reason) override;

  void hear_registration(party& from, protocol::HostRegistration::Reader said);
  void hear_state(party& from, protocol::HostState::Reader said);
  void hear_ask(party& from, protocol::HostAsk::Reader said);
  void obey();
  void grant(const detail::ledger_order& order);
  void set_timer();
  void write_status(protocol::HostStatus::Builder into) const;

  static std::string limited(capnp::Text::Reader text) {
    constexpr std::size_t most = 256;
    std::string_view all(text.cStr(), text.size());
    return std::string(all.substr(0, most));
  }
  static std::vector<detail::held_grant> read(capnp::List<protocol::HeldGrant>::Reader list);
  static std::uint64_t random_number();
  static const std::string& agent_of(const party& which);
  static std::uint64_t application_of(const party& which);

  event_loop& loop_;
  const host_database_options options_;
  detail::grant_ledger ledger_;
  channel_server server_;
  std::unordered_map<const channel*, party> parties_;
  std::unordered_map<std::string, party*> agents_;
  std::unordered_map<std::uint64_t, party*> applications_;
  std::uint64_t logged_ = 0; // events
  event_loop::timer timer_;
  event_loop::clock::time_point timer_at_{};
};

inline std::uint64_t host_database::random_number() {
  std::uint64_t made = 0;
  if (::getrandom(&made, sizeof made, 0) != sizeof made) throw error(errc::cancelled, "getrandom failed");
  return made;
}

namespace detail {

inline channel_options database_channel(const host_database_options& options) {
  channel_options made;
  made.self = channel_party::of_this_process(protocol::HostRole::DATABASE, options.name);
  made.security = options.security;
  made.limits.silence = options.silence;
  return made;
}

} // namespace detail

inline host_database::host_database(event_loop& loop, host_database_options options)
    : loop_(loop), options_(std::move(options)),
      // Numbers that no database before this one has given out, or the grants of both would be mixed up.
      ledger_(random_number() & ~std::uint64_t{0xffff'ffff}, options_.limits),
      server_(loop, detail::database_channel(options_), *this) {}

inline void host_database::start() { server_.start(options_.listen); }

inline void host_database::stop() {
  server_.stop();
  try {
    loop_.run([&] { loop_.cancel(timer_); });
  } catch (const error&) { // the loop has been stopped
  }
}

// Whom it hears ------------------------------------------------------------------------------------

inline void host_database::on_open(channel& from) { parties_[&from].over = from.shared_from_this(); }

inline const std::string& host_database::agent_of(const party& which) {
  if (which.agent.empty())
    throw error(errc::protocol,
                which.over->peer_name() + " speaks as an agent and has not registered a host");
  return which.agent;
}

inline std::uint64_t host_database::application_of(const party& which) {
  if (which.application == 0)
    throw error(errc::protocol,
                which.over->peer_name() + " speaks as an application and has not asked for hosts");
  return which.application;
}

inline void host_database::on_message(channel& from, protocol::HostMessage::Reader message,
                                      kj::ArrayPtr<const kj::byte>) {
  party& who = parties_.at(&from);
  const auto now = event_loop::clock::now();
  switch (message.which()) {
  case protocol::HostMessage::REGISTER: hear_registration(who, message.getRegister()); break;
  case protocol::HostMessage::STATE: hear_state(who, message.getState()); break;
  case protocol::HostMessage::REVOKED: {
    auto said = message.getRevoked();
    ledger_.host_takes_back(agent_of(who), said.getGrant(), limited(said.getReason()),
                            std::chrono::milliseconds(said.getMilliseconds()), now);
    break;
  }
  case protocol::HostMessage::GRANT_ENDED:
    ledger_.grant_ended(agent_of(who), message.getGrantEnded().getGrant(), now);
    break;
  case protocol::HostMessage::ASK: hear_ask(who, message.getAsk()); break;
  case protocol::HostMessage::GIVE_BACK:
    ledger_.gave_back(application_of(who), message.getGiveBack().getGrant(), now,
                      limited(message.getGiveBack().getUnusable()), message.getGiveBack().getFewer());
    break;
  case protocol::HostMessage::STATUS_OF:
    if (message.getCall() == 0) return;
    from.answer(message.getCall(),
                [&](protocol::HostMessage::Builder into) { write_status(into.initStatus()); });
    return;
  default:
    throw error(errc::protocol,
                from.peer_name() + " asks the host database for something that it does not do");
  }
  if (message.getCall() != 0)
    from.answer(message.getCall(), [](protocol::HostMessage::Builder into) { into.setDone(); });
  obey();
}

inline std::vector<detail::held_grant> host_database::read(capnp::List<protocol::HeldGrant>::Reader list) {
  constexpr unsigned most = 65'536;
  std::vector<detail::held_grant> all;
  for (unsigned i = 0; i < list.size() && i < most; ++i)
    all.push_back({list[i].getGrant(), list[i].getApplication(), limited(list[i].getHost()),
                   limited(list[i].getAgentAddress())});
  return all;
}

inline void host_database::hear_registration(party& from, protocol::HostRegistration::Reader said) {
  if (from.over->peer().role != protocol::HostRole::AGENT)
    throw error(errc::protocol, from.over->peer_name() + " registers a host and is no agent");
  detail::host_registration made{limited(said.getAddress()), limited(said.getHost()), said.getSlots(),
                                 read(said.getGrants())};
  if (made.address.empty() || (!from.agent.empty() && from.agent != made.address))
    throw error(errc::protocol, from.over->peer_name() + " registers a host under the address '" +
                                    made.address + "'" +
                                    (from.agent.empty() ? "" : ", and one at " + from.agent + " before"));
  party*& known = agents_[made.address];
  if (known != nullptr && known != &from) { // a connection that has been lost, and is not known to be yet
    auto before = std::exchange(known, &from);
    before->agent.clear();
    auto over = before->over; // which ends with its party
    over->close(error(errc::cancelled, "another agent registers " + made.address));
  }
  known = &from;
  from.agent = made.address;
  ledger_.host_came(made, event_loop::clock::now());
}

inline void host_database::hear_state(party& from, protocol::HostState::Reader said) {
  detail::host_condition made;
  made.lendable = said.getLendable();
  made.reason = limited(said.getReason());
  made.source = limited(said.getSource());
  constexpr std::uint64_t longest = std::uint64_t{1} << 50;
  made.idle = std::chrono::milliseconds(std::min(said.getIdleMilliseconds(), longest));
  made.load_own = said.getLoadOwn();
  made.load_foreign = said.getLoadForeign();
  made.pressure = said.getPressure();
  ledger_.host_told(agent_of(from), made, event_loop::clock::now());
}

inline void host_database::hear_ask(party& from, protocol::HostAsk::Reader said) {
  const channel_party& peer = from.over->peer();
  if (peer.role != protocol::HostRole::APPLICATION)
    throw error(errc::protocol, from.over->peer_name() + " asks for hosts and is no application");
  detail::application_ask made;
  made.application = said.getApplication();
  if (made.application == 0 || (from.application != 0 && from.application != made.application))
    throw error(errc::protocol, from.over->peer_name() + " asks for hosts as application " +
                                    std::to_string(made.application) + ", and before as " +
                                    std::to_string(from.application));
  made.name = peer.name.substr(0, 256);
  made.user = peer.user_name.substr(0, 256);
  made.host = peer.host.substr(0, 256);
  made.wanted = said.getWanted();
  made.least = said.getLeast();
  made.priority = said.getPriority();
  made.long_running = said.getLongRunning();
  made.back = said.getBack();
  made.held = read(said.getHeld());
  party*& known = applications_[made.application];
  if (known != nullptr && known != &from) {
    if (known->over->peer().user != peer.user)
      throw error(errc::not_authenticated, from.over->peer_name() +
                                               " asks for hosts as an application of user " +
                                               known->over->peer().user_name);
    auto before = std::exchange(known, &from);
    before->application = 0;
    auto over = before->over;
    over->close(error(errc::cancelled, "the application has connected again"));
    made.back = true;
  }
  known = &from;
  from.application = made.application;
  ledger_.asked(made, event_loop::clock::now());
}

inline void host_database::on_closed(channel& from, const error&) {
  auto gone = parties_.extract(&from);
  if (gone.empty()) return;
  const party& was = gone.mapped();
  const auto now = event_loop::clock::now();
  if (!was.agent.empty()) {
    agents_.erase(was.agent);
    ledger_.host_left(was.agent, now);
  }
  if (was.application != 0) {
    applications_.erase(was.application);
    ledger_.application_left(was.application, now);
  }
  obey();
}

inline void host_database::on_refused(const std::string& peer, const error& reason) {
  ledger_.note_refusal(peer, reason.what(), event_loop::clock::now());
  obey();
}

// What it does -------------------------------------------------------------------------------------

inline void host_database::obey() {
  for (const detail::ledger_order& order : ledger_.take_orders()) {
    auto fill = [&](protocol::GrantReason::Builder into) {
      into.setGrant(order.grant);
      into.setReason(order.reason.c_str());
      into.setMilliseconds(static_cast<std::uint32_t>(order.left.count()));
    };
    switch (order.what) {
    case detail::ledger_order::kind::granted: grant(order); break;
    case detail::ledger_order::kind::revoked:
      if (auto to = applications_.find(order.application); to != applications_.end())
        to->second->over->send([&](protocol::HostMessage::Builder into) { fill(into.initRevoked()); });
      break;
    case detail::ledger_order::kind::ended:
      if (auto to = agents_.find(order.address); to != agents_.end())
        to->second->over->send([&](protocol::HostMessage::Builder into) { fill(into.initEnded()); });
      break;
    }
  }
  set_timer();
  if (!options_.log) return;
  ledger_.events().for_each(
      [&](const detail::ledger_event& each) {
        std::string reason = each.reason();
        options_.log(each.what() + (reason.empty() ? "" : ": " + reason));
      },
      std::exchange(logged_, ledger_.events().count()));
}

inline void host_database::grant(const detail::ledger_order& order) {
  auto agent = agents_.find(order.address);
  auto application = applications_.find(order.application);
  const auto* host = ledger_.host(order.address);
  if (agent == agents_.end() || application == applications_.end() || host == nullptr)
    return; // gone meanwhile
  const std::uint64_t random[2] = {random_number(), random_number()};
  auto secret = kj::arrayPtr(reinterpret_cast<const kj::byte*>(random), sizeof random);
  const channel_party& who = application->second->over->peer();
  const auto* granted = ledger_.grant(order.grant);
  agent->second->over->send([&](protocol::HostMessage::Builder into) {
    auto reservation = into.initReserved();
    reservation.setGrant(order.grant);
    reservation.setApplication(order.application);
    reservation.setApplicationName(who.name.c_str());
    reservation.setUser(who.user);
    reservation.setUserName(who.user_name.c_str());
    reservation.setSecret(secret);
    reservation.setLongRunning(granted != nullptr && granted->long_running);
  });
  application->second->over->send([&](protocol::HostMessage::Builder into) {
    auto made = into.initGranted();
    made.setGrant(order.grant);
    made.setHost(host->name.c_str());
    made.setAgentAddress(order.address.c_str());
    made.setSecret(secret);
    made.setProcessors(1);
  });
}

inline void host_database::set_timer() {
  auto due = ledger_.next_due();
  if (timer_ && due && timer_at_ <= *due) return; // it looks again when that has fired
  loop_.cancel(timer_);
  if (!due) return;
  timer_at_ = *due;
  timer_ = loop_.at(*due, [this] {
    timer_ = {};
    ledger_.advance(event_loop::clock::now());
    obey();
  });
}

inline void host_database::write_status(protocol::HostStatus::Builder into) const {
  const auto now = event_loop::clock::now();
  auto age = [&](event_loop::clock::time_point when) {
    return static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(now - when).count()));
  };
  unsigned at = 0;
  auto hosts = into.initHosts(static_cast<unsigned>(ledger_.hosts()));
  ledger_.for_each_host([&](const detail::ledger_host& each) {
    auto line = hosts[at++];
    line.setHost(each.name.c_str());
    line.setAgentAddress(each.address.c_str());
    auto state = line.initState();
    state.setLendable(each.usable());
    state.setReason(!each.present ? "its agent is away"
                    : !each.fresh ? "it is silent"
                                  : each.condition.reason.c_str());
    state.setSource(each.condition.source.c_str());
    state.setIdleMilliseconds(static_cast<std::uint64_t>(each.condition.idle.count()));
    state.setLoadOwn(each.condition.load_own);
    state.setLoadForeign(each.condition.load_foreign);
    state.setPressure(each.condition.pressure);
    line.setSlots(each.slots);
    line.setAge(age(each.told));
    auto holders = line.initHolders(static_cast<unsigned>(each.grants.size()));
    for (unsigned i = 0; i < holders.size(); ++i) {
      const detail::ledger_grant& grant = *each.grants[i];
      holders[i].setGrant(grant.id);
      if (grant.holder == nullptr) continue; // it is ending
      holders[i].setApplication(grant.holder->id);
      holders[i].setApplicationName(grant.holder->name.c_str());
      holders[i].setUserName(grant.holder->user.c_str());
    }
  });
  at = 0;
  auto applications = into.initApplications(static_cast<unsigned>(ledger_.applications()));
  ledger_.for_each_application([&](const detail::ledger_application& each) {
    auto line = applications[at++];
    line.setApplication(each.id);
    line.setName(each.name.c_str());
    line.setUserName(each.user.c_str());
    line.setHost(each.on->name.c_str());
    line.setWanted(static_cast<std::uint32_t>(each.wanted));
    line.setLeast(static_cast<std::uint32_t>(each.least));
    line.setHeld(static_cast<std::uint32_t>(each.held()));
    line.setPriority(each.priority);
    line.setLongRunning(each.long_running);
  });
  at = 0;
  auto events = into.initEvents(static_cast<unsigned>(ledger_.events().kept()));
  ledger_.events().for_each([&](const detail::ledger_event& each) {
    auto line = events[at++];
    line.setAge(age(each.when));
    line.setWhat(each.what().c_str());
    line.setReason(each.reason().c_str());
  });
}

} // namespace migrate
