// The process's own standard streams, when a task uses them: std::cout and its like.
#pragma once

#include <cstdint>
#include <iostream>
#include <streambuf>

#include <migrate/file/streams.hpp>

namespace migrate::detail {

class stream_router final : public std::streambuf {
public:
  // Takes the place of a standard stream's buffer. It keeps nothing itself, so tasks may move inside its calls.
  enum class kind : std::uint8_t { out, err, in };

  stream_router(std::ios& stream, kind which) : stream_(stream), own_(stream.rdbuf()), which_(which) {
    stream_.rdbuf(this);
  }
  ~stream_router() override { stream_.rdbuf(own_); }
  stream_router(const stream_router&) = delete;
  stream_router& operator=(const stream_router&) = delete;

private:
  std::streambuf& target() const {
    stream_state* mine = streams_of_task();
    if (mine == nullptr) return *own_;
    switch (which_) {
    case kind::out: return mine->out;
    case kind::err: return mine->err;
    default: return mine->in;
    }
  }

  std::streamsize xsputn(const char* text, std::streamsize count) override { return target().sputn(text, count); }
  int_type overflow(int_type c) override {
    if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
    return target().sputc(traits_type::to_char_type(c));
  }
  int sync() override {
    // std::cerr asks for it after each piece of a line: a task's goes home line by line all the same.
    return which_ == kind::err && &target() != own_ ? 0 : target().pubsync();
  }
  int_type underflow() override { return target().sgetc(); }
  int_type uflow() override { return target().sbumpc(); }
  int_type pbackfail(int_type c) override {
    return traits_type::eq_int_type(c, traits_type::eof()) ? target().sungetc()
                                                           : target().sputbackc(traits_type::to_char_type(c));
  }
  std::streamsize showmanyc() override { return target().in_avail(); }

  std::ios& stream_;
  std::streambuf* own_;
  kind which_;
};

struct process_streams {
  stream_router cout{std::cout, stream_router::kind::out};
  stream_router cerr{std::cerr, stream_router::kind::err};
  stream_router clog{std::clog, stream_router::kind::err};
  stream_router cin{std::cin, stream_router::kind::in};
};
// One in the process, while it has a node. Made and destroyed while no task runs.

} // namespace migrate::detail
