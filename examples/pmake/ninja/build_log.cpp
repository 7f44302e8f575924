#include "build_log.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "disk.hpp"
#include "error.hpp"

namespace pmake {

namespace {

constexpr std::string_view signature = "# ninja log v";
constexpr int version = 5;

template <class Number> bool take_number(std::string_view& line, Number& value, int base = 10) {
  auto [end, code] = std::from_chars(line.data(), line.data() + line.size(), value, base);
  if (code != std::errc() || end == line.data()) return false;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  return true;
}

bool take_tab(std::string_view& line) {
  if (line.empty() || line[0] != '\t') return false;
  line.remove_prefix(1);
  return true;
}

bool parse(std::string_view line, log_entry& entry) {
  if (!take_number(line, entry.start) || !take_tab(line) || !take_number(line, entry.end) ||
      !take_tab(line) || !take_number(line, entry.time) || !take_tab(line))
    return false;
  std::size_t tab = line.rfind('\t');
  if (tab == 0 || tab == line.npos) return false;
  entry.output = line.substr(0, tab);
  line.remove_prefix(tab + 1);
  return take_number(line, entry.command, 16) && line.empty();
}

std::string line_of(const log_entry& entry) {
  return formatted("%d\t%d\t%lld\t", entry.start, entry.end, static_cast<long long>(entry.time)) +
         std::string(entry.output) + formatted("\t%llx\n", static_cast<unsigned long long>(entry.command));
}

std::string head() { return std::string(signature) + std::to_string(version) + "\n"; }

} // namespace

build_log::build_log(graph& of, std::string path) : graph_(of), path_(std::move(path)) {}
build_log::~build_log() { close(); }

bool build_log::load(const std::function<void(const std::string&)>& warn) {
  file_text file = read_file(path_);
  if (file.reason == ENOENT) return false;
  if (file.reason != 0) throw build_error("loading build log " + path_ + ": " + reason_text(file.reason));
  std::string_view text = file.view();
  if (text.empty()) return true;
  int found = 0;
  std::string_view first = text.substr(0, text.find('\n'));
  if (first.substr(0, signature.size()) == signature) {
    first.remove_prefix(signature.size());
    if (!take_number(first, found) || !first.empty()) found = 0;
  }
  if (found != version) {
    warn(found > version ? "build log version is too new; starting over"
                         : "build log version invalid, perhaps due to being too old; starting over");
    remove_file(path_);
    return true;
  }
  torn_ = text.back() != '\n';
  for (text.remove_prefix(std::min(text.size(), text.find('\n'))); text.size() > 1;) {
    text.remove_prefix(1);
    std::size_t end = std::min(text.size(), text.find('\n'));
    log_entry read;
    if (parse(text.substr(0, end), read)) {
      log_entry& entry = find_or_add(read.output);
      read.output = entry.output;
      entry = read;
      ++lines_;
    }
    text.remove_prefix(end);
  }
  return true;
}

log_entry* build_log::find(node& output) noexcept {
  if (output.logged == nullptr && !strangers_.empty())
    if (auto stranger = strangers_.find(output.path()); stranger != strangers_.end()) {
      output.logged = stranger->second;
      strangers_.erase(stranger);
    }
  return output.logged;
}

log_entry& build_log::find_or_add(std::string_view output) {
  node* known = graph_.find(output);
  if (known == nullptr) {
    auto stranger = strangers_.find(output);
    if (stranger != strangers_.end()) return *stranger->second;
  } else if (find(*known) != nullptr) {
    return *known->logged;
  }
  log_entry* made = graph_.memory.make<log_entry>();
  entries_.push_back(made);
  if (known != nullptr) {
    made->output = known->path();
    known->logged = made;
  } else {
    made->output = graph_.memory.copy(output);
    strangers_.emplace(made->output, made);
  }
  return *made;
}

void build_log::record(const edge& of, std::uint64_t command, std::int32_t start, std::int32_t end,
                       file_time time) {
  std::string lines;
  if (file_ < 0) {
    make_folders_of(path_);
    file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file_ < 0) throw build_error("opening build log: " + reason_text(errno));
    if (::lseek(file_, 0, SEEK_END) == 0)
      lines = head();
    else if (torn_)
      lines.push_back('\n');
    torn_ = false;
  }
  for (node* output : of.outputs) {
    log_entry& entry = find_or_add(output->path());
    entry.command = command;
    entry.start = start;
    entry.end = end;
    entry.time = time;
    lines += line_of(entry);
  }
  // One system call, so that lines of two builds in one tree do not mix.
  for (std::string_view rest = lines; !rest.empty();) {
    auto put = ::write(file_, rest.data(), rest.size());
    if (put < 0 && errno != EINTR) throw build_error("Error writing to build log: " + reason_text(errno));
    if (put > 0) rest.remove_prefix(static_cast<std::size_t>(put));
  }
}

void build_log::close() noexcept {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
}

void build_log::recompact() {
  std::erase_if(entries_, [&](log_entry* entry) {
    node* known = graph_.find(entry->output);
    if ((known != nullptr && known->in != nullptr) || time_of(std::string(entry->output)) != missing)
      return false;
    if (known != nullptr) known->logged = nullptr;
    strangers_.erase(entry->output);
    return true;
  });
  rewrite(".recompact");
}

void build_log::restat(const std::vector<std::string>& outputs) {
  for (log_entry* entry : entries_)
    if (outputs.empty() || std::find(outputs.begin(), outputs.end(), entry->output) != outputs.end())
      entry->time = time_of(std::string(entry->output));
  rewrite(".restat");
}

void build_log::rewrite(const char* suffix) {
  close();
  std::string text = head();
  for (const log_entry* entry : entries_) text += line_of(*entry);
  std::string fresh = path_ + suffix;
  write_file(fresh, text);
  if (::rename(fresh.c_str(), path_.c_str()) != 0)
    throw build_error("rename(" + fresh + "): " + reason_text(errno));
  lines_ = entries_.size();
  torn_ = false;
}

} // namespace pmake
