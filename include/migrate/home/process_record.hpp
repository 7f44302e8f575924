// What a home knows of a task as a process: its family, group and session, its state and how it ended.
#pragma once

#include <cstdint>
#include <list>
#include <optional>

#include <sys/wait.h>

#include <migrate/home/asked.hpp>
#include <migrate/id.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/usage.hpp>

namespace migrate::detail {

enum class process_state : std::uint8_t { running, stopped, zombie };

struct wait_selection {
  enum class of : std::uint8_t { any, task, group, own_group };
  of which = of::any;
  task_id id; // the task or group
};
// Which children a wait is for: the forms of waitpid's first argument.

struct wait_report {
  task_id child; // none: WNOHANG, and nothing to report
  int status = 0; // in the form of wait(2)
  task_usage used; // by the child and those it waited for
};

struct wait_reply {
  int error = 0; // an errno
  wait_report report;
};

struct child_event {
  task_id child;
  int code = 0;   // CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_CONTINUED
  int status = 0; // exit status, or the signal
  task_usage used;
};
// What SIGCHLD says.

struct wait_request {
  std::uint64_t number = 0;  // of the wait, drawn by the task: asked again, it is the same wait
  std::uint32_t attempt = 0; // the newest one is where the task is
  wait_selection selection;
  int options = 0; // of waitid(2)
};

struct process_record {
  task_id id;
  task_id parent;
  task_id group;
  task_id session;
  process_state state = process_state::running;
  bool awaited = false;           // its end is for its parent's wait()
  bool reaps_itself = false;      // SIGCHLD is ignored, or SA_NOCLDWAIT: its children are no zombies
  bool no_stop_news = false;      // SA_NOCLDSTOP
  bool has_news = false;          // a change that no wait has returned
  int status = 0;                 // the last change, in the form of wait(2)
  task_usage used;                // when it has ended
  task_usage children_used;       // by the children that it waited for, and by theirs
  std::list<process_record*> children; // without news
  std::list<process_record*> news;     // the children with news, the oldest first
  std::list<process_record*>::iterator among_siblings; // in one of the parent's lists, if that has a record

  struct waiting {
    request asker;
    wait_request what;
  };
  std::optional<waiting> waiter;
  std::uint64_t last_number = 0; // of the newest request that must not be served twice
  bool last_answered = false;
  wait_reply last_reply;         // to it
  std::uint64_t last_child_number = 0;
  birth last_child;
};
// Kept in the process_table. A task that has no child to wait for, is in its home's first group and was never stopped
// has none; what such a task has is what make() gives a new record.

} // namespace migrate::detail
