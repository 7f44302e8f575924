// The calls of families, groups and sessions: what a task asks of its home, and the home's side of the asking.
#pragma once

#include <tuple>

#include <migrate/home/process_services.hpp>
#include <migrate/home/processes.hpp>
#include <migrate/home/request.hpp>

namespace migrate::detail::process {

enum class wish : std::uint8_t { where_is, set_group, set_session, wait, give_up_wait, children_usage, child_policy };

// --- the home's side -------------------------------------------------------------------------------------------------

struct place_reply {
  task_id group, session, parent;
};

inline void serve(const request& asked, byte_reader& in) {
  process_table& all = this_home->processes();
  auto reply_with = [&](int error, const auto&... values) {
    byte_writer out;
    (out.put(values), ...);
    answer result;
    result.first = static_cast<std::uint64_t>(error);
    result.bytes = {out.bytes().data(), out.bytes().size()};
    reply(asked, std::move(result));
  };
  switch (in.get<wish>()) {
  case wish::where_is: {
    process_table::place found = all.where_is(in.get<task_id>());
    return reply_with(found.group ? 0 : ESRCH, place_reply{found.group, found.session, found.parent});
  }
  case wish::set_group: {
    auto number = in.get<std::uint64_t>();
    auto task = in.get<task_id>();
    return reply_with(all.set_group(asked.task, number, task, in.get<task_id>()));
  }
  case wish::set_session: return reply_with(all.set_session(asked.task, in.get<std::uint64_t>()));
  case wish::wait: return all.wait(asked, in.get<wait_request>());
  case wish::give_up_wait: return all.give_up_wait(asked, in.get<std::uint64_t>());
  case wish::children_usage: return reply_with(0, all.children_usage(asked.task));
  case wish::child_policy: {
    bool reaps_itself = in.get<bool>();
    all.set_child_policy(asked.task, reaps_itself, in.get<bool>());
    return reply_with(0);
  }
  }
  throw error(errc::protocol, "no such request about processes");
}

// --- the task's side -------------------------------------------------------------------------------------------------

inline int to_errno(const answer& got) {
  return got.code == errc::ok ? static_cast<int>(got.first) : EHOSTUNREACH;
}

template <class... A> called ask_until_answered(node_id home, wish what, const A&... arguments) {
  for (;;) {
    called made = ask_home(home, service::process, [&](byte_writer& out) {
      out.put(what);
      (out.put(arguments), ...);
    });
    if (made.how != waited::moved) return made;
  }
}

template <class T> T unpack(const answer& got) {
  byte_reader in(got.bytes.data(), got.bytes.size());
  return got.bytes.size() == 0 ? T{} : in.get<T>();
}

inline int where_is(task_id task, task_id& group, task_id& session, task_id& parent) {
  if (task.home() == no_node) return ESRCH;
  called made = ask_until_answered(task.home(), wish::where_is, task);
  auto found = unpack<place_reply>(made.got);
  group = found.group;
  session = found.session;
  parent = found.parent;
  return made.got.code != errc::ok && task.home() != self().id.home() ? ESRCH : to_errno(made.got);
}

inline int set_group(task_id task, task_id group) {
  task_id me = self().id;
  return to_errno(ask_until_answered(me.home(), wish::set_group, next_request(), task, group).got);
}

inline int set_session() {
  task_id me = self().id;
  return to_errno(ask_until_answered(me.home(), wish::set_session, next_request()).got);
}

inline int children_usage(task_usage& used) {
  called made = ask_until_answered(self().id.home(), wish::children_usage);
  used = unpack<task_usage>(made.got);
  return to_errno(made.got);
}

inline int set_child_policy(bool reaps_itself, bool no_stop_news) {
  return to_errno(ask_until_answered(self().id.home(), wish::child_policy, reaps_itself, no_stop_news).got);
}

inline int wait(const wait_selection& selection, int options, wait_report& got) {
  const node_id home = self().id.home();
  wait_request what{next_request(), 0, selection, options};
  auto ask = [&] {
    called made = ask_home(
        home, service::process,
        [&](byte_writer& out) {
          ++what.attempt;
          out.put(wish::wait);
          out.put(what);
        },
        nullptr, true);
    // Interrupted: home may have given a child out to this wait meanwhile, and says so when it takes the wait back.
    bool interrupted = made.how == waited::interrupted;
    if (interrupted) made = ask_until_answered(home, wish::give_up_wait, what.number);
    got = unpack<wait_report>(made.got);
    return std::tuple(made.how, to_errno(made.got), interrupted);
  };
  for (;;) {
    auto [how, error, interrupted] = ask(); // holds none of the node's memory any more
    if (how == waited::moved) continue;
    if (interrupted && the_services->take_signals() != after_signals::interrupt && error == EINTR) {
      what.number = next_request(); // SA_RESTART
      what.attempt = 0;
      continue;
    }
    return error;
  }
}

inline constexpr process_services services{
    .where_is = where_is,
    .set_group = set_group,
    .set_session = set_session,
    .wait = wait,
    .children_usage = children_usage,
    .set_child_policy = set_child_policy,
};

} // namespace migrate::detail::process
