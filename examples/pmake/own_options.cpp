#include "own_options.hpp"

#include <cstdlib>
#include <optional>

#include "ninja/error.hpp"

namespace pmake {

namespace {

class option_reader {
public:
  explicit option_reader(std::vector<std::string>& arguments) : arguments_(arguments) {}

  bool at_end() const noexcept { return at_ == arguments_.size(); }
  const std::string& current() const { return arguments_[at_]; }

  std::optional<std::string> take(const std::string& name) {
    // --name=VALUE or --name VALUE.
    const std::string& one = arguments_[at_];
    if (one.rfind(name + "=", 0) == 0) {
      std::string value = one.substr(name.size() + 1);
      remove(1);
      return value;
    }
    if (one != name) return std::nullopt;
    if (at_ + 1 == arguments_.size()) throw build_error(name + " wants a value");
    std::string value = arguments_[at_ + 1];
    remove(2);
    return value;
  }
  void keep() noexcept { ++at_; }

private:
  void remove(std::ptrdiff_t count) {
    auto from = arguments_.begin() + static_cast<std::ptrdiff_t>(at_);
    arguments_.erase(from, from + count);
  }

  std::vector<std::string>& arguments_;
  std::size_t at_ = 0;
};

bool is_make(const std::string& word) {
  std::string name = word.substr(word.rfind('/') + 1);
  return name == "make" || name == "gmake";
}

} // namespace

own_options take_own_options(std::vector<std::string>& arguments, bool as_ninja) {
  own_options found;
  if (const char* file = std::getenv("PMAKE_RULES"); file != nullptr && *file != '\0') found.rules.read(file);
  bool first = true; // nothing has been kept yet
  for (option_reader reader(arguments); !reader.at_end();) {
    if (auto pattern = reader.take("--leave")) {
      found.rules.let_leave(*pattern);
    } else if (auto kept = reader.take("--keep")) {
      found.rules.keep(*kept);
    } else if (auto file = reader.take("--rules")) {
      found.rules.read(*file);
    } else if (!as_ninja && first && is_make(reader.current())) {
      found.make = true;
      return found;
    } else if (std::optional<std::string> trace; first && !as_ninja && (trace = reader.take("--trace"))) {
      found.trace = *trace;
    } else {
      first = false;
      reader.keep();
    }
  }
  if (!found.trace.empty()) arguments.insert(arguments.begin(), {"--trace", found.trace});
  return found;
}

} // namespace pmake
