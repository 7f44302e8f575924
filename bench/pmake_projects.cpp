// Projects from Debian's source packages, built on this machine by pmake make and by make.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "../tests/support/folder.hpp"
#include "debian_projects.hpp"
#include "harness.hpp"

namespace fs = std::filesystem;
using bench::project;

namespace {

bool command(const fs::path& where, const std::string& text) {
  return std::system(
             ("cd '" + where.string() + "' && (" + text + ") >/tmp/pmake-projects.log 2>&1").c_str()) == 0;
}

double processor_seconds() {
  // Of all commands that have ended.
  rusage used{};
  ::getrusage(RUSAGE_CHILDREN, &used);
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app("projects from Debian's source packages");
  int rounds = 3;
  std::string sources;
  std::vector<std::string> only;
  app.add_option("--rounds", rounds, "pairs of builds of each");
  app.add_option("--sources", sources,
                 "where bench/debian-sources has unpacked them; it is called otherwise");
  app.add_option("--only", only, "packages");
  CLI11_PARSE(app, argc, argv);
  migrate_test::folder work;
  if (sources.empty()) {
    sources = work.path.string();
    std::vector<std::string> packages;
    for (const project& each : bench::debian_projects) packages.push_back(each.package);
    if (!bench::unpack(sources, packages)) return 1;
  }
  ::setenv("SOURCE_DATE_EPOCH", "1000000000", 1);
  ::unsetenv("MIGRATE_HOSTS");
  const std::string parallel = " -j" + std::to_string(::sysconf(_SC_NPROCESSORS_ONLN)) + " ";
  bool good = true;
  for (const project& each : bench::debian_projects) {
    if (!only.empty() && std::find(only.begin(), only.end(), each.package) == only.end()) continue;
    const std::string what =
        each.package + " built on this machine by pmake make, against make -j: same files out";
    fs::path clean = fs::path(sources) / each.package, tree = work.path / ("tree-" + each.package);
    std::map<std::string, std::size_t> expected;
    bool built = true, same = true;
    auto build = [&](const std::string& program, double& used) {
      fs::remove_all(tree);
      // With its files' times, by which its makefile knows what is up to date.
      built = built && command(work.path, "cp -a '" + clean.string() + "' '" + tree.string() + "'");
      built = built && command(tree, each.configure);
      used = processor_seconds();
      auto begin = bench::clock::now();
      built = built && command(tree, program + parallel + each.arguments);
      double took = bench::nanoseconds(bench::clock::now() - begin) / 1e9;
      used = processor_seconds() - used;
      if (!built) return took;
      auto made = bench::files_made(tree);
      if (expected.empty()) expected = made;
      same = same && made == expected;
      return took;
    };
    std::vector<double> ours, theirs, ratios, efforts;
    for (int i = 0; i < rounds && built; ++i) {
      // Who comes first changes, in case what comes second finds a quieter machine.
      double our_work = 0, their_work = 0;
      if (i % 2 == 0) theirs.push_back(build("make", their_work));
      ours.push_back(build(MIGRATE_PMAKE " make", our_work));
      if (i % 2 != 0) theirs.push_back(build("make", their_work));
      ratios.push_back(ours.back() / theirs.back());
      efforts.push_back(our_work / their_work);
    }
    if (!built) {
      std::fprintf(stderr, "%s did not build; see /tmp/pmake-projects.log\n", each.package.c_str());
      return 1;
    }
    auto ratio = bench::spread_of(ratios);
    good =
        bench::row(what,
                   bench::text("%.2f x (%.2f-%.2f; %.3g against %.3g s; processor time %.2f x)%s",
                               ratio.median, ratio.least, ratio.most, bench::median(ours),
                               bench::median(theirs), bench::median(efforts), same ? "" : ", files differ"),
                   "<= 1.05 x", same && ratio.median <= 1.05) &&
        good;
  }
  return good ? 0 : 1;
}
