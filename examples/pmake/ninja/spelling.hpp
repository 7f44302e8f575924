// "did you mean ...?"
#pragma once

#include <algorithm>
#include <initializer_list>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace pmake {

inline std::size_t edit_distance(std::string_view one, std::string_view other, std::size_t most) {
  std::vector<std::size_t> row(other.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < one.size(); ++i) {
    std::size_t diagonal = row[0], least = row[0] = i + 1;
    for (std::size_t j = 0; j < other.size(); ++j) {
      std::size_t above = row[j + 1];
      row[j + 1] = one[i] == other[j] ? diagonal : 1 + std::min({diagonal, above, row[j]});
      least = std::min(least, row[j + 1]);
      diagonal = above;
    }
    if (least > most) return most + 1;
  }
  return std::min(row.back(), most + 1);
}
// How many insertions, deletions and substitutions turn one into the other; most + 1 when it is more than that.

class nearest_word {
public:
  explicit nearest_word(std::string_view wanted) : wanted_(wanted) {}
  nearest_word(std::string_view wanted, std::initializer_list<std::string_view> known) : wanted_(wanted) {
    for (std::string_view each : known) offer(each);
  }

  void offer(std::string_view word) {
    std::size_t distance = edit_distance(wanted_, word, least_ - 1);
    if (distance >= least_) return;
    least_ = distance;
    found_ = word;
  }
  std::string hint() const { return found_.empty() ? "" : ", did you mean '" + std::string(found_) + "'?"; }

private:
  std::string_view wanted_, found_;
  std::size_t least_ = 4;
};
// Of the words that are offered the one most like another, when one is like it.

} // namespace pmake
