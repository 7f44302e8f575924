// Idle hosts for this application: asked for, used while their owners are away, and given back.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <migrate/cluster/host_services.hpp>
#include <migrate/id.hpp>
#include <migrate/task/wait.hpp>

namespace migrate {

class host_pool {
  // The hosts that are granted to this application, which is the whole cluster; each runs a node of it. Plain data: a task
  // takes it along. Usable from tasks, wherever they are, and from threads of the first node.

public:
  explicit host_pool(const host_request& what) { detail::hosts_of_node().ask(what, false); }
  // Asks the database that --migrate-hosts names. Throws migrate::error (errc::no_such_node) when there is none.

  std::vector<granted_host> hosts() const { return detail::hosts_of_node().hosts(); }
  // Those that run a node, and are not leaving.

  void ask(unsigned wanted) {
    host_request what;
    what.wanted = wanted;
    detail::hosts_of_node().ask(what, true);
  }
  // More or fewer in all. What is too many is given back, the newest first.

  void give_back(std::uint64_t grant) { detail::hosts_of_node().give_back(grant); }
  // Its tasks go elsewhere.

  template <class Rep, class Period>
  std::optional<host_event> next_event(const std::chrono::duration<Rep, Period>& limit) {
    return detail::hosts_of_node().event(
        next_, descriptor_, detail::task_now() + std::chrono::ceil<std::chrono::nanoseconds>(limit));
  }
  // What happens to hosts, in order, from the application's start on; none when nothing has within the limit, which may be
  // nothing. A task parks meanwhile, and may have moved when it returns.

  int event_descriptor() {
    if (descriptor_ < 0) descriptor_ = detail::hosts_of_node().event_descriptor();
    return descriptor_;
  }
  // For poll(2) and the like in a loop of the application's own: readable while next_event() would return something at
  // once, until that has returned none. The node closes it. On the first node only: throws migrate::error
  // (errc::not_permitted) elsewhere.

private:
  std::uint64_t next_ = 0;
  int descriptor_ = -1;
};

} // namespace migrate
