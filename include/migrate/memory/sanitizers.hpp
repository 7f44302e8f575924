// What AddressSanitizer and ThreadSanitizer have to be told, in builds with one of them.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define MIGRATE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MIGRATE_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define MIGRATE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MIGRATE_TSAN 1
#endif
#endif

#ifdef MIGRATE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef MIGRATE_TSAN
#include <sanitizer/tsan_interface.h>
#endif
