// The page office where the memory is. Included by page_office.hpp.
#pragma once

#include <migrate/transfer/page_office.hpp>

namespace migrate::detail {

inline page_office::place page_office::keep(remains what) {
  start();
  std::lock_guard guard(lock_);
  what.number = ++last_number_;
  auto made = std::make_shared<kept_memory>(std::move(what));
  kept_[made->what.task] = made;
  kept_count_ = kept_.size();
  return {port_, made->what.number};
}

inline void page_office::forget(task_id task, std::uint64_t number) noexcept {
  kept_pointer of = kept_of(task, number);
  if (of == nullptr) return;
  {
    std::unique_lock memory(of->memory);
    of->gone = true;
  }
  std::lock_guard guard(lock_);
  kept_.erase(task);
  kept_count_ = kept_.size();
}

inline void page_office::hand_over(task_id task, std::uint64_t number, std::function<void()> let_go) {
  kept_pointer of = kept_of(task, number);
  bool done = true;
  if (of != nullptr) {
    std::lock_guard guard(lock_);
    of->let_go = std::move(let_go);
    of->handed_over = true;
    done = of->done;
  }
  if (of == nullptr)
    let_go();
  else if (done)
    release(of);
}

inline void page_office::push_all() {
  std::vector<kept_pointer> all;
  {
    std::lock_guard guard(lock_);
    for (auto& [id, each] : kept_)
      if (each->handed_over) all.push_back(each);
  }
  for (const kept_pointer& each : all)
    loop_->post([this, each] {
      if (!each->pushing) start_push(each);
    });
}

inline void page_office::node_lost(node_id target) {
  std::vector<kept_pointer> all;
  {
    std::lock_guard guard(lock_);
    for (auto& [id, each] : kept_)
      if (each->what.target == target) all.push_back(each);
  }
  for (const kept_pointer& each : all) finish(each);
}

inline page_office::kept_pointer page_office::kept_of(task_id task, std::uint64_t number) {
  std::lock_guard guard(lock_);
  auto found = kept_.find(task);
  return found == kept_.end() || found->second->what.number != number ? nullptr : found->second;
}

inline void page_office::on_asked(const kept_pointer& of, protocol::Reference::Reader message) {
  const remains& what = of->what;
  switch (message.which()) {
  case protocol::Reference::GREETING:
    say(what.target, what.task, what.number, [](protocol::Reference::Builder out) { out.setGreeting(); });
    return;
  case protocol::Reference::FETCH: {
    fault_point("source.fetched");
    auto* page = reinterpret_cast<char*>(message.getFetch());
    if (!of->left.inside(page) || message.getFetch() % page_size != 0)
      throw error(errc::protocol, "a page was asked for that lies outside the task's memory");
    serve_page(*of, page);
    return;
  }
  case protocol::Reference::PUSH: start_push(of); return;
  case protocol::Reference::SEEN:
    of->under_way -= std::min<std::size_t>(of->under_way, message.getSeen());
    if (of->pushing && of->compress.wants_link() && (of->seen += message.getSeen()) >= window) {
      auto since = std::chrono::steady_clock::now() - of->pushed_from;
      of->compress.set_link(static_cast<double>(of->seen) / std::chrono::duration<double>(since).count());
    }
    pump(of);
    return;
  case protocol::Reference::DONE:
    recorder_.compressed(of->compress.before(), of->compress.after(), of->compress.outcome());
    finish(of);
    return;
  default: return;
  }
}

inline void page_office::serve_page(kept_memory& of, char* page) {
  const remains& what = of.what;
  std::shared_lock memory(of.memory);
  if (of.gone) return; // whoever asks is told otherwise
  of.left.remove(page);
  of.next = page + page_size;
  auto address = reinterpret_cast<std::uint64_t>(page);
  if (all_zero(page)) {
    say(what.target, what.task, what.number, [address](protocol::Reference::Builder out) { out.setNothing(address); });
    return;
  }
  of.under_way += page_size;
  say_pages(of, {{page, page_size}});
}

inline void page_office::say_pages(kept_memory& of, const std::vector<page_range>& pages) {
  std::vector<iovec> attachment;
  std::size_t bytes = 0;
  for (const page_range& range : pages) {
    attachment.push_back({range.address, range.bytes});
    bytes += range.bytes;
  }
  recorder_.followed(bytes);
  std::span<const std::byte> block = of.compress.compress(attachment);
  if (!block.empty()) attachment.assign(1, {const_cast<std::byte*>(block.data()), block.size()});
  say(
      of.what.target, of.what.task, of.what.number,
      [&](protocol::Reference::Builder out) {
        out.setCompressed(!block.empty());
        auto list = out.initPages(static_cast<unsigned>(pages.size()));
        for (unsigned i = 0; i < list.size(); ++i) {
          list[i].setAddress(reinterpret_cast<std::uint64_t>(pages[i].address));
          list[i].setCount(static_cast<std::uint32_t>(pages[i].bytes / page_size));
        }
      },
      attachment);
}

inline void page_office::start_push(const kept_pointer& of) {
  of->pushing = true;
  of->under_way = 0;
  of->all_sent = false;
  of->surveyed = false;
  of->pushed_from = std::chrono::steady_clock::now();
  of->seen = 0;
  if (std::exchange(of->surveying, true)) return;
  keepers_->push([this, of] { survey(of); });
}

inline void page_office::survey(const kept_pointer& of) {
  // Long for much memory, so it is no part of the freeze, and not on the office's thread.
  const remains& what = of->what;
  auto found = std::make_shared<std::vector<page_range>>();
  {
    std::shared_lock memory(of->memory);
    if (of->gone) return;
    try {
      std::vector<page_range> live;
      what.control->heap.for_each_live_range(
          [&](char* address, std::size_t bytes) { add_range(live, address, bytes); });
      if (char* top = what.control->stack_top(); what.from < top)
        live.push_back({what.from, static_cast<std::size_t>(top - what.from)});
      for (const page_range& range : live)
        with_.scanner.for_each_dirty_range(range.address, range.bytes, [&](char* address, std::size_t bytes) {
          add_range(*found, address, bytes);
        });
      if (what.base.valid()) *found = with_image(*found, what.base, live, what.control->region);
    } catch (const std::exception&) {
      found->assign(1, {what.from, static_cast<std::size_t>(what.to - what.from)}); // each of them, then
    }
  }
  loop_->post([this, of, found] {
    for (const page_range& range : *found)
      for (char* page = range.address; page < range.address + range.bytes; page += page_size)
        if (of->left.inside(page)) of->left.add(page);
    for (const page_range& range : of->what.sent)
      for (char* page = range.address; page < range.address + range.bytes; page += page_size)
        if (of->left.inside(page)) of->left.remove(page);
    of->surveying = false;
    of->surveyed = true;
    std::uint64_t rest = of->left.count() * page_size;
    say(of->what.target, of->what.task, of->what.number, [rest](protocol::Reference::Builder out) { out.setRest(rest); });
    pump(of);
  });
}

inline void page_office::pump(const kept_pointer& of) {
  // What is near the last page that was asked for goes first.
  const remains& what = of->what;
  std::size_t looked_at = 0;
  while (of->pushing && of->surveyed && !of->all_sent && of->under_way < window) {
    if (looked_at >= most_looked_at) {
      loop_->post([this, of] { pump(of); });
      return;
    }
    fault_point("source.pushing");
    std::vector<page_range> part;
    std::size_t bytes = 0;
    std::shared_lock memory(of->memory);
    if (of->gone) return;
    while (bytes < chunk && looked_at < most_looked_at) {
      char* page = of->left.first_from(of->next);
      if (page == nullptr) page = of->left.first_from(what.from);
      if (page == nullptr) break;
      of->left.remove(page);
      of->next = page + page_size;
      ++looked_at;
      if (all_zero(page)) continue;
      add_range(part, page, page_size);
      bytes += page_size;
    }
    if (bytes > 0) {
      of->under_way += bytes;
      say_pages(*of, part);
    }
    if (of->left.count() == 0) {
      of->all_sent = true;
      say(what.target, what.task, what.number, [](protocol::Reference::Builder out) { out.setAll(); });
    }
  }
}

inline void page_office::finish(const kept_pointer& of) {
  // Nobody asks for more of it.
  bool handed_over = false;
  {
    std::lock_guard guard(lock_);
    if (std::exchange(of->done, true)) return;
    handed_over = of->handed_over;
  }
  if (handed_over) release(of);
}

inline void page_office::release(const kept_pointer& of) {
  keepers_->push([this, of] {
    {
      std::unique_lock memory(of->memory);
      of->gone = true;
    }
    of->let_go();
    std::lock_guard guard(lock_);
    auto found = kept_.find(of->what.task);
    if (found != kept_.end() && found->second == of) kept_.erase(found);
    kept_count_ = kept_.size();
  });
}

} // namespace migrate::detail
