// The status as a program reads it.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "overview.hpp"

namespace migrate_command {

inline nlohmann::ordered_json to_json(const overview& all) {
  using json = nlohmann::ordered_json;
  json made = {{"hosts", json::array()},
               {"applications", json::array()},
               {"programs", json::array()},
               {"events", json::array()},
               {"problems", all.problems}};
  for (const host& each : all.hosts) {
    json holders = json::array();
    for (const holder& one : each.holders)
      holders.push_back({{"grant", one.grant}, {"application", one.application}, {"user", one.user}});
    made["hosts"].push_back({{"host", each.name},
                             {"agent", each.address},
                             {"lendable", each.lendable},
                             {"reason", each.reason},
                             {"decided_by", each.source},
                             {"idle_ms", each.idle_ms},
                             {"load_own", each.load_own},
                             {"load_foreign", each.load_foreign},
                             {"pressure", each.pressure},
                             {"slots", each.slots},
                             {"holders", std::move(holders)},
                             {"told_ms_ago", each.age_ms}});
  }
  for (const application& each : all.applications)
    made["applications"].push_back({{"application", each.name},
                                    {"user", each.user},
                                    {"host", each.host},
                                    {"wanted", each.wanted},
                                    {"least", each.least},
                                    {"held", each.held},
                                    {"priority", each.priority},
                                    {"long_running", each.long_running}});
  for (const program& its : all.programs) {
    json nodes = json::array(), tasks = json::array();
    for (const node& each : its.nodes)
      nodes.push_back({{"node", number(each.id)},
                       {"host", each.host},
                       {"process", each.process},
                       {"address", each.address},
                       {"workers", each.workers},
                       {"tasks", each.tasks},
                       {"state", each.state}});
    for (const task& each : its.tasks)
      tasks.push_back({{"task", to_string(each.id)},
                       {"name", each.name},
                       {"home", number(each.id.home())},
                       {"node", number(each.place)},
                       {"state", each.state},
                       {"moves", each.moves},
                       {"bytes", each.bytes}});
    made["programs"].push_back({{"program", its.name},
                                {"user", its.user},
                                {"host", its.host},
                                {"process", its.process},
                                {"nodes", std::move(nodes)},
                                {"tasks", std::move(tasks)}});
  }
  for (const event& each : all.events)
    made["events"].push_back(
        {{"ms_ago", each.age_ms}, {"from", each.origin}, {"what", each.what}, {"reason", each.reason}});
  return made;
}

} // namespace migrate_command
