// What a running make's shells ask for places.
#pragma once

#include <chrono>
#include <csignal>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <sys/types.h>

#include "../ninja/foreign_places.hpp"
#include "../ninja/trace.hpp"
#include "jobserver.hpp"
#include "leaves_home.hpp"

namespace pmake {

class private_folder {
public:
  private_folder();
  ~private_folder();
  private_folder(const private_folder&) = delete;
  private_folder& operator=(const private_folder&) = delete;
  const std::string& path() const noexcept { return path_; }

private:
  std::string path_;
};

class signals_for_make {
  // SIGINT, SIGTERM and SIGHUP, which come only while the server waits.
public:
  signals_for_make();
  const sigset_t& outer_mask() const noexcept { return outer_; }

private:
  sigset_t outer_;
};

class make_server {
public:
  make_server(std::size_t places, unsigned most, jobserver::kind kind, leaving_rules rules, trace* record);
  // So many places here; at most so many commands at once in all (0: no limit). Throws build_error.
  ~make_server();
  make_server(const make_server&) = delete;
  make_server& operator=(const make_server&) = delete;

  const std::string& path() const noexcept { return path_; }
  std::string flag() const { return tokens_.flag(); }

  void use(std::unique_ptr<foreign_places> there) { there_ = std::move(there); }

  void serve(pid_t make, const sigset_t& mask);
  // Until make has ended.

  std::string summary() const;
  // Where lines have run, in a line; empty when all of them ran here.

private:
  using time_point = std::chrono::steady_clock::time_point;

  struct client {
    int fd = -1;
    pid_t process = 0;
    std::string bytes; // of its request
    bool asked = false, recursive = false, leaves = false;
    std::string shell, line;
    std::uint64_t number = 0; // of its command, while that runs elsewhere
    unsigned runs = 0;        // elsewhere, begun so far
    std::string but_not_on;
    std::string answer; // to be sent
    std::size_t sent = 0;
  };
  using client_list = std::deque<std::unique_ptr<client>>;

  struct local_run {
    int fd; // a pidfd
    unsigned slot;
    std::string line;
    time_point begin;
  };

  void accept_all();
  bool hear(client& from);
  void take_request(client& from);
  const std::string& shell_of(pid_t shell);
  client_list::iterator forget(client_list::iterator which);
  bool give_place(client& to);
  void give_places();
  void send_away(client& what);
  void take_ends();
  void take(foreign_end&& ended);
  bool send_answer(client& to);
  void ended_here(const local_run& run);
  unsigned free_slot() const;
  void pass_on(int which, pid_t make);
  void follow_places();

  private_folder folder_;
  std::string path_;
  std::size_t places_;
  unsigned most_;
  jobserver tokens_;
  leaving_rules rules_;
  trace* trace_;
  std::unique_ptr<foreign_places> there_;
  std::size_t places_there_ = 0;
  int listener_ = -1;
  client_list clients_;
  std::map<pid_t, local_run> running_; // processes in a place here
  std::map<pid_t, std::string> shells_;
  std::size_t ran_here_ = 0;
  std::map<std::string, std::size_t> ran_away_; // by host
};

} // namespace pmake
