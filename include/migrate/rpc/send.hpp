// Building and sending one message.
#pragma once

#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include <capnp/message.h>
#include <sys/uio.h>

#include <migrate/memory/current_heap.hpp>
#include <migrate/rpc/calls.hpp>
#include <migrate/rpc/peers.hpp>
#include <migrate/rpc/protocol.capnp.h>

namespace migrate::detail {

template <class Fill>
bool send_message(peers& to, node_id node, Fill&& fill, std::span<const iovec> attachment = {}) {
  node_heap_scope scope;
  capnp::word scratch[48];
  std::memset(scratch, 0, sizeof scratch);
  capnp::MallocMessageBuilder message(kj::arrayPtr(scratch, std::size(scratch)));
  fill(message.initRoot<protocol::Message>());
  try {
    return to.send(node, message, attachment) != send_result::closed;
  } catch (const error&) {
    return false;
  }
}
// fill(protocol::Message::Builder). Any thread. False: it will not arrive, as the node is not one of the
// cluster, or this one is stopping; otherwise the listener hears if it does not.

inline void send_answer(peers& to, node_id node, std::uint64_t call, const answer& result) {
  iovec bytes{const_cast<std::byte*>(result.bytes.data()), result.bytes.size()};
  send_message(
      to, node,
      [&](protocol::Message::Builder message) {
        auto reply = message.initAnswer();
        reply.setCall(call);
        reply.setCode(static_cast<std::int32_t>(result.code));
        if (!result.what.empty()) reply.setWhat(result.what.c_str());
        reply.setFirst(result.first);
        reply.setSecond(result.second);
      },
      std::span<const iovec>(&bytes, bytes.iov_len > 0 ? 1 : 0));
}

inline answer to_answer(protocol::Answer::Reader reply, kj::ArrayPtr<const kj::byte> attachment) {
  answer result;
  result.code = static_cast<errc>(reply.getCode());
  result.what = std::string(reply.getWhat().cStr());
  result.first = reply.getFirst();
  result.second = reply.getSecond();
  result.bytes = node_bytes(attachment.begin(), attachment.size());
  return result;
}

struct calling {
  // What a forwarded call needs of the node. Looked up anew after every wait.
  peers* network;
  call_table* calls;
  std::uint64_t incarnation;
};
inline constinit calling this_calling{};

enum class waited : std::uint8_t { answered, moved, late, interrupted };

struct called {
  waited how;
  answer got;
};

template <class Ask>
called call_and_wait(node_id node, Ask&& ask_once, const steady_point* deadline, bool interruptible = false) {
  auto life = [] { // a task that was restarted may be where it was before
    resident* task = current_task();
    return std::pair(this_calling.incarnation, task == nullptr ? std::uint64_t{0} : task->control->restarts);
  };
  const auto asked_in = life();
  thread_waiter blocked;
  std::uint64_t number = 0;
  auto ask = [&] {
    node_heap_scope scope;
    resident* task = current_task();
    number = this_calling.calls->open(node, task, task == nullptr ? &blocked : nullptr);
    if (task != nullptr) task->open_call = number;
    ask_once(number);
  };
  auto end = [&](waited how, answer&& got) {
    if (resident* task = current_task()) task->open_call = 0;
    return called{how, std::move(got)};
  };
  ask();
  bool in_time = true;
  for (;;) {
    if (life() != asked_in) return {waited::moved, {}};
    {
      node_heap_scope scope;
      if (std::optional<answer> got = this_calling.calls->take(number)) {
        if (got->code != errc::cancelled) return end(waited::answered, std::move(*got));
        ask(); // the connection was lost and is there again
        continue;
      }
      if (!in_time) {
        this_calling.calls->close(number);
        return end(waited::late, {});
      }
      if (interruptible && signal_waits()) {
        this_calling.calls->close(number);
        return end(waited::interrupted, {});
      }
    }
    if (current_task() == nullptr)
      in_time = blocked.wait(deadline);
    else if (deadline == nullptr)
      park();
    else
      in_time = park_until(*deadline);
  }
}

template <class Fill>
called call_node(node_id node, Fill&& fill, const steady_point* deadline = nullptr, bool interruptible = false) {
  return call_and_wait(
      node,
      [&](std::uint64_t number) {
        bool sent = send_message(*this_calling.network, node,
                                 [&](protocol::Message::Builder message) { fill(message, number); });
        if (!sent)
          this_calling.calls->complete(
              number, {errc::node_unreachable, "node " + to_string(node) + " cannot be reached", 0, 0, {}});
      },
      deadline, interruptible);
}
// fill(protocol::Message::Builder, call number) makes the request. `moved`: the caller is on another node
// now, and should look whether it still has to ask. Does not throw, so that nothing it allocates for its
// own ends up in a region, or the other way round.

template <class Begin> called call_here(Begin&& begin) { return call_and_wait(no_node, begin, nullptr); }
// begin(call number) starts something on this node that completes the call.

} // namespace migrate::detail
