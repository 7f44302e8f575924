// A task's standard streams: what is not yet at its home, and what came from there and was not yet read.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <istream>
#include <locale>
#include <ostream>
#include <streambuf>
#include <string>
#include <string_view>

#include <migrate/memory/current_heap.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate::detail {

struct stream_services {
  std::int64_t (*write)(int stream, std::uint64_t number, const void* data, std::size_t bytes);
  std::int64_t (*read)(std::uint64_t number, std::size_t bytes, std::string& into);
  // By the running task's home, once for each number of a task; they wait. What write(2) and read(2) return there, or a
  // negative errno.
  bool (*input_waits)(std::uint64_t number);
  // Whether a read would return at once. Waits for home. The number of the last request for input if that has no answer
  // yet, or zero.
};
inline constinit const stream_services* the_streams = nullptr;

std::int64_t stream_write(int stream, const void* data, std::size_t bytes);
std::int64_t stream_read(void* into, std::size_t bytes);

class output_buffer final : public std::streambuf {
public:
  explicit output_buffer(int stream) noexcept : stream_(stream) {}

  bool flush_lines() {
    // Whole lines, so that those of two tasks do not mix; a line without end goes when it gets too long.
    std::size_t end = waiting_.rfind('\n');
    return end != waiting_.npos ? put(end + 1) : waiting_.size() < 4096 || put(waiting_.size());
  }
  bool flush() { return waiting_.empty() || put(waiting_.size()); }
  bool write(const char* text, std::size_t bytes) {
    waiting_.append(text, bytes);
    return flush_lines();
  }

private:
  bool put(std::size_t bytes) {
    std::string now = waiting_.substr(0, bytes); // more may be written while this one is on its way
    waiting_.erase(0, bytes);
    return stream_write(stream_, now.data(), now.size()) >= 0;
  }

  std::streamsize xsputn(const char* text, std::streamsize count) override {
    return write(text, static_cast<std::size_t>(count)) ? count : 0;
  }
  int_type overflow(int_type c) override {
    if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
    char one = traits_type::to_char_type(c);
    return xsputn(&one, 1) == 1 ? c : traits_type::eof();
  }
  int sync() override { return flush() ? 0 : -1; }

  int stream_;
  std::string waiting_;
};

class input_buffer final : public std::streambuf {
private:
  int_type underflow() override {
    if (gptr() < egptr()) return traits_type::to_int_type(*gptr());
    std::int64_t got = -EINTR;
    while (got == -EINTR) got = stream_read(bytes_, sizeof bytes_); // the handlers of signals run in it
    if (got <= 0) return traits_type::eof();
    setg(bytes_, bytes_, bytes_ + got);
    return traits_type::to_int_type(*gptr());
  }

  char bytes_[1024];
};

struct stream_state {
  std::uint64_t written = 0; // the number of the last write
  std::uint64_t asked = 0;   // the number of the last request for input
  bool unanswered = false;   // that one has no answer yet: a signal came first
  std::string rest;          // came with the last answer and was not asked for
  output_buffer out{1};
  output_buffer err{2};
  input_buffer in;
  std::ostream cout{&out};
  std::ostream cerr{&err};
  std::istream cin{&in};

  stream_state() {
    for (std::ios* each : {static_cast<std::ios*>(&cout), static_cast<std::ios*>(&cerr), static_cast<std::ios*>(&cin)})
      each->imbue(std::locale::classic()); // another's parts lie in a node's memory
    cin.tie(&cout);
  }

  static void ending() noexcept {
    stream_state* mine = current_task()->control->process.streams;
    if (mine == nullptr) return;
    mine->out.flush();
    mine->err.flush();
  }
};

inline stream_state& my_streams() {
  control_block& control = *self().control;
  if (control.process.streams == nullptr) control.process.streams = new stream_state;
  return *control.process.streams;
}
// In the task's heap: stays where it is when the task moves. Throws migrate::error (errc::not_in_task).

inline stream_state* streams_of_task() {
  // Of whoever uses a stream of the process; null: the process itself, as what a task does in a node_heap_scope is the
  // node's doing.
  return current_task() != nullptr && current_heap() != nullptr ? &my_streams() : nullptr;
}

inline std::int64_t stream_write(int stream, const void* data, std::size_t bytes) {
  // The running task's write to its home's stream 1 or 2: returns when home has written it, whole and in order. A
  // negative errno when it cannot: EIO when home does not answer.
  safe_point();
  constexpr std::size_t most = std::size_t{1} << 20; // in one message
  stream_state& mine = my_streams();
  std::size_t done = 0;
  while (done < bytes) {
    std::size_t now = std::min(bytes - done, most);
    std::int64_t result = the_streams->write(stream, ++mine.written, static_cast<const char*>(data) + done, now);
    if (result < 0) return done > 0 ? static_cast<std::int64_t>(done) : result;
    done += static_cast<std::size_t>(result);
    if (static_cast<std::size_t>(result) < now) break;
  }
  return static_cast<std::int64_t>(done);
}

inline std::int64_t stream_read(void* into, std::size_t bytes) {
  // The running task's read from its home's standard input: waits until there is something, and returns 0 at its end.
  // A negative errno when it cannot: EINTR when a signal came first.
  safe_point();
  stream_state& mine = my_streams();
  if (bytes == 0) return 0;
  if (mine.rest.empty()) {
    if (!mine.unanswered) ++mine.asked;
    mine.unanswered = true;
    std::int64_t result = the_streams->read(mine.asked, std::min<std::size_t>(bytes, 65'536), mine.rest);
    if (result != -EINTR) mine.unanswered = false;
    if (result <= 0) return result;
  }
  std::size_t given = mine.rest.copy(static_cast<char*>(into), bytes);
  mine.rest.erase(0, given);
  return static_cast<std::int64_t>(given);
}

inline bool stream_has_input() {
  // Asks home unless there is something here.
  stream_state& mine = my_streams();
  return !mine.rest.empty() || the_streams->input_waits(mine.unanswered ? mine.asked : 0);
}

} // namespace migrate::detail
