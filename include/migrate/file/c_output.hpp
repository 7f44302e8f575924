// The C library's output functions, when a task uses them on stdout. node.hpp includes it.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>

#include <stdio.h>

#include <migrate/file/streams.hpp>

// A FILE has a lock that belongs to a thread of this process and a buffer that would stay here, so what a task prints
// must not get into one. These definitions take the place of the C library's own in the program and in the libraries it
// is linked with: stdout in a task is the task's standard output, all else is passed on under other names of the same
// functions. stderr stays the node's: what the C library says before it aborts must not wait. They are weak, so that
// more than one source file may have them; the names in this file differ from theirs, as compilers know the latter too
// well.
namespace migrate::detail {

inline stream_state* prints(std::FILE* file) { return file == stdout ? streams_of_task() : nullptr; }

inline bool put_text(stream_state& mine, const char* text, std::size_t bytes) {
  auto count = static_cast<std::streamsize>(bytes);
  return mine.out.sputn(text, count) == count;
}

inline int put_formatted(stream_state& mine, const char* format, std::va_list arguments) {
  std::va_list again;
  va_copy(again, arguments);
  char small[256];
  int size = std::vsnprintf(small, sizeof small, format, arguments);
  bool done = size >= 0;
  if (size >= static_cast<int>(sizeof small)) {
    std::string large(static_cast<std::size_t>(size), 0);
    std::vsnprintf(large.data(), large.size() + 1, format, again);
    done = put_text(mine, large.data(), large.size());
  } else if (done) {
    done = put_text(mine, small, static_cast<std::size_t>(size));
  }
  va_end(again);
  return done ? size : -1;
}

class file_lock {
public:
  explicit file_lock(std::FILE* file) noexcept : file_(file) { ::flockfile(file_); }
  ~file_lock() { ::funlockfile(file_); }
  file_lock(const file_lock&) = delete;
  file_lock& operator=(const file_lock&) = delete;

private:
  std::FILE* file_;
};

} // namespace migrate::detail

extern "C" {

int __vfprintf_chk(std::FILE*, int, const char*, std::va_list);

#define MIGRATE_REPLACES(name) __asm__(name) __attribute__((weak, used, visibility("default")))

int migrate_vfprintf(std::FILE*, const char*, std::va_list) MIGRATE_REPLACES("vfprintf");
int migrate_fprintf(std::FILE*, const char*, ...) MIGRATE_REPLACES("fprintf");
int migrate_vprintf(const char*, std::va_list) MIGRATE_REPLACES("vprintf");
int migrate_printf(const char*, ...) MIGRATE_REPLACES("printf");
int migrate_fprintf_chk(std::FILE*, int, const char*, ...) MIGRATE_REPLACES("__fprintf_chk");
int migrate_vprintf_chk(int, const char*, std::va_list) MIGRATE_REPLACES("__vprintf_chk");
int migrate_printf_chk(int, const char*, ...) MIGRATE_REPLACES("__printf_chk");
std::size_t migrate_fwrite(const void*, std::size_t, std::size_t, std::FILE*) MIGRATE_REPLACES("fwrite");
int migrate_fputs(const char*, std::FILE*) MIGRATE_REPLACES("fputs");
int migrate_puts(const char*) MIGRATE_REPLACES("puts");
int migrate_fputc(int, std::FILE*) MIGRATE_REPLACES("fputc");
int migrate_putc(int, std::FILE*) MIGRATE_REPLACES("putc");
int migrate_io_putc(int, std::FILE*) MIGRATE_REPLACES("_IO_putc");
int migrate_putchar(int) MIGRATE_REPLACES("putchar");
int migrate_fflush(std::FILE*) MIGRATE_REPLACES("fflush");

#undef MIGRATE_REPLACES

int migrate_vfprintf(std::FILE* file, const char* format, std::va_list arguments) {
  if (auto* mine = migrate::detail::prints(file)) return migrate::detail::put_formatted(*mine, format, arguments);
  return __vfprintf_chk(file, 0, format, arguments);
}

int migrate_fprintf(std::FILE* file, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  int result = migrate_vfprintf(file, format, arguments);
  va_end(arguments);
  return result;
}

int migrate_vprintf(const char* format, std::va_list arguments) { return migrate_vfprintf(stdout, format, arguments); }

int migrate_printf(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  int result = migrate_vfprintf(stdout, format, arguments);
  va_end(arguments);
  return result;
}

int migrate_vfprintf_checked(std::FILE* file, int level, const char* format, std::va_list arguments)
    __attribute__((weak));
int migrate_vfprintf_checked(std::FILE* file, int level, const char* format, std::va_list arguments) {
  if (auto* mine = migrate::detail::prints(file)) return migrate::detail::put_formatted(*mine, format, arguments);
  return __vfprintf_chk(file, level, format, arguments);
}

int migrate_fprintf_chk(std::FILE* file, int level, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  int result = migrate_vfprintf_checked(file, level, format, arguments);
  va_end(arguments);
  return result;
}

int migrate_vprintf_chk(int level, const char* format, std::va_list arguments) {
  return migrate_vfprintf_checked(stdout, level, format, arguments);
}

int migrate_printf_chk(int level, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  int result = migrate_vfprintf_checked(stdout, level, format, arguments);
  va_end(arguments);
  return result;
}

std::size_t migrate_fwrite(const void* data, std::size_t size, std::size_t count, std::FILE* file) {
  if (auto* mine = migrate::detail::prints(file))
    return migrate::detail::put_text(*mine, static_cast<const char*>(data), size * count) ? count : 0;
  migrate::detail::file_lock lock(file);
  return ::fwrite_unlocked(data, size, count, file);
}

int migrate_fputs(const char* text, std::FILE* file) {
  if (auto* mine = migrate::detail::prints(file))
    return migrate::detail::put_text(*mine, text, std::strlen(text)) ? 1 : EOF;
  migrate::detail::file_lock lock(file);
  return ::fputs_unlocked(text, file);
}

int migrate_fputc(int c, std::FILE* file) {
  auto one = static_cast<char>(c);
  if (auto* mine = migrate::detail::prints(file))
    return migrate::detail::put_text(*mine, &one, 1) ? static_cast<unsigned char>(c) : EOF;
  migrate::detail::file_lock lock(file);
  return ::fputc_unlocked(c, file);
}

int migrate_puts(const char* text) {
  if (auto* mine = migrate::detail::prints(stdout))
    return migrate::detail::put_text(*mine, (std::string(text) + '\n').c_str(), std::strlen(text) + 1) ? 1 : EOF;
  migrate::detail::file_lock lock(stdout);
  return ::fputs_unlocked(text, stdout) < 0 ? EOF : ::fputc_unlocked('\n', stdout);
}

int migrate_putc(int c, std::FILE* file) { return migrate_fputc(c, file); }
int migrate_io_putc(int c, std::FILE* file) { return migrate_fputc(c, file); }
int migrate_putchar(int c) { return migrate_fputc(c, stdout); }

int migrate_fflush(std::FILE* file) {
  auto* mine = migrate::detail::prints(file != nullptr ? file : stdout);
  if (mine != nullptr && mine->out.pubsync() != 0) return EOF;
  if (mine != nullptr && file != nullptr) return 0;
  if (file == nullptr) return ::fflush_unlocked(nullptr);
  migrate::detail::file_lock lock(file);
  return ::fflush_unlocked(file);
}

} // extern "C"
