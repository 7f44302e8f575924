// How the answer gets to whoever asked something of this home.
#pragma once

#include <utility>

#include <migrate/home/asked.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/task/services.hpp>

namespace migrate::detail {

inline void reply(const request& to, answer&& result) {
  if (to.asker == the_services->here())
    this_calling.calls->complete(to.call, std::move(result));
  else
    send_answer(*this_calling.network, to.asker, to.call, result);
}
// Any thread, in a node_heap_scope. A reply to a call that was given up is dropped.

} // namespace migrate::detail
