#include "first.hpp"

const std::error_category& category_seen_by_second();

int main() {
  return &migrate::error_category() == &category_seen_by_second() ? 0 : 1;
}
