#include "disk.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.hpp"
#include "path.hpp"

namespace pmake {

std::string reason_text(int error_number) { return std::strerror(error_number); }

file_time time_of(const char* path) {
  struct stat found;
  if (::stat(path, &found) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return missing;
    throw build_error("stat(" + std::string(path) + "): " + reason_text(errno));
  }
  file_time time = file_time{found.st_mtim.tv_sec} * 1'000'000'000 + found.st_mtim.tv_nsec;
  return time > 0 ? time : 1; // some tools set 1970 or before on what does exist
}

file_time time_of(const std::string& path) { return time_of(path.c_str()); }

void look_at(node& what) {
  if (what.time != not_looked_at) return;
  char name[4096];
  if (what.size < sizeof name) {
    std::memcpy(name, what.text, what.size);
    name[what.size] = '\0';
    what.time = time_of(name);
  } else {
    what.time = time_of(std::string(what.path()));
  }
  what.exists = what.time != missing;
}

file_text read_file(const std::string& path) {
  file_text text;
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    text.reason = errno;
    return text;
  }
  struct stat found;
  std::size_t room =
      ::fstat(fd, &found) == 0 && found.st_size > 0 ? static_cast<std::size_t>(found.st_size) : 4095;
  text.bytes.reset(new char[room + 1]);
  for (;;) {
    auto got = ::read(fd, text.bytes.get() + text.size, room + 1 - text.size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) text.reason = errno;
    if (got <= 0) break;
    text.size += static_cast<std::size_t>(got);
    if (text.size <= room) continue;
    std::unique_ptr<char[]> larger(new char[2 * room + 1]); // it grows while it is read, or has no size
    std::memcpy(larger.get(), text.bytes.get(), text.size);
    text.bytes = std::move(larger);
    room *= 2;
  }
  ::close(fd);
  text.bytes[text.size] = '\0';
  return text;
}

void write_file(const std::string& path, std::string_view text) {
  int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) throw build_error("WriteFile(" + path + "): Unable to create file. " + reason_text(errno));
  int reason = 0;
  while (!text.empty() && reason == 0) {
    auto put = ::write(fd, text.data(), text.size());
    if (put > 0)
      text.remove_prefix(static_cast<std::size_t>(put));
    else if (errno != EINTR)
      reason = errno;
  }
  if (::close(fd) != 0 && reason == 0) reason = errno;
  if (reason != 0)
    throw build_error("WriteFile(" + path + "): Unable to write to the file. " + reason_text(reason));
}

void make_folders_of(std::string_view path) {
  std::string folder = folder_of(path);
  if (folder.empty() || folder == "/") return;
  struct stat found;
  if (::stat(folder.c_str(), &found) == 0) return;
  make_folders_of(folder);
  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST)
    throw build_error("mkdir(" + folder + "): " + reason_text(errno));
}

bool remove_file(const std::string& path) {
  if (::remove(path.c_str()) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw build_error("remove(" + path + "): " + reason_text(errno));
}

} // namespace pmake
