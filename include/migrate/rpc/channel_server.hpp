// The side of channels that is called.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include <migrate/rpc/channel_group.hpp>
#include <migrate/rpc/control_socket.hpp>
#include <migrate/rpc/listener.hpp>

namespace migrate {

class channel_server final : private detail::channel_group {
  // Thread safety: start and stop from one thread that is not the I/O thread; all else on the I/O thread.

public:
  channel_server(event_loop& its_loop, channel_options with, channel_handler& told)
      : channel_group(its_loop, std::move(with), told) {}
  ~channel_server() { stop(); }

  void start(std::vector<std::string> where);
  // Listens at each of host:port (port 0: any free one) and unix:PATH, whose directory it makes when it is not there. Once.
  // Throws errc::not_authenticated when an address is not a loopback one and there are no credentials, they are not good,
  // or others may enter the directory; errc::node_unreachable when a program listens there; the system's error when it
  // cannot be listened on.

  void stop();
  // Sends what is queued, says goodbye, and returns when all channels are closed. Before the loop is stopped.

  const std::vector<std::string>& addresses() const noexcept { return addresses_; }
  // Where it listens, in the order of start(): any thread, after start().

  template <class F> void for_each(F&& function) {
    for (const auto& each : std::set(channels))
      if (each->open()) function(*each);
  }
  // function(channel&) for each open one, on the I/O thread.

private:
  void closed(channel& which, const error& reason, bool was_open) override {
    if (was_open)
      handler.on_closed(which, reason);
    else if (!stopping)
      handler.on_refused(which.peer_name(), reason);
  }
  void accepted(int socket);

  std::vector<std::unique_ptr<detail::listener>> listeners_;
  std::vector<std::string> addresses_;
  std::vector<std::string> paths_; // of sockets to remove
};

inline void channel_server::start(std::vector<std::string> where) {
  if (options.security) tls::check(*options.security);
  std::vector<detail::socket_address> places;
  for (const std::string& each : where) {
    if (auto path = detail::path_in(each)) {
      places.push_back(detail::socket_address::at_path(*path));
      auto slash = path->rfind('/');
      detail::make_private_directory(slash == std::string_view::npos ? "."
                                                                     : std::string(path->substr(0, slash)));
      detail::clear_socket_path(std::string(*path));
    } else {
      places.push_back(detail::address_to_listen_on(each, options.security.has_value()));
    }
  }
  try {
    loop.run([&] {
      if (options.security) security = std::make_unique<tls>(*options.security);
      for (std::size_t i = 0; i < places.size(); ++i) {
        auto made = std::make_unique<detail::listener>(loop, places[i], where[i],
                                                       [this](int socket) { accepted(socket); });
        if (places[i].within_host()) paths_.push_back(places[i].path());
        addresses_.push_back(made->address().text());
        listeners_.push_back(std::move(made));
      }
    });
  } catch (...) {
    stop();
    throw;
  }
}

inline void channel_server::stop() {
  stop_all([&] { listeners_.clear(); });
  for (const std::string& each : std::exchange(paths_, {})) ::unlink(each.c_str());
}

inline void channel_server::accepted(int socket) {
  if (handshaking >= options.handshakes || stopping) {
    ::close(socket);
    return;
  }
  auto from = detail::socket_address::peer_of(socket);
  std::string shown = from.text();
  if (from.within_host()) {
    ucred other{};
    socklen_t size = sizeof other;
    ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &other, &size);
    shown = "process " + std::to_string(other.pid);
  }
  add(socket, false, std::move(shown));
}

} // namespace migrate
