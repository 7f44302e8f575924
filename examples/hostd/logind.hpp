// What logind knows of sessions at this machine: a hint of their idleness, as their desktops tell it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <systemd/sd-bus.h>

#include <migrate/cluster/idle_source.hpp>

namespace migrate_hostd {

class logind_sessions final : public migrate::detail::idle_source {
  // Follows org.freedesktop.login1(5). A desktop that never sets its session's IdleHint is never idle here. Sessions at
  // terminals are left to terminal_idle, which is more exact.

public:
  ~logind_sessions() override {
    sd_bus_slot_unref(changes_);
    sd_bus_flush_close_unref(bus_);
  }

  migrate::detail::idle_answer look(const migrate::detail::moment& now) override {
    hear();
    if (!looked_ || changed_ || now.steady - *looked_ >= std::chrono::seconds(5)) {
      looked_ = now.steady;
      changed_ = false;
      ask(now);
    }
    if (!problem_.empty()) return {"logind", {}, problem_};
    if (!last_) return {"logind", {}, "no graphical session"};
    return {
        "logind session " + session_, std::max(migrate::detail::idle_time::zero(), now.steady - *last_), {}};
  }

  bool only_a_hint() const override { return true; }

  std::vector<int> awaited() const override {
    return bus_ != nullptr ? std::vector<int>{sd_bus_get_fd(bus_)} : std::vector<int>();
  }

private:
  static constexpr std::uint64_t patience = 200'000; // microseconds for an answer

  void hear() {
    while (bus_ != nullptr) {
      int more = sd_bus_process(bus_, nullptr);
      if (more < 0) drop(more);
      if (more <= 0) return;
    }
  }

  void drop(int reason) {
    problem_ = std::string("logind cannot be asked: ") + std::strerror(-reason);
    changes_ = sd_bus_slot_unref(changes_);
    bus_ = sd_bus_close_unref(bus_);
  }

  bool connect() {
    if (bus_ != nullptr) return true;
    if (int failed = sd_bus_open_system(&bus_); failed < 0) {
      drop(failed);
      return false;
    }
    sd_bus_set_method_call_timeout(bus_, patience);
    auto heard = [](sd_bus_message*, void* self, sd_bus_error*) {
      static_cast<logind_sessions*>(self)->changed_ = true;
      return 0;
    };
    int failed = sd_bus_match_signal(bus_, &changes_, "org.freedesktop.login1", nullptr,
                                     "org.freedesktop.DBus.Properties", "PropertiesChanged", heard, this);
    if (failed < 0) drop(failed);
    return failed >= 0;
  }

  void ask(const migrate::detail::moment& now) {
    last_.reset();
    if (!connect()) return;
    sd_bus_message* reply = nullptr;
    int failed = sd_bus_call_method(bus_, "org.freedesktop.login1", "/org/freedesktop/login1",
                                    "org.freedesktop.login1.Manager", "ListSessions", nullptr, &reply, "");
    if (failed < 0) {
      drop(failed);
      return;
    }
    problem_.clear();
    sd_bus_message_enter_container(reply, 'a', "(susso)");
    const char *id, *user, *seat, *path;
    std::uint32_t uid;
    while (sd_bus_message_read(reply, "(susso)", &id, &uid, &user, &seat, &path) > 0) look_at(now, id, path);
    sd_bus_message_unref(reply);
  }

  void look_at(const migrate::detail::moment& now, const std::string& id, const char* path) {
    std::string kind = text(path, "Type");
    if (text(path, "Class") != "user" || (kind != "x11" && kind != "wayland" && kind != "mir")) return;
    int idle = 0;
    std::uint64_t since = 0; // microseconds on the steady clock
    bool known =
        property(path, "IdleHint", 'b', &idle) && property(path, "IdleSinceHintMonotonic", 't', &since);
    std::chrono::steady_clock::time_point then{std::chrono::microseconds(since)};
    if (!known || idle == 0 || then > now.steady) then = now.steady;
    if (last_ && *last_ >= then) return;
    last_ = then;
    session_ = id;
  }

  bool property(const char* path, const char* name, char kind, void* into) {
    return sd_bus_get_property_trivial(bus_, "org.freedesktop.login1", path, "org.freedesktop.login1.Session",
                                       name, nullptr, kind, into) >= 0;
  }
  std::string text(const char* path, const char* name) {
    char* made = nullptr;
    if (sd_bus_get_property_string(bus_, "org.freedesktop.login1", path, "org.freedesktop.login1.Session",
                                   name, nullptr, &made) < 0)
      return {};
    std::string copy(made);
    std::free(made);
    return copy;
  }

  sd_bus* bus_ = nullptr;
  sd_bus_slot* changes_ = nullptr;
  bool changed_ = false;
  std::optional<std::chrono::steady_clock::time_point> looked_, last_;
  std::string session_, problem_ = "not asked yet";
};

} // namespace migrate_hostd
