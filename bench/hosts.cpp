// The host database: what a decision costs as hosts and applications grow, how many grants it makes, and how long an
// application waits for a host.
#include <migrate/cluster/host_database.hpp>

#include <CLI/CLI.hpp>

#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <capnp/capability.h>
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.hpp"

namespace {

using namespace migrate::detail;

class simulated_cluster {
  // Hosts of one slot whose owners come and go, and applications that want a little more than there is and hold each grant
  // for a while. Time is simulated, so that stale hosts and fair share play their part.

public:
  simulated_cluster(unsigned hosts, unsigned applications) : applications_(applications) {
    for (unsigned i = 0; i < hosts; ++i) {
      addresses_.push_back("10." + std::to_string(i >> 16) + "." + std::to_string(i >> 8 & 255) + "." +
                           std::to_string(i & 255) + ":7000");
      ledger_.host_came({addresses_.back(), "host" + std::to_string(i), 1, {}}, now_);
      tell(i);
    }
    for (unsigned i = 0; i < applications; ++i) {
      application_ask ask;
      ask.application = i + 1;
      ask.name = "application" + std::to_string(i + 1);
      ask.host = "host" + std::to_string(random(hosts));
      ask.wanted = hosts / applications + 2;
      ledger_.asked(ask, now_);
    }
    obey();
    for (unsigned i = 0; i < 2 * hosts; ++i) turn_over();
  }

  void turn_over() {
    // An application gives back a host, and its agent ends the grant: which makes a decision, as there is always one that waits.
    now_ += std::chrono::microseconds(500);
    if (++steps_ % 4 == 0) tell(random(static_cast<unsigned>(addresses_.size())));
    if (auto due = ledger_.next_due(); due && *due <= now_) ledger_.advance(now_);
    const auto* who = ledger_.application(1 + random(applications_));
    if (who->oldest == nullptr) return;
    ledger_.gave_back(who->id, who->oldest->id, now_);
    obey();
  }

  std::uint64_t granted() const { return granted_; }

private:
  void obey() {
    for (;;) {
      auto orders = ledger_.take_orders();
      if (orders.empty()) return;
      for (const ledger_order& each : orders) {
        if (each.what == ledger_order::kind::granted) ++granted_;
        if (each.what == ledger_order::kind::ended) ledger_.grant_ended(each.address, each.grant, now_);
      }
    }
  }
  void tell(unsigned host) {
    host_condition said;
    said.lendable = true;
    said.idle = std::chrono::seconds(random(100'000));
    ledger_.host_told(addresses_[host], said, now_);
  }
  unsigned random(unsigned below) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>((state_ >> 33) % below);
  }

  grant_ledger ledger_;
  ledger_time now_{std::chrono::hours(1000)};
  unsigned applications_;
  std::vector<std::string> addresses_;
  std::uint64_t state_ = 1, steps_ = 0, granted_ = 0;
};

double processor_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}
// Of this thread in nanoseconds: nothing here waits for anybody.

void decisions(int rounds, unsigned each) {
  constexpr unsigned many_hosts = 10'000, many_applications = 1'000, few_hosts = 100, few_applications = 10;
  simulated_cluster many(many_hosts, many_applications), few(few_hosts, few_applications);
  auto cost = [&](simulated_cluster& of) {
    auto before = of.granted();
    double start = processor_time();
    for (unsigned i = 0; i < each; ++i) of.turn_over();
    return (processor_time() - start) / static_cast<double>(of.granted() - before);
  };
  auto result = bench::compare(
      rounds, [&] { return cost(many); }, [&] { return cost(few); });
  // A decision looks for one among the hosts and one among the applications.
  const double growth = (std::log(double{many_hosts}) + std::log(double{many_applications})) /
                        (std::log(double{few_hosts}) + std::log(double{few_applications}));
  bench::ratio_row(
      "host database, 10,000 simulated hosts, 1,000 applications: a decision, against its own at 100 and 10",
      result, growth, "ns");
  double each_second = 1e9 / result.mine.median;
  bench::row("the same: grants each second", bench::text("%.0f", each_second), ">= 50000",
             each_second >= 50'000);
}

// --- a host is asked for and given back ------------------------------------------------------------------

using namespace migrate;

channel_options party(protocol::HostRole role, const std::string& host) {
  channel_options made;
  made.self = channel_party::of_this_process(role, "bench");
  made.self.host = host;
  return made;
}

class lender final : public channel_handler {
  // An agent on which nothing runs, so that it ends what it is told to end at once.
public:
  explicit lender(const std::string& database)
      : link_(loop_, database, party(protocol::HostRole::AGENT, "lent"), *this) {
    loop_.start();
    link_.start();
    auto over = link_.wait_open();
    over->call(
        [](protocol::HostMessage::Builder out) {
          auto said = out.initRegister();
          said.setAddress("lent:1");
          said.setHost("lent");
          said.setSlots(64);
        },
        [](protocol::HostMessage::Reader) {});
    over->call(
        [](protocol::HostMessage::Builder out) {
          auto said = out.initState();
          said.setLendable(true);
          said.setIdleMilliseconds(3'600'000);
        },
        [](protocol::HostMessage::Reader) {});
  }

private:
  void on_message(channel& from, protocol::HostMessage::Reader message,
                  kj::ArrayPtr<const kj::byte>) override {
    if (!message.isEnded()) return;
    const std::uint64_t grant = message.getEnded().getGrant();
    from.send([&](protocol::HostMessage::Builder out) { out.initGrantEnded().setGrant(grant); });
  }

  event_loop loop_;
  channel_client link_;
};

class borrower final : public channel_handler {
  // Says what an application's host_client says.
public:
  explicit borrower(const std::string& database)
      : link_(loop_, database, party(protocol::HostRole::APPLICATION, "home"), *this) {
    loop_.start();
    link_.start();
    over_ = link_.wait_open();
  }
  ~borrower() {
    link_.stop();
    loop_.stop();
  }

  std::uint64_t select(unsigned wanted) {
    const auto number = granted_number_;
    over_->send([&](protocol::HostMessage::Builder out) {
      auto ask = out.initAsk();
      ask.setApplication(1);
      ask.setWanted(wanted);
    });
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(30), [&] { return granted_number_ != number; }))
      throw std::runtime_error("no host was granted within 30 s");
    return granted_;
  }
  void release(std::uint64_t grant) {
    over_->send([&](protocol::HostMessage::Builder out) {
      auto back = out.initGiveBack();
      back.setGrant(grant);
      back.setFewer(1);
    });
  }

private:
  void on_message(channel&, protocol::HostMessage::Reader message, kj::ArrayPtr<const kj::byte>) override {
    if (!message.isGranted()) return;
    std::lock_guard lock(mutex_);
    granted_ = message.getGranted().getGrant();
    ++granted_number_;
    changed_.notify_one();
  }

  event_loop loop_;
  channel_client link_;
  std::shared_ptr<channel> over_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t granted_ = 0, granted_number_ = 0;
};

struct empty_server final : capnp::Capability::Server {
  DispatchCallResult dispatchCall(std::uint64_t, std::uint16_t,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer>) override {
    return {kj::READY_NOW, false};
  }
};

class other_process {
  // Ends with this object.
public:
  explicit other_process(const std::function<void(int out)>& serve) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
    process_ = ::fork();
    if (process_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(ends[0]);
      try {
        serve(ends[1]);
      } catch (const std::exception& problem) {
        std::fprintf(stderr, "hosts: %s\n", problem.what());
      }
      ::_exit(1);
    }
    ::close(ends[1]);
    char bytes[256];
    const auto got = ::read(ends[0], bytes, sizeof bytes);
    ::close(ends[0]);
    if (got <= 0) throw std::runtime_error("a process of this benchmark has ended early");
    said_.assign(bytes, static_cast<std::size_t>(got));
  }
  ~other_process() {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  other_process(const other_process&) = delete;
  other_process& operator=(const other_process&) = delete;
  const std::string& said() const { return said_; }
  // Once it is ready.

private:
  pid_t process_ = -1;
  std::string said_;
};

void say(int out, const std::string& text) {
  if (::write(out, text.data(), text.size()) < 0) ::_exit(1);
}

void select_and_release(int rounds) {
  constexpr unsigned calls = 500;
  other_process database([](int out) {
    event_loop loop;
    loop.start();
    host_database serves(loop, {});
    serves.start();
    auto io = kj::setupAsyncIo();
    auto listener = io.provider->getNetwork().parseAddress("127.0.0.1").wait(io.waitScope)->listen();
    capnp::TwoPartyServer server(kj::heap<empty_server>());
    say(out, serves.addresses()[0] + " 127.0.0.1:" + std::to_string(listener->getPort()));
    server.listen(*listener).wait(io.waitScope);
  });
  const std::size_t space = database.said().find(' ');
  const std::string address = database.said().substr(0, space), calls_at = database.said().substr(space + 1);
  other_process agent([&](int out) {
    lender lends(address);
    say(out, "lent");
    ::pause();
  });

  borrower application(address);
  auto io = kj::setupAsyncIo();
  auto stream =
      io.provider->getNetwork().parseAddress(calls_at).wait(io.waitScope)->connect().wait(io.waitScope);
  capnp::TwoPartyClient client(*stream);
  capnp::Capability::Client server = client.bootstrap();

  const std::uint64_t kept = application.select(1); // the others are on a host that it has already
  auto time = [&](auto&& once) {
    std::vector<double> times;
    for (unsigned i = 0; i < calls; ++i) {
      auto start = bench::clock::now();
      once();
      times.push_back(bench::nanoseconds(bench::clock::now() - start));
    }
    return bench::median(times);
  };
  auto result = bench::compare(
      rounds, [&] { return time([&] { application.release(application.select(2)); }); },
      [&] {
        return time([&] {
          server.typelessRequest(0x1234, 0, capnp::MessageSize{4, 0}).send().wait(io.waitScope);
        });
      });
  application.release(kept);
  bench::ratio_row(
      "select and release a host, against one empty Cap'n Proto call between the same two processes", result,
      2.0, "us", 1e-3);
}

} // namespace

int main(int argc, char** argv) {
  CLI::App options("What the host database costs");
  int rounds = 15;
  unsigned each = 20'000;
  options.add_option("--rounds", rounds, "How often each is measured");
  options.add_option("--decisions", each, "In each round");
  CLI11_PARSE(options, argc, argv);
  select_and_release(rounds); // while this process has one thread: it forks
  decisions(rounds, each);
}
