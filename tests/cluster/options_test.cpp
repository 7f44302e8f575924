#include <migrate/cluster/options.hpp>

#include <cstdlib>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

using migrate::node_options;

namespace {

struct command_line {
  std::vector<std::string> words;
  std::vector<char*> argv;
  int argc;

  explicit command_line(std::vector<std::string> arguments) : words(std::move(arguments)) {
    words.insert(words.begin(), "program");
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    argc = static_cast<int>(words.size());
  }
  node_options parse() { return node_options::from(argc, argv.data()); }
  std::vector<std::string> left() const { return {argv.begin() + 1, argv.begin() + argc}; }
};

std::string refusal(std::vector<std::string> arguments) {
  try {
    command_line(std::move(arguments)).parse();
  } catch (const migrate::error& problem) {
    return problem.what();
  }
  return "nothing was refused";
}

bool starts_with(const std::string& text, const char* start) {
  INFO(text);
  return text.starts_with(start);
}

} // namespace

TEST_CASE("every option is taken from the command line, and the rest is left to the program") {
  for (const char* between : {"=", " "}) {
    std::vector<std::string> words{"first"};
    for (const char* option : {"nodes 3", "workers 2", "store /s", "listen 127.0.0.1:7", "join 127.0.0.1:8",
                               "credentials /c", "torture 3:99", "keepalive 500", "inline 4096", "checkpoint 2.5"}) {
      std::string text = std::string("--migrate-") + option;
      std::size_t space = text.find(' ');
      if (*between == '=')
        words.push_back(text.replace(space, 1, "="));
      else
        words.insert(words.end(), {text.substr(0, space), text.substr(space + 1)});
    }
    words.insert(words.end(), {"--migrate-quiet", "-x", "--migrate-helper", "last"});
    command_line line(words);
    node_options made = line.parse();
    CHECK(made.nodes == 3);
    CHECK(made.workers == 2);
    CHECK(made.store == "/s");
    CHECK(made.listen == "127.0.0.1:7");
    CHECK(made.join == "127.0.0.1:8");
    CHECK(made.credentials == "/c");
    CHECK(made.torture == 3);
    CHECK(made.seed == 99);
    CHECK(made.keepalive_ms == 500);
    CHECK(made.most_inline == 4096);
    CHECK(made.checkpoint_ms == 2500);
    CHECK(made.quiet);
    CHECK(made.helper);
    CHECK(line.left() == std::vector<std::string>{"first", "-x", "last"});
    CHECK(made.arguments == line.left());
  }
}

TEST_CASE("the command line is worth more than the environment") {
  ::setenv("MIGRATE_WORKERS", "5", 1);
  ::setenv("MIGRATE_KEEPALIVE", "600", 1);
  node_options made = command_line({"--migrate-workers=6"}).parse();
  ::unsetenv("MIGRATE_WORKERS");
  ::unsetenv("MIGRATE_KEEPALIVE");
  CHECK(made.workers == 6);
  CHECK(made.keepalive_ms == 600);
}

TEST_CASE("an unknown option is called unknown however it is written") {
  for (std::vector<std::string> words : {std::vector<std::string>{"--migrate-bogus"}, {"--migrate-bogus=1"},
                                         {"--migrate-bogus", "1"}, {"--migrate-"}, {"--migrate-=1"}}) {
    std::string said = refusal(words);
    CHECK(starts_with(said, ("unknown option " + words[0] + "; there are:").c_str()));
    CHECK(said.find("--migrate-nodes=N") != std::string::npos);
  }
}

TEST_CASE("a value that is missing or no number is refused with the option's name") {
  CHECK(starts_with(refusal({"--migrate-nodes"}), "--migrate-nodes wants a value"));
  CHECK(starts_with(refusal({"--migrate-workers=two"}), "--migrate-workers: 'two' is not a number"));
  CHECK(starts_with(refusal({"--migrate-nodes=70000"}), "--migrate-nodes: '70000' is not a number from 1 to 1000"));
  CHECK(starts_with(refusal({"--migrate-nodes=0"}), "--migrate-nodes: '0' is not a number from 1"));
  for (const char* each : {"--migrate-checkpoint=2.", "--migrate-checkpoint=.5", "--migrate-checkpoint=0.0001", "--migrate-checkpoint=-1"})
    CHECK(starts_with(refusal({each}), "--migrate-checkpoint: "));
  CHECK(starts_with(refusal({"--migrate-keepalive=0"}), "--migrate-keepalive: '0' is not a number from 1"));
  CHECK(starts_with(refusal({"--migrate-torture=3:"}), "--migrate-torture: '' is not a number"));
}
