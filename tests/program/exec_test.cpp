#include <migrate/posix/exec.hpp>
#include <migrate/posix/spawn.hpp>

#include "program_fixture.hpp"

#include <sys/wait.h>

#include <migrate/file.hpp>
#include <migrate/posix/directory.hpp>
#include <migrate/posix/environment.hpp>
#include <migrate/posix/fcntl.hpp>
#include <migrate/posix/unistd_files.hpp>
#include <migrate/posix/wait.hpp>
#include <migrate/process.hpp>
#include <migrate/signal.hpp>

namespace px = migrate::posix;

namespace {

int wait_for(task_id child) {
  int status = -1;
  while (px::waitpid(static_cast<px::pid_t>(child.bits()), &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

char* const none[] = {nullptr};

struct word_list {
  explicit word_list(words list) : all(std::move(list)) {
    for (text& each : all) pointers.push_back(each.data());
    pointers.push_back(nullptr);
  }
  operator char* const*() const { return pointers.data(); }
  words all;
  std::vector<char*> pointers;
};

} // namespace

TEST_CASE("a task that calls exec is the program from then on") {
  folder where;
  at_home_and_away(
      [](text directory) {
        text out = directory + "/out";
        task_id child = start_child([=] {
          px::chdir(directory.c_str());
          px::umask(0);
          this_task::at_exit([] { std::abort(); });
          on_signal(SIGUSR1, [](const signal_info&) {});
          ignore_signal(SIGUSR2);
          px::close(0);
          int kept = px::open("out", O_WRONLY | O_CREAT, 0644); // 0
          px::dup2(kept, 1);
          px::dup2(kept, 5);
          px::open("out", O_RDONLY | O_CLOEXEC); // 2 stays, so this is 3
          px::execl("/bin/sh", "name", "-c",
                    "echo $0 $ONLY; pwd; umask; grep -E 'SigIgn' /proc/self/status; echo five >&5; echo three >&3; exit 9",
                    static_cast<char*>(nullptr));
          return 1;
        });
        int status = wait_for(child);
        EXPECT(WIFEXITED(status));
        EXPECT_EQUAL(WEXITSTATUS(status), 9);
        EXPECT_EQUAL(contents(out), "name\n" + directory + "\n0000\nSigIgn:\t0000000000000800\nfive\n");
        std::filesystem::remove(out);

        child = start_child([=] {
          px::execve("/bin/sh", word_list({"sh", "-c", "echo $ONLY > " + out + "; kill -ABRT $$"}),
                     word_list({"ONLY=this"}));
        });
        status = wait_for(child);
        EXPECT(WIFSIGNALED(status));
        EXPECT_EQUAL(WTERMSIG(status), SIGABRT);
        EXPECT_EQUAL(contents(out), "this\n");
        std::filesystem::remove(out);
        return text();
      },
      std::filesystem::canonical(where.path).native());
}

TEST_CASE("exec that fails leaves the task as it was") {
  at_home_and_away([] {
    word_list arguments({"nothing"});
    px::setenv("PATH", "/usr/bin:/bin", 1);
    errno = 0;
    EXPECT(px::execvp("no-such-program", arguments) == -1 && errno == ENOENT);
    EXPECT(px::execv("/etc/passwd", arguments) == -1 && errno == EACCES);
    EXPECT(px::execve("", arguments, none) == -1 && errno == ENOENT);
    task_id child = start_child([] {
      px::execlp("no-such-program", "x", static_cast<char*>(nullptr));
      return 3;
    });
    EXPECT_EQUAL(WEXITSTATUS(wait_for(child)), 3);
    return text();
  });
}

TEST_CASE("the ends of a pipe that exec was given are the program's alone") {
  at_home_and_away([] {
    pipe_ends ends = make_pipe();
    int out = ends.out.descriptor();
    task_id child = start_child([out] {
      px::dup2(out, 1);
      px::close(out);
      px::execl("/bin/sh", "sh", "-c", "echo said; exec >&-; sleep 1000", static_cast<char*>(nullptr));
    });
    ends.out.close();
    text all;
    std::byte bytes[64];
    while (std::size_t got = ends.in.read(bytes)) all.append(reinterpret_cast<char*>(bytes), got);
    EXPECT_EQUAL(all, "said\n"); // its end came while the program runs
    send_signal(child, SIGKILL);
    EXPECT_EQUAL(WTERMSIG(wait_for(child)), SIGKILL);
    return text();
  });
}

TEST_CASE("signals for a task that called exec are its program's") {
  folder where;
  at_home_and_away(
      [](text ready) {
        task_id child = start_child([=] {
          px::execl("/bin/sh", "sh", "-c",
                    ("trap 'exit 6' TERM; echo y > " + ready + "; while :; do sleep 0.01; done").c_str(),
                    static_cast<char*>(nullptr));
        });
        when_there(ready);
        send_signal(child, SIGTERM);
        EXPECT_EQUAL(wait_for(child), 6 << 8);
        std::filesystem::remove(ready);
        child = start_child([] { px::execlp("sleep", "sleep", "1000", static_cast<char*>(nullptr)); });
        send_signal(child, SIGHUP);
        EXPECT_EQUAL(wait_for(child), SIGHUP);
        return text();
      },
      (where.path / "ready").native());
}

TEST_CASE("system() runs a command and says how it ended") {
  folder where;
  at_home_and_away(
      [](text out) {
        EXPECT(px::system(nullptr) != 0);
        EXPECT_EQUAL(px::system(("echo heard > " + out).c_str()), 0);
        EXPECT_EQUAL(contents(out), "heard\n");
        EXPECT_EQUAL(WEXITSTATUS(px::system("exit 5")), 5);
        EXPECT_EQUAL(WEXITSTATUS(px::system("no-such-program 2>/dev/null")), 127);
        EXPECT_EQUAL(px::system("kill -USR1 $$"), SIGUSR1);
        return text();
      },
      (where.path / "out").native());
}

TEST_CASE("posix_spawn makes a child that waitpid knows") {
  folder where;
  at_home_and_away(
      [](text directory) {
        px::posix_spawn_file_actions_t actions;
        px::posix_spawn_file_actions_init(&actions);
        px::posix_spawn_file_actions_addopen(&actions, 1, (directory + "/out").c_str(), O_WRONLY | O_CREAT, 0644);
        px::posix_spawn_file_actions_adddup2(&actions, 1, 2);
        px::posix_spawn_file_actions_addclose(&actions, 0);
        px::posix_spawnattr_t how;
        px::posix_spawnattr_init(&how);
        px::posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
        px::pid_t child = 0;
        word_list arguments({"sh", "-c", "echo $MORE; echo error >&2; sleep 0.05; exit 4"});
        EXPECT_EQUAL(px::posix_spawnp(&child, "sh", &actions, &how, arguments, word_list({"MORE=x", "PATH=/bin:/usr/bin"})), 0);
        int status = 0;
        EXPECT(px::waitpid(child, &status, 0) == child);
        EXPECT_EQUAL(WEXITSTATUS(status), 4);
        EXPECT_EQUAL(contents(directory + "/out"), "x\nerror\n");
        std::filesystem::remove(directory + "/out");
        EXPECT_EQUAL(px::posix_spawn(&child, "/no/such", nullptr, nullptr, arguments, none), ENOENT);
        EXPECT_EQUAL(px::posix_spawn(&child, "/etc/passwd", nullptr, nullptr, arguments, none), EACCES);
        px::posix_spawn_file_actions_addopen(&actions, 3, "/no/such", O_RDONLY, 0);
        EXPECT_EQUAL(px::posix_spawn(&child, "/bin/true", &actions, nullptr, arguments, none), 0);
        EXPECT(px::waitpid(child, &status, 0) == child);
        EXPECT_EQUAL(WEXITSTATUS(status), 127);
        std::filesystem::remove(directory + "/out");
        return text();
      },
      where.path.native());
}
