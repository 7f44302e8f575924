// Spawning, joining and finding tasks: what a task or thread of this node asks of the task's home,
// which may be here or away.
#pragma once

#include <optional>
#include <string>

#include <migrate/home/office.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/this_task.hpp>
#include <migrate/task/wait.hpp>

namespace migrate::detail::family {

// A task may be on another node whenever one of these waits, so each looks at this_home and
// this_calling anew after a wait and keeps no pointer to node memory across one.

inline constinit node_id registrar{1};
// The cluster's first node, which grants ranges of regions.

inline constexpr std::uint64_t refill_mark = std::uint64_t{1} << 62;
// The call number of requests for regions that no task waits for.

inline constexpr const char* no_more_regions =
    "the cluster has no more regions of this class; let tasks end, or take another region_class";

inline failure to_failure(const answer& got) {
  // In the caller's heap, since it becomes the caller's exception.
  if (got.code == errc::ok) return {};
  return {make_error_code(got.code), std::string(got.what.c_str())};
}

inline failure ask_for_regions(region_class kind) {
  if (this_home->here() == registrar) {
    node_heap_scope scope;
    if (this_home->grant_own(kind)) return {};
    return {make_error_code(errc::region_exhausted), no_more_regions};
  }
  called made = call_node(registrar, [&](protocol::Message::Builder message, std::uint64_t call) {
    auto request = message.initGrant();
    request.setCall(call);
    request.setKind(static_cast<std::uint8_t>(kind));
  });
  if (made.how == waited::moved) return {}; // another home's pool is asked now
  if (made.got.code == errc::ok) {
    node_heap_scope scope;
    this_home->grant({kind, static_cast<std::uint32_t>(made.got.first >> 32), static_cast<std::uint32_t>(made.got.first)});
  }
  return to_failure(made.got);
}

inline birth conceive(task_id parent, region_class kind, std::uint64_t awaited_as) {
  for (;;) {
    failure why;
    if (!parent || parent.home() == this_home->here()) {
      std::optional<pin_scope> here; // a granted range must find its asker
      if (current_task() != nullptr) here.emplace();
      home_office::conceived made;
      {
        node_heap_scope scope;
        made = this_home->conceive(parent, kind, this_home->here(), awaited_as);
      }
      if (made.born) return *made.born;
      why = made.why.code ? failure{made.why.code, std::string(made.why.what.c_str())}
                          : ask_for_regions(kind);
      if (!why.code) continue;
    } else {
      pin_scope here; // the answer is a new id: it must not be asked for twice
      called made =
          call_node(parent.home(), [&](protocol::Message::Builder message, std::uint64_t call) {
            auto request = message.initChild();
            request.setCall(call);
            request.setParent(parent.bits());
            request.setKind(static_cast<std::uint8_t>(kind));
            request.setAwaitedAs(awaited_as);
          });
      why = to_failure(made.got);
      if (!why.code) {
        birth born{task_id(made.got.first),
                   region_number::from_bits(static_cast<std::uint32_t>(made.got.second)), 1, true};
        while (this_home->is_held(born.region)) this_task::yield();
        if (born.region.valid() && this_home->open_region(born.region)) {
          region_space::allow_huge_pages(born.region);
          return born;
        }
        this_home->cancel(born);
        why = {make_error_code(errc::region_exhausted), "the kernel refuses another mapping (vm.max_map_count?)"};
      }
    }
    throw error(why.code, "spawning a task with home " +
                              to_string(parent ? parent.home() : this_home->here()) + ": " + why.what);
  }
}

inline void cancel(const birth& unborn) noexcept {
  node_heap_scope scope;
  this_home->cancel(unborn);
}

inline resident& enter(const birth& born, control_block& control) {
  node_heap_scope scope;
  return this_home->residents().enter(born.id, born.epoch, &control, this_home->records().find(born.id));
}

inline end_waiter waiter_for(resident* task, thread_waiter& blocked) noexcept {
  end_waiter who;
  if (task != nullptr)
    who.local = task;
  else
    who.thread = &blocked;
  return who;
}

inline bool wait_for_end(task_id id, const steady_point* deadline, bool take, outcome* into, failure& why) {
  thread_waiter blocked;
  bool in_time = true;
  for (;;) {
    if (id.home() == this_home->here()) {
      home_office::joined state;
      {
        node_heap_scope scope;
        state = this_home->join(id, waiter_for(current_task(), blocked), take, into);
      }
      if (state == home_office::joined::ended) return true;
      if (state == home_office::joined::unknown) {
        why = {make_error_code(errc::no_such_task), "task " + to_string(id) + " is not known to its home; was it joined before?"};
        return true;
      }
      if (!in_time) {
        if (current_task() == nullptr) {
          node_heap_scope scope;
          this_home->join(id, {}, false, nullptr); // the waiter's place is about to go
        }
        return false;
      }
      if (current_task() == nullptr)
        in_time = blocked.wait(deadline);
      else if (deadline == nullptr)
        park();
      else
        in_time = park_until(*deadline);
      safe_point();
      continue;
    }
    called made = call_node(
        id.home(),
        [&](protocol::Message::Builder message, std::uint64_t call) {
          auto request = message.initJoin();
          request.setCall(call);
          request.setTask(id.bits());
          request.setTake(take);
        },
        deadline, true);
    if (made.how == waited::moved) continue;
    if (made.how == waited::interrupted) {
      safe_point(); // its handlers run, and the wait goes on
      continue;
    }
    if (made.how == waited::late) return false;
    why = to_failure(made.got);
    auto kind = static_cast<outcome_kind>(made.got.first);
    if (!why.code && kind == outcome_kind::none) continue; // it has ended just now: ask for the outcome
    if (into != nullptr) *into = outcome{kind, std::move(made.got.bytes), 0, {}};
    if (take && !why.code)
      send_message(*this_calling.network, id.home(),
                   [&](protocol::Message::Builder message) { message.setRelease(id.bits()); });
    return true;
  }
}

inline outcome join(task_id id) {
  outcome how;
  failure why;
  wait_for_end(id, nullptr, true, &how, why);
  if (why.code) throw error(why.code, "joining task " + to_string(id) + ": " + why.what);
  return how;
}

inline bool wait_until(task_id id, steady_point deadline) {
  failure why;
  bool ended = wait_for_end(id, &deadline, false, nullptr, why);
  if (why.code) throw error(why.code, "waiting for task " + to_string(id) + ": " + why.what);
  return ended;
}

inline void detach(task_id id) noexcept {
  node_heap_scope scope;
  if (id.home() == this_home->here())
    this_home->release(id);
  else
    send_message(*this_calling.network, id.home(),
                 [&](protocol::Message::Builder message) { message.setRelease(id.bits()); });
}

inline node_id locate(task_id id, failure& why) {
  for (;;) {
    if (id.home() == this_home->here()) {
      node_heap_scope scope;
      return this_home->locate(id);
    }
    called made = call_node(id.home(), [&](protocol::Message::Builder message, std::uint64_t call) {
      auto request = message.initLocate();
      request.setCall(call);
      request.setTask(id.bits());
    });
    if (made.how == waited::moved) continue;
    why = to_failure(made.got);
    return node_id(static_cast<std::uint16_t>(made.got.first));
  }
}

inline node_id locate_or_throw(task_id id) {
  failure why;
  node_id place = locate(id, why);
  if (why.code) throw error(why.code, "locating task " + to_string(id) + ": " + why.what);
  return place;
}

// The same requests from tasks elsewhere, on this node's I/O thread.

inline void replenish(region_class kind) {
  // Others cannot wait on this thread, so the next range is asked for before the last is used up.
  if (this_home->here() == registrar || !this_home->wants_more(kind)) return;
  send_message(*this_calling.network, registrar, [&](protocol::Message::Builder message) {
    auto request = message.initGrant();
    request.setCall(refill_mark);
    request.setKind(static_cast<std::uint8_t>(kind));
  });
}

inline void on_refill(const answer& got) {
  if (got.code != errc::ok || got.second == 0) return;
  this_home->grant({static_cast<region_class>(got.second - 1), static_cast<std::uint32_t>(got.first >> 32),
                    static_cast<std::uint32_t>(got.first)});
}

inline void on_child(node_id asker, protocol::Child::Reader request) {
  answer reply;
  auto kind = request.getKind();
  if (kind >= region_classes) {
    reply = {errc::protocol, "no such class of regions", 0, 0, {}};
  } else {
    auto wanted = static_cast<region_class>(kind);
    auto made = this_home->conceive(task_id(request.getParent()), wanted, asker, request.getAwaitedAs());
    if (!made.born && !made.why.code && this_home->grant_own(wanted))
      made = this_home->conceive(task_id(request.getParent()), wanted, asker, request.getAwaitedAs());
    replenish(wanted);
    if (made.born) {
      reply.first = made.born->id.bits();
      reply.second = made.born->region.bits();
    } else {
      reply.code = errc::region_exhausted;
      reply.what = made.why.code ? made.why.what : no_more_regions;
    }
  }
  send_answer(*this_calling.network, asker, request.getCall(), reply);
}

inline void on_join(node_id asker, protocol::Join::Reader request) {
  end_waiter who;
  who.node = asker;
  who.call = request.getCall();
  outcome how;
  task_id id(request.getTask());
  switch (this_home->peek(id, who, how)) {
  case home_office::joined::waiting: return;
  case home_office::joined::unknown:
    send_answer(*this_calling.network, asker, request.getCall(),
                {errc::no_such_task, "task " + to_string(id) + " is not known to its home; was it joined before?", 0, 0, {}});
    return;
  case home_office::joined::ended:
    answer reply;
    reply.first = static_cast<std::uint64_t>(how.kind);
    if (request.getTake()) reply.bytes = std::move(how.bytes);
    send_answer(*this_calling.network, asker, request.getCall(), reply);
  }
}

inline void on_locate(node_id asker, protocol::TaskCall::Reader request) {
  answer reply;
  reply.first = number(this_home->locate(task_id(request.getTask())));
  send_answer(*this_calling.network, asker, request.getCall(), reply);
}

inline void on_ended(node_id teller, protocol::Ended::Reader message,
                     kj::ArrayPtr<const kj::byte> attachment) {
  task_id id(message.getTask());
  outcome how{static_cast<outcome_kind>(message.getKind()), {attachment.begin(), attachment.size()},
              message.getStatus(), {}};
  if (auto usage = message.getUsage(); usage.size() == sizeof how.used)
    std::memcpy(&how.used, usage.begin(), sizeof how.used);
  this_home->record_end(id, message.getEpoch(), std::move(how), nullptr);
  send_message(*this_calling.network, teller,
               [&](protocol::Message::Builder reply) { reply.setEndedSeen(id.bits()); });
}

} // namespace migrate::detail::family
