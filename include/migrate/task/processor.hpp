// The one place that chooses the processor's file.
#pragma once

#if defined(__x86_64__)
#include <migrate/task/processor_x86_64.hpp>
#else
#error "migrate: this processor has no file in migrate/task/; x86-64 has one to follow"
#endif
