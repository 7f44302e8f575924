// pmake on test hosts of a fifth of a processor each: how much faster than one of them, and against icecream and distcc. Needs
// root.
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <pwd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "../tests/support/folder.hpp"
#include "../tests/support/program.hpp"
#include "../tests/support/test_hosts.hpp"
#include "debian_projects.hpp"
#include "harness.hpp"

#ifndef MIGRATE_EXAMPLES_DIR
#define MIGRATE_EXAMPLES_DIR "build/examples"
#endif

namespace fs = std::filesystem;
using namespace migrate_test;

namespace {

using words = std::vector<std::string>;

constexpr std::chrono::seconds longest{3600};

void write_project(const fs::path& folder, int files) {
  // Files that take the compiler a while and the preprocessor none.
  fs::create_directories(folder);
  std::ofstream makefile(folder / "Makefile");
  makefile << "OBJECTS =";
  for (int i = 0; i < files; ++i) {
    makefile << " f" << i << ".o";
    std::ofstream file(folder / ("f" + std::to_string(i) + ".c"));
    file << "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n";
    for (int k = 0; k < 40; ++k)
      file << "int f" << i << "_" << k << "(int* a, int n) {\n  int sum = 0;\n  for (int i = 0; i < n; ++i)\n"
           << "    for (int j = i; j < n; j += " << k + 1 << ")\n      switch (a[j] % 7) {\n"
           << "      case 0: sum += a[i] * " << i + k << "; break;\n      case 1: sum ^= a[j]; break;\n"
           << "      case 2: sum -= a[i] / (a[j] | 1); break;\n      case 3: a[i] = sum; break;\n"
           << "      default: sum += (int)strlen(\"text\") + abs(a[j]);\n      }\n  return sum;\n}\n";
  }
  makefile << "\nall: $(OBJECTS)\n%.o: %.c\n\t$(CC) -O2 -c -o $@ $<\nclean:\n\trm -f $(OBJECTS)\n";
}

class shared_hosts {
  // The first one has the database, and the work; the others are lent.
public:
  shared_hosts(const test_hosts& hosts, const fs::path& tree, std::string clean = "rm -f *.o")
      : hosts_(hosts), tree_(tree), clean_(std::move(clean)), keys_((folder_.path / "keys").string()) {
    fs::create_directories(folder_.path / "proc");
    std::ofstream(folder_.path / "proc/loadavg") << "0.00 0.00 0.00 1/100 1\n";
  }

  void lend(unsigned hosts) {
    agents_.clear();
    database_.reset();
    if (hosts < 2) return;
    database_ =
        std::make_unique<program>(hosts_.on(1, {MIGRATE_EXAMPLES_DIR "/migrated", "--listen",
                                                address(1, 7400), "--credentials", keys_.path(), "--quiet"}),
                                  runtime(1));
    database_->line();
    for (unsigned host = 2; host <= hosts; ++host)
      agents_.push_back(std::make_unique<program>(hosts_.on(host, {MIGRATE_EXAMPLES_DIR "/migrate-hostd",
                                                                   "--database",
                                                                   address(1, 7400),
                                                                   "--listen",
                                                                   address(host, 7401),
                                                                   "--credentials",
                                                                   keys_.path(),
                                                                   "--name",
                                                                   "h" + std::to_string(host),
                                                                   "--slots",
                                                                   "1",
                                                                   "--start",
                                                                   "idle>=0",
                                                                   "--suspend",
                                                                   "idle<0",
                                                                   "--preempt",
                                                                   "suspended>=0",
                                                                   "--lend-unwatched",
                                                                   "--quiet",
                                                                   "--run-as-root",
                                                                   "--proc",
                                                                   (folder_.path / "proc").string()}),
                                                  runtime(host)));
    for (const auto& each : agents_) each->line();
  }

  double pmake(unsigned hosts, const words& arguments, words command = {}) const {
    command.emplace_back(MIGRATE_EXAMPLES_DIR "/pmake");
    if (hosts > 1)
      for (const std::string& each :
           {"--migrate-hosts=" + address(1, 7400) + "," + std::to_string(hosts - 1),
            "--migrate-listen=" + address(1, 7402), "--migrate-credentials=" + keys_.path(),
            "--migrate-store=" + (folder_.path / "store").string(), std::string("--migrate-workers=1")})
        command.push_back(each);
    command.push_back("make");
    command.insert(command.end(), arguments.begin(), arguments.end());
    return seconds(hosts_.on(1, in_tree(command)), runtime(1));
  }

  double make(const words& arguments, const environment& with, words command = {}) const {
    command.emplace_back("/usr/bin/make");
    command.insert(command.end(), arguments.begin(), arguments.end());
    return seconds(hosts_.on(1, in_tree(command)), with);
  }

  std::unique_ptr<program> daemon(unsigned host, const words& command) const {
    return std::make_unique<program>(hosts_.on(host, command), runtime(host));
  }

  environment runtime(unsigned host) const {
    fs::path path = folder_.path / ("run" + std::to_string(host));
    fs::create_directories(path);
    fs::permissions(path, fs::perms::owner_all);
    return {{"XDG_RUNTIME_DIR", path.string()}, {"MIGRATE_NODES", "1"}, {"MAKEFLAGS", ""}};
  }
  std::string file(const std::string& name) const { return (folder_.path / name).string(); }
  static std::string address(unsigned host, unsigned port) {
    return test_hosts::address(host) + ":" + std::to_string(port);
  }

private:
  words in_tree(const words& command) const {
    std::string text = "cd '" + tree_.string() + "' && exec \"$@\" >out 2>&1";
    words whole{"/bin/sh", "-c", text, "sh"};
    whole.insert(whole.end(), command.begin(), command.end());
    return whole;
  }

  double seconds(const words& command, const environment& with) const {
    if (std::system(("cd '" + tree_.string() + "' && " + clean_).c_str()) != 0)
      throw std::runtime_error("'" + clean_ + "' failed in " + tree_.string());
    auto begin = bench::clock::now();
    program running(command, with);
    int status = running.wait(longest);
    double took = bench::nanoseconds(bench::clock::now() - begin) / 1e9;
    if (status != 0) {
      std::ifstream said(tree_ / "out");
      throw std::runtime_error("status " + std::to_string(status) + ":\n" +
                               std::string{std::istreambuf_iterator<char>(said), {}});
    }
    return took;
  }

  const test_hosts& hosts_;
  fs::path tree_;
  std::string clean_; // what is done before each build, which is not timed
  folder folder_;
  cluster_credentials keys_;
  std::unique_ptr<program> database_;
  std::vector<std::unique_ptr<program>> agents_;
};

std::map<std::string, std::string> objects(const fs::path& tree) {
  std::map<std::string, std::string> all;
  for (const auto& each : fs::directory_iterator(tree))
    if (each.path().extension() == ".o") {
      std::ifstream file(each.path(), std::ios::binary);
      all[each.path().filename()] = {std::istreambuf_iterator<char>(file), {}};
    }
  return all;
}

double to_reach(unsigned hosts) { return hosts >= 8 ? 0.8 : hosts == 4 ? 0.9 : 0; }

void draw(const std::string& path, const std::map<unsigned, bench::spread>& speedups) {
  // Measured against as many times as fast as there are hosts.
  static constexpr double width = 480, height = 360, left = 50, bottom = 310, unit_x = 48, unit_y = 34;
  auto x = [](double hosts) { return left + hosts * unit_x; };
  auto y = [](double times) { return bottom - times * unit_y; };
  std::ofstream out(path);
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << " " << height
      << "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" "
         "fill=\"white\"/>\n";
  for (int i = 0; i <= 8; ++i)
    out << "<line x1=\"" << left << "\" y1=\"" << y(i) << "\" x2=\"" << x(8.5) << "\" y2=\"" << y(i)
        << "\" stroke=\"#ddd\"/>\n<text x=\"" << left - 8 << "\" y=\"" << y(i) + 4
        << "\" text-anchor=\"end\">" << i << "</text>\n<text x=\"" << x(i) << "\" y=\"" << bottom + 18
        << "\" text-anchor=\"middle\">" << i << "</text>\n";
  out << "<line x1=\"" << x(0) << "\" y1=\"" << y(0) << "\" x2=\"" << x(8) << "\" y2=\"" << y(8)
      << "\" stroke=\"#888\" stroke-dasharray=\"4 4\"/>\n<polyline fill=\"none\" stroke=\"#05c\" "
         "stroke-width=\"2\" points=\"";
  for (const auto& [hosts, times] : speedups) out << x(hosts) << "," << y(times.median) << " ";
  out << "\"/>\n";
  for (const auto& [hosts, times] : speedups)
    out << "<line x1=\"" << x(hosts) << "\" y1=\"" << y(times.least) << "\" x2=\"" << x(hosts) << "\" y2=\""
        << y(times.most) << "\" stroke=\"#05c\"/>\n<circle cx=\"" << x(hosts) << "\" cy=\"" << y(times.median)
        << "\" r=\"3.5\" fill=\"#05c\"/>\n<text x=\"" << x(hosts) + 7 << "\" y=\"" << y(times.median) + 14
        << "\">" << bench::text("%.2f", times.median) << "</text>\n";
  out << "<text x=\"" << x(4) << "\" y=\"" << bottom + 38 << "\" text-anchor=\"middle\">hosts</text>\n"
      << "<text x=\"" << left << "\" y=\"" << 20
      << "\">times as fast as one host; dashed: as many times as there are hosts</text>\n</svg>\n";
}

constexpr unsigned rivals_hosts = 4;

class icecream {
  // Every host has a daemon, that of the first one the scheduler too. On one machine all of them would have the same socket
  // for clients; so whatever belongs to a host sees a folder of its own there.
public:
  explicit icecream(const shared_hosts& on) : on_(on) {
    // The daemons and what they write belong to a user of their own.
    fs::permissions(folder_.path, fs::perms(0755));
    for (unsigned host = 1; host <= rivals_hosts; ++host)
      for (const char* each : {"sockets", "compilers"}) belonging_to_it(each + std::to_string(host));
    belonging_to_it("logs");
    daemons_.push_back(
        on_.daemon(1, {"/usr/sbin/icecc-scheduler", "-n", "bench", "-l", file("logs/scheduler"), "-vvv"}));
    await([&] { return fs::exists(file("logs/scheduler")); });
    for (unsigned host = 1; host <= rivals_hosts; ++host) {
      std::string name = "h" + std::to_string(host);
      daemons_.push_back(on_.daemon(
          host, seeing_sockets(host, {"/usr/sbin/iceccd", "-n", "bench", "-s", test_hosts::address(1), "-m",
                                      "1", "-N", name, "-b", file("compilers" + std::to_string(host)), "-l",
                                      file("logs/" + name), "-u", "icecc"})));
    }
    await([&] {
      for (unsigned host = 1; host <= rivals_hosts; ++host)
        if (said("login h" + std::to_string(host)) == 0) return false;
      return true;
    });
    build(); // the compiler is packed up and sent to all of them, which a few files are not enough for
  }

  double build(const words& command = {}) {
    before_ = jobs_away();
    return on_.make({"CC=/usr/lib/icecc/bin/gcc", "-j" + std::to_string(2 * rivals_hosts)},
                    {{"MAKEFLAGS", ""}}, seeing_sockets(1, command));
  }

  std::size_t last_away() const { return jobs_away() - before_; }
  // Of the jobs of the last build, those that another host did than the first.

private:
  std::string file(const std::string& name) const { return (folder_.path / name).string(); }

  void belonging_to_it(const std::string& name) const {
    fs::create_directories(folder_.path / name);
    const passwd* user = ::getpwnam("icecc");
    if (user == nullptr || ::chown(file(name).c_str(), user->pw_uid, user->pw_gid) != 0)
      throw std::runtime_error("icecream's user icecc cannot be given " + file(name));
  }

  words seeing_sockets(unsigned host, const words& command) const {
    words whole{"/usr/bin/unshare",
                "--mount",
                "/bin/sh",
                "-c",
                "mkdir -p /run/icecc && mount --bind '" + file("sockets" + std::to_string(host)) +
                    "' /run/icecc && exec \"$@\"",
                "sh"};
    whole.insert(whole.end(), command.begin(), command.end());
    return whole;
  }

  std::size_t said(const std::string& what) const {
    std::ifstream log(file("logs/scheduler"));
    std::size_t count = 0;
    for (std::string line; std::getline(log, line);)
      if (line.find(what) != line.npos) ++count;
    return count;
  }

  std::size_t jobs_away() const {
    std::size_t all = 0;
    for (unsigned host = 2; host <= rivals_hosts; ++host) all += said("server=h" + std::to_string(host));
    return all;
  }

  template <class What> static void await(What&& what) {
    auto begin = bench::clock::now();
    while (!what()) {
      if (bench::clock::now() - begin > std::chrono::seconds(60))
        throw std::runtime_error("icecream's daemons do not find each other");
      ::usleep(100'000);
    }
  }

  const shared_hosts& on_;
  folder folder_;
  std::vector<std::unique_ptr<program>> daemons_;
  std::size_t before_ = 0;
};

class distcc {
public:
  explicit distcc(const shared_hosts& on) : on_(on), list_("localhost/1") {
    for (unsigned host = 2; host <= rivals_hosts; ++host) {
      list_ += " " + test_hosts::address(host) + "/2";
      daemons_.push_back(on_.daemon(host, {"/usr/bin/distccd", "--daemon", "--no-detach", "--allow",
                                           "10.87.0.0/16", "--listen", test_hosts::address(host), "--jobs",
                                           "2", "--log-file", "/dev/null"}));
    }
    fs::create_directories(on_.file("distcc"));
    ::sleep(2); // nothing tells when they listen
  }

  double build(const words& command = {}) const {
    return on_.make({"CC=distcc gcc", "-j" + std::to_string(2 * rivals_hosts)},
                    {{"MAKEFLAGS", ""},
                     {"DISTCC_HOSTS", list_},
                     {"DISTCC_DIR", on_.file("distcc")},
                     {"DISTCC_FALLBACK", "0"}}, // or a host that refuses would not be noticed
                    command);
  }

private:
  const shared_hosts& on_;
  std::string list_;
  std::vector<std::unique_ptr<program>> daemons_;
};

struct workload {
  std::string name;
  std::size_t files; // that are compiled
  words command;     // before make or pmake
};

bool against_rivals(shared_hosts& on, int rounds, const workload& what) {
  // All three in turn. The rivals' daemons run all the time, as they do where they are used, and have the compiler already;
  // pmake's time has the granting of hosts in it.
  icecream first(on);
  distcc second(on);
  std::map<std::string, std::vector<double>> theirs, ratios;
  std::vector<double> mine;
  std::size_t away = 0, files = what.files * static_cast<std::size_t>(rounds);
  for (int round = 0; round < rounds; ++round) {
    on.lend(rivals_hosts);
    mine.push_back(on.pmake(rivals_hosts, {}, what.command));
    on.lend(1);
    theirs["icecream"].push_back(first.build(what.command));
    away += first.last_away();
    theirs["distcc"].push_back(second.build(what.command));
    for (auto& [name, times] : theirs) ratios[name].push_back(mine.back() / times.back());
  }
  bool good = true;
  for (const auto& [name, times] : theirs) {
    auto ratio = bench::spread_of(ratios[name]);
    std::string row =
        bench::text("%s on %u test hosts, against %s", what.name.c_str(), rivals_hosts, name.c_str());
    std::string measured = bench::text("%.2f x the time (%.2f-%.2f; %.3g against %.3g s)", ratio.median,
                                       ratio.least, ratio.most, bench::median(mine), bench::median(times));
    if (name == "icecream" && away < files / 2) {
      bench::shown(row, measured + bench::text("; no measure: it sent %zu of %zu files away", away, files));
      continue;
    }
    good = bench::row(row, measured, "< 1 x", ratio.median < 1) && good;
  }
  return good;
}

std::vector<std::string> names_of_projects() {
  std::vector<std::string> all;
  for (const bench::project& each : bench::debian_projects) all.push_back(each.package);
  return all;
}

bool build_project(const bench::project& what, const std::vector<unsigned>& counts, unsigned share,
                   int rounds, bool against) {
  // As its users do: make with two commands at a time on one host, against pmake on all.
  folder work;
  if (!bench::unpack(work.path.string(), {what.package})) return false;
  fs::path clean = work.path / what.package, tree = work.path / "tree";
  if (std::system(("cd '" + clean.string() + "' && (" + what.configure + ") >/dev/null").c_str()) != 0)
    return false;
  ::setenv("SOURCE_DATE_EPOCH", "1000000000", 1);
  unsigned most = *std::max_element(counts.begin(), counts.end());
  host_limits limits;
  limits.processor = share;
  test_hosts hosts(most, limits);
  if (!hosts.made()) return true;
  fs::create_directories(tree);
  shared_hosts on(hosts, tree, "find . -mindepth 1 -delete && cp -a '" + clean.string() + "/.' .");
  words shell{"/bin/sh", "-c", "exec \"$0\" \"$@\" " + what.arguments};
  bool same = true;
  std::vector<double> alone;
  std::map<unsigned, std::vector<double>> times, speedups;
  for (int round = 0; round < rounds; ++round) {
    alone.push_back(on.make({"-j2"}, {{"MAKEFLAGS", ""}}, shell));
    auto expected = bench::files_made(tree);
    for (unsigned count : counts) {
      on.lend(count);
      times[count].push_back(on.pmake(count, {}, shell));
      same = same && bench::files_made(tree) == expected;
      speedups[count].push_back(alone.back() / times[count].back());
    }
  }
  for (unsigned count : counts) {
    auto spread = bench::spread_of(speedups[count]);
    bench::shown(
        bench::text("%s by pmake make on %u test hosts of %u %% of a processor, against make -j2 on one",
                    what.package.c_str(), count, share),
        bench::text("%.2f x as fast (%.2f-%.2f; %.3g against %.3g s)%s", spread.median, spread.least,
                    spread.most, bench::median(times[count]), bench::median(alone),
                    same ? "" : ", files differ"));
  }
  if (!against || most < rivals_hosts) return same;
  std::size_t objects = 0;
  for (const auto& [name, contents] : bench::files_made(tree)) objects += name.ends_with(".o") ? 1 : 0;
  return against_rivals(on, rounds, {what.package, objects, shell}) && same;
}

bool compile_files(int files, const std::vector<unsigned>& counts, int rounds, const std::string& figure,
                   bool against) {
  // On hosts of a fifth of a processor each.
  unsigned most = 1;
  for (unsigned each : counts) most = std::max(most, each);
  test_hosts hosts(most);
  if (!hosts.made()) return true;
  folder work;
  fs::path tree = work.path / "project";
  write_project(tree, files);
  shared_hosts on(hosts, tree);
  std::map<unsigned, std::vector<double>> times, speedups;
  std::map<std::string, std::string> expected;
  bool same = true, good = true;
  for (int round = 0; round < rounds; ++round) {
    times[1].push_back(on.pmake(1, {}));
    if (round == 0) expected = objects(tree);
    for (unsigned count : counts) {
      on.lend(count);
      times[count].push_back(on.pmake(count, {}));
      same = same && objects(tree) == expected;
      speedups[count].push_back(times[1].back() / times[count].back());
    }
  }
  std::map<unsigned, bench::spread> drawn{{1, {1, 1, 1}}};
  for (unsigned count : counts) {
    auto spread = drawn[count] = bench::spread_of(speedups[count]);
    std::string what =
        bench::text("%d files compiled by pmake make on %u test hosts, against one", files, count);
    std::string measured = bench::text("%.2f x as fast (%.2f-%.2f; %.3g against %.3g s)%s", spread.median,
                                       spread.least, spread.most, bench::median(times[count]),
                                       bench::median(times[1]), same ? "" : ", files differ");
    double least = to_reach(count) * count;
    if (least > 0)
      good =
          bench::row(what, measured, bench::text(">= %.1f x", least), same && spread.median >= least) && good;
    else
      bench::shown(what, measured);
  }
  if (!figure.empty()) draw(figure, drawn);
  if (against && most >= rivals_hosts)
    good =
        against_rivals(on, rounds, {bench::text("%d files", files), static_cast<std::size_t>(files), {}}) &&
        good;
  return good;
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app("pmake on test hosts");
  int rounds = 2, files = 120;
  std::vector<unsigned> counts{2, 4, 6, 8};
  unsigned share = 20;
  std::string figure, package;
  bool against = true;
  app.add_option("--rounds", rounds, "of each row");
  app.add_option("--files", files, "to compile");
  app.add_option("--hosts", counts, "how many");
  app.add_option("--figure", figure, "write the speed-up as SVG");
  app.add_option("--project", package, "one of Debian's source packages to build, and nothing else")
      ->check(CLI::IsMember(names_of_projects()));
  app.add_option("--share", share, "of a processor that each host has for --project, in percent");
  app.add_flag("--rivals,!--no-rivals", against, "compare with icecream and distcc");
  CLI11_PARSE(app, argc, argv);
  try {
    bool good = true;
    if (package.empty()) {
      good = compile_files(files, counts, rounds, figure, against);
      counts = {rivals_hosts};
      package = "tmux";
    }
    for (const bench::project& each : bench::debian_projects)
      if (each.package == package) good = build_project(each, counts, share, rounds, against) && good;
    return good ? 0 : 1;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "pmake_hosts: %s\n", problem.what());
    return 1;
  }
}
