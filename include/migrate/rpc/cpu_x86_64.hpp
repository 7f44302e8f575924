// Which features of an x86-64 processor a program may be using.
#pragma once

#include <string>
#include <vector>

#ifdef __clang__ // which knows C's name only in C, while glibc's header has it in C++ too
#define _Bool bool
#include <sys/platform/x86.h>
#undef _Bool
#else
#include <sys/platform/x86.h>
#endif

namespace migrate::detail {

inline constexpr const char* architecture_name = "x86-64";

struct cpu_feature {
  const char* name;       // as in GLIBC_TUNABLES=glibc.cpu.hwcaps=-NAME
  unsigned index;         // in glibc's table
  const char* permission; // its macro's value when the compiler may use it, else its macro's name
  bool
      chosen_by; // glibc has functions (memcpy, strlen, sin, ...) that need it, and takes them where it is there
};
// A task may hold the address of a function that glibc chose for the processor it started on, so a
// feature that such a function needs must be there wherever the task goes. Features that only make
// one choice the faster (ERMS, FSRM) are left out: a task that lands where they are missing runs on.

#define MIGRATE_TEXT_(value) #value
#define MIGRATE_TEXT(value) MIGRATE_TEXT_(value)
inline constexpr cpu_feature cpu_features[] = {
    {"SSE3", x86_cpu_SSE3, MIGRATE_TEXT(__SSE3__), false},
    {"SSSE3", x86_cpu_SSSE3, MIGRATE_TEXT(__SSSE3__), true},
    {"SSE4_1", x86_cpu_SSE4_1, MIGRATE_TEXT(__SSE4_1__), true},
    {"SSE4_2", x86_cpu_SSE4_2, MIGRATE_TEXT(__SSE4_2__), true},
    {"POPCNT", x86_cpu_POPCNT, MIGRATE_TEXT(__POPCNT__), false},
    {"AES", x86_cpu_AES, MIGRATE_TEXT(__AES__), false},
    {"PCLMULQDQ", x86_cpu_PCLMULQDQ, MIGRATE_TEXT(__PCLMUL__), false},
    {"MOVBE", x86_cpu_MOVBE, MIGRATE_TEXT(__MOVBE__), true},
    {"AVX", x86_cpu_AVX, MIGRATE_TEXT(__AVX__), true},
    {"F16C", x86_cpu_F16C, MIGRATE_TEXT(__F16C__), false},
    {"FMA", x86_cpu_FMA, MIGRATE_TEXT(__FMA__), true},
    {"FMA4", x86_cpu_FMA4, MIGRATE_TEXT(__FMA4__), true},
    {"AVX2", x86_cpu_AVX2, MIGRATE_TEXT(__AVX2__), true},
    {"BMI1", x86_cpu_BMI1, MIGRATE_TEXT(__BMI__), true},
    {"BMI2", x86_cpu_BMI2, MIGRATE_TEXT(__BMI2__), true},
    {"LZCNT", x86_cpu_LZCNT, MIGRATE_TEXT(__LZCNT__), true},
    {"ADX", x86_cpu_ADX, MIGRATE_TEXT(__ADX__), false},
    {"SHA", x86_cpu_SHA, MIGRATE_TEXT(__SHA__), false},
    {"RTM", x86_cpu_RTM, MIGRATE_TEXT(__RTM__), true},
    {"AVX512F", x86_cpu_AVX512F, MIGRATE_TEXT(__AVX512F__), true},
    {"AVX512CD", x86_cpu_AVX512CD, MIGRATE_TEXT(__AVX512CD__), false},
    {"AVX512DQ", x86_cpu_AVX512DQ, MIGRATE_TEXT(__AVX512DQ__), false},
    {"AVX512BW", x86_cpu_AVX512BW, MIGRATE_TEXT(__AVX512BW__), true},
    {"AVX512VL", x86_cpu_AVX512VL, MIGRATE_TEXT(__AVX512VL__), true},
};
#undef MIGRATE_TEXT
#undef MIGRATE_TEXT_

inline bool compiled_for(const cpu_feature& feature) noexcept { return feature.permission[0] != '_'; }

inline std::vector<std::string> cpu_features_compiled() {
  std::vector<std::string> names;
  for (const cpu_feature& feature : cpu_features)
    if (compiled_for(feature)) names.emplace_back(feature.name);
  return names;
}
// What the compiler was allowed to use.

inline std::vector<std::string> cpu_features_active() {
  std::vector<std::string> names;
  for (const cpu_feature& feature : cpu_features)
    if (::x86_cpu_active(feature.index)) names.emplace_back(feature.name);
  return names;
}
// What this processor and its kernel offer, less what GLIBC_TUNABLES takes away.

inline bool cpu_feature_chosen_by(const std::string& name) noexcept {
  for (const cpu_feature& feature : cpu_features)
    if (name == feature.name) return feature.chosen_by;
  return false;
}

} // namespace migrate::detail
