// -d explain: why a command is run.
#pragma once

#include <functional>
#include <string>

namespace pmake {

class explanation {
public:
  using sink = std::function<void(const std::string&)>;

  explanation() = default;
  explicit explanation(sink to) : to_(std::move(to)) {}

  template <class Text> void operator()(Text&& text) const {
    // Calls text(), which returns a std::string, only when somebody wants to know.
    if (to_) to_(text());
  }

private:
  sink to_;
};

} // namespace pmake
