// Idleness by the access times of terminals.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <dirent.h>
#include <sys/stat.h>

#include <migrate/cluster/idle_source.hpp>

namespace migrate::detail {

inline std::string terminal_name(std::uint32_t device) {
  // Of a controlling terminal, as the field tty_nr of /proc/PID/stat numbers it (proc(5)); empty: none, or of a kind
  // that no person types at.
  std::uint32_t major = (device >> 8) & 0xfff, minor = (device & 0xff) | ((device >> 12) & 0xfff00);
  if (major >= 136 && major <= 143) return "pts/" + std::to_string((major - 136) * 256 + minor);
  if (major == 4 && minor < 64) return "tty" + std::to_string(minor);
  if (major == 4) return "ttyS" + std::to_string(minor - 64);
  if (major == 188) return "ttyUSB" + std::to_string(minor);
  return {};
}

class terminal_idle final : public idle_source {
  // A terminal's access time is set when a program reads what was typed, to within 8 seconds: the kernel changes it only
  // when the difference shows above its three lowest bits, lest passwords be guessed from their rhythm. So the first
  // key after a pause shows at once, and the time since the last one may be 8 seconds too long.

public:
  using names = std::set<std::string, std::less<>>;

  explicit terminal_idle(std::string dev = "/dev", std::function<names()> ours = {})
      : dev_(std::move(dev)), ours_(std::move(ours)) {}
  // `ours` names the terminals, as "pts/3", that only programs of borrowers use.

  idle_answer look(const moment& now) override {
    terminals seen;
    bool readable = read_folder(dev_, "", seen);
    readable = read_folder(dev_ + "/pts", "pts/", seen) || readable;
    std::optional<names> excluded; // asked for only when something has happened
    for (auto& [name, one] : seen) {
      auto before = seen_.find(name);
      if (before != seen_.end() && before->second.same_stamp(one)) {
        one.ours = before->second.ours;
        continue;
      }
      if (!excluded) excluded = ours_ ? ours_() : names();
      one.ours = excluded->contains(name);
      if (one.ours) continue;
      if (before == seen_.end())
        activity_.note_stamp(now, name, one.read);
      else
        activity_.note_stamp(now, name, one.read, now.steady - looked_);
    }
    for (const auto& [name, one] : seen_)
      if (!one.ours && !seen.contains(name)) activity_.note(now, name + ", closed", idle_time::zero());
    seen_ = std::move(seen);
    looked_ = now.steady;
    if (!readable) return {"terminals", {}, dev_ + " cannot be read"};
    if (!activity_) return {"terminals", {}, "there is none"};
    return {"terminal " + activity_.name(), activity_.ago(now), {}};
  }

private:
  struct terminal {
    timespec read;
    bool ours = false; // as of when it was read

    bool same_stamp(const terminal& other) const {
      return read.tv_sec == other.read.tv_sec && read.tv_nsec == other.read.tv_nsec;
    }
  };
  using terminals = std::map<std::string, terminal>;

  static bool is_terminal(std::string_view name) {
    // Neither "tty", which is whoever's asks, nor "tty0", which is the console that is shown.
    return name.starts_with("tty") && name != "tty" && name != "tty0";
  }

  bool read_folder(const std::string& path, const std::string& prefix, terminals& into) const {
    std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path.c_str()), &::closedir);
    if (!folder) return false;
    while (const dirent* entry = ::readdir(folder.get())) {
      std::string_view name = entry->d_name;
      bool wanted = prefix.empty() ? is_terminal(name) : name != "ptmx" && name.front() != '.';
      struct stat status {};
      if (!wanted || ::fstatat(::dirfd(folder.get()), entry->d_name, &status, 0) != 0) continue;
      into.emplace(prefix + entry->d_name, terminal{status.st_atim});
    }
    return true;
  }

  std::string dev_;
  std::function<names()> ours_;
  terminals seen_;
  std::chrono::steady_clock::time_point looked_{};
  last_activity activity_;
};

} // namespace migrate::detail
