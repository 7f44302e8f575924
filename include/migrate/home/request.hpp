// Requests that a task makes of a home: one form for all services, the same at home and away.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <utility>

#include <migrate/home/office.hpp>
#include <migrate/home/reply.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/task/codec.hpp>

namespace migrate::detail {

enum class service : std::uint16_t {
  process,
  signal,
  time,
  offset,
  pipe,
  stream,
  fork,
  surroundings,
  cluster,
  hosts,
  count
};

using service_function = void (*)(const request& asked, byte_reader& in);
// On any thread of the home, in a node_heap_scope: takes locks, but never waits. It replies once, at once or later,
// from wherever the reason for waiting ends. What it throws becomes the reply.

struct service_table {
  std::array<service_function, static_cast<std::size_t>(service::count)> functions{};

  void set(service which, service_function function) { functions[static_cast<std::size_t>(which)] = function; }
  void serve(std::uint16_t which, const request& asked, byte_reader& in) const;
};
inline constinit service_table home_services{};
// Filled by the node before its first task.

inline void service_table::serve(std::uint16_t which, const request& asked, byte_reader& in) const {
  try {
    if (which >= functions.size() || functions[which] == nullptr)
      throw error(errc::protocol, "this node has no service " + std::to_string(which));
    functions[which](asked, in);
  } catch (const error& refused) {
    reply(asked, {static_cast<errc>(refused.code().value()), refused.what(), 0, 0, {}});
  } catch (const std::exception& refused) {
    reply(asked, {errc::protocol, refused.what(), 0, 0, {}});
  }
}

template <class Fill> void request_home(node_id home, service which, std::uint64_t call, Fill&& fill) {
  // Asks under a call number, whose answer comes by itself. In a node_heap_scope.
  byte_writer out;
  fill(out);
  task_id me;
  if (resident* task = current_task()) me = task->id;
  if (home == this_home->here()) {
    byte_reader in(out.bytes().data(), out.bytes().size());
    home_services.serve(static_cast<std::uint16_t>(which), {home, call, me}, in);
    return;
  }
  iovec bytes{out.bytes().data(), out.bytes().size()};
  bool sent = send_message(
      *this_calling.network, home,
      [&](protocol::Message::Builder message) {
        auto asked = message.initRequest();
        asked.setCall(call);
        asked.setTask(me.bits());
        asked.setService(static_cast<std::uint16_t>(which));
      },
      std::span<const iovec>(&bytes, 1));
  if (!sent)
    this_calling.calls->complete(
        call, {errc::home_unreachable, "home " + to_string(home) + " cannot be reached", 0, 0, {}});
}

template <class Fill>
called ask_home(node_id home, service which, Fill&& fill, const steady_point* deadline = nullptr,
                bool interruptible = false) {
  // fill(byte_writer&) writes what is asked, in the node's heap; it runs again when the connection was lost and is
  // there again, so a service whose requests must not be served twice numbers them. As call_node() otherwise.
  return call_and_wait(
      home == this_home->here() ? no_node : home,
      [&](std::uint64_t call) { request_home(home, which, call, fill); }, deadline, interruptible);
}

template <class Fill> void tell_service(node_id to, service which, Fill&& fill) {
  // A request that nobody waits for, of any node; what it replies is dropped. In a node_heap_scope; it may be lost with
  // a connection.
  byte_writer out;
  fill(out);
  task_id me;
  if (resident* task = current_task()) me = task->id;
  if (to == this_home->here()) {
    byte_reader in(out.bytes().data(), out.bytes().size());
    home_services.serve(static_cast<std::uint16_t>(which), {to, 0, me}, in);
    return;
  }
  iovec bytes{out.bytes().data(), out.bytes().size()};
  send_message(
      *this_calling.network, to,
      [&](protocol::Message::Builder message) {
        auto asked = message.initRequest();
        asked.setTask(me.bits());
        asked.setService(static_cast<std::uint16_t>(which));
      },
      std::span<const iovec>(&bytes, 1));
}

inline void on_request(node_id asker, protocol::Request::Reader message, kj::ArrayPtr<const kj::byte> attachment) {
  byte_reader in(reinterpret_cast<const std::byte*>(attachment.begin()), attachment.size());
  home_services.serve(message.getService(), {asker, message.getCall(), task_id(message.getTask())}, in);
}
// On the I/O thread.

} // namespace migrate::detail
