// The simulation examples/pic, as its user sees it.
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using Catch::Contains;

namespace {

struct ended {
  int status;
  std::string out, err;
};

class program {
  // A run of pic, with its standard output and standard error in files.
public:
  explicit program(const std::string& arguments, const std::string& environment = "") {
    std::string command = "exec env " + environment + " '" MIGRATE_EXAMPLES_DIR "/pic' " + arguments;
    process_ = ::fork();
    REQUIRE(process_ >= 0);
    if (process_ == 0) {
      if (std::freopen(path("out").c_str(), "w", stdout) != nullptr &&
          std::freopen(path("err").c_str(), "w", stderr) != nullptr)
        ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      ::_exit(127);
    }
  }
  ~program() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      ::waitpid(process_, nullptr, 0);
    }
    std::filesystem::remove_all(folder_);
  }
  program(const program&) = delete;
  program& operator=(const program&) = delete;

  ended wait() {
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = -1;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status), text("out"), text("err")};
  }

  void await_in_err(const std::string& wanted) {
    while (text("err").find(wanted) == std::string::npos) {
      REQUIRE(::waitpid(process_, nullptr, WNOHANG) == 0);
      ::usleep(2000);
    }
  }

  std::vector<pid_t> children() const {
    std::vector<pid_t> found;
    std::filesystem::path tasks = "/proc/" + std::to_string(process_) + "/task";
    for (const auto& thread : std::filesystem::directory_iterator(tasks)) {
      std::ifstream list(thread.path() / "children");
      for (pid_t child = 0; list >> child;) found.push_back(child);
    }
    return found;
  }

private:
  static std::filesystem::path fresh_folder() {
    std::string made = (std::filesystem::temp_directory_path() / "pic-test-XXXXXX").string();
    REQUIRE(::mkdtemp(made.data()) != nullptr);
    return made;
  }
  std::string path(const std::string& name) const { return folder_ / name; }
  std::string text(const std::string& name) const {
    std::ifstream file(path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path folder_ = fresh_folder();
  pid_t process_ = -1;
};

ended run(const std::string& arguments, const std::string& environment = "") {
  return program(arguments, environment).wait();
}

std::string value_of(const ended& run, const std::string& row) {
  std::size_t at = run.out.find("\n" + row + " ");
  REQUIRE(at != std::string::npos);
  std::size_t first = run.out.find_first_not_of(' ', at + 1 + row.size());
  return run.out.substr(first, run.out.find('\n', first) - first);
}

const std::string small = " --grid 64 --particles 5000 --steps 30 --interval 5 --no-progress ";

} // namespace

TEST_CASE("every distribution ends as computed on one thread, moved all the time or not") {
  auto [distribution, step] = GENERATE(table<std::string, std::string>({
      {"geometric --rho 0.9", ""},
      {"sinusoidal", "-k 0 -m 0"},
      {"linear --alpha 1 --beta 1.5", "-k 4 -m -3"},
      {"patch --patch 3 9 60 63", "-k 31 -m 63 --blocks 24"},
  }));
  std::string arguments = small + "--check --distribution " + distribution + " " + step;
  CAPTURE(arguments);
  ended serial = run(arguments + " --serial");
  ended plain = run(arguments);
  ended moved = run(arguments, "MIGRATE_TORTURE=3");
  CHECK(serial.status == 0);
  CHECK(plain.status == 0);
  CHECK(moved.status == 0);
  CHECK_THAT(serial.out, Contains("\nverified: 5000 of 5000 particles at their exact places\n"));
  CHECK(plain.out == serial.out);
  CHECK(moved.out == serial.out);
}

TEST_CASE("blocks move to even out the load") {
  // All particles begin on the first node, and go from there to the others.
  std::string patch = "--distribution patch --patch 0 9 0 63";
  ended balanced = run(small + patch);
  ended fixed = run(small + patch + " --no-balance");
  CHECK(balanced.status == 0);
  CHECK(fixed.status == 0);
  CHECK(std::stoi(value_of(balanced, "moves")) > 0);
  CHECK(std::stoi(value_of(fixed, "moves")) == 0);
  CHECK(std::stod(value_of(balanced, "load, most/mean")) < std::stod(value_of(fixed, "load, most/mean")));
}

TEST_CASE("a particle at a wrong place fails the run, and is named") {
  for (const char* how : {"17", "17:shift"}) {
    ended wrong = run(small + "--check --sabotage " + how);
    CHECK(wrong.status == 1);
    CHECK_THAT(wrong.out, Contains("VERIFICATION FAILED: of 5000 particles 5000 were found, 4999 of them"));
    CHECK_THAT(wrong.err, Contains("WRONG: particle 17 is at (") && Contains("), expected at ("));
  }
}

TEST_CASE("a particle that is lost or there twice fails the run, and is named") {
  ended lost = run(small + "--check --sabotage 4711:drop");
  CHECK(lost.status == 1);
  CHECK_THAT(lost.out, Contains("VERIFICATION FAILED: of 5000 particles 4999 were found"));
  CHECK_THAT(lost.err, Contains("WRONG: particle 4711 is lost, expected once at ("));
  ended doubled = run(small + "--check --sabotage 1:repeat", "MIGRATE_TORTURE=3");
  CHECK(doubled.status == 1);
  CHECK_THAT(doubled.out, Contains("VERIFICATION FAILED: of 5000 particles 5001 were found"));
  CHECK_THAT(doubled.err, Contains("WRONG: particle 1 is there more than once"));
}

TEST_CASE("a killed node ends the run with the names of what was lost") {
  program running("--grid 64 --particles 5000 --steps 100000000");
  running.await_in_err("step ");
  std::vector<pid_t> nodes = running.children();
  REQUIRE(nodes.size() == 2);
  ::kill(nodes[0], SIGKILL);
  ended after = running.wait();
  CHECK(after.status == 1);
  CHECK(after.out.empty());
  CHECK_THAT(after.err, Contains("pic: block ") && Contains(" was lost: task ") && Contains(" was on node "));
}

TEST_CASE("arguments that make no sense are refused before anything is started") {
  auto [arguments, message] = GENERATE(table<std::string, std::string>({
      {"--grid 7", "--grid 7: the charges alternate from column to column, so it must be even"},
      {"--particles 0", "Value 0 not in range 1 to"},
      {"--steps many", "Value many not in range"},
      {"-k 600", "-k 600: a step of 1201 cells must be shorter than the grid's 1000"},
      {"-m -1000", "-m -1000: a step must be shorter"},
      {"--distribution foo", "foo not in {geometric,sinusoidal,linear,patch}"},
      {"--distribution linear --alpha 3", "must be positive in each column"},
      {"--patch 1 2 3 4", "--patch goes with --distribution=patch only"},
      {"--distribution patch --patch 5 2 3 4", "LEFT <= RIGHT"},
      {"--blocks 2003", "2003 x 1 blocks, which do not fit into 1000 columns"},
      {"--sabotage 99999999", "there is no particle 99999999"},
      {"--migrate-bogus=1", "unknown option --migrate-bogus"},
      {"--bogus", "--bogus"},
  }));
  ended refused = run(arguments);
  CAPTURE(arguments);
  CHECK(refused.status == 2);
  CHECK_THAT(refused.err, Contains(message));
  CHECK(refused.out.empty());
}
