// Places on the idle hosts that are granted to this program.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <migrate/hosts.hpp>

#include "../ninja/foreign_places.hpp"

namespace pmake {

class granted_places final : public foreign_places {
  // Each command is a task: it moves to its host, runs the program there and returns what that has written. Another one
  // waits for it at home, which hears of the end whatever becomes of the host.
  //
  // To be used by one thread of the first node, and only one at a time.

public:
  using sayer = std::function<void(const std::string& line)>;
  granted_places(unsigned wanted, std::string database, host_note note, sayer say);
  // Throws migrate::error when there is no host database.
  ~granted_places() override;

  int descriptor() const override { return any_; }
  std::optional<foreign_end> next() override;

  std::size_t hosts() const override;
  std::size_t places() const override;
  std::size_t running() const override { return running_.size(); }
  std::size_t at_home() const override;
  bool room(const std::string& but_not_on) const override;
  std::uint64_t start(foreign_order what, const std::string& but_not_on) override;
  void stop(std::uint64_t number, int signal) override;
  void stop_all(int signal) override;

  struct news_of_task {
    std::uint64_t number;
    migrate::task_id runner;
  };
  struct news_of_place {
    std::uint64_t number;
    migrate::node_id now;
    bool here;
  };
  struct news_of_end {
    foreign_end what;
    bool unfit = false; // the host cannot run commands at all
  };
  using news = std::variant<news_of_task, news_of_place, news_of_end>;

  void tell(news what);
  // From any thread, in a node_heap_scope.

private:
  struct place {
    std::uint64_t grant;
    unsigned slot;
  };
  struct lent {
    migrate::granted_host what;
    unsigned first_slot; // the numbers of its places follow those of the host's other grants
    std::vector<bool> busy;
  };
  struct command {
    std::uint64_t grant;
    std::string host;
    unsigned slot, first_slot;
    std::chrono::steady_clock::time_point begin;
    migrate::task_id runner = {};
    bool function = false;
    migrate::node_id now = migrate::no_node; // where a function is, which may have had to leave its host
    bool here = false;                       // it has come home
    int signal = 0;                          // to be sent as soon as its task is known
    bool stopped = false;
  };

  std::optional<place> free_place(const std::string& but_not_on) const;
  void take(const migrate::host_event& event);
  void take(const news_of_task& begun);
  void take(const news_of_place& moved);
  std::size_t guests_on(const lent& host) const;
  std::optional<foreign_end> take(news_of_end&& ended);
  void send(command& to, int signal);
  void say_nobody_came();
  void take_host_events();
  std::optional<news> next_news();

  std::string database_; // its address
  host_note note_;
  sayer say_;
  migrate::host_pool pool_;
  int any_ = -1;         // an epoll of the two below and of the pool's own
  int changed_ = -1;     // an eventfd: there are news
  int patience_ = -1;    // a timer: no host has come for a while
  bool came_ = false;    // a host, or it was said that none has
  std::string unusable_; // why the last host that was granted could not be used
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, lent> hosts_; // by grant, those that take commands
  std::map<std::uint64_t, command> running_;

  std::mutex mutex_;
  std::deque<news> news_; // under mutex_
};

} // namespace pmake
