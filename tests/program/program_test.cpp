#include <migrate/program.hpp>

#include "program_fixture.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <migrate/directory.hpp>
#include <migrate/environment.hpp>
#include <migrate/file.hpp>
#include <migrate/fork.hpp>
#include <migrate/posix/fcntl.hpp>
#include <migrate/posix/unistd_files.hpp>
#include <migrate/process.hpp>
#include <migrate/program/descendants.hpp>
#include <migrate/signal.hpp>
#include <migrate/streams.hpp>
#include <migrate/usage.hpp>

TEST_CASE("a program's end is told as wait(2) tells it") {
  at_home_and_away([] {
    EXPECT_EQUAL(run_program({"true"}).status, 0);
    EXPECT_EQUAL(run_program({"false"}).exit_code(), 1);
    EXPECT_EQUAL(run_program({"sh", "-c", "exit 42"}).exit_code(), 42);
    program_result killed = run_program({"sh", "-c", "kill -TERM $$"});
    EXPECT(killed.killed() && killed.signal() == SIGTERM);
    EXPECT(killed.starts == 1);
    return text();
  });
}

TEST_CASE("a program has its task's environment, directory and umask, or what it is given") {
  folder where;
  at_home_and_away(
      [](text directory) {
        change_directory(directory);
        file_mask(std::filesystem::perms(0027));
        set_environment("COLOUR", "blue");
        EXPECT_EQUAL(shell("pwd; umask; echo $COLOUR"), directory + "\n0027\nblue\n");
        program_options how;
        how.directory = "/usr";
        how.mask = 0077;
        how.variables = {{"COLOUR", "red"}, {"SHAPE", "round"}};
        EXPECT_EQUAL(shell("pwd; umask; echo $COLOUR $SHAPE", how), "/usr\n0077\nred round\n");
        how = {};
        how.environment = words{"ONLY=this"};
        EXPECT_EQUAL(output_of({"/usr/bin/env"}, how), "ONLY=this\n");
        return text();
      },
      std::filesystem::canonical(where.path).native());
}

TEST_CASE("a program inherits nothing of the node") {
  at_home_and_away([] {
    EXPECT_EQUAL(shell("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 "); // 3 is the folder that ls reads
    EXPECT_EQUAL(shell("cat /proc/self/personality"), "00000000\n");
    EXPECT_EQUAL(shell("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\n\\t'"),
                 "SigBlk:0000000000000000SigIgn:0000000000000000");
    EXPECT(shell("env").find("MIGRATE_KEEPER") == text::npos);
    ignore_signal(SIGUSR1); // which only a program's start by its task's will keeps
    EXPECT_EQUAL(shell("grep SigIgn /proc/self/status | tr -d '\\n\\t'"), "SigIgn:0000000000000200");
    return text();
  });
}

TEST_CASE("input and output go where they are told to go") {
  folder where;
  at_home_and_away(
      [](text directory) {
        program_options how;
        how.directory = directory;
        how.output = redirection::file("out");
        how.error = redirection::file(directory + "/err");
        EXPECT_EQUAL(run_program({"sh", "-c", "echo said; echo complained >&2"}, how).status, 0);
        how.output = redirection::append_to("out");
        how.error = redirection::with_output();
        EXPECT_EQUAL(run_program({"sh", "-c", "echo more; echo much more >&2"}, how).status, 0);
        EXPECT_EQUAL(contents(directory + "/out"), "said\nmore\nmuch more\n");
        EXPECT_EQUAL(contents(directory + "/err"), "complained\n");

        how = {};
        how.input = redirection::file(directory + "/out");
        EXPECT_EQUAL(output_of({"head", "-n", "1"}, how), "said\n");
        how.input = redirection::text(text(300'000, 'x'));
        EXPECT_EQUAL(output_of({"wc", "-c"}, how), "300000\n");
        how.input = redirection::nothing();
        EXPECT_EQUAL(output_of({"wc", "-c"}, how), "0\n");

        how = {};
        how.error = redirection::capture();
        how.output = redirection::capture(4);
        program_result both = run_program({"sh", "-c", "printf 1234567; echo oops >&2"}, how);
        EXPECT_EQUAL(both.output, "1234");
        EXPECT_EQUAL(both.error, "oops\n");
        EXPECT(both.lost == 3);

        // The task's own descriptors: a pipe, and a file with its offset.
        pipe_ends ends = make_pipe();
        how = {};
        how.output = redirection::descriptor(ends.out.descriptor());
        how.descriptors = {{7, ends.out.descriptor()}};
        EXPECT_EQUAL(run_program({"sh", "-c", "echo one; echo two >&7"}, how).status, 0);
        ends.out.close();
        std::byte bytes[64];
        std::size_t got = ends.in.read(bytes);
        EXPECT_EQUAL(text(reinterpret_cast<char*>(bytes), got), "one\ntwo\n");
        file lines(directory + "/out");
        lines.seek(5);
        how = {};
        how.input = redirection::descriptor(lines.descriptor());
        EXPECT_EQUAL(output_of({"sh", "-c", "read first; echo $first"}, how), "more\n");
        EXPECT(lines.tell() == 10); // the shell reads no further than it needs

        how = {};
        how.input = redirection::capture();
        std::error_code code;
        run_program({"true"}, how, code);
        EXPECT(code == std::errc::invalid_argument);
        how.input = redirection::descriptor(99);
        run_program({"true"}, how, code);
        EXPECT(code == std::errc::bad_file_descriptor);
        how.input = redirection::file("/nowhere/at/all");
        run_program({"true"}, how, code);
        EXPECT(code == std::errc::no_such_file_or_directory);
        return text();
      },
      where.path.native());
}

TEST_CASE("programs read and write what their task shares with others") {
  folder where;
  at_home_and_away(
      [](text name) {
        // A pipe that another task fills bit by bit.
        pipe_ends ends = make_pipe();
        int end = ends.out.descriptor();
        task<> writer = spawn([end] {
          file to(end);
          for (const char* each : {"one ", "two ", "three"}) {
            to.write(each);
            this_task::sleep_for(5ms);
          }
        });
        ends.out.close();
        program_options how;
        how.input = redirection::descriptor(ends.in.descriptor());
        EXPECT_EQUAL(output_of({"cat"}, how), "one two three");
        writer.join();

        // A file whose offset is a child's, its program's and its own.
        file lines(name, O_RDWR | O_CREAT | O_TRUNC);
        int fd = posix::fcntl(lines.descriptor(), F_DUPFD, 0); // which a child inherits
        task_id child = start_child([fd] {
          program_options with;
          with.output = redirection::descriptor(fd);
          return run_program({"sh", "-c", "echo of a program"}, with).status;
        });
        EXPECT_EQUAL(wait_child(child).exit_code(), 0);
        posix::write(fd, "of its task\n", 12);
        how = {};
        how.output = redirection::descriptor(fd);
        EXPECT_EQUAL(run_program({"sh", "-c", "echo of another"}, how).status, 0);
        EXPECT_EQUAL(contents(name), "of a program\nof its task\nof another\n");
        posix::close(fd);
        return text();
      },
      (where.path / "lines").native());
}

TEST_CASE("a program that cannot be started says why") {
  folder where;
  at_home_and_away(
      [](text directory) {
        auto reason = [](words arguments, program_options how = {}) -> text {
          try {
            run_program(arguments, how);
          } catch (const error& refused) {
            return refused.what();
          }
          return "it was started";
        };
        set_environment("PATH", "/usr/bin:/bin");
        EXPECT_EQUAL(reason({"no-such-program"}),
                     "starting 'no-such-program': looked for in /usr/bin:/bin: No such file or directory");
        EXPECT_EQUAL(reason({"/etc/passwd"}), "starting '/etc/passwd': Permission denied");
        EXPECT_EQUAL(reason({"/etc/passwd/x"}), "starting '/etc/passwd/x': No such file or directory");
        program_options how;
        how.directory = "/nowhere";
        EXPECT_EQUAL(reason({"true"}, how), "starting 'true': its directory /nowhere: No such file or directory");
        std::error_code code;
        program none({"no-such-program"}, {}, code);
        EXPECT(code == std::errc::no_such_file_or_directory && !none);
        run_program({}, {}, code);
        EXPECT(code == std::errc::invalid_argument);
        run_program({"true", text(3'000'000, 'x')}, {}, code); // longer than one argument may be
        EXPECT(code == std::errc::argument_list_too_long);

        // More than goes into one message, and a script that names no interpreter.
        EXPECT_EQUAL(output_of({"sh", "-c", "echo ${#0}", text(100'000, 'x')}), "100000\n");
        std::ofstream(directory + "/script") << "echo $0 $1\n";
        ::chmod((directory + "/script").c_str(), 0755);
        EXPECT_EQUAL(output_of({directory + "/script", "argument"}), directory + "/script argument\n");
        return text();
      },
      where.path.native());
}

TEST_CASE("limits are kept") {
  folder where;
  at_home_and_away(
      [](text directory) {
        program_options how;
        how.directory = directory;
        how.limits.file_bytes = 100'000;
        how.output = redirection::file("large");
        EXPECT_EQUAL(run_program({"head", "-c", "1000000", "/dev/zero"}, how).signal(), SIGXFSZ);
        EXPECT(std::filesystem::file_size(directory + "/large") == 100'000);
        how = {};
        how.error = redirection::nothing();
        how.limits.memory = 64 << 20;
        EXPECT(!run_program({"dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"}, how).succeeded());
        how.limits.open_files = 17;
        how.limits.processes = 12345;
        EXPECT_EQUAL(shell("ulimit -n; ulimit -p", how), "17\n12345\n");
        how.limits = {};
        how.limits.wall = 50ms;
        program_result late = run_program({"sleep", "1000"}, how);
        EXPECT(late.timed_out && late.signal() == SIGTERM);
        how.grace = 50ms;
        late = run_program({"sh", "-c", "trap '' TERM; while :; do sleep 1000; done"}, how);
        EXPECT(late.timed_out && late.signal() == SIGKILL);
        return text();
      },
      where.path.native());
}

TEST_CASE("a program may use the processors for so long") {
  int signal = run([] {
    this_task::migrate_to(nodes().back());
    program_options how;
    how.limits.processor_seconds = 1;
    return run_program({"sh", "-c", "while :; do :; done"}, how).signal();
  });
  CHECK(signal == SIGXCPU);
}

TEST_CASE("a program that fills its disk is told so, and nobody else is") {
  folder where;
  bool small = ::mount("none", where.path.c_str(), "tmpfs", 0, "size=1m") == 0;
  at_home_and_away(
      [](text directory, bool limited) {
        program_options how;
        how.error = redirection::capture();
        if (limited) how.limits.file_bytes = 1 << 20;
        program_result full = run_program(
            {"sh", "-c", "trap '' XFSZ; head -c 10000000 /dev/zero > " + directory + "/much"}, how);
        EXPECT(!full.succeeded());
        EXPECT(full.error.find(limited ? "File too large" : "No space left") != text::npos);
        EXPECT_EQUAL(shell("echo well"), "well\n");
        std::filesystem::remove(directory + "/much");
        return text();
      },
      where.path.native(), !small);
  if (small) ::umount2(where.path.c_str(), MNT_DETACH);
}

TEST_CASE("a program is held by an object that kills it, however it resists") {
  folder where;
  at_home_and_away(
      [](text directory) {
        int process = 0, other = 0;
        {
          program stubborn({"sh", "-c", "trap '' TERM INT HUP; echo $$ > " + directory +
                                            "/stubborn; while :; do sleep 0.01; done"});
          process = stubborn.process();
          EXPECT_EQUAL(when_there(directory + "/stubborn"), std::to_string(process));
          stubborn.kill();
          EXPECT(!stubborn.wait_for(30ms));
          EXPECT(!is_gone(process));
          program moved = std::move(stubborn);
          EXPECT(!stubborn && moved);
          // Stopped, in a session of its own, without environment, its parent gone.
          program daemon({"sh", "-c",
                          "env -i setsid sh -c 'trap \"\" TERM; echo $$ > " + directory +
                              "/daemon; kill -STOP $$; sleep 1000' & sleep 1000"});
          other = std::stoi(when_there(directory + "/daemon"));
        }
        EXPECT(is_gone(process));
        EXPECT(is_gone(other));
        std::filesystem::remove(directory + "/stubborn");
        std::filesystem::remove(directory + "/daemon");
        return text();
      },
      where.path.native());
}

TEST_CASE("what a program leaves behind ends with it") {
  folder where;
  at_home_and_away(
      [](text directory) {
        // Two that live beside each other: the end of one takes only what is its own.
        program other({"sh", "-c", "setsid sleep 1000 & echo $! > " + directory + "/other; wait"});
        int others = std::stoi(when_there(directory + "/other"));
        run_program({"sh", "-c",
                     "(env -i setsid sh -c 'echo $$ > " + directory + "/left; sleep 1000' &) ; until [ -s " +
                         directory + "/left ]; do sleep 0.01; done"});
        EXPECT(is_gone(std::stoi(when_there(directory + "/left"))));
        EXPECT(!is_gone(others));
        other.kill(SIGKILL);
        EXPECT_EQUAL(other.wait().signal(), SIGKILL);
        EXPECT(is_gone(others));
        for (const char* name : {"/left", "/other"}) std::filesystem::remove(directory + name);
        return text();
      },
      where.path.native());
}

TEST_CASE("a task that ends takes its programs with it") {
  folder where;
  for (bool away : {false, true})
    for (bool killed : {false, true}) {
      CAPTURE(away, killed);
      text name = where.path / ("process" + std::to_string(away) + std::to_string(killed));
      text made = where.path / "output";
      int process = run(
          [](bool leave, bool by_signal, text pid_file, text output) {
            task<> runner = spawn(
                [](bool away_first, bool waits, text into, text half) {
                  if (away_first) this_task::migrate_to(nodes().back());
                  program_options how;
                  how.outputs = {half};
                  auto* lost = new program({"sh", "-c", "echo half > " + half + "; echo $$ > " + into + "; sleep 1000"},
                                           how); // nobody destroys it
                  if (waits) lost->wait();
                  when_there(into);
                },
                leave, by_signal, pid_file, output);
            if (by_signal) {
              when_there(pid_file);
              send_signal(runner.id(), SIGKILL);
            }
            try {
              runner.join();
            } catch (const error&) {
            }
            return std::stoi(when_there(pid_file));
          },
          away, killed, name, made);
      CHECK(becomes_true([&] { return is_gone(process); }));
      CHECK(becomes_true([&] { return !std::filesystem::exists(made); })); // what it had not finished
    }
}

TEST_CASE("signals to the task are passed on to its program") {
  folder where;
  at_home_and_away(
      [](text directory) {
        text ready = directory + "/ready", said = directory + "/said";
        auto remove_both = [&] {
          std::filesystem::remove(ready);
          std::filesystem::remove(said);
        };
        // A task that handles the signal itself goes on.
        task<int> handles = spawn([=] {
          on_signal(SIGUSR1, [](const signal_info&) {});
          return run_program({"sh", "-c", "trap 'exit 7' USR1; echo y > " + ready + "; while :; do sleep 0.01; done"})
              .exit_code();
        });
        when_there(ready);
        send_signal(handles.id(), SIGUSR1);
        EXPECT_EQUAL(handles.join(), 7);
        remove_both();

        // One that it ends waits until its program has ended by it.
        task<> ends_too = spawn([=] {
          run_program({"sh", "-c", "trap 'echo tidied > " + said + "; exit 0' TERM; echo y > " + ready +
                                       "; while :; do sleep 0.01; done"});
        });
        when_there(ready);
        send_signal(ends_too.id(), SIGTERM);
        std::error_code code;
        try {
          ends_too.join();
        } catch (const error& ended) {
          code = ended.code();
        }
        EXPECT(code == errc::task_failed);
        EXPECT_EQUAL(contents(said), "tidied\n");
        remove_both();

        // Stopped and continued together.
        task<int> stops = spawn([=] {
          return run_program({"sh", "-c", "echo $$ > " + ready + "; exec sleep 1000"}).signal();
        });
        int process = std::stoi(when_there(ready));
        auto state = [&] {
          text status = contents("/proc/" + std::to_string(process) + "/stat");
          auto name = status.rfind(')');
          return name == text::npos ? 'X' : status[name + 2];
        };
        send_signal(stops.id(), SIGSTOP);
        EXPECT(becomes_true([&] { return state() == 'T'; }));
        send_signal(stops.id(), SIGCONT);
        EXPECT(becomes_true([&] { return state() == 'S'; }));
        ::kill(process, SIGKILL);
        EXPECT_EQUAL(stops.join(), SIGKILL);
        remove_both();
        return text();
      },
      where.path.native());
}

TEST_CASE("a move of a task that runs a program is refused by the program's name") {
  folder where;
  at_home_and_away(
      [](text directory) {
        text ready = directory + "/ready", go = directory + "/go";
        task<text> runner = spawn([=] {
          program_options how;
          how.output = redirection::capture();
          text seen = run_program({"sh", "-c", "echo $$ > " + ready + "; until [ -e " + go + " ]; do sleep 0.01; done; echo end"}, how).output;
          return seen;
        });
        text process = when_there(ready);
        for (node_id each : nodes()) {
          if (each == runner.where()) continue;
          // The node hears of the program's number a moment after it runs; and in torture mode another move may be tried.
          text why;
          EXPECT(becomes_true([&] {
            try {
              runner.migrate_to(each);
              why = "it moved";
              return true;
            } catch (const error& refused) {
              why = refused.what();
              return refused.code() == errc::not_movable && why.find("(process ") != text::npos;
            }
          }));
          if (why.find("the task runs the program 'sh' (process " + process + ")") == text::npos) return why;
        }
        std::ofstream(go) << "go\n";
        EXPECT_EQUAL(runner.join(), "end\n");
        std::filesystem::remove(ready);
        std::filesystem::remove(go);
        return text();
      },
      where.path.native());
}

TEST_CASE("a task whose program has ended moves, and takes along what it was not yet told") {
  at_home_and_away([] {
    program_options how;
    how.output = redirection::capture();
    program mine({"sh", "-c", "echo said; exit 3"}, how);
    int process = mine.process();
    EXPECT(becomes_true([&] { return is_gone(process); }));
    node_id begun = this_task::node();
    for (node_id each : nodes()) {
      // Its end is known to the node a moment after it.
      EXPECT(becomes_true([&] {
        std::error_code code;
        this_task::migrate_to(each, code);
        return !code;
      }));
    }
    program_result got = mine.wait();
    EXPECT_EQUAL(got.exit_code(), 3);
    EXPECT_EQUAL(got.output, "said\n");
    static_cast<void>(begun);
    return text();
  });
}

TEST_CASE("what a program uses is its task's children's") {
  at_home_and_away([] {
    task_usage before = this_task::children_usage();
    program_result burnt = run_program({"sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"});
    task_usage after = this_task::children_usage();
    EXPECT(burnt.used.user + burnt.used.system > 1'000'000);
    EXPECT(burnt.used.most_resident > 100'000);
    EXPECT(after.user - before.user == burnt.used.user);
    return text();
  });
}

TEST_CASE("a fork of a task has none of its programs") {
  folder where;
  at_home_and_away(
      [](text go) {
        program mine({"sh", "-c", "until [ -e " + go + " ]; do sleep 0.01; done; exit 4"});
        task_id child = migrate::fork();
        if (!child) this_task::quick_exit(mine || mine.process() != 0 ? 1 : 0);
        EXPECT_EQUAL(wait_child(child).exit_code(), 0);
        std::ofstream(go) << "go\n";
        EXPECT_EQUAL(mine.wait().exit_code(), 4);
        std::filesystem::remove(go);
        return text();
      },
      (where.path / "go").native());
}

namespace {
std::size_t open_descriptors() {
  std::size_t count = 0;
  for (const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) {
    static_cast<void>(each);
    ++count;
  }
  return count;
}

bool keeps_nothing() {
  // The node's keeper has no child, dead or alive.
  std::vector<pid_t> children, kept;
  detail::processes::children_of(::getpid(), children);
  for (pid_t each : children)
    if (contents("/proc/" + std::to_string(each) + "/comm") == "migrate-keeper\n") {
      detail::processes::children_of(each, kept);
      return kept.empty();
    }
  return false;
}
} // namespace

TEST_CASE("a thousand programs in a row and a hundred at once leave nothing") {
  text wrong = run([] {
    this_task::migrate_to(nodes().back());
    pin_scope stays;
    run_program({"true"});
    std::size_t before = open_descriptors();
    for (int i = 0; i < 1000; ++i)
      if (int status = run_program({"true"}).status; status != 0) return "status " + show(status);
    EXPECT_EQUAL(static_cast<int>(open_descriptors()), static_cast<int>(before));
    std::vector<task<text>> all;
    for (int i = 0; i < 100; ++i)
      all.push_back(spawn(
          [](int number) {
            program_options how;
            how.error = redirection::capture();
            program_result got = run_program({"sh", "-c", "echo " + std::to_string(number) + " >&2; sleep 0.2"}, how);
            return got.error + std::to_string(got.status);
          },
          i));
    for (int i = 0; i < 100; ++i) {
      text got = all[static_cast<std::size_t>(i)].join();
      EXPECT_EQUAL(got, std::to_string(i) + "\n0");
    }
    EXPECT(keeps_nothing());
    EXPECT_EQUAL(static_cast<int>(open_descriptors()), static_cast<int>(before));
    return text();
  });
  CHECK(wrong == "");
}
