// Standard streams on the home's side: each write whole, in order and once, and input for whoever asked first.
#pragma once

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/file/streams.hpp>
#include <migrate/home/office.hpp>
#include <migrate/home/request.hpp>

namespace migrate::detail {

enum class stream_request : std::uint8_t { write, read, look };

class home_streams {
public:
  home_streams() : stop_(::eventfd(0, EFD_CLOEXEC)) {
    if (stop_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  }
  ~home_streams() {
    {
      std::lock_guard guard(lock_);
      stopping_ = true;
    }
    changed_.notify_all();
    std::uint64_t one = 1;
    static_cast<void>(::write(stop_, &one, sizeof one));
    if (writer_.joinable()) writer_.join();
    if (reader_.joinable()) reader_.join();
    ::close(stop_);
  }
  home_streams(const home_streams&) = delete;
  home_streams& operator=(const home_streams&) = delete;

  void write(const request& asked, int stream, std::uint64_t number, std::string text);
  void read(const request& asked, std::uint64_t number, std::size_t bytes);
  bool input_waits(task_id task, std::uint64_t number);

  void restarted(task_id task);
  // From a checkpoint: it numbers what it writes and asks for from where it was then.
  static void on_request(const request& asked, byte_reader& in);

private:
  static constexpr std::size_t chunk = 4096; // what a pipe that polls as writable takes without blocking

  struct task_streams {
    std::uint64_t written = 0; // the last number taken on, and what came of it
    std::int64_t result = 0;
    std::optional<request> writing; // who hears of it; none: it is done
    std::uint64_t asked = 0;
    std::int64_t status = 0;
    std::string input;
    std::optional<request> reading;
  };
  struct waiting_write {
    task_id task;
    int stream;
    std::string text;
  };
  struct waiting_read {
    task_id task;
    std::size_t bytes;
  };

  task_streams& of(task_id task);
  bool takes_at_once(int stream, std::size_t bytes) noexcept;
  std::int64_t put(int stream, const std::string& text) noexcept;
  void written(task_id task, std::int64_t result);
  void write_waiting();
  void read_waiting();
  bool wait_for(int descriptor, short events) noexcept;
  static answer to_answer(std::int64_t status, const std::string& bytes) {
    answer made;
    made.first = static_cast<std::uint64_t>(status);
    made.bytes = {bytes.data(), bytes.size()};
    return made;
  }

  int stop_;
  std::mutex lock_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool busy_ = false; // somebody is writing
  std::unordered_map<task_id, task_streams> tasks_;
  std::size_t sweep_at_ = 64;
  std::deque<waiting_write> writes_;
  std::deque<waiting_read> reads_;
  std::string unclaimed_; // input whose reader ended before it came
  std::thread writer_;    // for streams that do not take everything at once
  std::thread reader_;
};
// Thread safety: any thread, inside a node_heap_scope where a task runs. A request never waits: where a stream would
// make it, one of two threads does.

inline constinit home_streams* this_streams = nullptr;

inline home_streams::task_streams& home_streams::of(task_id task) {
  // With the lock held. Tasks that are gone are forgotten at times.
  if (tasks_.size() >= sweep_at_) {
    std::erase_if(tasks_, [](const auto& each) {
      home_record* record = this_home->records().find(each.first);
      if (record == nullptr) return true;
      held guard(record->lock);
      return !home_records::holds(*record, each.first) && !each.second.writing && !each.second.reading;
    });
    sweep_at_ = std::max<std::size_t>(64, 2 * tasks_.size());
  }
  return tasks_[task];
}

inline bool home_streams::takes_at_once(int stream, std::size_t bytes) noexcept {
  struct stat status {};
  if (::fstat(stream, &status) == 0 && S_ISREG(status.st_mode)) return true;
  pollfd one{stream, POLLOUT, 0};
  return bytes <= chunk && ::poll(&one, 1, 0) == 1;
}

inline bool home_streams::wait_for(int descriptor, short events) noexcept {
  // False when the node is being stopped.
  pollfd both[2] = {{descriptor, events, 0}, {stop_, POLLIN, 0}};
  while (::poll(both, 2, -1) < 0 && errno == EINTR) {
  }
  return both[1].revents == 0;
}

inline std::int64_t home_streams::put(int stream, const std::string& text) noexcept {
  // A broken pipe is the task's to hear of, not the node's to die of.
  sigset_t broken;
  sigset_t before;
  ::sigemptyset(&broken);
  ::sigaddset(&broken, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &broken, &before);
  std::size_t done = 0;
  std::int64_t result = 0;
  while (done < text.size()) {
    ssize_t count = ::write(stream, text.data() + done, std::min(chunk, text.size() - done));
    if (count >= 0) {
      done += static_cast<std::size_t>(count);
      if (done < text.size() && !wait_for(stream, POLLOUT)) break;
    } else if (errno == EAGAIN) {
      if (!wait_for(stream, POLLOUT)) break;
    } else if (errno != EINTR) {
      result = -errno;
      break;
    }
  }
  if (result == -EPIPE) {
    timespec none{};
    ::sigtimedwait(&broken, nullptr, &none);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return done > 0 ? static_cast<std::int64_t>(done) : result;
}

inline void home_streams::write(const request& asked, int stream, std::uint64_t number, std::string text) {
  std::unique_lock guard(lock_);
  task_streams& mine = of(asked.task);
  if (number <= mine.written) { // asked again from another node, or a late copy of an old question
    if (number == mine.written && mine.writing) {
      mine.writing = asked;
      return;
    }
    answer known = to_answer(mine.result, {});
    guard.unlock();
    reply(asked, std::move(known));
    return;
  }
  mine.written = number;
  mine.writing = asked;
  if (busy_ || !writes_.empty() || !takes_at_once(stream, text.size())) {
    writes_.push_back({asked.task, stream, std::move(text)});
    if (!writer_.joinable()) writer_ = std::thread([this] { write_waiting(); });
    changed_.notify_all();
    return;
  }
  busy_ = true;
  guard.unlock();
  written(asked.task, put(stream, text));
}

inline void home_streams::written(task_id task, std::int64_t result) {
  std::optional<request> who;
  {
    std::lock_guard guard(lock_);
    busy_ = false;
    task_streams& its = tasks_[task];
    its.result = result;
    who = std::exchange(its.writing, std::nullopt);
    if (!writes_.empty()) changed_.notify_all();
  }
  if (who) reply(*who, to_answer(result, {}));
}

inline void home_streams::write_waiting() {
  std::unique_lock guard(lock_);
  for (;;) {
    changed_.wait(guard, [&] { return stopping_ || (!busy_ && !writes_.empty()); });
    if (stopping_) return;
    waiting_write next = std::move(writes_.front());
    writes_.pop_front();
    busy_ = true;
    guard.unlock();
    if (wait_for(next.stream, POLLOUT)) written(next.task, put(next.stream, next.text));
    guard.lock();
  }
}

inline void home_streams::read(const request& asked, std::uint64_t number, std::size_t bytes) {
  answer known;
  {
    std::lock_guard guard(lock_);
    task_streams& mine = of(asked.task);
    if (number > mine.asked) {
      mine.asked = number;
      mine.reading = asked;
      mine.input.clear();
      reads_.push_back({asked.task, bytes});
      if (!reader_.joinable()) reader_ = std::thread([this] { read_waiting(); });
      changed_.notify_all();
      return;
    }
    if (number < mine.asked) return; // a late copy: nobody waits for it
    if (mine.reading) {
      mine.reading = asked;
      return;
    }
    known = to_answer(mine.status, mine.input);
  }
  reply(asked, std::move(known));
}

inline bool home_streams::input_waits(task_id task, std::uint64_t number) {
  std::lock_guard guard(lock_);
  task_streams& its = of(task);
  if (number != 0 && its.asked == number) return !its.reading; // it has been answered, or will be
  pollfd input{0, POLLIN, 0};
  return !unclaimed_.empty() || ::poll(&input, 1, 0) == 1;
}

inline void home_streams::restarted(task_id task) {
  std::lock_guard guard(lock_);
  task_streams& its = of(task);
  its.written = its.asked = 0;
  its.writing.reset();
  its.reading.reset();
}

inline void home_streams::read_waiting() {
  std::unique_lock guard(lock_);
  for (;;) {
    changed_.wait(guard, [&] { return stopping_ || !reads_.empty(); });
    if (stopping_) return;
    waiting_read next = reads_.front();
    std::int64_t status = 0;
    std::string got = std::exchange(unclaimed_, {});
    if (got.empty()) {
      guard.unlock();
      if (!wait_for(0, POLLIN)) return;
      got.resize(next.bytes);
      ssize_t count = ::read(0, got.data(), got.size());
      status = count >= 0 ? count : -errno;
      got.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
      guard.lock();
      if (status == -EINTR || status == -EAGAIN) continue;
    } else {
      if (got.size() > next.bytes) {
        unclaimed_ = got.substr(next.bytes);
        got.resize(next.bytes);
      }
      status = static_cast<std::int64_t>(got.size());
    }
    reads_.pop_front();
    home_record* record = this_home->records().find(next.task);
    bool there = false;
    if (record != nullptr) {
      held lock(record->lock);
      there = home_records::holds(*record, next.task) && record->ended == nullptr;
    }
    task_streams& its = tasks_[next.task];
    std::optional<request> who = std::exchange(its.reading, std::nullopt);
    if (!there || !who) { // or it was restarted, and asks anew
      unclaimed_.insert(0, got);
      continue;
    }
    its.status = status;
    its.input = std::move(got);
    answer made = to_answer(its.status, its.input);
    guard.unlock();
    if (who) reply(*who, std::move(made));
    guard.lock();
  }
}

inline void home_streams::on_request(const request& asked, byte_reader& in) {
  auto what = in.get<stream_request>();
  auto number = in.get<std::uint64_t>();
  if (what == stream_request::write) {
    int stream = in.get<int>();
    if (stream != 1 && stream != 2) throw error(errc::protocol, "a write to a stream that is no standard one");
    std::string text(in.left(), 0);
    in.get(text.data(), text.size());
    this_streams->write(asked, stream, number, std::move(text));
  } else if (what == stream_request::read) {
    this_streams->read(asked, number, in.get<std::uint32_t>());
  } else {
    answer made;
    made.first = this_streams->input_waits(asked.task, number);
    reply(asked, std::move(made));
  }
}

namespace streams_at_home {

inline std::int64_t write(int stream, std::uint64_t number, const void* data, std::size_t bytes) {
  for (;;) {
    called made = ask_home(self().id.home(), service::stream, [&](byte_writer& out) {
      out.put(stream_request::write);
      out.put(number);
      out.put(stream);
      out.put(data, bytes);
    });
    if (made.how == waited::moved) continue;
    return made.got.code == errc::ok ? static_cast<std::int64_t>(made.got.first) : -EIO;
  }
}

inline std::int64_t read(std::uint64_t number, std::size_t bytes, std::string& into) {
  for (;;) {
    called made = ask_home(
        self().id.home(), service::stream,
        [&](byte_writer& out) {
          out.put(stream_request::read);
          out.put(number);
          out.put(static_cast<std::uint32_t>(bytes));
        },
        nullptr, true);
    if (made.how == waited::moved) continue;
    if (made.how == waited::interrupted) return -EINTR;
    if (made.got.code != errc::ok) return -EIO;
    into.assign(reinterpret_cast<const char*>(made.got.bytes.data()), made.got.bytes.size());
    return static_cast<std::int64_t>(made.got.first);
  }
}

inline bool input_waits(std::uint64_t number) {
  for (;;) {
    called made = ask_home(self().id.home(), service::stream, [&](byte_writer& out) {
      out.put(stream_request::look);
      out.put(number);
    });
    if (made.how != waited::moved) return made.got.code != errc::ok || made.got.first != 0; // a read will say what is wrong
  }
}

inline constexpr stream_services services{write, read, input_waits};

} // namespace streams_at_home
} // namespace migrate::detail
