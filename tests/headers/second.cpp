#include "second.hpp"

const std::error_category& category_seen_by_second();

const std::error_category& category_seen_by_second() { return migrate::error_category(); }
