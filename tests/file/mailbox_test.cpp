#include <migrate/mailbox.hpp>

#include "../support/cluster.hpp"
#include "../support/random.hpp"

#include <map>
#include <numeric>
#include <string>
#include <vector>

using namespace migrate;
using namespace std::chrono_literals;
using migrate_test::new_seed;
using migrate_test::random_choices;

namespace {

struct numbered {
  std::uint32_t sender = 0;
  std::uint32_t number = 0;
  std::string text;
  auto migrate_fields() { return std::tie(sender, number, text); }
};

struct traffic {
  unsigned senders = 1;
  unsigned receivers = 1;
  unsigned messages = 1000;      // from each sender to each receiver
  unsigned sender_moves = 0;     // one move in so many messages; 0: never
  unsigned receiver_moves = 0;
  unsigned capacity = 64;
  std::size_t longest = 40;
};

struct verdict {
  std::uint64_t moves = 0;
  std::uint64_t received = 0;
  std::string wrong; // the first thing
  auto migrate_fields() { return std::tie(moves, received, wrong); }
};

std::string text_of(std::uint32_t sender, std::uint32_t number, std::size_t longest) {
  std::uint64_t mixed = (std::uint64_t{sender} << 32 | number) * 0x9e37'79b9'7f4a'7c15u;
  return std::string(static_cast<std::size_t>(mixed >> 33) % (longest + 1),
                     static_cast<char>('a' + (mixed >> 20) % 26));
}

verdict receive_all(traffic how, random_choices random) {
  verdict seen;
  mailbox<numbered> in(how.capacity);
  std::vector<std::uint32_t> next(how.senders);
  std::map<std::uint32_t, task_id> ids;
  for (std::uint64_t left = std::uint64_t{how.senders} * how.messages; left > 0; --left) {
    if (how.receiver_moves != 0 && random.one_in(how.receiver_moves)) this_task::migrate_to(random.node());
    envelope<numbered> got = in.receive_envelope();
    ++seen.received;
    const numbered& value = got.value;
    if (value.sender >= how.senders)
      seen.wrong = "from nobody";
    else if (value.number != next[value.sender] && seen.wrong.empty())
      seen.wrong = "from " + std::to_string(value.sender) + ": number " + std::to_string(value.number) +
                   " instead of " + std::to_string(next[value.sender]);
    else if (value.text != text_of(value.sender, value.number, how.longest) && seen.wrong.empty())
      seen.wrong = "another text";
    else if (auto [known, fresh] = ids.emplace(value.sender, got.from); !fresh && known->second != got.from)
      seen.wrong = "another sender's id";
    else
      ++next[value.sender];
    if (!seen.wrong.empty()) return seen;
  }
  if (std::optional<numbered> more = in.try_receive())
    seen.wrong = "one too many, from " + std::to_string(more->sender) + ": number " + std::to_string(more->number);
  seen.moves = this_task::moves();
  return seen;
}

std::uint64_t send_all(std::uint32_t me, std::vector<task_id> to, traffic how, random_choices random) {
  for (std::uint32_t number = 0; number < how.messages; ++number)
    for (task_id each : to) {
      if (how.sender_moves != 0 && random.one_in(how.sender_moves)) this_task::migrate_to(random.node());
      send(each, numbered{me, number, text_of(me, number, how.longest)});
    }
  return this_task::moves();
}

verdict exchange(traffic how, std::uint64_t seed) {
  random_choices random(seed);
  std::vector<task<verdict>> receivers;
  std::vector<task_id> ids;
  for (unsigned i = 0; i < how.receivers; ++i) {
    receivers.push_back(spawn({.name = "receiver"}, receive_all, how, random.branch()));
    ids.push_back(receivers.back().id());
  }
  std::vector<task<std::uint64_t>> senders;
  for (unsigned i = 0; i < how.senders; ++i)
    senders.push_back(spawn({.name = "sender"}, send_all, i, ids, how, random.branch()));
  verdict all;
  for (auto& each : receivers) {
    verdict one = each.join();
    all.moves += one.moves;
    all.received += one.received;
    if (all.wrong.empty()) all.wrong = one.wrong;
  }
  for (auto& each : senders) all.moves += each.join();
  return all;
}

void check(traffic how, std::uint64_t least_moves, const char* name) {
  if (std::getenv("MIGRATE_TORTURE") != nullptr) { // which moves them at every third call besides
    how.messages /= 4;
    least_moves /= 4;
  }
  std::uint64_t seed = new_seed(name);
  verdict all = migrate_test::run(exchange, how, seed);
  CHECK(all.wrong == "");
  CHECK(all.received == std::uint64_t{how.senders} * how.receivers * how.messages);
  CHECK(all.moves >= least_moves);
}

} // namespace

TEST_CASE("messages of one sender arrive in order and exactly once, nobody moves") {
  check({.senders = 3, .receivers = 2, .messages = 2000}, 0, "still");
}

TEST_CASE("messages arrive in order and exactly once while the sender moves") {
  check({.messages = 6000, .sender_moves = 3}, 1000, "sender moves");
}

TEST_CASE("messages arrive in order and exactly once while the receiver moves") {
  check({.messages = 6000, .receiver_moves = 3}, 1000, "receiver moves");
}

TEST_CASE("messages arrive in order and exactly once while both move") {
  check({.messages = 6000, .sender_moves = 3, .receiver_moves = 3}, 2000, "both move");
}

TEST_CASE("messages of several senders arrive in order while all move") {
  check({.senders = 4, .receivers = 3, .messages = 1500, .sender_moves = 3, .receiver_moves = 3}, 7000, "all move");
}

TEST_CASE("a mailbox for one message passes on those of several senders that move") {
  check({.senders = 4, .messages = 500, .sender_moves = 5, .receiver_moves = 5, .capacity = 1}, 400, "narrow");
}

TEST_CASE("long messages arrive whole while both ends move") {
  check({.senders = 2, .messages = 150, .sender_moves = 2, .receiver_moves = 2, .longest = 300'000}, 100, "long");
}

TEST_CASE("tasks moved from outside lose no message") {
  std::uint64_t seed = new_seed("moved from outside");
  auto [all, done] = migrate_test::run([seed] {
    random_choices random(seed);
    traffic how{.messages = 20'000};
    constexpr int rounds = 400;
    auto receiver = spawn(receive_all, how, random.branch());
    // The sender goes on as often as both have been asked to move.
    auto sender = spawn([to = receiver.id(), how] {
      mailbox<bool> more;
      for (std::uint32_t number = 0; number < how.messages; ++number) {
        if (number % (how.messages / rounds) == 0) more.receive();
        send(to, numbered{0, number, text_of(0, number, how.longest)});
      }
      return this_task::moves();
    });
    std::uint64_t moved = 0;
    for (int i = 0; i < rounds; ++i) {
      send(sender.id(), true);
      std::error_code one, other;
      receiver.migrate_to(random.node(), one);
      sender.migrate_to(random.node(), other);
      moved += !one + !other;
    }
    verdict seen = receiver.join();
    seen.moves += sender.join();
    return std::pair(seen, moved);
  });
  CHECK(all.wrong == "");
  CHECK(all.received == 20'000);
  CHECK(all.moves > 0);
  CHECK(done > 0);
}

TEST_CASE("a full mailbox blocks its sender, on the same node and from another") {
  for (bool away : {false, true}) {
    CAPTURE(away);
    auto [before, after] = migrate_test::run([away] {
      std::optional<pin_scope> here;
      if (!away) here.emplace();
      // The sender reports each message sent, so what it could send before the first receive is known.
      task_id me = this_task::id();
      auto receiver = spawn([me, away] {
        std::optional<pin_scope> there;
        if (!away) there.emplace();
        mailbox<int> in(3);
        mailbox<bool> go;
        send(me, std::string("ready"));
        go.receive();
        int sum = 0;
        for (int i = 0; i < 300; ++i) sum += in.receive();
        return sum;
      });
      mailbox<std::string> ready;
      ready.receive();
      task_id to = receiver.id();
      auto sender = spawn({.on = away ? nodes().back() : no_node}, [me, to, away] {
        std::optional<pin_scope> there;
        if (!away) there.emplace();
        for (int i = 0; i < 300; ++i) {
          send(to, 1);
          send(me, i + 1);
        }
      });
      mailbox<int> progress;
      int sent = 0;
      if (!away) {
        for (int i = 0; i < 3; ++i) sent = progress.receive();
        for (int i = 0; i < 200; ++i) this_task::yield();
        sent += static_cast<int>(progress.size());
      } else {
        while (std::optional<int> more = progress.receive_for(300ms)) sent = *more;
      }
      send(to, true);
      int sum = receiver.join();
      sender.join();
      return std::pair(sent, sum);
    });
    CHECK(before >= 3);
    if (away)
      CHECK(before < 300); // what is under way is bounded as well
    else
      CHECK(before == 3);
    CHECK(after == 300);
  }
}

TEST_CASE("a sender that gave up does not take another's turn") {
  // One place, one message in it; two senders wait, the first one gives up. The one receive must wake the other.
  bool came = migrate_test::run([] {
    pin_scope here; // a message from another node is under way as soon as it is sent
    task_id me = this_task::id();
    mailbox<int> in(1);
    send(me, 0);
    auto gives_up = spawn([me] {
      pin_scope beside;
      return send_for(me, 1, 20ms);
    });
    bool sent = gives_up.join();
    auto stays = spawn([me] { send(me, 2); });
    mailbox<bool> never;
    never.receive_for(20ms); // both have been refused by now
    in.receive();
    auto second = in.receive_for(20s);
    stays.join();
    return !sent && second == 2;
  });
  CHECK(came);
}

TEST_CASE("a receiver that takes only what it has to leaves no sender asleep") {
  std::uint64_t seed = new_seed("wakes");
  int received = migrate_test::run([seed] {
    random_choices random(seed);
    task_id me = this_task::id();
    mailbox<int> in(2);
    std::vector<task<>> senders;
    for (int i = 0; i < 12; ++i)
      senders.push_back(spawn({.on = i % 2 == 0 ? no_node : random.node()}, [me, r = random.branch()]() mutable {
        for (int k = 0; k < 60;) {
          if (r.one_in(3))
            k += send_for(me, 1, std::chrono::microseconds(r.below(300)));
          else {
            send(me, 1);
            ++k;
          }
          if (r.one_in(10)) this_task::migrate_to(r.node());
        }
      }));
    int got = 0;
    while (got < 12 * 60) {
      if (!in.receive_for(20s)) break;
      ++got;
    }
    if (got == 12 * 60)
      for (auto& each : senders) each.join();
    return got;
  });
  CHECK(received == 12 * 60);
}

TEST_CASE("receiving without waiting, and with a limit") {
  auto seen = migrate_test::run([] {
    mailbox<int> in;
    mailbox<std::string> other;
    std::vector<bool> right;
    right.push_back(!in.try_receive());
    right.push_back(!in.receive_for(5ms));
    send(this_task::id(), 7);
    send(this_task::id(), std::string("seven"));
    right.push_back(in.size() == 1 && other.size() == 1);
    right.push_back(in.try_receive() == 7);
    right.push_back(other.receive_for(5ms) == "seven");
    right.push_back(!in.try_receive() && !other.try_receive());
    return right;
  });
  CHECK(seen == std::vector<bool>(6, true));
}

TEST_CASE("sending with a limit gives up while the mailbox is full, and sends nothing") {
  for (bool away : {false, true}) {
    CAPTURE(away);
    int got = migrate_test::run([away] {
      std::optional<pin_scope> here;
      if (!away) here.emplace();
      task_id me = this_task::id();
      mailbox<int> in(1);
      auto sender = spawn({.on = away ? nodes().back() : no_node}, [me, away] {
        std::optional<pin_scope> there;
        if (!away) there.emplace();
        int sent = 0;
        while (send_for(me, 1, 50ms)) ++sent;
        return sent;
      });
      if (away) { // sends that are under way count as sent: they must come
        int received = 0;
        mailbox<bool> never;
        never.receive_for(1500ms);
        while (in.receive_for(500ms)) ++received;
        return sender.join() - received;
      }
      int sent = sender.join();
      int received = 0;
      while (in.try_receive()) ++received;
      return sent - received + (sent == 1 ? 0 : 100);
    });
    CHECK(got == 0);
  }
}

TEST_CASE("messages wait for a mailbox that does not exist yet, across moves") {
  auto [first, second] = migrate_test::run([] {
    auto late = spawn([] {
      this_task::sleep_for(20ms);
      for (node_id each : nodes()) this_task::migrate_to(each);
      mailbox<int> in;
      int a = in.receive();
      this_task::migrate_to(nodes().front());
      return std::pair(a, in.receive());
    });
    send(late.id(), 1);
    send(late.id(), 2);
    return late.join();
  });
  CHECK(first == 1);
  CHECK(second == 2);
}

TEST_CASE("a sender may end right after sending") {
  std::uint64_t seed = new_seed("sender ends");
  int missing = migrate_test::run([seed] {
    random_choices random(seed);
    mailbox<int> in(100'000);
    task_id me = this_task::id();
    constexpr int many = 600;
    std::vector<bool> got(many);
    for (int i = 0; i < many; ++i)
      spawn({.on = random.node()}, [me, i, r = random.branch()]() mutable {
        send(me, i);
        if (r.one_in(2)) this_task::migrate_to(r.node());
      }).detach();
    for (int i = 0; i < many; ++i) {
      std::optional<int> one = in.receive_for(30s);
      if (!one || got[static_cast<std::size_t>(*one)]) return -i - 1;
      got[static_cast<std::size_t>(*one)] = true;
      if (random.one_in(4)) this_task::migrate_to(random.node());
    }
    return in.try_receive() ? 1 : 0;
  });
  CHECK(missing == 0);
}

TEST_CASE("sending to a task that has ended says so") {
  auto codes = migrate_test::run([] {
    auto code_of = [](auto&& act) {
      try {
        act();
      } catch (const error& thrown) {
        return thrown.code().value();
      }
      return 0;
    };
    std::vector<int> found;
    auto here = spawn([] {});
    task_id gone_here = here.id();
    here.join();
    // From another node the first message is under way before that can be known; a later one says so.
    found.push_back(code_of([&] {
      for (int i = 0; i < 100'000; ++i) send(gone_here, 1);
    }));
    auto there = spawn({.on = nodes().back()}, [] {});
    task_id gone_there = there.id();
    there.join();
    found.push_back(code_of([&] {
      for (int i = 0; i < 100'000; ++i) send(gone_there, 1);
    }));
    auto away = spawn({.on = nodes().back()}, [=] {
      return code_of([&] {
        for (int i = 0; i < 100'000; ++i) send(gone_here, 1);
      });
    });
    found.push_back(away.join());
    // One that ends while a sender waits for room.
    auto full = spawn([] {
      mailbox<int> in(1);
      this_task::sleep_for(50ms);
    });
    task_id to = full.id();
    this_task::yield();
    found.push_back(code_of([&] {
      for (int i = 0; i < 5000; ++i) send(to, 1);
    }));
    full.join();
    return found;
  });
  int want = static_cast<int>(errc::no_such_task);
  CHECK(codes == std::vector<int>{want, want, want, want});
}

TEST_CASE("a message at the limit goes, one over it is refused") {
  auto [size, code] = migrate_test::run([] {
    auto receiver = spawn({.on = nodes().back()}, [] {
      mailbox<std::vector<std::uint64_t>> in;
      std::vector<std::uint64_t> got = in.receive();
      std::uint64_t sum = std::accumulate(got.begin(), got.end(), std::uint64_t{0});
      return sum == got.size() * (got.size() - 1) / 2 ? got.size() : 0;
    });
    std::vector<std::uint64_t> large(((std::size_t{16} << 20) - 8) / 8);
    std::iota(large.begin(), large.end(), std::uint64_t{0});
    send(receiver.id(), large);
    large.push_back(0);
    int refused = 0;
    try {
      send(receiver.id(), large);
    } catch (const error& thrown) {
      refused = thrown.code().value();
    }
    return std::pair(receiver.join(), refused);
  });
  CHECK(size == ((std::size_t{16} << 20) - 8) / 8);
  CHECK(code == static_cast<int>(errc::message_too_large));
}

TEST_CASE("only a task can send, and a mailbox belongs to one") {
  CHECK_THROWS_AS(send(task_id(1), 1), error);
  CHECK_THROWS_AS(mailbox<int>(), error);
}

TEST_CASE("every type with a codec travels between nodes") {
  using everything = std::tuple<int, std::string, std::vector<std::string>, std::optional<std::string>,
                                std::map<std::string, std::vector<int>>, std::variant<int, std::string>,
                                std::array<std::string, 2>, std::pair<std::string, double>, std::vector<bool>>;
  auto make = [] {
    return everything{-1, "text", {"a", "", "ccc"}, "there", {{"x", {1, 2}}, {"y", {}}}, "variant", {"p", "q"},
                      {"pair", 0.5}, {true, false, true}};
  };
  bool same = migrate_test::run([make] {
    task_id me = this_task::id();
    auto echo = spawn({.on = nodes().back()}, [me] { send(me, mailbox<everything>().receive()); });
    send(echo.id(), make());
    bool equal = mailbox<everything>().receive() == make();
    echo.join();
    return equal;
  });
  CHECK(same);
}
