// The home's side of pipes whose ends may be on several machines, and what tasks ask of it.
#pragma once

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include <migrate/file/home_pipe.hpp>
#include <migrate/file/open_file.hpp>
#include <migrate/home/request.hpp>

namespace migrate::detail {

enum class pipe_message : std::uint8_t {
  read,   // number, bytes wanted, whether not to wait
  write,  // number, whether not to wait, the bytes
  cancel, // number: the request is given up, unless it is done; then its answer
  state,  // what poll() asks
  hold,   // a task has given the end to a child: the two's ids
  leave,  // the task has closed the end; to how many it gave it before
};

class pipe_home {
  // The bytes are here and nowhere else, so that either end may move, or die, at any moment. A request is numbered by
  // its task and its answer kept until the next, since a task that moves while it waits asks again. Answers carry
  // `first` bytes, or a negative errno.

public:
  static constexpr std::size_t capacity = std::size_t{1} << 20;
  static constexpr std::size_t chunk = std::size_t{256} << 10; // the most that one request reads or writes

  void on_message(const request& asked, pipe_message what, const pipe_end& end, byte_reader& in);
  void task_ended(task_id task) noexcept;
  // Of this home: what it held is closed.

private:
  struct holder {
    bool known = false;           // the message that it was given the end has come, or it made the pipe
    bool left = false;            // it has closed the end, or ended
    std::uint32_t given = 0;      // how many children it is known to have given the end to
    std::uint32_t to_be_given = 0; // when it left: how many there were
    std::uint64_t number = 0;     // of its last request that was answered
    long done = 0;
    node_bytes bytes;

    bool gone() const noexcept { return known && left && given >= to_be_given; }
  };
  struct pending {
    request asker;
    std::uint64_t number = 0;
    std::size_t wanted = 0;
    std::string bytes;
  };
  struct side {
    std::map<task_id, holder> holders;
    std::deque<pending> waiting;
  };
  struct pipe {
    side readers, writers;
    std::string bytes;
    std::size_t first = 0; // of `bytes`, that is not read yet
    std::size_t size() const noexcept { return bytes.size() - first; }
  };

  static void answer_done(side& of, const request& asker, std::uint64_t number, long done, node_bytes&& bytes = {});
  static void say(const holder& who, const request& asker);
  static void take_bytes(pipe& from, std::size_t most, node_bytes& into);
  static void go_on(pipe& at);
  static bool again(side& of, const request& asker, std::uint64_t number);
  void forget_if_gone(const shared_key& key);
  void close(pipe& at, task_id task, bool writes, std::uint32_t given);

  std::mutex lock_;
  std::unordered_map<shared_key, pipe, shared_key_hash> pipes_;
};
// Thread safety: any thread, in a node_heap_scope.

inline constinit pipe_home* this_pipe_home = nullptr;

inline void pipe_home::answer_done(side& of, const request& asker, std::uint64_t number, long done, node_bytes&& bytes) {
  holder& who = of.holders[asker.task];
  who.number = number;
  who.done = done;
  who.bytes = std::move(bytes);
  say(who, asker);
}

inline void pipe_home::say(const holder& who, const request& asker) {
  answer result;
  result.first = static_cast<std::uint64_t>(who.done);
  result.bytes = node_bytes(who.bytes.data(), who.bytes.size());
  reply(asker, std::move(result));
}

inline bool pipe_home::again(side& of, const request& asker, std::uint64_t number) {
  // Whether the request was here before.
  holder& who = of.holders[asker.task];
  if (who.number == number) {
    say(who, asker);
    return true;
  }
  for (pending& each : of.waiting)
    if (each.asker.task == asker.task && each.number == number) {
      each.asker = asker;
      return true;
    }
  return false;
}

inline void pipe_home::take_bytes(pipe& from, std::size_t most, node_bytes& into) {
  std::size_t count = std::min(most, from.size());
  into = node_bytes(reinterpret_cast<const std::byte*>(from.bytes.data() + from.first), count);
  from.first += count;
  if (from.first == from.bytes.size()) {
    from.bytes.clear();
    from.first = 0;
  } else if (from.first >= capacity) {
    from.bytes.erase(0, from.first);
    from.first = 0;
  }
}

inline void pipe_home::go_on(pipe& at) {
  auto nobody = [](const side& of) {
    return std::all_of(of.holders.begin(), of.holders.end(), [](const auto& each) { return each.second.gone(); });
  };
  for (bool changed = true; changed;) {
    changed = false;
    if (!at.writers.waiting.empty()) {
      pending& next = at.writers.waiting.front();
      bool broken = nobody(at.readers);
      if (broken || at.size() + next.bytes.size() <= capacity) {
        pending mine = std::move(next);
        at.writers.waiting.pop_front();
        if (!broken) at.bytes += mine.bytes;
        answer_done(at.writers, mine.asker, mine.number, broken ? -EPIPE : static_cast<long>(mine.bytes.size()));
        changed = true;
      }
    }
    if (!at.readers.waiting.empty() && (at.size() > 0 || (at.writers.waiting.empty() && nobody(at.writers)))) {
      pending mine = std::move(at.readers.waiting.front());
      at.readers.waiting.pop_front();
      node_bytes got;
      take_bytes(at, mine.wanted, got);
      long count = static_cast<long>(got.size());
      answer_done(at.readers, mine.asker, mine.number, count, std::move(got));
      changed = true;
    }
  }
}

inline void pipe_home::close(pipe& at, task_id task, bool writes, std::uint32_t given) {
  side& mine = writes ? at.writers : at.readers;
  holder& who = mine.holders[task];
  who.left = true;
  who.to_be_given = given;
  std::erase_if(mine.waiting, [&](const pending& each) { return each.asker.task == task; });
}

inline void pipe_home::forget_if_gone(const shared_key& key) {
  auto found = pipes_.find(key);
  if (found == pipes_.end()) return;
  auto gone = [](const side& of) {
    return !of.holders.empty() &&
           std::all_of(of.holders.begin(), of.holders.end(), [](const auto& each) { return each.second.gone(); });
  };
  if (gone(found->second.readers) && gone(found->second.writers)) pipes_.erase(found);
}

inline void pipe_home::on_message(const request& asked, pipe_message what, const pipe_end& end, byte_reader& in) {
  std::lock_guard guard(lock_);
  pipe& at = pipes_[end.key];
  task_id maker(end.key.task);
  at.readers.holders[maker].known = true;
  at.writers.holders[maker].known = true;
  side& mine = end.writes ? at.writers : at.readers;
  switch (what) {
  case pipe_message::read:
  case pipe_message::write: {
    pending wanted{asked, in.get<std::uint64_t>(), 0, {}};
    bool wait = in.get<bool>();
    wanted.wanted = static_cast<std::size_t>(in.get<std::uint64_t>());
    if (again(mine, asked, wanted.number)) return;
    if (what == pipe_message::write) {
      wanted.bytes.resize(std::min(wanted.wanted, in.left()));
      in.get(wanted.bytes.data(), wanted.bytes.size());
    }
    std::size_t room = capacity - std::min(capacity, at.size());
    if (!wait && what == pipe_message::write && wanted.bytes.size() > room && wanted.bytes.size() > PIPE_BUF)
      wanted.bytes.resize(std::max<std::size_t>(room, 1)); // a part, as from the kernel
    std::uint64_t number = wanted.number;
    mine.waiting.push_back(std::move(wanted));
    go_on(at);
    if (!wait && !mine.waiting.empty() && mine.waiting.back().asker.task == asked.task) {
      mine.waiting.pop_back();
      answer_done(mine, asked, number, -EAGAIN);
    }
    break;
  }
  case pipe_message::cancel: {
    auto number = in.get<std::uint64_t>();
    std::size_t before = mine.waiting.size();
    std::erase_if(mine.waiting, [&](const pending& each) { return each.asker.task == asked.task; });
    if (mine.holders[asked.task].number != number || before != mine.waiting.size())
      answer_done(mine, asked, number, -EINTR);
    else
      again(mine, asked, number);
    go_on(at);
    break;
  }
  case pipe_message::state: {
    auto nobody = [](const side& of) {
      return std::all_of(of.holders.begin(), of.holders.end(), [](const auto& each) { return each.second.gone(); });
    };
    pipe_state now{at.size(), capacity - std::min(capacity, at.size()), nobody(at.readers), nobody(at.writers)};
    byte_writer out;
    out.put(now);
    answer result;
    result.bytes = node_bytes(out.bytes().data(), out.bytes().size());
    reply(asked, std::move(result));
    break;
  }
  case pipe_message::hold: {
    task_id giver(in.get<std::uint64_t>());
    task_id child(in.get<std::uint64_t>());
    mine.holders[child].known = true;
    ++mine.holders[giver].given;
    go_on(at);
    break;
  }
  case pipe_message::leave:
    close(at, asked.task, end.writes, in.get<std::uint32_t>());
    go_on(at);
    break;
  }
  forget_if_gone(end.key);
}

inline void pipe_home::task_ended(task_id task) noexcept {
  std::lock_guard guard(lock_);
  for (auto each = pipes_.begin(); each != pipes_.end();) {
    auto next = std::next(each);
    pipe& at = each->second;
    shared_key key = each->first;
    bool held = false;
    for (side* of : {&at.readers, &at.writers}) {
      auto found = of->holders.find(task);
      if (found == of->holders.end() || found->second.left) continue;
      held = true;
      found->second.known = true;
      found->second.left = true; // what it gave on and home did not hear of went with it
      std::erase_if(of->waiting, [&](const pending& one) { return one.asker.task == task; });
    }
    if (held) {
      go_on(at);
      forget_if_gone(key);
    }
    each = next;
  }
}

// --- the service, and what tasks call ----------------------------------------------------------------

namespace home_pipes {

inline void on_request(const request& asked, byte_reader& in) {
  auto what = in.get<pipe_message>();
  auto end = in.get<pipe_end>();
  this_pipe_home->on_message(asked, what, end, in);
}

template <class Fill> called ask(const pipe_end& end, pipe_message what, bool interruptible, Fill&& fill) {
  for (;;) {
    called made = ask_home(
        end.key.home(), service::pipe,
        [&](byte_writer& out) {
          out.put(what);
          out.put(end);
          fill(out);
        },
        nullptr, interruptible);
    if (made.how != waited::moved) return made;
  }
}

inline long finish(const pipe_end& end, std::uint64_t number, called& made) {
  if (made.how == waited::interrupted)
    made = ask(end, pipe_message::cancel, false, [&](byte_writer& out) { out.put(number); });
  return made.got.code == errc::ok ? static_cast<long>(made.got.first) : -EIO;
}

inline long read(const pipe_end& which, std::uint64_t number, bool wait, void* into, std::size_t bytes) {
  pipe_end end = which;
  called made = ask(end, pipe_message::read, wait, [&](byte_writer& out) {
    out.put(number);
    out.put(wait);
    out.put(std::uint64_t{std::min(bytes, pipe_home::chunk)});
  });
  long got = finish(end, number, made);
  if (got > 0) std::memcpy(into, made.got.bytes.data(), std::min({made.got.bytes.size(), static_cast<std::size_t>(got), bytes}));
  return got;
}

inline long write(const pipe_end& which, std::uint64_t number, bool wait, const void* from, std::size_t bytes) {
  pipe_end end = which;
  std::size_t part = std::min(bytes, pipe_home::chunk);
  called made = ask(end, pipe_message::write, wait, [&](byte_writer& out) {
    out.put(number);
    out.put(wait);
    out.put(std::uint64_t{part});
    out.put(from, part);
  });
  return finish(end, number, made);
}

inline long state(const pipe_end& which, pipe_state& into) {
  pipe_end end = which;
  called made = ask(end, pipe_message::state, false, [](byte_writer&) {});
  if (made.got.code != errc::ok) return -EIO;
  byte_reader in(made.got.bytes.data(), made.got.bytes.size());
  into = in.get<pipe_state>();
  return 0;
}

inline void give(const pipe_end& end, task_id giver, task_id child) {
  node_heap_scope scope;
  tell_service(end.key.home(), service::pipe, [&](byte_writer& out) {
    out.put(pipe_message::hold);
    out.put(end);
    out.put(giver.bits());
    out.put(child.bits());
  });
}

inline void leave(const pipe_end& end) {
  node_heap_scope scope;
  tell_service(end.key.home(), service::pipe, [&](byte_writer& out) {
    out.put(pipe_message::leave);
    out.put(end);
    out.put(end.given);
  });
}

} // namespace home_pipes
} // namespace migrate::detail
