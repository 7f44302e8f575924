// The nodes that this process starts on its own machine.
#pragma once

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <migrate/cluster/agent_link.hpp>
#include <migrate/error.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/store/descriptor.hpp>

namespace migrate::detail {

class child_nodes {
  // To each this process is what an agent is to a node that it has started: see agent_link.hpp.

public:
  explicit child_nodes(event_loop& loop) : loop_(loop) {}
  child_nodes(const child_nodes&) = delete;
  child_nodes& operator=(const child_nodes&) = delete;

  void start(const std::vector<std::string>& arguments) {
    // arguments[0] is the program's name; the program itself is this process's own.
    loop_.run([&] {
      auto made = std::make_unique<child>();
      made->owner = this;
      std::vector<char*> argv;
      for (const std::string& each : arguments) argv.push_back(const_cast<char*>(each.c_str()));
      argv.push_back(nullptr);
      constexpr int inherited = 3;
      int ends[2] = {-1, -1};
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        throw error(std::error_code(errno, std::system_category()),
                    std::string("starting another node on this machine: ") + std::strerror(errno));
      descriptor its(ends[0]), mine(ends[1]);
      std::string link = std::string(agent_link::variable) + "=" + std::to_string(inherited);
      std::vector<char*> variables;
      for (char** each = environ; *each != nullptr; ++each) variables.push_back(*each);
      variables.push_back(link.data());
      variables.push_back(nullptr);
      uv_stdio_container_t streams[inherited + 1] = {};
      for (int i = 0; i <= inherited; ++i) {
        streams[i].flags = i == 0 ? UV_IGNORE : UV_INHERIT_FD;
        streams[i].data.fd = i == inherited ? its.get() : i;
      }
      uv_process_options_t options{};
      options.file = "/proc/self/exe";
      options.args = argv.data();
      options.env = variables.data();
      options.stdio_count = inherited + 1;
      options.stdio = streams;
      options.exit_cb = [](uv_process_t* process, std::int64_t, int) {
        static_cast<child*>(process->data)->owner->ended(*static_cast<child*>(process->data));
      };
      made->process.data = made.get();
      {
        std::lock_guard guard(lock_);
        ++running_;
      }
      if (int problem = ::uv_spawn(loop_.uv(), &made->process, &options); problem != 0) {
        std::lock_guard guard(lock_);
        --running_;
        throw error(std::error_code(-problem, std::system_category()),
                    std::string("starting another node on this machine: ") + ::uv_strerror(problem));
      }
      made->link = agent_link::adopt(loop_, mine.release(), *made, "a node that this one has started");
      children_.push_back(std::move(made));
    });
  }

  void stop() {
    loop_.run([&] {
      for (auto& each : children_)
        if (each->link) each->link->send([](protocol::HostMessage::Builder out) { out.setStop(); });
    });
  }
  // Has them end with the cluster, those too that it has given up.

  void evict(std::chrono::milliseconds within, const std::string& reason) {
    loop_.run([&] {
      for (auto& each : children_)
        if (each->link)
          each->link->send([&](protocol::HostMessage::Builder out) {
            auto eviction = out.initEvict();
            eviction.setMilliseconds(static_cast<std::uint32_t>(within.count()));
            eviction.setReason(reason.c_str());
          });
    });
  }
  // Has them leave the host too, and end.

  void close_links() {
    loop_.run([&] {
      for (auto& each : children_)
        if (auto link = each->link) link->close();
    });
  }
  // Before the loop is stopped.

  std::size_t running() {
    std::lock_guard guard(lock_);
    return running_;
  }

  bool wait_for_end(std::chrono::milliseconds limit) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, limit, [&] { return running_ == 0; });
  }

  void kill_all() {
    loop_.run([&] {
      for (auto& each : children_)
        if (!each->done) ::uv_process_kill(&each->process, SIGKILL);
    });
  }

  std::vector<int> process_ids() {
    std::vector<int> ids;
    loop_.run([&] {
      for (auto& each : children_)
        if (!each->done) ids.push_back(each->process.pid);
    });
    return ids;
  }

private:
  struct child final : agent_link::listener {
    void on_link_message(agent_link&, protocol::HostMessage::Reader) override {}
    void on_link_closed(agent_link&, const error&) override { link.reset(); }

    uv_process_t process{};
    child_nodes* owner = nullptr;
    std::shared_ptr<agent_link> link;
    bool done = false;
  };

  void ended(child& which) {
    which.done = true;
    ::uv_close(reinterpret_cast<uv_handle_t*>(&which.process), nullptr);
    std::lock_guard guard(lock_);
    --running_;
    changed_.notify_all();
  }

  event_loop& loop_;
  std::vector<std::unique_ptr<child>> children_; // on the I/O thread
  std::mutex lock_;
  std::condition_variable changed_;
  std::size_t running_ = 0;
};

} // namespace migrate::detail
