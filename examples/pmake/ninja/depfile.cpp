#include "depfile.hpp"

#include <algorithm>
#include <unordered_set>

#include "error.hpp"
#include "path.hpp"

namespace pmake {

namespace {

class depfile_reader {
public:
  explicit depfile_reader(std::string_view text) : text_(text.substr(0, text.find('\0'))) {}

  depfile read() {
    bool in_targets = true, seen_colon = false;
    bool input_as_target = false; // in this rule
    while (at_ < text_.size()) {
      bool line_ends = take_name();
      if (!name_.empty() && name_.back() == ':') {
        name_.pop_back();
        seen_colon = true;
        if (in_targets) {
          in_targets = false;
          add_target(input_as_target);
        } else {
          add_input(input_as_target);
        }
      } else if (in_targets) {
        add_target(input_as_target);
      } else {
        add_input(input_as_target);
      }
      if (line_ends) {
        in_targets = true;
        input_as_target = false;
      }
    }
    if (!seen_colon) throw build_error("expected ':' in depfile");
    return std::move(result_);
  }

private:
  bool take_name() {
    // Up to the next space that is not escaped; true when the line ends with it.
    name_.clear();
    for (; at_ < text_.size(); ++at_) {
      char c = text_[at_];
      if (c == '\\') {
        if (take_backslashes()) return false;
      } else if (c == '$' && next() == '$') {
        name_.push_back(c);
        ++at_;
      } else if (c == '\n' || (c == '\r' && next() == '\n')) {
        at_ += c == '\n' ? 1 : 2;
        return true;
      } else if (c == ' ' || c == '\t' || c == '\r') {
        ++at_;
        return false;
      } else {
        name_.push_back(c);
      }
    }
    return true;
  }

  bool take_backslashes() {
    // True when they continue the line, which ends a name. What is left to add is the last character taken.
    std::size_t end = at_;
    while (end < text_.size() && text_[end] == '\\') ++end;
    std::size_t count = end - at_;
    char c = end < text_.size() ? text_[end] : '\0';
    if (c == '\n' || (c == '\r' && end + 1 < text_.size() && text_[end + 1] == '\n')) {
      name_.append(count - 1, '\\');
      at_ = end + (c == '\n' ? 1 : 2);
      return true;
    }
    if (c == ' ' && count % 2 == 1) { // as make: half of them stand for themselves
      name_.append(count / 2, '\\');
      name_.push_back(c);
      at_ = end;
    } else if (c == '#' || (c == ':' && end + 1 < text_.size() && !is_space(text_[end + 1]))) {
      name_.append(count - 1, '\\');
      name_.push_back(c);
      at_ = end;
    } else {
      name_.append(count, '\\');
      at_ = end - 1;
    }
    return false;
  }

  static bool is_space(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
  char next() const noexcept { return at_ + 1 < text_.size() ? text_[at_ + 1] : '\0'; }

  void add_target(bool& input_as_target) {
    if (name_.empty()) return;
    if (inputs_.count(name_) != 0)
      input_as_target = true;
    else if (std::find(result_.outputs.begin(), result_.outputs.end(), name_) == result_.outputs.end())
      result_.outputs.push_back(name_);
  }
  void add_input(bool input_as_target) {
    if (name_.empty() || inputs_.count(name_) != 0) return;
    if (input_as_target) throw build_error("inputs may not also have inputs");
    inputs_.insert(name_);
    result_.inputs.push_back(name_);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string name_;
  std::unordered_set<std::string> inputs_;
  depfile result_;
};

} // namespace

depfile parse_depfile(std::string_view text) { return depfile_reader(text).read(); }

std::vector<node*> discovered(graph& in, depfile& read) {
  std::vector<node*> inputs;
  inputs.reserve(read.inputs.size());
  for (std::string& each : read.inputs) {
    canonicalize(each);
    inputs.push_back(&in.file(each));
  }
  return inputs;
}

} // namespace pmake
