// What a node knows of the whole cluster, and what it does at a person's command. Included by node/functions.hpp.
#pragma once

#include <migrate/node/body.hpp>

namespace migrate::detail {

inline node_status node_body::own_status(std::size_t most_tasks) {
  node_status made;
  made.node = id_;
  made.host = this_host();
  made.process = static_cast<std::uint32_t>(::getpid());
  made.address = address();
  made.workers = options_.workers;
  made.state = eviction_->active() ? "leaves its host" : "";
  made.tasks_here = home_->residents().count();
  made.tasks = tasks_of(home_->residents(), id_, most_tasks);
  made.events = aged(events_.last(event_log::kept));
  return made;
}

inline std::vector<node_status> node_body::status(std::chrono::milliseconds within,
                                             const std::atomic<bool>& give_up) {
  std::vector<node_id> others = members_.all();
  std::erase(others, id_);
  auto got = ask_all(
      others,
      [](node_id whom, std::uint64_t call) {
        request_home(whom, service::cluster, call, [](byte_writer& into) {
          into.put(cluster_wish::status);
          into.put(std::uint64_t{most_listed});
        });
      },
      std::chrono::steady_clock::now() + within, give_up);
  std::vector<node_status> all{own_status(most_listed)};
  for (std::size_t i = 0; i < others.size(); ++i) {
    node_status each;
    if (got[i] && got[i]->code == errc::ok) {
      byte_reader from(got[i]->bytes.data(), got[i]->bytes.size());
      each = from.get<node_status>();
    } else {
      each.node = others[i];
      each.address = network_->address_of(others[i]);
      each.state =
          got[i] ? got[i]->what : "has not answered within " + std::to_string(within.count()) + " ms";
    }
    all.push_back(std::move(each));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.node < b.node; });
  make_one(all, id_);
  return all;
}

inline failure node_body::move_by_command(task_id task, node_id target, std::chrono::milliseconds within,
                                             const std::atomic<bool>& give_up) {
  const auto deadline = std::chrono::steady_clock::now() + within;
  const std::string asked = "moving task " + to_string(task) + " to node " + to_string(target) + ": ";
  auto ask = [&](node_id whom, auto&& fill) -> answer {
    auto got = ask_all(
        {whom}, [&](node_id which, std::uint64_t call) { fill(which, call); }, deadline, give_up);
    if (got[0]) return std::move(*got[0]);
    return {errc::timed_out,
            "it has not moved within " + std::to_string(within.count()) +
                " ms: it holds a pin_scope, or passes no safe point; it will move when it can",
            0,
            0,
            {}};
  };
  if (!members_.contains(target))
    return {make_error_code(errc::no_such_node),
            asked + "there is no such node; `migrate status` lists those there are"};
  for (;;) {
    node_id place = no_node;
    if (task.home() == id_) {
      place = home_->locate(task);
    } else if (members_.contains(task.home())) {
      answer at = ask(task.home(), [&](node_id whom, std::uint64_t call) {
        send_message(*network_, whom, [&](protocol::Message::Builder message) {
          message.initLocate().setCall(call);
          message.getLocate().setTask(task.bits());
        });
      });
      if (at.code != errc::ok) return {make_error_code(at.code), asked + at.what};
      place = node_id(static_cast<std::uint16_t>(at.first));
    }
    if (place == no_node)
      return {make_error_code(errc::no_such_task), asked + "there is no such task, or it has ended"};
    if (place == target) return {};
    answer made = ask(place, [&](node_id whom, std::uint64_t call) {
      if (whom != id_) {
        send_message(*network_, whom, [&](protocol::Message::Builder message) {
          auto request = message.initMove();
          request.setCall(call);
          request.setTask(task.bits());
          request.setTarget(number(target));
          request.setReason(static_cast<std::uint8_t>(move_reason::command));
        });
        return;
      }
      failure refused;
      resident* here = home_->find_here(task);
      if (here == nullptr ||
          !engine_->order(*here, task, target, {id_, call, {}, move_reason::command}, refused))
        calls_.complete(call, {errc::ok, "", 1, 0, {}}); // not here any more
      else if (refused.code)
        calls_.complete(call, {static_cast<errc>(refused.code.value()), refused.what, 0, 0, {}});
    });
    if (made.code != errc::ok)
      return {make_error_code(made.code), made.what.starts_with("moving") ? made.what : asked + made.what};
    if (made.first == 0) return {};
    if (std::chrono::steady_clock::now() >= deadline || give_up)
      return {make_error_code(errc::timed_out), asked + "it moves about too fast to be caught"};
  }
}

inline void node_body::open_control_desk() {
  using namespace std::chrono_literals;
  desk_.emplace(loop_, control_desk::functions{
                           .status = [this](const std::atomic<bool>& give_up) { return status(1s, give_up); },
                           .move =
                               [this](task_id task, node_id target, const std::atomic<bool>& give_up) {
                                 return move_by_command(task, target, 8s, give_up);
                               }});
  try {
    desk_->open();
  } catch (const error& problem) {
    say(std::string("`migrate status` will not find this program: ") + problem.what());
  }
}

} // namespace migrate::detail
