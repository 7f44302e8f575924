// What the class node's functions do: compiled in every file that includes node.hpp, or in one. Included by node.hpp.
#pragma once

#include <migrate/node/assembly.hpp>
#include <migrate/node/hosts.hpp>
#include <migrate/node/interface.hpp>
#include <migrate/node/leaving.hpp>
#include <migrate/node/overview.hpp>

#ifdef MIGRATE_NODE_SOURCE
#define MIGRATE_NODE_FUNCTION
#else
#define MIGRATE_NODE_FUNCTION inline
#endif

namespace migrate {

MIGRATE_NODE_FUNCTION node::node(node_options options) : body_(std::make_unique<detail::node_body>(std::move(options))) {}
MIGRATE_NODE_FUNCTION node::~node() = default;

MIGRATE_NODE_FUNCTION node_id node::id() const noexcept { return body_->id(); }
MIGRATE_NODE_FUNCTION bool node::first() const noexcept { return body_->first(); }
MIGRATE_NODE_FUNCTION std::string node::address() const { return body_->address(); }
MIGRATE_NODE_FUNCTION const std::string& node::store_path() const noexcept { return body_->store_path(); }

MIGRATE_NODE_FUNCTION void node::serve() { body_->serve(); }

MIGRATE_NODE_FUNCTION eviction_report node::evict(const std::string& reason, std::chrono::milliseconds within) {
  return body_->evict(reason, within);
}
MIGRATE_NODE_FUNCTION eviction_report node::evict(node_id which, const std::string& reason,
                                                  std::chrono::milliseconds within) {
  return body_->evict(which, reason, within);
}
MIGRATE_NODE_FUNCTION void node::stay() { body_->stay(); }
MIGRATE_NODE_FUNCTION void node::stay(node_id which) { body_->stay(which); }
MIGRATE_NODE_FUNCTION void node::evict_with(eviction_target choice) { body_->evict_with(std::move(choice)); }

MIGRATE_NODE_FUNCTION void node::on_event(std::function<void(const cluster_event&)> tell) {
  body_->on_event(std::move(tell));
}
MIGRATE_NODE_FUNCTION move_statistics node::statistics() { return body_->statistics(); }
MIGRATE_NODE_FUNCTION std::vector<node_status> node::status(std::chrono::milliseconds within) {
  return body_->status(within);
}
MIGRATE_NODE_FUNCTION std::vector<int> node::started_processes() { return body_->started_processes(); }

} // namespace migrate

#undef MIGRATE_NODE_FUNCTION
