// What programs, agents and host databases have told, in one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <migrate/id.hpp>
#include <migrate/rpc/channel_link.hpp>
#include <migrate/rpc/hosts.capnp.h>

namespace migrate_command {

struct holder {
  std::uint64_t grant = 0;
  std::string application, user;
};

struct host {
  std::string name, address; // of its agent
  bool lendable = false;
  std::string reason, source; // why it is lent or not; what decided how long it has been idle
  std::uint64_t idle_ms = 0, age_ms = 0;
  double load_own = 0, load_foreign = 0, pressure = 0;
  std::uint32_t slots = 0;
  std::vector<holder> holders;
};

struct application {
  std::string name, user, host;
  std::uint32_t wanted = 0, least = 0, held = 0;
  std::int32_t priority = 0;
  bool long_running = false;
};

struct node {
  migrate::node_id id = migrate::no_node;
  std::string host, address, state;
  std::uint32_t process = 0, workers = 0;
  std::uint64_t tasks = 0;
};

struct task {
  migrate::task_id id;
  std::string name, state;
  migrate::node_id place = migrate::no_node;
  std::uint64_t moves = 0, bytes = 0;
};

struct event {
  std::uint64_t age_ms = 0;
  std::string origin, what, reason;
};

struct program {
  std::string name, user, host;
  std::int64_t process = 0;
  std::vector<node> nodes;
  std::vector<task> tasks;

  std::string title() const { return name + " (process " + std::to_string(process) + ")"; }
};

struct overview {
  std::vector<host> hosts;
  std::vector<application> applications;
  std::vector<program> programs;
  std::vector<event> events; // the last one last
  std::vector<std::string> problems;

  bool empty() const noexcept { return hosts.empty() && applications.empty() && programs.empty(); }
};

inline const char* name_of(migrate::protocol::HostRole role) {
  using migrate::protocol::HostRole;
  switch (role) {
  case HostRole::AGENT: return "agent";
  case HostRole::DATABASE: return "database";
  case HostRole::APPLICATION: return "program";
  default: return "node";
  }
}

inline host read_host(migrate::protocol::HostLine::Reader line) {
  host made;
  auto state = line.getState();
  made.name = line.getHost().cStr();
  made.address = line.getAgentAddress().cStr();
  made.lendable = state.getLendable();
  made.reason = state.getReason().cStr();
  made.source = state.getSource().cStr();
  made.idle_ms = state.getIdleMilliseconds();
  made.age_ms = line.getAge();
  made.load_own = state.getLoadOwn();
  made.load_foreign = state.getLoadForeign();
  made.pressure = state.getPressure();
  made.slots = line.getSlots();
  for (auto each : line.getHolders())
    made.holders.push_back({each.getGrant(), each.getApplicationName().cStr(), each.getUserName().cStr()});
  return made;
}

inline void add_host(overview& to, host&& told) {
  // A database and the host's own agent tell of the same host: the agent's word is newer, the database knows who holds it.
  auto known = std::find_if(to.hosts.begin(), to.hosts.end(), [&](const host& each) {
    return each.name == told.name &&
           (each.address == told.address || each.address.empty() || told.address.empty());
  });
  if (known == to.hosts.end()) {
    to.hosts.push_back(std::move(told));
    return;
  }
  std::vector<holder> holders = known->holders.size() >= told.holders.size() ? known->holders : told.holders;
  if (told.age_ms < known->age_ms) *known = std::move(told);
  known->holders = std::move(holders);
}

inline void add(overview& to, const migrate::channel_party& who, migrate::protocol::HostStatus::Reader told) {
  for (auto each : told.getHosts()) add_host(to, read_host(each));
  for (auto each : told.getApplications())
    to.applications.push_back({each.getName().cStr(), each.getUserName().cStr(), each.getHost().cStr(),
                               each.getWanted(), each.getLeast(), each.getHeld(), each.getPriority(),
                               each.getLongRunning()});
  program its;
  its.name = who.name;
  its.user = who.user_name;
  its.host = who.host;
  its.process = who.process;
  for (auto each : told.getNodes())
    its.nodes.push_back({migrate::node_id{each.getNode()}, each.getHost().cStr(), each.getAddress().cStr(),
                         each.getState().cStr(), each.getProcess(), each.getWorkers(), each.getTasks()});
  for (auto each : told.getTasks())
    its.tasks.push_back({migrate::task_id(each.getTask()), each.getName().cStr(), each.getState().cStr(),
                         migrate::node_id{each.getPlace()}, each.getMoves(), each.getBytes()});
  bool runs_tasks = who.role == migrate::protocol::HostRole::APPLICATION;
  std::string origin = runs_tasks ? its.title() : std::string(name_of(who.role)) + " on " + who.host;
  for (auto each : told.getEvents())
    to.events.push_back({each.getAge(), origin, each.getWhat().cStr(), each.getReason().cStr()});
  if (runs_tasks) to.programs.push_back(std::move(its));
}

inline void put_in_order(overview& all) {
  std::sort(all.hosts.begin(), all.hosts.end(), [](const host& a, const host& b) { return a.name < b.name; });
  std::sort(all.programs.begin(), all.programs.end(),
            [](const program& a, const program& b) { return a.process < b.process; });
  for (program& each : all.programs)
    std::sort(each.tasks.begin(), each.tasks.end(), [](const task& a, const task& b) { return a.id < b.id; });
  std::stable_sort(all.events.begin(), all.events.end(),
                   [](const event& a, const event& b) { return a.age_ms > b.age_ms; });
}

} // namespace migrate_command
