// How a node is evicted, and what it tells the others of itself. Included by node/functions.hpp.
#pragma once

#include <migrate/node/body.hpp>

namespace migrate::detail {

template <class T> void reply_with(const request& asked, const T& value) {
  byte_writer bytes;
  bytes.put(value);
  answer result;
  result.bytes = {bytes.bytes().data(), bytes.bytes().size()};
  reply(asked, std::move(result));
}

inline std::string left_behind(node_id here, const eviction_report& how) {
  std::string text = "node " + to_string(here) + " is evicted (" + how.reason + ")";
  if (!how.remaining.empty()) {
    text += ", and these tasks could not leave it:";
    for (const remaining_task& each : how.remaining)
      text += " " + to_string(each.task) + (each.name.empty() ? "" : " (" + each.name + ")") + ": " +
              each.why + ";";
    text.pop_back();
  }
  if (!how.homed.empty())
    text += ", and " + std::to_string(how.homed.size()) + " tasks elsewhere have their home here";
  return text;
}

inline void node_body::serve() {
  std::unique_lock guard(state_lock_);
  state_changed_.wait(guard, [&] { return stopped_; });
  if (left_behind_) throw error(errc::node_leaving, left_behind(id_, *left_behind_));
}

inline void node_body::tell(node_id whom, const cluster_event& event) {
  tell_service(whom, service::cluster, [&](byte_writer& into) {
    into.put(cluster_wish::notice);
    into.put(event);
  });
}

inline void node_body::tell_all(const cluster_event& event) {
  for (node_id each : members_.all()) tell(each, event);
}

inline void node_body::on_notice(cluster_event&& event) {
  if (event.what == cluster_event::kind::leaving) members_.close(event.node);
  if (event.what == cluster_event::kind::staying) members_.reopen(event.node);
  events_.add(std::move(event));
}

inline void node_body::serve_cluster(const request& asked, byte_reader& from) {
  node_body& here = *this_node;
  switch (from.get<cluster_wish>()) {
  case cluster_wish::notice: here.on_notice(from.get<cluster_event>()); return;
  case cluster_wish::stay:
    here.stay();
    reply(asked, {});
    return;
  case cluster_wish::status: {
    auto most = from.get<std::uint64_t>();
    reply_with(asked, here.own_status(static_cast<std::size_t>(most)));
    return;
  }
  case cluster_wish::evict: {
    auto reason = from.get<std::string>();
    std::chrono::milliseconds within(from.get<std::int64_t>());
    here.evict_in_background(std::move(reason), within, [asked](const eviction_report& how) {
      reply_with(asked, how);
      return false;
    });
    return;
  }
  }
  throw error(errc::protocol, "there is no such request of a node");
}

inline eviction_report node_body::clear_out(const std::string& reason, std::chrono::milliseconds within) {
  auto deadline = std::chrono::steady_clock::now() + within;
  tell_all({cluster_event::kind::leaving, id_, no_node, {}, {}, reason, 0});
  eviction_->begin(reason);
  if (!first()) children_->evict(within, reason);
  eviction_->wait(deadline);
  if (!first())
    children_->wait_for_end(
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()));
  if (!first() && home_->residents().count() == 0) eviction_->wait_for_homed(deadline);
  eviction_report how = eviction_->report();
  std::string text =
      std::to_string(how.moved) + " tasks moved within " + std::to_string(how.took / 1'000'000) + " ms";
  if (!how.remaining.empty() || !how.homed.empty()) text += "; " + left_behind(id_, how);
  tell(family::registrar, {cluster_event::kind::cleared, id_, no_node, {}, {}, text, 0});
  return how;
}

inline void node_body::leave(const eviction_report& how) {
  std::lock_guard guard(state_lock_);
  if (!how.remaining.empty() || !how.homed.empty()) left_behind_ = how;
  stopped_ = true;
  state_changed_.notify_all();
}

inline void node_body::evict_in_background(std::string reason, std::chrono::milliseconds within,
                                      std::function<bool(const eviction_report&)> then) {
  std::lock_guard guard(state_lock_);
  evictors_.emplace_back([this, reason = std::move(reason), within, then = std::move(then)] {
    eviction_report how = clear_out(reason, within);
    bool at_any_price = then(how);
    if (!first() && (at_any_price || (how.remaining.empty() && how.homed.empty()))) leave(how);
  });
}

inline void node_body::listen_to_agent(int inherited) {
  loop_.run([this, inherited] {
    agent_ = agent_link::adopt(loop_, inherited, *this, "this host's agent");
  });
}

inline void node_body::on_link_message(agent_link& from, protocol::HostMessage::Reader message) {
  if (message.isStop()) {
    std::lock_guard guard(state_lock_);
    stopped_ = true;
    state_changed_.notify_all();
    return;
  }
  if (!message.isEvict()) return;
  std::string reason = message.getEvict().getReason().cStr();
  // What is left then is killed, so the node ends before.
  std::chrono::milliseconds within(message.getEvict().getMilliseconds() * 9ull / 10);
  evict_in_background(std::move(reason), within,
                      [this, link = from.shared_from_this()](const eviction_report&) {
                        link->send([](protocol::HostMessage::Builder into) { into.setEvicted(); });
                        children_->kill_all();
                        return true;
                      });
}

inline void node_body::on_link_closed(agent_link&, const error&) {
  if (std::exchange(agent_, nullptr) == nullptr) return; // closed by this node, which ends
  evict_in_background("the agent has ended", std::chrono::seconds(3), [this](const eviction_report&) {
    children_->kill_all();
    return true;
  });
}

inline eviction_report node_body::evict(const std::string& reason, std::chrono::milliseconds within) {
  eviction_report how = clear_out(reason, within);
  if (!first() && how.remaining.empty() && how.homed.empty()) leave(how);
  return how;
}

inline eviction_report node_body::evict(node_id which, const std::string& reason,
                                   std::chrono::milliseconds within) {
  if (which == id_) return evict(reason, within);
  called made = ask_home(which, service::cluster, [&](byte_writer& into) {
    into.put(cluster_wish::evict);
    into.put(reason);
    into.put(std::int64_t{within.count()});
  });
  if (made.got.code != errc::ok)
    throw error(made.got.code, "evicting node " + to_string(which) + ": " + made.got.what);
  byte_reader reader(made.got.bytes.data(), made.got.bytes.size());
  return reader.get<eviction_report>();
}

inline void node_body::stay(node_id which) {
  if (which == id_) return stay();
  called made = ask_home(which, service::cluster,
                                         [&](byte_writer& into) { into.put(cluster_wish::stay); });
  if (made.got.code != errc::ok)
    throw error(made.got.code, "asking node " + to_string(which) + " to stay: " + made.got.what);
}

inline void node_body::stay() {
  if (!eviction_->active()) return;
  eviction_->end();
  tell_all({cluster_event::kind::staying, id_, no_node, {}, {}, {}, 0});
}

} // namespace migrate::detail
