// pmake as Ninja, against Ninja itself: generated manifests are built by both, changed, and built again.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "../support/folder.hpp"
#include "../support/random.hpp"

namespace fs = std::filesystem;
using migrate_test::random_choices;

namespace {

const std::string theirs = "/usr/bin/ninja";
const std::string ours = MIGRATE_EXAMPLES_DIR "/as-ninja/ninja";

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

struct ended {
  int status;
  std::string out, err;
};

ended run(const std::string& program, const fs::path& where, const std::string& arguments) {
  std::string command =
      "cd '" + where.string() + "' && exec '" + program + "' " + arguments + " >../out 2>../err </dev/null";
  int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 256, text_of(where.parent_path() / "out"),
          text_of(where.parent_path() / "err")};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> in_any_order(const std::string& output) {
  // Without the progress at the beginning of a line.
  std::vector<std::string> lines = lines_of(output);
  for (std::string& line : lines)
    if (line.rfind('[', 0) == 0) line.erase(0, line.find(']') + 1);
  std::sort(lines.begin(), lines.end());
  return lines;
}

std::string without_hint(const std::string& text) { return text.substr(0, text.find(", did you mean")); }
// Which of several words that are as near Ninja picks is up to its hash table.

void let_time_pass() {
  // Until a file that is written now is newer than all that were written before.
  auto now = [] {
    timespec time;
    ::clock_gettime(CLOCK_REALTIME_COARSE, &time);
    return std::pair(time.tv_sec, time.tv_nsec);
  };
  for (auto begin = now(); now() == begin;) ::usleep(500);
}

// ---- a random project

struct statement {
  std::string name; // of its first output
  std::string rule;
  std::vector<std::string> outputs, implicit_outputs, inputs, implicit, order_only, validations;
  std::vector<std::string> headers; // that its depfile names
  std::string salt = "0";
  std::string dyndep;
  std::vector<std::string> found_inputs; // by its dyndep file
  bool found_output = false;
  std::string pool;
};

struct project {
  std::vector<statement> statements;
  std::set<std::string> sources;
  std::string flags = "f0";
  std::vector<std::string> defaults;
};

std::string joined(const std::vector<std::string>& words, const std::string& before = "") {
  std::string text;
  for (const std::string& each : words) text += (text.empty() ? before : "") + " " + each;
  return text;
}

const std::string rules = R"(
pool two
  depth = 2
rule plain
  command = sh ./recipe plain $id "$flags $salt" "$out" "$in" "$more"
  description = PLAIN $out
rule restat
  command = sh ./recipe restat $id "$salt" "$out" "$in" "$more"
  restat = 1
rule logged
  command = sh ./recipe deps $id "$flags $salt" "$out" "$in" "$more" $out.d "$headers"
  depfile = $out.d
  deps = gcc
  description = DEPS $out $flags
rule depfile
  command = sh ./recipe deps $id "$salt" "$out" "$in" "$more" $out.d "$headers"
  depfile = $out.d
rule generator
  command = sh ./recipe plain $id "$flags $salt" "$out" "$in" "$more"
  generator = 1
rule response
  command = sh ./recipe response $id "$salt" "$out" $id.rsp "$more"
  rspfile = $id.rsp
  rspfile_content = $in_newline
rule console
  command = sh ./recipe plain $id "$salt" "$out" "$in" "$more"
  pool = console
rule dyndep
  command = sh ./recipe copy $id "$salt" "$out" "$in" "$more"
  restat = 1
)";

// It fails when a file fail.ID is there. The first line of each input is what an output is made of.
const std::string recipe = R"(kind=$1 id=$2 salt=$3 out=$4 in=$5 more=$6 depfile=$7 headers=$8
echo "begin $id" >>order.log
[ ! -e fail.$id ] || { echo "recipe $id fails"; echo "end $id" >>order.log; exit 3; }
if [ $kind = response ]; then
  names=
  while read -r name || [ "$name" ]; do names="$names $name"; done <$in
  in=$names
fi
text="$id $salt"
for each in $in; do
  line=
  [ ! -e $each ] || read -r line <$each || :
  text="$text ${line%% *}"
done
for each in $out $more; do
  case $kind in
  restat) read -r old <$each || old=; [ "$old" = "${text#* }" ] || echo "${text#* }" >$each ;;
  copy) cat $in >$each ;;
  *) echo "$text" >$each ;;
  esac
done 2>/dev/null
if [ "$depfile" ]; then
  echo "$out: \\" >$depfile
  for each in $in $headers; do echo "  $each \\"; done >>$depfile
  echo >>$depfile
fi
echo "end $id" >>order.log
)";

class generator {
public:
  explicit generator(random_choices& random) : random_(random) {}

  project make() {
    project made;
    std::size_t count = 3 + random_.below(14);
    std::size_t sources = 2 + random_.below(5);
    for (std::size_t i = 0; i < sources; ++i) made.sources.insert("src/s" + std::to_string(i));
    for (std::size_t i = 0; i < count; ++i) made.statements.push_back(make_statement(made, i));
    if (random_.one_in(2)) made.defaults.push_back(made.statements.back().outputs[0]);
    return made;
  }

private:
  std::string earlier(const project& so_far) {
    std::vector<std::string> names(so_far.sources.begin(), so_far.sources.end());
    for (const statement& each : so_far.statements) {
      names.insert(names.end(), each.outputs.begin(), each.outputs.end());
      names.insert(names.end(), each.implicit_outputs.begin(), each.implicit_outputs.end());
    }
    return names[random_.below(names.size())];
  }

  std::vector<std::string> some(const project& so_far, std::size_t most) {
    std::set<std::string> chosen;
    for (std::size_t i = random_.below(most + 1); i-- > 0;) chosen.insert(earlier(so_far));
    return {chosen.begin(), chosen.end()};
  }

  static void without_phony(const project& so_far, std::vector<std::string>& names) {
    // Ninja 1.11 forgets the age of what a phony input stands for when a command with restat leaves its output alone,
    // and runs it again each time.
    for (const statement& each : so_far.statements)
      if (each.rule == "phony") std::erase(names, each.name);
  }

  statement make_statement(project& so_far, std::size_t number) {
    static const char* const kinds[] = {"plain",  "plain",   "plain",     "restat",   "restat", "logged",
                                        "logged", "depfile", "generator", "response", "phony",  "console"};
    statement made;
    made.rule = kinds[random_.below(std::size(kinds))];
    made.name = "o" + std::to_string(number);
    if (random_.one_in(4)) made.name = "sub" + std::to_string(number % 3) + "/" + made.name;
    made.outputs.push_back(made.name);
    bool deps = made.rule == "logged" || made.rule == "depfile";
    if (made.rule != "phony" && !deps && random_.one_in(4)) made.outputs.push_back(made.name + ".b");
    if (made.rule != "phony" && random_.one_in(4)) made.implicit_outputs.push_back(made.name + ".i");
    made.inputs = some(so_far, 3);
    if (made.inputs.empty() && !random_.one_in(4)) made.inputs.push_back(earlier(so_far));
    made.implicit = some(so_far, 1);
    made.order_only = some(so_far, 1);
    if (made.rule == "restat") {
      without_phony(so_far, made.inputs);
      without_phony(so_far, made.implicit);
    }
    if (number > 0 && random_.one_in(6))
      made.validations.push_back(so_far.statements[random_.below(number)].outputs[0]);
    if (deps)
      for (const std::string& each : so_far.sources)
        if (random_.one_in(3)) made.headers.push_back(each);
    if (made.rule != "phony" && made.rule != "console" && random_.one_in(5)) made.pool = "two";
    if (made.rule == "plain" && random_.one_in(4)) add_dyndep(so_far, made);
    return made;
  }

  void add_dyndep(project& so_far, statement& to) {
    statement file;
    file.rule = "dyndep";
    file.name = to.name + ".dd";
    file.outputs.push_back(file.name);
    file.inputs.push_back(to.name + ".dd.in");
    to.dyndep = file.name;
    to.order_only.push_back(file.name);
    to.found_inputs = some(so_far, 2);
    to.found_output = random_.one_in(2);
    so_far.statements.push_back(file);
  }

  random_choices& random_;
};

std::string manifest_of(const project& what) {
  std::string text = "flags = " + what.flags + "\n" + rules;
  for (const statement& each : what.statements) {
    text += "build" + joined(each.outputs) + joined(each.implicit_outputs, " |") + ": " + each.rule +
            joined(each.inputs) + joined(each.implicit, " |") + joined(each.order_only, " ||") +
            joined(each.validations, " |@") + "\n";
    if (each.rule == "phony") continue;
    std::vector<std::string> more = each.implicit_outputs;
    if (each.found_output) more.push_back(each.name + ".found");
    text += "  id = " + each.name + "\n  salt = " + each.salt + "\n  more =" + joined(more) + "\n";
    if (!each.headers.empty()) text += "  headers =" + joined(each.headers) + "\n";
    if (!each.pool.empty()) text += "  pool = " + each.pool + "\n";
    if (!each.dyndep.empty()) text += "  dyndep = " + each.dyndep + "\n";
  }
  if (!what.defaults.empty()) text += "default" + joined(what.defaults) + "\n";
  return text;
}

std::string dyndep_text(const statement& of) {
  return "ninja_dyndep_version = 1\nbuild " + of.name + (of.found_output ? " | " + of.name + ".found" : "") +
         ": dyndep" + joined(of.found_inputs, " |") + "\n";
}

// ---- two trees of it

class twins {
public:
  twins() {
    for (const char* each : {"theirs", "ours"}) fs::create_directory(folder_.path / each);
  }

  fs::path their_tree() const { return folder_.path / "theirs"; }
  fs::path our_tree() const { return folder_.path / "ours"; }

  void put(const std::string& name, const std::string& text) {
    for (const fs::path& tree : {their_tree(), our_tree()})
      if (text_of(tree / name) != text || !fs::exists(tree / name)) write(tree / name, text);
  }
  void rewrite(const std::string& name, const std::string& text) {
    for (const fs::path& tree : {their_tree(), our_tree()}) write(tree / name, text);
  }
  void remove(const std::string& name) {
    for (const fs::path& tree : {their_tree(), our_tree()}) fs::remove(tree / name);
  }
  void put(const project& what) {
    put("recipe", recipe);
    for (const std::string& each : what.sources)
      if (!fs::exists(our_tree() / each)) put(each, each + " first\n");
    for (const statement& each : what.statements)
      if (!each.dyndep.empty()) put(each.name + ".dd.in", dyndep_text(each));
    put("build.ninja", manifest_of(what));
  }

  void same(const std::string& arguments) {
    INFO(arguments);
    remove("order.log");
    ended they = run(theirs, their_tree(), arguments);
    ended we = run(ours, our_tree(), arguments);
    INFO("theirs " << they.status << '\n'
                   << they.out << they.err << "ours " << we.status << '\n'
                   << we.out << we.err);
    CHECK(we.status == they.status);
    CHECK(we.err == they.err);
    CHECK(in_any_order(text_of(our_tree() / "order.log")) ==
          in_any_order(text_of(their_tree() / "order.log")));
    // While a command has the console Ninja forgets all lines of progress but the last.
    if (text_of(our_tree() / "build.ninja").find(": console") == std::string::npos)
      CHECK(in_any_order(we.out) == in_any_order(they.out));
    CHECK(files(our_tree()) == files(their_tree()));
    CHECK(logged(our_tree()) == logged(their_tree()));
  }

private:
  static std::map<std::string, std::string> files(const fs::path& tree) {
    std::map<std::string, std::string> found;
    for (const auto& each : fs::recursive_directory_iterator(tree)) {
      std::string name = fs::relative(each.path(), tree);
      if (name != "order.log" && name != ".ninja_log" && name != ".ninja_deps")
        found[name] = each.is_directory() ? "/" : text_of(each.path());
    }
    return found;
  }

  static std::map<std::string, std::string> logged(const fs::path& tree) {
    // The last entry of each output, without the times.
    std::map<std::string, std::string> found;
    for (const std::string& line : lines_of(text_of(tree / ".ninja_log"))) {
      std::vector<std::string> parts;
      std::istringstream stream(line);
      for (std::string part; std::getline(stream, part, '\t');) parts.push_back(part);
      if (parts.size() == 5) found[parts[3]] = parts[4];
    }
    return found;
  }

  migrate_test::folder folder_;
};

void check_order(const project& what, const fs::path& tree) {
  // What a statement needs, and was made in this build, was finished before it began.
  std::map<std::string, const statement*> maker;
  for (const statement& each : what.statements) {
    for (const std::string& output : each.outputs) maker[output] = &each;
    for (const std::string& output : each.implicit_outputs) maker[output] = &each;
    if (each.found_output) maker[each.name + ".found"] = &each;
  }
  std::map<std::string, std::size_t> begin, end;
  std::size_t line_number = 0;
  for (const std::string& line : lines_of(text_of(tree / "order.log"))) {
    bool begins = line.rfind("begin ", 0) == 0;
    auto& when = begins ? begin : end;
    std::string id = line.substr(begins ? 6 : 4);
    CHECK(when.count(id) == 0); // nothing runs twice
    when[id] = ++line_number;
  }
  for (const statement& each : what.statements) {
    if (begin.count(each.name) == 0) continue;
    std::set<std::string> needed;
    std::vector<std::string> next{each.name};
    while (!next.empty()) {
      auto found = maker.find(next.back());
      next.pop_back();
      if (found == maker.end()) continue;
      for (const auto* inputs : {&found->second->inputs, &found->second->implicit, &found->second->order_only,
                                 &found->second->found_inputs})
        for (const std::string& input : *inputs)
          if (auto made = maker.find(input); made != maker.end() && needed.insert(made->second->name).second)
            next.push_back(input);
    }
    for (const std::string& other : needed)
      if (end.count(other) != 0) {
        INFO(each.name << " needs " << other);
        CHECK(end[other] < begin[each.name]);
      }
  }
}

std::string change(project& what, twins& trees, random_choices& random) {
  auto source = what.sources.begin();
  std::advance(source, static_cast<std::ptrdiff_t>(random.below(what.sources.size())));
  statement& some = what.statements[random.below(what.statements.size())];
  switch (random.below(11)) {
  case 0:
  case 1:
    trees.rewrite(*source, *source + std::to_string(random.below(3)) + " more\n");
    return *source + " is changed";
  case 2: trees.rewrite(*source, text_of(trees.our_tree() / *source)); return *source + " is touched";
  case 3: trees.remove(some.outputs[0]); return some.outputs[0] + " is removed";
  case 4: some.salt = std::to_string(random.below(3)); return some.name + " has other salt";
  case 5: what.flags = "f" + std::to_string(random.below(3)); return "other flags";
  case 6: trees.put("fail." + some.name, ""); return some.name + " will fail";
  case 7:
    for (const statement& each : what.statements) trees.remove("fail." + each.name);
    return "nothing will fail";
  case 8: {
    const char* log = random.one_in(2) ? ".ninja_log" : ".ninja_deps";
    trees.remove(log);
    return std::string(log) + " is removed";
  }
  case 9: trees.remove(some.outputs[0] + ".d"); return some.outputs[0] + ".d is removed";
  default:
    if (!some.headers.empty()) some.headers.pop_back();
    return some.name + " has a header less";
  }
}

} // namespace

TEST_CASE("random projects are built and built again as by Ninja") {
  random_choices random(migrate_test::new_seed("pmake_ninja"));
  const char* given = std::getenv("PMAKE_TEST_PROJECTS");
  int projects = given != nullptr ? std::atoi(given) : 8;
  for (int i = 0; i < projects; ++i) {
    std::uint64_t own = random.next();
    random_choices choices(own);
    INFO("project " << i);
    project what = generator(choices).make();
    twins trees;
    std::string changes;
    for (int step = 0; step < 5; ++step) {
      trees.put(what);
      INFO("step " << step << '\n' << manifest_of(what) << changes);
      std::string arguments = "-k0 -j" + std::to_string(1 + choices.below(4));
      if (choices.one_in(3)) arguments += " -v";
      if (choices.one_in(3))
        arguments += " " + what.statements[choices.below(what.statements.size())].outputs[0];
      trees.same(arguments);
      check_order(what, trees.our_tree());
      if (choices.one_in(3)) trees.same(arguments);
      let_time_pass();
      changes.clear();
      for (std::size_t left = 1 + choices.below(2); left-- > 0;)
        changes += change(what, trees, choices) + "\n";
    }
    for (const char* tool : {"-t deps", "-t commands", "-t inputs", "-t targets all", "-t compdb",
                             "-t query o0", "-t cleandead", "-n -t clean", "-t clean"}) {
      ended they = run(theirs, trees.their_tree(), tool), we = run(ours, trees.our_tree(), tool);
      INFO(tool);
      CHECK(we.status == they.status);
      CHECK(without_hint(we.err) == without_hint(they.err));
      if (std::string(tool) != "-t deps" && std::string(tool) != "-t compdb")
        CHECK(in_any_order(we.out) == in_any_order(they.out));
    }
    if (Catch::getResultCapture().lastAssertionPassed() == false) break;
  }
}
