// The page office where the task is. Included by page_office.hpp.
#pragma once

#include <migrate/transfer/page_office.hpp>

namespace migrate::detail {

inline bool page_office::await(const absence& what) {
  constexpr std::chrono::seconds patience{5};
  start();
  network_->set_address(what.source, what.address);
  auto made = std::make_shared<awaited_memory>(what);
  for (const page_range& range : what.here)
    for (char* page = range.address; page < range.address + range.bytes; page += page_size)
      if (made->here.inside(page)) made->here.add(page);
  made->plain = !pages_->available() || !pages_->watch(what.from, static_cast<std::size_t>(what.to - what.from));
  if (!made->plain) made->here.for_each_gap([this](char* from, std::size_t bytes) { pages_->hide(from, bytes); });
  {
    std::lock_guard guard(lock_);
    awaited_[what.task] = made;
    by_region_[what.region.bits()] = made;
  }
  if (!made->plain && network_->connected(what.source)) return true;
  auto limit = std::chrono::steady_clock::now() + patience;
  say(what.source, what.task, what.number, [](protocol::Reference::Builder out) { out.setGreeting(); });
  std::unique_lock guard(made->lock);
  bool in_time = made->changed.wait_until(guard, limit, [&] { return made->greeted || made->lost; });
  if (in_time && !made->lost && made->plain) {
    ask_push(*made);
    made->changed.wait(guard, [&] { return made->ended || made->lost; });
  }
  bool good = in_time && !made->lost;
  std::string why = made->why.empty() ? "it does not answer" : made->why;
  guard.unlock();
  if (good) return !made->plain;
  drop(what.task);
  throw error(errc::node_unreachable,
              "node " + to_string(what.source) + ", which has the task's memory, cannot be reached at " + what.address +
                  ": " + why);
}

inline bool page_office::begin(task_id task) {
  awaited_pointer of = awaited_of(task);
  if (of == nullptr) return true;
  bool lost = false;
  {
    std::lock_guard guard(of->lock);
    of->begun = true;
    lost = of->lost;
    if (!lost && with_.push) ask_push(*of);
  }
  if (lost) with_.losing(task, of->what.source);
  return !lost;
}

inline bool page_office::ask_push(awaited_memory& of) {
  // With its lock held.
  if (std::exchange(of.pushed, true)) return true;
  return say(of.what.source, of.what.task, of.what.number, [](protocol::Reference::Builder out) { out.setPush(); });
}

inline void page_office::erase(const awaited_pointer& of) {
  std::lock_guard guard(lock_);
  if (auto found = awaited_.find(of->what.task); found != awaited_.end() && found->second == of) awaited_.erase(found);
  if (auto found = by_region_.find(of->what.region.bits()); found != by_region_.end() && found->second == of)
    by_region_.erase(found);
}

inline void page_office::drop(task_id task) noexcept {
  if (!started_.load()) return;
  awaited_pointer of = awaited_of(task);
  if (of == nullptr) return;
  const absence& what = of->what;
  {
    std::lock_guard guard(of->lock);
    if (of->lost)
      of->here.for_each_gap([](char* from, std::size_t bytes) { missing_pages::make_zero(from, bytes); });
    else if (!of->ended && !of->plain)
      pages_->forget(what.from, static_cast<std::size_t>(what.to - what.from));
    of->ended = true;
  }
  erase(of);
  say(what.source, what.task, what.number, [](protocol::Reference::Builder out) { out.setDone(); });
}

inline page_office::presence page_office::gather(task_id task) {
  awaited_pointer of = started_.load() ? awaited_of(task) : nullptr;
  if (of == nullptr) return presence::whole;
  std::lock_guard guard(of->lock);
  if (of->lost) return presence::lost;
  if (of->ended) return presence::whole;
  ask_push(*of);
  return presence::waited_for;
}

inline bool page_office::hides_from_kernel(task_id task) {
  return started_.load() && pages_->programs_only() && awaited_of(task) != nullptr;
}

inline std::optional<residual_dependency> page_office::residual(task_id task) {
  awaited_pointer of = awaited_of(task);
  if (of == nullptr) return std::nullopt;
  std::lock_guard guard(of->lock);
  if (of->ended) return std::nullopt;
  std::uint64_t most = (of->here.size() - of->here.count()) * page_size;
  return residual_dependency{task, of->what.source, std::min(most, of->rest)};
}

inline std::vector<residual_dependency> page_office::residuals() {
  std::vector<task_id> tasks;
  {
    std::lock_guard guard(lock_);
    for (auto& [id, each] : awaited_) tasks.push_back(id);
  }
  std::vector<residual_dependency> all;
  for (task_id each : tasks)
    if (auto one = residual(each)) all.push_back(*one);
  return all;
}

inline void page_office::add_followed(move_statistics& to) {
  to.add(recorder_.read());
}

inline page_office::awaited_pointer page_office::awaited_of(task_id task) {
  std::lock_guard guard(lock_);
  auto found = awaited_.find(task);
  return found == awaited_.end() ? nullptr : found->second;
}

// --- on the office's thread --------------------------------------------------------------------------

inline void page_office::touched(char* page) {
  awaited_pointer of;
  {
    std::lock_guard guard(lock_);
    if (auto found = by_region_.find(region_of(page).bits()); found != by_region_.end()) of = found->second;
  }
  if (of == nullptr || !of->here.inside(page)) {
    pages_->wake(page, page_size);
    return;
  }
  bool came = false;
  {
    std::lock_guard guard(of->lock);
    if (of->ended || of->lost) return; // who waited goes on
    came = of->here.has(page);
    if (!came && !of->asked.insert(page).second) return;
  }
  if (came) { // and was given back since, or has come between the touch and now
    std::size_t bytes = page_size;
    if (pages_->zero(page, bytes) != missing_pages::put::done) pages_->wake(page, page_size);
    return;
  }
  fault_point("target.touched");
  say(of->what.source, of->what.task, of->what.number,
      [page](protocol::Reference::Builder out) { out.setFetch(reinterpret_cast<std::uint64_t>(page)); });
}

inline void page_office::given_back(char* from, std::size_t bytes) noexcept {
  // By the task, about to be: see missing_pages::by_faults().
  [[maybe_unused]] volatile char stack[page_size]; // so that where the next calls stand has come before the office's locks are taken
  stack[0] = 0;
  stack[page_size - 1] = 0;
  told_of_heaps_->removed(from, bytes);
}

inline void page_office::removed(char* from, std::size_t bytes) {
  // By the task: these pages read as zero from now on.
  awaited_pointer of;
  {
    std::lock_guard guard(lock_);
    if (auto found = by_region_.find(region_of(from).bits()); found != by_region_.end()) of = found->second;
  }
  if (of == nullptr) return;
  std::lock_guard guard(of->lock);
  if (of->ended || of->lost) return;
  for (char* page = from; page < from + bytes; page += page_size) {
    if (!of->here.inside(page) || !of->here.add(page) || !pages_->by_faults()) continue;
    std::size_t one = page_size;
    if (pages_->zero(page, one) == missing_pages::put::hidden) ask_push(*of);
  }
}

inline void page_office::on_told(const awaited_pointer& of, protocol::Reference::Reader message,
                                 kj::ArrayPtr<const kj::byte> attachment) {
  switch (message.which()) {
  case protocol::Reference::GREETING: {
    std::lock_guard guard(of->lock);
    of->greeted = true;
    of->changed.notify_all();
    return;
  }
  case protocol::Reference::PAGES: take_pages(of, message, attachment); return;
  case protocol::Reference::NOTHING: {
    auto* page = reinterpret_cast<char*>(message.getNothing());
    if (!of->here.inside(page) || message.getNothing() % page_size != 0)
      throw error(errc::protocol, "a page came that lies outside the task's memory");
    put(*of, page, nullptr, page_size);
    return;
  }
  case protocol::Reference::REST: {
    std::lock_guard guard(of->lock);
    of->rest = message.getRest();
    return;
  }
  case protocol::Reference::ALL: have_all(of); return;
  case protocol::Reference::UNKNOWN: lose(of, "it does not have the task's memory any more"); return;
  default: return;
  }
}

inline void page_office::take_pages(const awaited_pointer& of, protocol::Reference::Reader message,
                                    kj::ArrayPtr<const kj::byte> attachment) {
  fault_point("target.fetched");
  std::uint32_t seen = 0;
  for_each_page_run(message, attachment, of->what.from, of->what.to, decompress_,
                    [&](char* page, const kj::byte* bytes, std::size_t size) {
                      put(*of, page, bytes, size);
                      seen += static_cast<std::uint32_t>(size);
                    });
  say(of->what.source, of->what.task, of->what.number, [seen](protocol::Reference::Builder out) { out.setSeen(seen); });
}

inline void page_office::put(awaited_memory& of, char* to, const void* from, std::size_t bytes) {
  // Zeros without `from`. Those that are there already stay as they are.
  const auto* source = static_cast<const char*>(from);
  for (char* const end = to + bytes; to < end;) {
    bool read_first = false;
    {
      std::lock_guard guard(of.lock);
      if (of.ended || of.lost) return;
      while (to < end && of.here.has(to)) {
        to += page_size;
        if (source != nullptr) source += page_size;
      }
      char* last = to;
      while (last < end && !of.here.has(last)) last += page_size;
      std::size_t now = static_cast<std::size_t>(last - to);
      if (now == 0) return;
      auto how = missing_pages::put::done;
      if (!of.plain)
        how = source != nullptr ? pages_->copy(to, source, now) : pages_->zero(to, now);
      else if (source != nullptr)
        std::memcpy(to, source, now);
      if (how == missing_pages::put::gone) return;
      if (how == missing_pages::put::hidden) ask_push(of);
      read_first = how == missing_pages::put::again;
      if (how == missing_pages::put::there) {
        now = page_size;
        pages_->wake(to, now);
      }
      if (!read_first) {
        for (std::size_t done = 0; done < now; done += page_size) {
          of.here.add(to + done);
          if (!of.asked.empty()) of.asked.erase(to + done);
        }
        if (of.rest != ~std::uint64_t{0}) of.rest -= std::min<std::uint64_t>(of.rest, now);
        to += now;
        if (source != nullptr) source += now;
      }
    }
    if (read_first) drain();
  }
}

inline void page_office::have_all(const awaited_pointer& of) {
  const absence& what = of->what;
  {
    std::lock_guard guard(of->lock);
    if (of->ended || of->lost) return;
    of->ended = true;
    if (!of->plain) pages_->forget(what.from, static_cast<std::size_t>(what.to - what.from));
    of->changed.notify_all();
  }
  erase(of);
  say(what.source, what.task, what.number, [](protocol::Reference::Builder out) { out.setDone(); });
  with_.whole(what.task);
}

inline void page_office::lose(const awaited_pointer& of, const std::string& why) {
  const absence& what = of->what;
  {
    std::lock_guard guard(of->lock);
    if (of->ended || of->lost) return;
  }
  with_.losing(what.task, what.source); // before who waits goes on
  bool begun = false;
  {
    std::lock_guard guard(of->lock);
    if (of->ended || of->lost) return;
    of->lost = true;
    of->why = why;
    begun = of->begun;
    if (!of->plain) {
      of->here.for_each_gap([this](char* from, std::size_t bytes) { pages_->lose(from, bytes); });
      pages_->forget_lost(what.from, static_cast<std::size_t>(what.to - what.from));
    }
    of->changed.notify_all();
  }
  if (begun) with_.lost(what.task);
}

} // namespace migrate::detail
