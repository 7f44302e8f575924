#include <migrate/file.hpp>

#include "file_fixture.hpp"

#include <csignal>

#include <limits.h>

#include <migrate/mailbox.hpp>
#include <migrate/posix/select.hpp>
#include <migrate/posix/socket.hpp>
#include <migrate/posix/stat.hpp>
#include <migrate/process.hpp>
#include <migrate/signal.hpp>

namespace {

struct flow {
  // Bytes whose order and number can be checked: the n-th is a function of n.
  static char byte(std::uint64_t n) { return static_cast<char>((n * 0x9e37'79b9'7f4a'7c15u) >> 56); }
};

text write_flow(int fd, std::uint64_t bytes, random_choices random, std::size_t longest, unsigned one_move_in) {
  std::string part;
  for (std::uint64_t sent = 0; sent < bytes;) {
    part.resize(std::min<std::uint64_t>(1 + random.below(longest), bytes - sent));
    for (std::size_t i = 0; i < part.size(); ++i) part[i] = flow::byte(sent + i);
    ssize_t wrote = px::write(fd, part.data(), part.size());
    EXPECT(wrote == static_cast<ssize_t>(part.size()));
    sent += part.size();
    if (one_move_in != 0 && random.one_in(one_move_in)) this_task::migrate_to(random.node());
  }
  px::close(fd);
  return "";
}

text read_flow(int fd, std::uint64_t bytes, random_choices random, std::size_t longest, unsigned one_move_in) {
  std::string part;
  std::uint64_t seen = 0;
  for (;;) {
    part.resize(1 + random.below(longest));
    ssize_t got = px::read(fd, part.data(), part.size());
    EXPECT(got >= 0);
    if (got == 0) break;
    for (ssize_t i = 0; i < got; ++i)
      if (part[static_cast<std::size_t>(i)] != flow::byte(seen + static_cast<std::uint64_t>(i)))
        return "another byte at " + std::to_string(seen + static_cast<std::uint64_t>(i));
    seen += static_cast<std::uint64_t>(got);
    if (one_move_in != 0 && random.one_in(one_move_in)) this_task::migrate_to(random.node());
  }
  return seen == bytes ? "" : std::to_string(seen) + " bytes of " + std::to_string(bytes);
}

text stream(std::uint64_t bytes, std::size_t longest, unsigned one_move_in, std::uint64_t seed) {
  random_choices random(seed);
  int ends[2];
  EXPECT(px::pipe(ends) == 0);
  auto writer = spawn([=, mine = random.branch()] {
    px::close(ends[0]);
    return write_flow(ends[1], bytes, mine, longest, one_move_in);
  });
  auto reader = spawn([=, mine = random.branch()] {
    px::close(ends[1]);
    return read_flow(ends[0], bytes, mine, longest, one_move_in);
  });
  px::close(ends[0]);
  px::close(ends[1]);
  text wrong = writer.join();
  text also = reader.join();
  return wrong + also;
}

} // namespace

TEST_CASE("what is in a pipe stays there while both its ends move") {
  each_way([](const text&) -> text {
    pipe_ends ends = make_pipe();
    EXPECT(ends.out.write("one ") == 4);
    be_moved();
    EXPECT(ends.out.write("two") == 3);
    be_moved();
    char got[8] = {};
    EXPECT(px::read(ends.in.descriptor(), got, 8) == 7 && text(got) == "one two");
    ends.out.close();
    be_moved();
    EXPECT(px::read(ends.in.descriptor(), got, 8) == 0);
    return "";
  });
}

TEST_CASE("a task that waits in read is moved, and goes on waiting") {
  each_way([](const text&) -> text {
    int ends[2];
    EXPECT(px::pipe2(ends, 0) == 0);
    auto reader = spawn([=]() -> text {
      px::close(ends[1]);
      char got[4] = {};
      EXPECT(px::read(ends[0], got, 4) == 3 && text(got) == "yes");
      EXPECT(px::read(ends[0], got, 4) == 0);
      return std::to_string(this_task::moves() > 0);
    });
    px::close(ends[0]);
    for (node_id each : nodes()) {
      std::error_code moving_already; // under torture
      reader.migrate_to(each, moving_already);
    }
    be_moved();
    EXPECT(px::write(ends[1], "yes", 3) == 3);
    for (node_id each : nodes()) {
      std::error_code ended;
      reader.migrate_to(each, ended);
    }
    px::close(ends[1]);
    EXPECT(reader.join() == "1");
    return "";
  });
}

TEST_CASE("a task that waits in write is moved, and writes the rest") {
  each_way([](const text&) -> text {
    int ends[2];
    EXPECT(px::pipe2(ends, 0) == 0);
    constexpr std::size_t bytes = 300'000; // more than a pipe holds
    auto writer = spawn([=]() -> text {
      px::close(ends[0]);
      return write_flow(ends[1], bytes, random_choices(1), bytes, 0);
    });
    px::close(ends[1]);
    for (node_id each : nodes()) {
      std::error_code moving_already; // under torture
      writer.migrate_to(each, moving_already);
    }
    text wrong = read_flow(ends[0], bytes, random_choices(2), 70'000, 5);
    EXPECT(wrong == "");
    wrong = writer.join();
    EXPECT(wrong == "");
    return "";
  });
}

TEST_CASE("a write into a pipe that nobody reads fails with EPIPE, and sends SIGPIPE") {
  each_way([](const text&) -> text {
    pipe_ends ends = make_pipe();
    ends.in.close();
    be_moved();
    int sent = 0;
    on_signal(SIGPIPE, [&](const signal_info&) { ++sent; });
    EXPECT(px::write(ends.out.descriptor(), "x", 1) == -1 && errno == EPIPE);
    EXPECT(sent == 1);
    ignore_signal(SIGPIPE);
    EXPECT(px::write(ends.out.descriptor(), "x", 1) == -1 && errno == EPIPE);
    EXPECT(sent == 1);
    child_status end = wait_child(start_child([fd = ends.out.descriptor()] {
      default_signal(SIGPIPE);
      px::write(fd, "x", 1);
    }));
    EXPECT(end.killed() && end.signal() == SIGPIPE);
    return "";
  });
}

TEST_CASE("O_NONBLOCK and poll say how a pipe is") {
  each_way([](const text&) -> text {
    int ends[2];
    EXPECT(px::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
    be_moved();
    char bytes[4096] = {};
    EXPECT(px::read(ends[0], bytes, 1) == -1 && errno == EAGAIN);
    pollfd both[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}};
    EXPECT(px::poll(both, 2, 0) == 1 && both[0].revents == 0 && both[1].revents == POLLOUT);
    while (px::write(ends[1], bytes, sizeof bytes) == sizeof bytes) {}
    EXPECT(errno == EAGAIN);
    be_moved();
    EXPECT(px::poll(both, 2, -1) == 1 && both[0].revents == POLLIN && both[1].revents == 0);
    while (px::read(ends[0], bytes, sizeof bytes) > 0) {}
    EXPECT(px::poll(both, 1, 20) == 0);
    EXPECT((px::fcntl(ends[0], F_GETFL) & O_NONBLOCK) != 0);
    px::close(ends[1]);
    be_moved();
    EXPECT(px::poll(both, 2, -1) == 2 && both[0].revents == POLLHUP && both[1].revents == POLLNVAL);
    return "";
  });
}

TEST_CASE("poll ends its task's wait when another task writes, wherever the two are") {
  each_way([](const text&) -> text {
    int ends[2];
    EXPECT(px::pipe(ends) == 0);
    auto writer = spawn([=]() -> text {
      be_moved();
      EXPECT(px::write(ends[1], "x", 1) == 1);
      return "";
    });
    pollfd what{ends[0], POLLIN, 0};
    EXPECT(px::poll(&what, 1, 30'000) == 1 && what.revents == POLLIN);
    text wrong = writer.join();
    EXPECT(wrong == "");
    return "";
  });
}

TEST_CASE("a handler ends a wait for a pipe with EINTR, or the wait goes on with SA_RESTART") {
  each_way([](const text&) -> text {
    int ends[2];
    EXPECT(px::pipe(ends) == 0);
    be_moved();
    int handled = 0;
    char byte = 0;
    for (bool restart : {false, true}) {
      on_signal(SIGUSR1, [&](const signal_info&) { ++handled; }, {.restart = restart});
      auto disturbs = spawn([fd = ends[1], to = this_task::id(), restart] {
        for (bool heard = false; !heard && !restart; heard = mailbox<bool>().receive_for(std::chrono::milliseconds(5)).has_value())
          send_signal(to, SIGUSR1); // until it has come in the middle of the wait
        if (!restart) return;
        send_signal(to, SIGUSR1);
        this_task::sleep_for(std::chrono::milliseconds(5));
        px::write(fd, "x", 1);
      });
      ssize_t got = px::read(ends[0], &byte, 1);
      int reason = errno;
      if (restart) {
        EXPECT(got == 1 && byte == 'x');
      } else {
        EXPECT(got == -1 && reason == EINTR);
        EXPECT(handled > 0); // before the call returned
        send(disturbs.id(), true);
      }
      disturbs.join();
    }
    return "";
  });
}

TEST_CASE("select and pselect say what poll says, and pselect's mask is that of its wait") {
  each_way([](const text&) -> text {
    int ends[2];
    EXPECT(px::pipe(ends) == 0);
    be_moved();
    fd_set in, out;
    auto set = [&] {
      FD_ZERO(&in);
      FD_ZERO(&out);
      FD_SET(ends[0], &in);
      FD_SET(ends[1], &out);
      return std::max(ends[0], ends[1]) + 1;
    };
    timeval soon{0, 20'000};
    EXPECT(px::select(set(), &in, &out, nullptr, nullptr) == 1 && !FD_ISSET(ends[0], &in) && FD_ISSET(ends[1], &out));
    EXPECT(px::select(set(), &in, nullptr, nullptr, &soon) == 0 && !FD_ISSET(ends[0], &in));
    EXPECT(px::write(ends[1], "x", 1) == 1);
    be_moved();
    EXPECT(px::select(set(), &in, &out, nullptr, &soon) == 2);
    char byte = 0;
    EXPECT(px::read(ends[0], &byte, 1) == 1);
    bool handled = false;
    on_signal(SIGUSR1, [&](const signal_info&) { handled = true; });
    signal_block held({SIGUSR1});
    raise_signal(SIGUSR1);
    EXPECT(px::select(set(), &in, nullptr, nullptr, &soon) == 0 && !handled);
    sigset_t none;
    sigemptyset(&none);
    be_moved();
    EXPECT(px::pselect(set(), &in, nullptr, nullptr, nullptr, &none) == -1 && errno == EINTR);
    EXPECT(handled && blocked_signals().contains(SIGUSR1));
    px::close(ends[0]);
    EXPECT(px::select(set(), &in, nullptr, nullptr, &soon) == -1 && errno == EBADF);
    return "";
  });
}

TEST_CASE("a pair of sockets carries bytes both ways while its ends move, to the end of each") {
  each_way([](const text&) -> text {
    int ends[2];
    EXPECT(px::socketpair(AF_INET, SOCK_STREAM, 0, ends) == -1 && errno == EOPNOTSUPP);
    EXPECT(px::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == -1 && errno == EPROTONOSUPPORT);
    EXPECT(px::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    struct ::stat status;
    EXPECT(px::fstat(ends[0], &status) == 0 && S_ISSOCK(status.st_mode));
    auto echo = spawn([=]() -> text {
      px::close(ends[0]);
      char bytes[64];
      for (ssize_t got; (got = px::read(ends[1], bytes, sizeof bytes)) > 0;) {
        be_moved();
        EXPECT(px::write(ends[1], bytes, static_cast<std::size_t>(got)) == got);
      }
      return "";
    });
    px::close(ends[1]);
    for (int i = 0; i < 20; ++i) {
      text line = "line " + std::to_string(i);
      EXPECT(px::write(ends[0], line.data(), line.size()) == static_cast<ssize_t>(line.size()));
      if (i % 5 == 0) be_moved();
      pollfd what{ends[0], POLLIN | POLLOUT, 0};
      EXPECT(px::poll(&what, 1, 30'000) == 1 && (what.revents & POLLOUT) != 0);
      text back;
      for (char byte; back.size() < line.size() && px::read(ends[0], &byte, 1) == 1;) back += byte;
      EXPECT(back == line);
    }
    px::close(ends[0]);
    text wrong = echo.join();
    EXPECT(wrong == "");
    file_pair both = make_socket_pair();
    be_moved();
    both.one.write("there");
    both.one.close();
    be_moved();
    EXPECT(all_of(both.other.descriptor()) == "there");
    ignore_signal(SIGPIPE);
    std::error_code code;
    both.other.write("back", code);
    EXPECT(code == std::errc::broken_pipe);
    return "";
  });
}

TEST_CASE("writes of up to PIPE_BUF bytes stay together") {
  std::uint64_t seed = new_seed("atomic");
  text wrong = migrate_test::run(
      [](std::uint64_t from) -> text {
        random_choices random(from);
        int ends[2];
        EXPECT(px::pipe(ends) == 0);
        constexpr unsigned writers = 3, records = 150;
        std::vector<task<text>> all;
        for (unsigned w = 0; w < writers; ++w)
          all.push_back(spawn([=, mine = random.branch()]() mutable -> text {
            px::close(ends[0]);
            for (unsigned i = 0; i < records; ++i) {
              std::string record(PIPE_BUF, static_cast<char>('a' + w));
              EXPECT(px::write(ends[1], record.data(), record.size()) == PIPE_BUF);
              if (mine.one_in(10)) this_task::migrate_to(mine.node());
            }
            return "";
          }));
        px::close(ends[1]);
        std::string whole;
        char bytes[10'000];
        for (ssize_t got; (got = px::read(ends[0], bytes, sizeof bytes)) > 0;) {
          whole.append(bytes, static_cast<std::size_t>(got));
          if (random.one_in(10)) this_task::migrate_to(random.node());
        }
        EXPECT(whole.size() == writers * records * PIPE_BUF);
        for (std::size_t at = 0; at < whole.size(); at += PIPE_BUF)
          EXPECT(whole.find_first_not_of(whole[at], at) >= at + PIPE_BUF);
        for (auto& each : all) {
          text failed = each.join();
          EXPECT(failed == "");
        }
        return "";
      },
      seed);
  CHECK(wrong == "");
}

TEST_CASE("a pipe's bytes are neither lost nor doubled nor reordered while both ends move at random") {
  std::uint64_t seed = new_seed("stream");
  std::uint64_t moves_before = migrate_test::statistics().moves;
  text wrong = migrate_test::run([](std::uint64_t from) { return stream(6'000'000, 9'000, 3, from); }, seed);
  CHECK(wrong == "");
  std::uint64_t moves = migrate_test::statistics().moves - moves_before;
  std::fprintf(stderr, "stream: %llu moves\n", static_cast<unsigned long long>(moves));
  CHECK(moves >= 300);
}

TEST_CASE("end of file comes when the last writer's node is killed") {
  text wrong = migrate_test::run([]() -> text {
    this_task::migrate_to(this_task::home());
    pin_scope here; // or torture would have this task with the other
    int ends[2];
    EXPECT(px::pipe(ends) == 0);
    auto writer = spawn([=]() -> text {
      px::close(ends[0]);
      this_task::migrate_to(nodes().back());
      pin_scope there;
      pid_t process = ::getpid();
      if (px::write(ends[1], &process, sizeof process) != sizeof process) return "not written";
      this_task::sleep_for(std::chrono::seconds(60)); // until its node is gone
      return "";
    });
    px::close(ends[1]);
    pid_t process = 0;
    char got[16] = {};
    EXPECT(px::read(ends[0], &process, sizeof process) == sizeof process);
    EXPECT(process != ::getpid());
    ::kill(process, SIGKILL);
    EXPECT(px::read(ends[0], got, 16) == 0);
    try {
      static_cast<void>(writer.join());
      return "it was not lost";
    } catch (const error& lost) {
      EXPECT(lost.code() == errc::node_lost);
    }
    return "";
  });
  CHECK(wrong == "");
}
