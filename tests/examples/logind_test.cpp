// What the agent makes of logind's sessions: against a bus and a logind of the test's own.
#include "../../examples/hostd/logind.hpp"

#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include <poll.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using migrate::detail::moment;

namespace {

struct session {
  std::string kind = "x11", whose = "user";
  int idle = 0;
  std::uint64_t since = 0; // microseconds on the steady clock
};

struct bus {
  migrate_test::folder root;
  std::unique_ptr<migrate_test::program> daemon;
  std::string address;

  bus() { start(); }
  void start() {
    daemon.reset();
    daemon = std::make_unique<migrate_test::program>(
        std::vector<std::string>{"/usr/bin/dbus-daemon", "--session", "--nofork", "--print-address=1",
                                 "--address=unix:path=" + (root.path / "bus").string()},
        migrate_test::environment{});
    address = daemon->line();
    ::setenv("DBUS_SYSTEM_BUS_ADDRESS", address.c_str(), 1);
  }
  bool made() {
    if (!address.empty()) return true;
    std::printf("skipped: there is no dbus-daemon\n");
    return false;
  }
};

class logind {
public:
  logind() : thread_([this] { serve(); }) {
    while (!ready_) std::this_thread::yield();
  }
  ~logind() {
    stop_ = true;
    thread_.join();
  }

  void set(const std::string& id, const session& what) {
    std::lock_guard lock(mutex_);
    sessions_[id] = what;
  }
  void change(const std::string& id, const session& what) {
    // And says so, as logind does.
    set(id, what);
    changed_ = true;
    while (changed_) std::this_thread::yield();
  }

private:
  static std::string path(const std::string& id) { return "/org/freedesktop/login1/session/" + id; }

  static int list(sd_bus_message* asked, void* self, sd_bus_error*) {
    auto& here = *static_cast<logind*>(self);
    std::lock_guard lock(here.mutex_);
    sd_bus_message* reply = nullptr;
    sd_bus_message_new_method_return(asked, &reply);
    sd_bus_message_open_container(reply, 'a', "(susso)");
    for (const auto& [id, each] : here.sessions_)
      sd_bus_message_append(reply, "(susso)", id.c_str(), 1000u, "owner", "seat0", path(id).c_str());
    sd_bus_message_close_container(reply);
    int sent = sd_bus_send(nullptr, reply, nullptr);
    sd_bus_message_unref(reply);
    return sent < 0 ? sent : 1;
  }

  static int get(sd_bus*, const char* at, const char*, const char* name, sd_bus_message* reply, void* self,
                 sd_bus_error*) {
    auto& here = *static_cast<logind*>(self);
    std::lock_guard lock(here.mutex_);
    const session& one = here.sessions_.at(std::string(at).substr(path("").size()));
    std::string wanted = name;
    if (wanted == "Type") return sd_bus_message_append(reply, "s", one.kind.c_str());
    if (wanted == "Class") return sd_bus_message_append(reply, "s", one.whose.c_str());
    if (wanted == "IdleHint") return sd_bus_message_append(reply, "b", one.idle);
    return sd_bus_message_append(reply, "t", one.since);
  }

  void serve() {
    static const sd_bus_vtable manager[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("ListSessions", "", "a(susso)", &logind::list, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END};
    static const sd_bus_vtable properties[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Type", "s", &logind::get, 0, 0),
        SD_BUS_PROPERTY("Class", "s", &logind::get, 0, 0),
        SD_BUS_PROPERTY("IdleHint", "b", &logind::get, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("IdleSinceHintMonotonic", "t", &logind::get, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END};
    sd_bus* here = nullptr;
    if (sd_bus_open_system(&here) < 0) std::abort();
    sd_bus_add_object_vtable(here, nullptr, "/org/freedesktop/login1", "org.freedesktop.login1.Manager",
                             manager, this);
    for (const char* id : {"c1", "c2"})
      sd_bus_add_object_vtable(here, nullptr, path(id).c_str(), "org.freedesktop.login1.Session", properties,
                               this);
    if (sd_bus_request_name(here, "org.freedesktop.login1", 0) < 0) std::abort();
    ready_ = true;
    while (!stop_) {
      while (sd_bus_process(here, nullptr) > 0) {
      }
      if (changed_) {
        sd_bus_emit_properties_changed(here, path("c1").c_str(), "org.freedesktop.login1.Session", "IdleHint",
                                       nullptr);
        sd_bus_flush(here);
        changed_ = false;
      }
      sd_bus_wait(here, 1'000);
    }
    sd_bus_flush_close_unref(here);
  }

  std::mutex mutex_;
  std::map<std::string, session> sessions_;
  std::atomic<bool> ready_{false}, stop_{false}, changed_{false};
  std::thread thread_;
};

std::uint64_t microseconds(std::chrono::steady_clock::time_point when) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(when.time_since_epoch()).count());
}

long seconds(const migrate::detail::idle_answer& answer) {
  return answer.idle
             ? static_cast<long>(std::chrono::duration_cast<std::chrono::seconds>(*answer.idle).count())
             : -1;
}

} // namespace

TEST_CASE("a graphical session's hint, and none of others") {
  bus here;
  if (!here.made()) return;
  logind service;
  auto now = moment::now();
  auto look = [&] {
    migrate_hostd::logind_sessions fresh;
    return fresh.look(now);
  };
  CHECK(look().problem == "no graphical session");
  service.set("c1", {"tty", "user", 1, microseconds(now.steady - 500s)});
  service.set("c2", {"wayland", "greeter", 0, 0});
  CHECK_FALSE(look().idle);
  service.set("c1", {"x11", "user", 1, microseconds(now.steady - 500s)});
  CHECK(seconds(look()) == 500);
  CHECK(look().name == "logind session c1");
  service.set("c2", {"wayland", "user", 1, microseconds(now.steady - 70s)});
  CHECK(seconds(look()) == 70);
  service.set("c2", {"wayland", "user", 0, microseconds(now.steady - 70s)}); // no hint that it is idle
  CHECK(seconds(look()) == 0);
  service.set("c2", {"wayland", "user", 1, microseconds(now.steady + 70s)}); // a lie
  CHECK(seconds(look()) == 0);
  migrate_hostd::logind_sessions hint;
  CHECK(hint.only_a_hint());
}

TEST_CASE("a change is heard at once") {
  bus here;
  if (!here.made()) return;
  logind service;
  auto now = moment::now();
  service.set("c1", {"x11", "user", 1, microseconds(now.steady - 500s)});
  migrate_hostd::logind_sessions sessions;
  CHECK(seconds(sessions.look(now)) == 500);
  service.set("c1", {"x11", "user", 0, 0});
  CHECK(seconds(sessions.look(now)) == 500); // it was asked just now
  service.change("c1", {"x11", "user", 0, 0});
  REQUIRE(sessions.awaited().size() == 1);
  pollfd waited{sessions.awaited()[0], POLLIN, 0};
  REQUIRE(::poll(&waited, 1, 30'000) == 1);
  CHECK(seconds(sessions.look(now)) == 0);
  service.set("c1", {"x11", "user", 1, microseconds(now.steady - 300s)});
  now.steady += 5s;
  CHECK(seconds(sessions.look(now)) == 305);
}

TEST_CASE("without a bus it cannot tell, and with one again it can") {
  bus here;
  if (!here.made()) return;
  migrate_hostd::logind_sessions sessions;
  auto now = moment::now();
  CHECK_FALSE(sessions.look(now).idle); // there is a bus, and no logind
  CHECK(sessions.look(now).problem.starts_with("logind cannot be asked: "));
  {
    logind service;
    service.set("c1", {"x11", "user", 1, microseconds(now.steady - 500s)});
    now.steady += 5s;
    CHECK(seconds(sessions.look(now)) == 505);
  }
  here.daemon.reset();
  now.steady += 5s;
  CHECK_FALSE(sessions.look(now).idle);
  CHECK(sessions.awaited().empty());
  here.start();
  logind service;
  service.set("c1", {"x11", "user", 1, microseconds(now.steady - 20s)});
  now.steady += 5s;
  CHECK(seconds(sessions.look(now)) == 25);
}
