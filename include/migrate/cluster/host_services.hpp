// What an application asks for idle hosts with, and what it is told: plain data, and the table that the node fills in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/services.hpp>

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
  std::optional<host_event> (*event)(std::uint64_t& number, int descriptor, steady_point until);
  // Waits for the first from that number on, which follows it then. `descriptor`: that none is left is noted there.
  int (*event_descriptor)();
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

} // namespace migrate
