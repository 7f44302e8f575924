#include "trace.hpp"

#include <cerrno>

#include "disk.hpp"
#include "error.hpp"
#include "json.hpp"

namespace pmake {

trace::trace(const std::string& path) : file_(std::fopen(path.c_str(), "we")) {
  if (file_ == nullptr) throw build_error("opening trace '" + path + "': " + reason_text(errno));
  std::fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", file_);
}

trace::~trace() {
  std::fputs("\n]}\n", file_);
  std::fclose(file_);
}

void trace::append(const std::string& event) {
  std::fprintf(file_, "%s\n%s", any_ ? "," : "", event.c_str());
  any_ = true;
}

double trace::microseconds(std::chrono::steady_clock::time_point when) const {
  return std::chrono::duration<double, std::micro>(when - begin_).count();
}

unsigned trace::row_of(const std::string& host) {
  auto [found, fresh] = hosts_.try_emplace(host, static_cast<unsigned>(hosts_.size()) + 1);
  if (fresh)
    append(
        formatted("{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%u,\"tid\":0,\"args\":{\"name\":\"%s\"}}",
                  found->second, host.empty() ? "this host" : json_escaped(host).c_str()));
  return found->second;
}

void trace::add(const finished_job& done) {
  const edge& of = *done.what;
  add({std::string(of.outputs[0]->path()), std::string(of.how->name), value_of(of, symbol::command),
       done.how == outcome::succeeded, done.host, done.slot, done.begin, done.end});
}

void trace::add(const run& done) {
  unsigned host = row_of(done.host);
  if (slots_.emplace(host, done.slot).second)
    append(formatted(
        "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":\"slot %u\"}}", host,
        done.slot, done.slot));
  append(
      formatted("{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"ts\":%.1f,\"dur\":%.1f,\"pid\":%u,\"tid\":%u,"
                "\"args\":{\"command\":\"%s\",\"result\":\"%s\"}}",
                json_escaped(done.name).c_str(), json_escaped(done.kind).c_str(), microseconds(done.begin),
                microseconds(done.end) - microseconds(done.begin), host, done.slot,
                json_escaped(done.command).c_str(), done.succeeded ? "succeeded" : "failed"));
}

void trace::note(const std::string& host, const std::string& what) {
  unsigned row = row_of(host);
  append(formatted("{\"name\":\"%s\",\"ph\":\"i\",\"s\":\"p\",\"ts\":%.1f,\"pid\":%u,\"tid\":0}",
                   json_escaped(what).c_str(), microseconds(std::chrono::steady_clock::now()), row));
  std::fflush(file_); // they are few, and who looks at a build that hangs wants to see them
}

} // namespace pmake
