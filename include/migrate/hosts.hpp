// Idle hosts for this application: asked for, used while their owners are away, and given back.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/this_task.hpp>
#include <migrate/task/wait.hpp>

namespace migrate {

struct host_request {
  unsigned wanted = 1;
  unsigned least = 0;        // nothing is granted before so many can be
  int priority = 0;          // of waiting applications, higher ones are served first
  bool long_running = false; // lets short tasks of others in
  std::string name;          // by which people know the application; empty: the program's

  auto migrate_fields() { return std::tie(wanted, least, priority, long_running, name); }
};

struct granted_host {
  std::uint64_t grant = 0;
  std::string host;
  node_id node = no_node;
  unsigned processors = 1;

  auto migrate_fields() { return std::tie(grant, host, node, processors); }
};

struct host_event {
  enum class kind : std::uint8_t {
    came,    // its node has joined the cluster
    leaving, // it is taken back, in `left` milliseconds at the latest; its tasks go elsewhere by themselves
    gone,    // it is no host of this application any more, or could not be used
  };
  kind what = kind::came;
  granted_host host;
  std::string reason;
  std::uint32_t left = 0;

  auto migrate_fields() { return std::tie(what, host, reason, left); }
};

namespace detail {

struct host_services {
  void (*ask)(const host_request& what, bool only_how_many);
  void (*give_back)(std::uint64_t grant);
  std::vector<granted_host> (*hosts)();
  std::optional<host_event> (*event)(
      std::uint64_t& number); // the first from that number on, which follows it then
};
// Each asks the cluster's first node, and throws migrate::error when that has no host database.

inline constinit const host_services* the_hosts = nullptr;

[[gnu::noinline]] inline const host_services& hosts_of_node() {
  const host_services* table = the_hosts;
  if (table == nullptr)
    throw error(errc::node_missing, "this process has no node; construct migrate::node, or use migrate::run");
  return *table;
}

} // namespace detail

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
    constexpr auto pause = std::chrono::milliseconds(20);
    const auto end = detail::task_now() + std::chrono::ceil<std::chrono::nanoseconds>(limit);
    for (;;) {
      if (auto found = detail::hosts_of_node().event(next_)) return found;
      const auto left = end - detail::task_now();
      if (left <= left.zero()) return std::nullopt;
      if (detail::current_task() != nullptr)
        this_task::sleep_for(std::min<std::chrono::nanoseconds>(left, pause));
      else
        std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(left, pause));
    }
  }
  // What happens to hosts, in order, from the application's start on; none when nothing has within the limit. A task parks
  // meanwhile, and may have moved when it returns.

private:
  std::uint64_t next_ = 0;
};

} // namespace migrate
