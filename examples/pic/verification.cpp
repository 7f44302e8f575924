#include "verification.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>

namespace pic {

static constexpr std::size_t most_listed = 10;

static std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9u;
  x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11ebu;
  return x ^ (x >> 31);
}

static std::uint64_t sum_of_ids(std::uint64_t n) { return n % 2 == 0 ? n / 2 * (n + 1) : (n + 1) / 2 * n; }

bool verdict::complete(const parameters& what) const {
  return found == what.particles && id_sum == sum_of_ids(what.particles);
}

bool verdict::good(const parameters& what) const { return complete(what) && right == found; }

verdict verify(const std::vector<particle>& particles, const parameters& what) {
  verdict result;
  for (const particle& p : particles) {
    place expected = place_after(p, what.steps, what);
    ++result.found;
    result.id_sum += p.id;
    std::uint64_t bits = p.id;
    for (double value : {p.x, p.y, p.vx, p.vy}) bits = mixed(bits ^ std::bit_cast<std::uint64_t>(value));
    result.checksum += bits;
    // Written so that a place that is no number is wrong.
    bool right = std::fabs(p.x - expected.x) <= tolerance && std::fabs(p.y - expected.y) <= tolerance;
    if (right)
      ++result.right;
    else
      result.wrong.push_back({p.id, expected, {p.x, p.y}});
  }
  return together(std::move(result), {});
}

verdict together(verdict a, const verdict& b) {
  a.found += b.found;
  a.right += b.right;
  a.id_sum += b.id_sum;
  a.checksum += b.checksum;
  a.wrong.insert(a.wrong.end(), b.wrong.begin(), b.wrong.end());
  std::sort(a.wrong.begin(), a.wrong.end(),
            [](const misplaced& one, const misplaced& other) { return one.id < other.id; });
  if (a.wrong.size() > most_listed) a.wrong.resize(most_listed);
  return a;
}

void census::count(const std::vector<particle>& particles) {
  for (const particle& p : particles)
    if (p.id >= first_ && p.id - first_ < seen_.size()) {
      std::uint8_t& times = seen_[static_cast<std::size_t>(p.id - first_)];
      times = static_cast<std::uint8_t>(std::min(times + 1, 2));
    }
}

void census::add(const census& other) {
  for (std::size_t i = 0; i < seen_.size(); ++i)
    seen_[i] = static_cast<std::uint8_t>(std::min(seen_[i] + other.seen_[i], 2));
}

void census::tell(verdict& into) const {
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    if (seen_[i] == 1) continue;
    auto& list = seen_[i] == 0 ? into.missing : into.repeated;
    if (list.size() < most_listed) list.push_back(first_ + i);
  }
}

std::vector<std::string> explain(const verdict& found, const parameters& what) {
  std::vector<std::string> lines;
  auto say = [&](const char* format, auto... values) {
    char text[200];
    std::snprintf(text, sizeof text, format, values...);
    lines.emplace_back(text);
  };
  auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  for (const misplaced& each : found.wrong)
    say("particle %llu is at (%.6f, %.6f), expected at (%.6f, %.6f)", number(each.id), each.found.x,
        each.found.y, each.expected.x, each.expected.y);
  if (std::uint64_t wrong = found.found - found.right; wrong > found.wrong.size())
    say("and %llu more are at wrong places", number(wrong - found.wrong.size()));
  initial_distribution initial(what);
  auto say_missing = [&](std::uint64_t id, const char* verb) {
    auto [x, y] = initial.cell_of(id);
    place expected = place_after(particle_at(x, y, id, what), what.steps, what);
    say("particle %llu is %s, expected once at (%.6f, %.6f)", number(id), verb, expected.x, expected.y);
  };
  for (std::uint64_t id : found.missing) say_missing(id, "lost");
  for (std::uint64_t id : found.repeated) say_missing(id, "there more than once");
  if (!found.complete(what))
    say("%llu particles are there, expected %llu", number(found.found), number(what.particles));
  return lines;
}

} // namespace pic
