// How a node is to run, from the program, its command line and its environment.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <migrate/cluster/placement_policy.hpp>
#include <migrate/error.hpp>
#include <migrate/file/shared_offset.hpp>
#include <migrate/task/compression.hpp>
#include <migrate/task/transfer.hpp>

namespace migrate {

struct node_options {
  unsigned nodes = 1;            // nodes on this machine in all: the first starts the others
  unsigned workers = 0;          // threads that run tasks; 0: one for each processor
  std::string store;             // directory; empty: a new one in memory, removed at the end
  std::string listen = "127.0.0.1:0";
  std::string join;              // address of any node of the cluster to join; empty: found a new one
  std::string credentials;       // directory made by migrate-credentials; empty: loopback only
  std::uint32_t torture = 0;     // every task moves at every so many library calls; 0: never
  std::uint64_t seed = 1;        // of torture
  std::size_t most_inline = 64 * 1024; // bytes of dirty pages that travel in the offer, not through the store
  transfer moves_by = transfer::flush; // how tasks' memory moves, unless the task or the move says otherwise
  bool push_rest = true; // of a task's memory that on-reference has left behind; otherwise it goes when it is touched, or asked for
  compression compress = compression::automatic; // pages that go straight to another node, and are not left to the store
  unsigned keepalive_ms = 10'000;      // a node silent for so long is lost
  unsigned checkpoint_ms = 0;          // between checkpoints of tasks that are to be restarted when their node dies; 0: none
  bool usage = false;                  // count what tasks use from their start, not from when they first ask
  bool forward_signals = false;        // signals to this process, such as Ctrl-C, go to the tasks in the foreground
  bool reopen_files = false;           // a moving task's files are opened anew, as between machines, also on one
  offset_sharing shared_offset = offset_sharing::kernel; // of files that a child inherits; not kernel between machines
  bool control = true;                 // the first node has a socket for the command `migrate` of the same user
  placement_policy policy = placement_policy::manual; // who decides where tasks run
  node_chooser choose = nullptr;       // the application's policy: the node for a task; none: the least loaded one
  bool quiet = false;                  // no lines about the node's own doings on standard error
  std::string hosts;         // ADDRESS[,COUNT] of the host database, and how many to ask for at the start
  std::string host_database; // where the first node is to listen as one; empty: nowhere
  std::uint64_t grant = 0;   // that this node runs for, when an agent has started it
  bool helper = false;                 // started by another node of this machine; ends with it
  std::vector<std::string> arguments; // for the nodes that this one starts: the program's own, after its name

  static node_options from(int& argc, char** argv);
  // Takes the options that begin with --migrate- out of the command line, and then the environment's
  // (MIGRATE_NODES for --migrate-nodes, and so on). --migrate-help prints what there is and ends the
  // program. Throws migrate::error naming an option it does not know.
};

inline constexpr const char* node_options_help =
    "Options of the node, for any program that uses migrate:\n"
    "  --migrate-nodes=N           run on N nodes on this machine\n"
    "  --migrate-workers=N         threads that run tasks on each node\n"
    "  --migrate-store=DIR         directory for images, shared by all nodes\n"
    "  --migrate-listen=ADDR:PORT  where to listen; other than loopback needs credentials\n"
    "  --migrate-join=ADDR:PORT    join the cluster of the node that listens there\n"
    "  --migrate-credentials=DIR   certificate, key and authority, from migrate-credentials\n"
    "  --migrate-torture=K[:SEED]  move every task at every K-th call into the library\n"
    "  --migrate-keepalive=MS      a node that is silent for so long is lost (10000)\n"
    "  --migrate-inline=BYTES      most dirty pages that travel in a move's offer (65536)\n"
    "  --migrate-transfer=HOW      how a task's memory moves: flush, full-copy, pre-copy, on-reference,\n"
    "                              pre-flush or auto (flush)\n"
    "  --migrate-push=0            what on-reference leaves behind is sent only when it is touched\n"
    "  --migrate-compress=WHEN     pages that go straight to another machine: auto (where that is sooner there), always\n"
    "                              or never (auto)\n"
    "  --migrate-checkpoint=SECONDS  commit an image of each recoverable task every so many seconds (0: never)\n"
    "  --migrate-usage             count what tasks use from their start on\n"
    "  --migrate-signals           signals to this process, such as Ctrl-C, go to the tasks in the foreground\n"
    "  --migrate-reopen-files      move files as between machines: open them anew, hand over no descriptor\n"
    "  --migrate-shared-offset=WAY who has the offset of a file that several tasks share: kernel (on one machine only),\n"
    "                              home or token\n"
    "  --migrate-control=0         have no socket for `migrate status`\n"
    "  --migrate-policy=WHO        who decides where tasks run: manual (they go where they are told to), application\n"
    "                              (the program chooses) or automatic (nodes even out their load)\n"
    "  --migrate-hosts=ADDR[,N]    run on idle hosts that the host database at ADDR grants, N at the start\n"
    "  --migrate-host-database=ADDR  be a host database too, for agents and applications\n"
    "  --migrate-quiet             no lines about the nodes themselves\n";

namespace detail {

template <class N>
N parse_number(std::string_view name, std::string_view text, N least = 0, N most = std::numeric_limits<N>::max()) {
  N value{};
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || value < least || value > most)
    throw error(std::make_error_code(std::errc::invalid_argument),
                "--migrate-" + std::string(name) + ": '" + std::string(text) + "' is not a number from " +
                    std::to_string(least) + " to " + std::to_string(most));
  return value;
}

inline unsigned parse_seconds(std::string_view name, std::string_view text) {
  // In milliseconds; up to three digits behind a point.
  std::size_t point = std::min(text.find('.'), text.size());
  auto whole = parse_number<unsigned>(name, text.substr(0, point), 0, 1'000'000);
  std::string rest(text.substr(std::min(point + 1, text.size())));
  if (rest.size() > 3 || (point + 1 == text.size())) rest = "?"; // which is no number
  rest.resize(3, '0');
  return whole * 1000 + parse_number<unsigned>(name, rest, 0, 999);
}

inline std::string seconds_text(unsigned milliseconds) {
  std::string text = std::to_string(milliseconds % 1000);
  return std::to_string(milliseconds / 1000) + "." + std::string(3 - text.size(), '0') + text;
}

inline constexpr std::string_view offset_sharing_names[] = {"kernel", "home", "token"};

inline offset_sharing parse_sharing(std::string_view text) {
  for (std::size_t i = 0; i < std::size(offset_sharing_names); ++i)
    if (text == offset_sharing_names[i]) return static_cast<offset_sharing>(i);
  throw error(std::make_error_code(std::errc::invalid_argument),
              "--migrate-shared-offset: '" + std::string(text) + "' is none of kernel, home and token");
}

inline placement_policy parse_policy(std::string_view text) {
  for (std::size_t i = 0; i < std::size(placement_policy_names); ++i)
    if (text == placement_policy_names[i]) return static_cast<placement_policy>(i);
  throw error(std::make_error_code(std::errc::invalid_argument),
              "--migrate-policy: '" + std::string(text) + "' is none of manual, application and automatic");
}

inline transfer parse_transfer(std::string_view text) {
  if (std::optional<transfer> named = transfer_named(text); named && *named != transfer::by_default) return *named;
  throw error(std::make_error_code(std::errc::invalid_argument),
              "--migrate-transfer: '" + std::string(text) +
                  "' is none of flush, full-copy, pre-copy, on-reference, pre-flush, auto and random");
}

inline compression parse_compression(std::string_view text) {
  if (std::optional<compression> named = compression_named(text)) return *named;
  throw error(std::make_error_code(std::errc::invalid_argument),
              "--migrate-compress: '" + std::string(text) + "' is none of auto, always and never");
}

inline constexpr const char* node_option_names[] = {"nodes",       "workers", "store",     "listen", "join",
                                                    "credentials", "torture", "keepalive", "checkpoint", "inline", "quiet",  "usage",
                                                    "signals", "reopen-files", "shared-offset", "control",
                                                    "policy", "hosts", "host-database", "transfer", "push", "compress"};
// Those that the environment may set; the command line has more: helper, grant, and help.

inline void set_option(node_options& into, std::string_view name, std::string_view value) {
  if (name == "nodes")
    into.nodes = parse_number<unsigned>(name, value, 1, 1000);
  else if (name == "workers")
    into.workers = parse_number<unsigned>(name, value, 0, 4096);
  else if (name == "store")
    into.store = value;
  else if (name == "listen")
    into.listen = value;
  else if (name == "join")
    into.join = value;
  else if (name == "credentials")
    into.credentials = value;
  else if (name == "keepalive")
    into.keepalive_ms = parse_number<unsigned>(name, value, 1);
  else if (name == "checkpoint")
    into.checkpoint_ms = parse_seconds(name, value);
  else if (name == "inline")
    into.most_inline = parse_number<std::size_t>(name, value);
  else if (name == "transfer")
    into.moves_by = parse_transfer(value);
  else if (name == "push")
    into.push_rest = value != "0";
  else if (name == "compress")
    into.compress = parse_compression(value);
  else if (name == "usage")
    into.usage = value != "0";
  else if (name == "reopen-files")
    into.reopen_files = value != "0";
  else if (name == "shared-offset")
    into.shared_offset = parse_sharing(value);
  else if (name == "control")
    into.control = value != "0";
  else if (name == "policy")
    into.policy = parse_policy(value);
  else if (name == "quiet")
    into.quiet = value != "0";
  else if (name == "signals")
    into.forward_signals = value != "0";
  else if (name == "hosts")
    into.hosts = value;
  else if (name == "host-database")
    into.host_database = value;
  else if (name == "grant")
    into.grant = parse_number<std::uint64_t>(name, value);
  else if (name == "helper")
    into.helper = true;
  else { // torture
    std::size_t colon = value.find(':');
    into.torture = parse_number<std::uint32_t>(name, value.substr(0, colon));
    if (colon != std::string_view::npos) into.seed = parse_number<std::uint64_t>(name, value.substr(colon + 1));
  }
}
// Of a known option.

} // namespace detail

inline node_options node_options::from(int& argc, char** argv) {
  node_options made;
  for (const char* name : detail::node_option_names) {
    std::string variable = "MIGRATE_";
    for (const char* c = name; *c != 0; ++c) variable += *c == '-' ? '_' : static_cast<char>(*c - 'a' + 'A');
    if (const char* value = std::getenv(variable.c_str()); value != nullptr && *value != 0)
      detail::set_option(made, name, value);
  }
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    std::string_view argument = argv[i];
    constexpr std::string_view prefix = "--migrate-";
    if (!argument.starts_with(prefix)) {
      made.arguments.emplace_back(argument);
      argv[kept++] = argv[i];
      continue;
    }
    std::string_view name = argument.substr(prefix.size());
    std::string_view value;
    if (name == "help") {
      std::fputs(node_options_help, stdout);
      std::exit(0);
    }
    std::size_t equals = name.find('=');
    if (equals != std::string_view::npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    if (name != "helper" && name != "grant" && std::ranges::find(detail::node_option_names, name) == std::end(detail::node_option_names))
      throw error(std::make_error_code(std::errc::invalid_argument),
                  "unknown option " + std::string(argument) + "; there are:\n" + node_options_help);
    static constexpr std::string_view flags[] = {"quiet", "usage", "signals", "reopen-files", "helper"};
    if (equals == std::string_view::npos && std::ranges::find(flags, name) == std::end(flags)) {
      if (i + 1 == argc)
        throw error(std::make_error_code(std::errc::invalid_argument), std::string(argument) + " wants a value");
      value = argv[++i];
    }
    detail::set_option(made, name, value);
  }
  argc = kept;
  argv[argc] = nullptr;
  return made;
}

} // namespace migrate
