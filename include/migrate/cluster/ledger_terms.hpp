// What the ledger of grants is told and what it orders.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace migrate::detail {

using ledger_clock = std::chrono::steady_clock;
using ledger_time = ledger_clock::time_point;
// Of the machine that has the ledger. Others tell ages, so that their clocks do not matter.

struct held_grant {
  std::uint64_t grant = 0;
  std::uint64_t application = 0;
  std::string host;    // when an application says it
  std::string address; // of the host's agent, likewise
};
// What an agent or an application says that it holds, since the ledger may be younger than the grant.

struct host_registration {
  std::string address; // of its agent, which is the host's name in the ledger
  std::string name;    // of the machine: nobody is granted the one that it runs on
  unsigned slots = 1;  // grants at once
  std::vector<held_grant> grants;
};

struct host_condition {
  bool lendable = false;
  std::string reason; // why, or why not
  std::string source; // which decided how long it has been idle
  std::chrono::milliseconds idle{0};
  double load_own = 0, load_foreign = 0, pressure = 0;
};

struct application_ask {
  std::uint64_t application = 0;
  std::string name;
  std::string user;
  std::string host;         // that it runs on
  std::uint32_t wanted = 0; // in all
  std::uint32_t least = 0;  // it takes nothing before it can have so many at once
  int priority = 0;         // higher ones are served first
  bool long_running = false;
  bool back = false; // it has connected again: `held` is all that it holds
  std::vector<held_grant> held;
};

struct ledger_order {
  enum class kind : std::uint8_t {
    granted, // tell the application and the host's agent
    revoked, // tell the application: it loses this
    ended,   // tell the agent: end it, and say when nothing is left
  };
  kind what;
  std::uint64_t grant;
  std::uint64_t application;
  std::string address; // of the host's agent
  std::string reason;
  std::chrono::milliseconds left{0}; // until it is taken
};

struct ledger_limits {
  std::chrono::milliseconds stale{180'000};    // a host that is silent for so long is granted to nobody
  std::chrono::milliseconds alone{30'000};     // whoever fair share took from is left alone for so long
  std::chrono::milliseconds notice{3'000};     // that a holder gets before a grant is taken from it
  std::chrono::milliseconds patience{60'000};  // who waits with nothing for so long goes before all
  std::chrono::milliseconds away{10'000};      // an agent that is gone for so long has lost its grants
  std::chrono::milliseconds unclaimed{30'000}; // an agent has a grant, and nobody comes who says it is his
  std::size_t events = 1024;
  unsigned slots = 4096;   // most of one host
  unsigned looked_at = 64; // grants of one application among which fair share looks for one to take
};

} // namespace migrate::detail
