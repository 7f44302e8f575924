// What the ledger of grants has done, and why.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <migrate/cluster/ledger_terms.hpp>

namespace migrate::detail {

enum class ledger_act : std::uint8_t {
  host_came,
  host_lent,     // may be lent from now on
  host_withheld, // may not
  host_stale,
  host_away,
  host_gone,
  asked,
  application_gone,
  granted_longest_idle,
  granted_again,    // where it has a grant already
  granted_together, // one of several that it takes all or none of
  granted_beside,   // a long-running holder
  granted_promised, // fair share has taken it for the application
  held_before,      // the ledger is younger than the grant
  taken,            // by fair share
  given_back,
  revoked,
  ended,
  refused, // somebody said what cannot be
};

struct ledger_event {
  ledger_time when{};
  ledger_act act{};
  std::uint64_t grant = 0;
  std::uint64_t first = 0, second = 0; // figures of the reason
  std::string host, application, detail;

  std::string what() const;
  std::string reason() const;
};
// A sentence each.

class event_ring {
  // The last so many. What a place once held is overwritten in its own memory.

public:
  explicit event_ring(std::size_t size) : events_(size == 0 ? 1 : size) {}

  void add(ledger_time when, ledger_act act, std::string_view host, std::string_view application,
           std::uint64_t grant = 0, std::uint64_t first = 0, std::uint64_t second = 0,
           std::string_view detail = {}) {
    ledger_event& at = events_[count_++ % events_.size()];
    at.when = when;
    at.act = act;
    at.grant = grant;
    at.first = first;
    at.second = second;
    at.host.assign(host);
    at.application.assign(application);
    at.detail.assign(detail);
  }

  std::uint64_t count() const noexcept { return count_; }
  // Of all that ever were.
  std::size_t kept() const noexcept {
    return static_cast<std::size_t>(std::min<std::uint64_t>(count_, events_.size()));
  }

  template <class F> void for_each(F&& function, std::uint64_t after = 0) const {
    for (std::uint64_t i = std::max(after, count_ - kept()); i < count_; ++i)
      function(events_[i % events_.size()]);
  }
  // function(const ledger_event&) for those that are kept and are not among the first `after`, the oldest first.

private:
  std::vector<ledger_event> events_;
  std::uint64_t count_ = 0;
};

inline std::string ledger_event::what() const {
  switch (act) {
  case ledger_act::host_came:
    return host + " offers " + std::to_string(first) + (first == 1 ? " slot" : " slots");
  case ledger_act::host_lent: return host + " may be lent";
  case ledger_act::host_withheld: return host + " is not lent";
  case ledger_act::host_stale: return host + " is not lent";
  case ledger_act::host_away: return host + " is away";
  case ledger_act::host_gone: return host + " is gone";
  case ledger_act::asked:
    return application + " wants " + std::to_string(first) + (first == 1 ? " host" : " hosts") +
           (second > 0 ? ", at least " + std::to_string(second) : std::string());
  case ledger_act::application_gone: return application + " is gone";
  case ledger_act::granted_longest_idle:
  case ledger_act::granted_again:
  case ledger_act::granted_together:
  case ledger_act::granted_beside:
  case ledger_act::granted_promised: return application + " gets " + host;
  case ledger_act::held_before: return application + " keeps " + host;
  case ledger_act::taken: return host + " is taken from " + application;
  case ledger_act::given_back: return application + " gives back " + host;
  case ledger_act::revoked: return application + " loses " + host;
  case ledger_act::ended: return host + " has a slot again";
  case ledger_act::refused: return (host.empty() ? application : host) + " is not believed";
  }
  return {};
}

inline std::string ledger_event::reason() const {
  switch (act) {
  case ledger_act::host_stale: return "nothing heard of it for " + std::to_string(first) + " s";
  case ledger_act::granted_longest_idle:
    return "idle for " + std::to_string(first) + " s, the longest of those with a free slot";
  case ledger_act::granted_again: return "it has that host already";
  case ledger_act::granted_together: return "so many at once are free as it wants at least";
  case ledger_act::granted_beside: return "no slot is free, and a long-running holder lets short tasks in";
  case ledger_act::granted_promised: return "fair share has taken it for this application";
  case ledger_act::held_before: return "granted before this database was started";
  case ledger_act::taken:
    return "fair share: it has " + std::to_string(first) + " and " + detail + " has " +
           std::to_string(second);
  default: return detail;
  }
}

} // namespace migrate::detail
