// Things in order by a key that changes often.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace migrate::detail {

inline constexpr std::uint32_t not_in_heap = ~std::uint32_t{0};

template <class Key, class Thing> struct heap_entry {
  Key key;
  Thing* thing;
};

template <class Key, class Thing> using heap_entries = std::vector<heap_entry<Key, Thing>>;

template <class Key, class Thing, std::uint32_t Thing::*Position> class heap_of {
  // Works on entries that are kept elsewhere. Each thing knows its position; its member begins as not_in_heap.

public:
  using entry = heap_entry<Key, Thing>;
  using entries = heap_entries<Key, Thing>;

  static void set(entries& all, Thing& thing, const std::optional<Key>& key) {
    std::uint32_t& at = thing.*Position;
    if (at == not_in_heap) {
      if (!key) return;
      at = static_cast<std::uint32_t>(all.size());
      all.push_back({*key, &thing});
      rise(all, at);
    } else if (!key) {
      std::uint32_t hole = std::exchange(at, not_in_heap);
      entry last = all.back();
      all.pop_back();
      if (hole == all.size()) return;
      put(all, hole, last);
      settle(all, hole);
    } else if (!(all[at].key == *key)) {
      all[at].key = *key;
      settle(all, at);
    }
  }
  // Puts it in, gives it another key, or takes it out; in logarithmic time.

  static const entry* first(const entries& all) noexcept { return all.empty() ? nullptr : &all[0]; }

  static const entry* second(const entries& all) noexcept {
    const entry* best = nullptr;
    for (std::size_t i = 1; i <= ways && i < all.size(); ++i)
      if (best == nullptr || all[i].key < best->key) best = &all[i];
    return best;
  }

  template <class F> static void in_order(const entries& all, F&& function) {
    // Until function(const entry&) returns false.
    if (all.empty()) return;
    auto later = [&](std::size_t a, std::size_t b) { return all[b].key < all[a].key; };
    std::vector<std::size_t> next{0};
    while (!next.empty()) {
      std::pop_heap(next.begin(), next.end(), later);
      std::size_t at = next.back();
      next.pop_back();
      if (!function(all[at])) return;
      for (std::size_t child = at * ways + 1; child <= at * ways + ways && child < all.size(); ++child) {
        next.push_back(child);
        std::push_heap(next.begin(), next.end(), later);
      }
    }
  }

private:
  static constexpr std::size_t ways = 4; // shallow, and the children of one lie side by side

  static void put(entries& all, std::size_t at, const entry& what) {
    all[at] = what;
    what.thing->*Position = static_cast<std::uint32_t>(at);
  }
  static void rise(entries& all, std::size_t at) {
    entry moving = all[at];
    while (at > 0 && moving.key < all[(at - 1) / ways].key) {
      put(all, at, all[(at - 1) / ways]);
      at = (at - 1) / ways;
    }
    put(all, at, moving);
  }
  static void settle(entries& all, std::size_t at) {
    rise(all, at);
    if (at > 0 && all[at].key < all[(at - 1) / ways].key) return;
    entry moving = all[at];
    for (;;) {
      std::size_t best = at * ways + 1;
      if (best >= all.size()) break;
      for (std::size_t child = best + 1; child <= at * ways + ways && child < all.size(); ++child)
        if (all[child].key < all[best].key) best = child;
      if (!(all[best].key < moving.key)) break;
      put(all, at, all[best]);
      at = best;
    }
    put(all, at, moving);
  }
};

template <class Key, class Thing> struct ordered_group {
  heap_entries<Key, Thing> members;
  std::uint32_t position = not_in_heap; // among the groups
};

template <class Key, class Thing, std::uint32_t Thing::*Position> class grouped_order {
  // Of things in groups: the first outside one group is found as fast as the first.

public:
  using group = ordered_group<Key, Thing>;
  using heap = heap_of<Key, Thing, Position>;
  using entry = heap_entry<Key, Thing>;

  void set(group& of, Thing& thing, const std::optional<Key>& key) {
    heap::set(of.members, thing, key);
    groups::set(firsts_, of, of.members.empty() ? std::nullopt : std::optional<Key>(of.members[0].key));
  }
  // Keys must differ. The group stays where it is while it has members.

  const entry* first() const noexcept { return first_of(groups::first(firsts_)); }

  const entry* first_outside(const group& of) const noexcept {
    auto* found = groups::first(firsts_);
    return first_of(found != nullptr && found->thing == &of ? groups::second(firsts_) : found);
  }

private:
  using groups = heap_of<Key, group, &group::position>;
  static const entry* first_of(const heap_entry<Key, group>* of) noexcept {
    return of == nullptr ? nullptr : &of->thing->members[0];
  }

  heap_entries<Key, group> firsts_;
};

template <class Key, class Thing, std::uint32_t Thing::*Position> class ordered {
public:
  using heap = heap_of<Key, Thing, Position>;
  using entry = heap_entry<Key, Thing>;

  void set(Thing& thing, const std::optional<Key>& key) { heap::set(all_, thing, key); }
  const entry* first() const noexcept { return heap::first(all_); }
  template <class F> void in_order(F&& function) const { heap::in_order(all_, std::forward<F>(function)); }

  template <class F> const entry* first_that(F&& suits) const {
    // In time that grows with how many before it do not.
    const entry* found = first();
    if (found == nullptr || suits(*found->thing)) return found;
    found = nullptr;
    in_order([&](const entry& each) {
      if (suits(*each.thing)) found = &each;
      return found == nullptr;
    });
    return found;
  }

private:
  heap_entries<Key, Thing> all_;
};

} // namespace migrate::detail
