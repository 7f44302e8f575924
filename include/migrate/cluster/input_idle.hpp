// Idleness by input devices: keyboards, mice, touch screens.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <migrate/cluster/idle_source.hpp>
#include <migrate/store/descriptor.hpp>

namespace migrate::detail {

class input_idle final : public idle_source {
  // Follows linux/Documentation/input/input.rst: every reader of an event device has a queue of its own, so reading
  // takes nothing away from anybody. What was touched before the first look is not known, and counts as touched then.

public:
  explicit input_idle(std::string dev = "/dev") : folder_(std::move(dev) + "/input") {}

  idle_answer look(const moment& now) override {
    std::string refused = open_new(now);
    for (auto at = devices_.begin(); at != devices_.end();) {
      auto [touched, there] = drain(at->second.file.get());
      if (at->second.counts && !there)
        activity_.note(now, "input " + at->first + ", gone", idle_time::zero());
      if (at->second.counts && touched) activity_.note(now, "input " + at->first, idle_time::zero());
      at = there ? std::next(at) : devices_.erase(at);
    }
    bool any =
        std::any_of(devices_.begin(), devices_.end(), [](const auto& each) { return each.second.counts; });
    watches_seat_ = any && refused.empty();
    if (any) return {activity_.name(), activity_.ago(now), refused};
    return {"input devices", {}, refused.empty() ? "there is none" : refused};
  }

  bool watches_seat() const override { return watches_seat_; }
  // Not when one of several devices may not be read: that one may be the keyboard.

  std::vector<int> awaited() const override {
    std::vector<int> all;
    for (const auto& [name, each] : devices_)
      if (each.counts) all.push_back(each.file.get());
    return all;
  }

private:
  struct device {
    descriptor file;
    bool counts; // a person touches it
  };

  std::string open_new(const moment& now) {
    // Returns why a device was refused, if one was.
    std::string refused;
    std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(folder_.c_str()), &::closedir);
    if (!folder) return errno == EACCES ? folder_ + " may not be read" : "";
    while (const dirent* entry = ::readdir(folder.get())) {
      std::string name = entry->d_name;
      if (!name.starts_with("event") || devices_.contains(name)) continue;
      descriptor file(
          ::openat(::dirfd(folder.get()), name.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
      if (!file) {
        if (errno != ENOENT && errno != ENODEV && errno != ENXIO)
          refused = folder_ + "/" + name + " may not be read";
        continue;
      }
      bool counts = touched_by_people(file.get());
      devices_.emplace(name, device{std::move(file), counts});
      if (counts) activity_.note(now, "input " + name, idle_time::zero());
    }
    return refused;
  }

  static bool touched_by_people(int file) {
    // All but switches and sensors, such as a lid's and an accelerometer.
    unsigned long types = 0, properties = 0;
    if (::ioctl(file, EVIOCGBIT(0, sizeof types), &types) < 0) return true;
    if (::ioctl(file, EVIOCGPROP(sizeof properties), &properties) >= 0 &&
        (properties >> INPUT_PROP_ACCELEROMETER & 1) != 0)
      return false;
    return (types & (1ul << EV_KEY | 1ul << EV_REL | 1ul << EV_ABS)) != 0;
  }

  static std::pair<bool, bool> drain(int file) {
    // Whether it has been touched, and whether it is still there.
    bool touched = false;
    std::byte events[64 * sizeof(input_event)];
    for (int most = 1000; most > 0; --most) { // a device that never falls silent is in use
      ssize_t got = ::read(file, events, sizeof events);
      if (got > 0)
        touched = true;
      else if (got == 0 || errno != EINTR)
        return {touched, got < 0 && errno == EAGAIN};
    }
    return {touched, true};
  }

  std::string folder_;
  std::map<std::string, device> devices_;
  bool watches_seat_ = false;
  last_activity activity_;
};

} // namespace migrate::detail
