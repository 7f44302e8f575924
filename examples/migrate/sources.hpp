// Who is asked: programs, agents and databases of this user on this host, and those whose addresses were given.
#pragma once

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <migrate/rpc/channel.hpp>

#include "overview.hpp"

namespace migrate_command {

using namespace std::chrono_literals;
using migrate::protocol::HostRole;

struct where_to_ask {
  std::string database, agent, credentials;
};

inline bool ended(const std::string& socket) {
  // Whether the process that the socket's name tells of is no more: unix:DIRECTORY/KIND-PROCESS.sock.
  auto dash = socket.rfind('-');
  auto dot = socket.rfind('.');
  if (dash == std::string::npos || dot == std::string::npos || dot < dash) return false;
  int process = 0;
  auto [end, problem] = std::from_chars(socket.data() + dash + 1, socket.data() + dot, process);
  return problem == std::errc() && end == socket.data() + dot && process > 0 && ::kill(process, 0) != 0 &&
         errno == ESRCH;
}

class sources {
public:
  explicit sources(where_to_ask where) : where_(std::move(where)) { loop_.start(); }
  ~sources() {
    for (auto& [address, each] : all_) each->client.stop();
    loop_.stop();
  }

  struct answerer {
    std::string address;
    std::shared_ptr<migrate::channel> over;
  };

  std::vector<answerer> reach(std::vector<std::string>& problems) {
    // Whoever is there. Sockets that dead processes have left are removed.
    std::vector<std::string> addresses = migrate::control_addresses();
    for (const std::string* given : {&where_.database, &where_.agent})
      if (!given->empty() && std::find(addresses.begin(), addresses.end(), *given) == addresses.end())
        addresses.push_back(*given);
    std::erase_if(all_, [&](auto& each) {
      bool there = std::find(addresses.begin(), addresses.end(), each.first) != addresses.end();
      auto channel = each.second->client.current();
      bool open = channel != nullptr && channel->open();
      if (!there || !open) each.second->client.stop();
      return !there || !open;
    });
    for (const std::string& each : addresses) {
      if (all_.contains(each)) continue;
      try {
        auto made = std::make_unique<link>(loop_, each, options());
        made->client.start();
        all_.emplace(each, std::move(made));
      } catch (const migrate::error& problem) {
        problems.push_back(each + ": " + problem.what());
      }
    }
    std::vector<answerer> found;
    auto deadline = std::chrono::steady_clock::now() + 3s;
    for (auto& [address, each] : all_) {
      auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      try {
        auto over = each->client.wait_open(std::max(left, 1ms));
        auto same = [&](const answerer& other) { // found by its socket, and named by its address
          const migrate::channel_party &a = other.over->peer(), &b = over->peer();
          return a.role == b.role && a.process == b.process && a.host == b.host;
        };
        if (std::none_of(found.begin(), found.end(), same)) found.push_back({address, std::move(over)});
      } catch (const migrate::error& problem) {
        if (ended(address)) {
          remove(address);
        } else {
          problems.push_back(problem.what());
        }
      }
    }
    return found;
  }

  overview look() {
    overview made;
    std::vector<answerer> found = reach(made.problems);
    std::mutex lock;
    std::condition_variable changed;
    std::size_t missing = found.size();
    for (const answerer& each : found)
      each.over->request([](migrate::protocol::HostMessage::Builder out) { out.setStatusOf(); },
                         [&, one = each](const migrate::channel_answer& got) {
                           std::lock_guard guard(lock);
                           if (got.failure != nullptr)
                             made.problems.push_back(got.failure->what());
                           else if (got.message.isStatus())
                             add(made, one.over->peer(), got.message.getStatus());
                           else
                             made.problems.push_back(one.address + " gave no status; is it another version?");
                           --missing;
                           changed.notify_one();
                         },
                         5s);
    std::unique_lock guard(lock);
    changed.wait(guard, [&] { return missing == 0; });
    put_in_order(made);
    return made;
  }

  template <class Fill> static void ask(const answerer& whom, Fill&& fill) {
    // A request whose answer says no more than that it was done. Throws what failed.
    whom.over->call(
        fill, [](migrate::protocol::HostMessage::Reader) {}, 12s);
  }

private:
  struct quiet final : migrate::channel_handler {
    void on_message(migrate::channel&, migrate::protocol::HostMessage::Reader,
                    kj::ArrayPtr<const kj::byte>) override {}
  };
  struct link {
    link(migrate::event_loop& loop, const std::string& address, migrate::channel_options options)
        : client(loop, address, std::move(options), handler) {}
    quiet handler;
    migrate::channel_client client;
  };

  migrate::channel_options options() const {
    migrate::channel_options made;
    made.self = migrate::channel_party::of_this_process(HostRole::COMMAND, "migrate");
    made.handshake = 3s;
    if (!where_.credentials.empty()) {
      migrate::credentials files;
      files.certificate = where_.credentials + "/node.crt";
      files.key = where_.credentials + "/node.key";
      files.authority = where_.credentials + "/authority.crt";
      made.security = files;
    }
    return made;
  }

  static void remove(const std::string& address) {
    auto path = migrate::detail::path_in(address);
    if (!path) return;
    try {
      migrate::detail::clear_socket_path(std::string(*path));
    } catch (const migrate::error&) {
      // Somebody listens there after all.
    }
  }

  const where_to_ask where_;
  migrate::event_loop loop_;
  std::map<std::string, std::unique_ptr<link>> all_;
};

} // namespace migrate_command
