// How a cluster's first node has idle hosts, and others ask it about them. Included by node/functions.hpp.
#pragma once

#include <migrate/cluster/executable.hpp>
#include <migrate/node/body.hpp>

namespace migrate::detail {

enum class host_wish : std::uint8_t { ask, give_back, hosts, event, event_descriptor };

struct host_calls {
  template <class Fill> static answer call(Fill&& fill, bool interruptible = false) {
    for (;;) {
      called made = ask_home(family::registrar, service::hosts, fill, nullptr, interruptible);
      if (made.how == waited::moved) continue;
      if (made.how == waited::interrupted) { // for a signal's handler, which runs here
        safe_point();
        continue;
      }
      if (made.got.code != errc::ok)
        throw error(made.got.code, std::string(made.got.what.c_str(), made.got.what.size()));
      return std::move(made.got);
    }
  }
  static void ask(const host_request& what, bool only_how_many) {
    call([&](byte_writer& out) {
      out.put(host_wish::ask);
      out.put(what);
      out.put(only_how_many);
    });
  }
  static void give_back(std::uint64_t grant) {
    call([&](byte_writer& out) {
      out.put(host_wish::give_back);
      out.put(grant);
    });
  }
  static std::vector<granted_host> hosts() {
    answer got = call([](byte_writer& out) { out.put(host_wish::hosts); });
    byte_reader in(got.bytes.data(), got.bytes.size());
    return in.get<std::vector<granted_host>>();
  }
  static std::optional<host_event> event(std::uint64_t& number, int descriptor, steady_point until) {
    answer got = call(
        [&](byte_writer& out) {
          out.put(host_wish::event);
          out.put(number);
          out.put(descriptor);
          out.put(static_cast<std::int64_t>((until - task_now()).count()));
        },
        true);
    number = got.first;
    if (got.second == 0) return std::nullopt;
    byte_reader in(got.bytes.data(), got.bytes.size());
    return in.get<host_event>();
  }
  static int event_descriptor() {
    answer got = call([](byte_writer& out) { out.put(host_wish::event_descriptor); });
    return static_cast<int>(got.first);
  }
  static constexpr host_services table{.ask = ask,
                                       .give_back = give_back,
                                       .hosts = hosts,
                                       .event = event,
                                       .event_descriptor = event_descriptor};
};

inline const host_services* node_body::host_table() noexcept { return &host_calls::table; }

inline void node_body::serve_hosts(const request& asked, byte_reader& from) {
  host_client* client = this_node->host_client_.get();
  if (client == nullptr)
    throw error(errc::no_such_node,
                "this cluster has no host database: start its first node with --migrate-hosts=ADDRESS");
  answer result;
  byte_writer bytes;
  switch (from.get<host_wish>()) {
  case host_wish::ask: {
    auto what = from.get<host_request>();
    client->ask(what, from.get<bool>());
    break;
  }
  case host_wish::give_back: client->give_back(from.get<std::uint64_t>()); break;
  case host_wish::hosts: bytes.put(client->hosts()); break;
  case host_wish::event: {
    auto number = from.get<std::uint64_t>();
    auto descriptor = from.get<int>();
    std::chrono::nanoseconds limit(from.get<std::int64_t>());
    return client->event(asked, number, descriptor, limit);
  }
  case host_wish::event_descriptor:
    if (asked.asker != this_node->id_)
      throw error(errc::not_permitted,
                  "a descriptor for events of hosts can be had on the cluster's first node only");
    result.first = static_cast<std::uint64_t>(client->event_descriptor());
    break;
  }
  result.bytes = {bytes.bytes().data(), bytes.bytes().size()};
  reply(asked, std::move(result));
}

inline void node_body::start_hosts() {
  std::optional<credentials> security;
  if (!options_.credentials.empty()) security = credentials::in(options_.credentials);
  if (!options_.host_database.empty()) {
    host_database_options with;
    with.listen = {options_.host_database, control_address("database")};
    with.security = security;
    with.name = program_invocation_short_name;
    host_database_.emplace(loop_, std::move(with));
    host_database_->start();
    say("the host database listens on " + host_database_->addresses()[0]);
  }
  if (options_.hosts.empty()) return;
  std::string where = options_.hosts;
  host_request what;
  what.wanted = 0;
  if (auto comma = where.rfind(','); comma != std::string::npos) {
    what.wanted = parse_number<unsigned>("hosts", std::string_view(where).substr(comma + 1));
    where.resize(comma);
  }
  launch_terms terms;
  terms.executable = to_string(publish_executable(options_.store));
  terms.path = std::filesystem::read_symlink("/proc/self/exe").string();
  terms.store = options_.store;
  terms.arguments = sibling_arguments();
  terms.directory = std::filesystem::current_path().string();
  for (char** each = environ; *each != nullptr; ++each)
    if (std::string_view one = *each;
        !one.starts_with("MIGRATE_LISTEN=") && !one.starts_with("MIGRATE_AGENT="))
      terms.environment.emplace_back(one);
  host_client_ = std::make_unique<host_client>(
      loop_, where, std::move(security), program_invocation_short_name, [terms] { return terms; });
  host_client_->start();
  if (what.wanted > 0) host_client_->ask(what, false);
}

inline void node_body::stop_hosts() {
  if (host_client_) host_client_->stop();
  if (host_database_) host_database_->stop();
}

} // namespace migrate::detail
