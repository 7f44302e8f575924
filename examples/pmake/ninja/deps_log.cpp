#include "deps_log.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "disk.hpp"
#include "error.hpp"

namespace pmake {

namespace {

constexpr std::string_view signature = "# ninjadeps\n";
constexpr std::uint32_t version = 4;
constexpr std::uint32_t deps_bit = 0x8000'0000, most_bytes = (1u << 19) - 1;

void append_word(std::string& to, std::uint32_t word) {
  char bytes[4];
  std::memcpy(bytes, &word, 4);
  to.append(bytes, 4);
}

std::string head() {
  std::string bytes(signature);
  append_word(bytes, version);
  return bytes;
}

} // namespace

deps_log::deps_log(graph& of, std::string path) : graph_(of), path_(std::move(path)) {}
deps_log::~deps_log() { close(); }

bool deps_log::load(const std::function<void(const std::string&)>& warn) {
  file_text file = read_file(path_);
  if (file.reason == ENOENT) return false;
  if (file.reason != 0) throw build_error("loading deps log " + path_ + ": " + reason_text(file.reason));
  std::string first = head();
  if (file.view().substr(0, first.size()) != first) {
    bool other = file.size >= first.size() && file.view().substr(0, signature.size()) == signature;
    warn(other ? "deps log version change; rebuilding" : "bad deps log signature or version; starting over");
    remove_file(path_);
    return true;
  }
  std::size_t size = file.size;
  std::size_t good = read(graph_.memory.keep(std::move(file.bytes), size));
  if (good == size) return true;
  if (::truncate(path_.c_str(), static_cast<off_t>(good)) != 0)
    throw build_error("loading deps log " + path_ + ": " + reason_text(errno));
  warn("premature end of file; recovering");
  return true;
}

std::size_t deps_log::read(std::string_view text) {
  // Returns where the first damaged record begins, or the end.
  std::size_t at = signature.size() + 4;
  auto word = [&](std::size_t where) {
    std::uint32_t value;
    std::memcpy(&value, text.data() + where, 4);
    return value;
  };
  while (at + 4 <= text.size()) {
    std::uint32_t size = word(at) & ~deps_bit;
    bool deps = (word(at) & deps_bit) != 0;
    std::size_t begin = at + 4;
    if (size > most_bytes || size % 4 != 0 || begin + size > text.size()) return at;
    if (deps) {
      if (size < 12) return at;
      record_of read;
      std::uint32_t output = word(begin);
      read.time =
          static_cast<file_time>(std::uint64_t{word(begin + 4)} | std::uint64_t{word(begin + 8)} << 32);
      read.numbers = reinterpret_cast<const std::uint32_t*>(text.data() + begin + 12);
      read.count = (size - 12) / 4;
      if (output >= nodes_.size()) return at;
      for (std::uint32_t i = 0; i < read.count; ++i)
        if (read.numbers[i] >= nodes_.size()) return at;
      remember(output, read);
    } else {
      if (size < 8 || word(begin + size - 4) != ~static_cast<std::uint32_t>(nodes_.size())) return at;
      std::string_view name = text.substr(begin, size - 4);
      for (int padding = 0; padding < 3 && name.back() == '\0'; ++padding) name.remove_suffix(1);
      node& known = graph_.file_kept(name);
      if (known.deps_id >= 0) return at;
      known.deps_id = static_cast<std::int32_t>(nodes_.size());
      nodes_.push_back(&known);
    }
    at = begin + size;
  }
  return at;
}

void deps_log::remember(std::uint32_t number, const record_of& what) {
  if (number >= records_of_.size()) records_of_.resize(nodes_.size());
  ++records_;
  if (records_of_[number].numbers == nullptr) ++outputs_;
  records_of_[number] = what;
}

const deps_log::record_of* deps_log::find(const node& output) const noexcept {
  auto number = static_cast<std::size_t>(output.deps_id);
  if (output.deps_id < 0 || number >= records_of_.size() || records_of_[number].numbers == nullptr)
    return nullptr;
  return &records_of_[number];
}

std::vector<node*> deps_log::inputs_of(const record_of& what) const {
  std::vector<node*> inputs;
  inputs.reserve(what.count);
  for (std::uint32_t i = 0; i < what.count; ++i) inputs.push_back(nodes_[what.numbers[i]]);
  return inputs;
}

void deps_log::append_name(std::string& to, node& what) {
  std::size_t padded = (what.size + 3u) / 4 * 4;
  if (padded + 4 > most_bytes) throw build_error("Error writing to deps log: " + reason_text(ERANGE));
  append_word(to, static_cast<std::uint32_t>(padded + 4));
  to.append(what.path());
  to.append(padded - what.size, '\0');
  append_word(to, ~static_cast<std::uint32_t>(nodes_.size()));
  what.deps_id = static_cast<std::int32_t>(nodes_.size());
  nodes_.push_back(&what);
}

void deps_log::append_record(std::string& to, node& output, file_time time, node* const* inputs,
                             std::size_t count) {
  if (output.deps_id < 0) append_name(to, output);
  for (std::size_t i = 0; i < count; ++i)
    if (inputs[i]->deps_id < 0) append_name(to, *inputs[i]);
  std::size_t size = 4 * (3 + count);
  if (size > most_bytes) throw build_error("Error writing to deps log: " + reason_text(ERANGE));
  append_word(to, static_cast<std::uint32_t>(size) | deps_bit);
  append_word(to, static_cast<std::uint32_t>(output.deps_id));
  append_word(to, static_cast<std::uint32_t>(time));
  append_word(to, static_cast<std::uint32_t>(time >> 32));
  // Never empty, so that a record without inputs is told from none.
  auto* numbers = graph_.memory.array<std::uint32_t>(count + 1);
  for (std::size_t i = 0; i < count; ++i) {
    numbers[i] = static_cast<std::uint32_t>(inputs[i]->deps_id);
    append_word(to, numbers[i]);
  }
  remember(static_cast<std::uint32_t>(output.deps_id), {time, numbers, static_cast<std::uint32_t>(count)});
}

void deps_log::record(node& output, file_time time, const std::vector<node*>& inputs) {
  if (const record_of* known = find(output);
      known != nullptr && known->time == time && known->count == inputs.size()) {
    bool same = true;
    for (std::size_t i = 0; i < inputs.size() && same; ++i) same = nodes_[known->numbers[i]] == inputs[i];
    if (same) return;
  }
  std::string bytes;
  if (file_ < 0) {
    make_folders_of(path_);
    file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file_ < 0) throw build_error("opening deps log: " + reason_text(errno));
    if (::lseek(file_, 0, SEEK_END) == 0) bytes = head();
  }
  append_record(bytes, output, time, inputs.data(), inputs.size());
  write(bytes);
}

void deps_log::write(const std::string& bytes) {
  for (std::string_view rest = bytes; !rest.empty();) {
    auto put = ::write(file_, rest.data(), rest.size());
    if (put < 0 && errno != EINTR) throw build_error("Error writing to deps log: " + reason_text(errno));
    if (put > 0) rest.remove_prefix(static_cast<std::size_t>(put));
  }
}

void deps_log::close() noexcept {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
}

bool deps_log::is_live(const node& output) {
  return output.in != nullptr && is_set(*output.in, symbol::deps);
}

void deps_log::recompact() {
  close();
  std::vector<node*> old_nodes;
  std::vector<record_of> old_records;
  old_nodes.swap(nodes_);
  old_records.swap(records_of_);
  records_ = outputs_ = 0;
  for (node* each : old_nodes) each->deps_id = -1;
  std::string bytes = head();
  std::vector<node*> inputs;
  for (std::size_t i = 0; i < old_records.size(); ++i) {
    if (old_records[i].numbers == nullptr || !is_live(*old_nodes[i])) continue;
    inputs.clear();
    for (std::uint32_t j = 0; j < old_records[i].count; ++j)
      inputs.push_back(old_nodes[old_records[i].numbers[j]]);
    append_record(bytes, *old_nodes[i], old_records[i].time, inputs.data(), inputs.size());
  }
  std::string fresh = path_ + ".recompact";
  write_file(fresh, bytes);
  if (::rename(fresh.c_str(), path_.c_str()) != 0)
    throw build_error("rename(" + fresh + "): " + reason_text(errno));
}

} // namespace pmake
