// Making tasks, and the handle by which their maker holds them.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <migrate/task/codec.hpp>
#include <migrate/task/ending.hpp>
#include <migrate/task/outcome.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate {

struct spawn_options {
  std::string_view name = {};                 // for messages; the first 23 bytes are kept
  region_class region = region_class::medium; // bounds what the task may allocate: 64 MiB
  std::size_t stack_bytes = 256 * 1024;       // of the region; only pages that are touched cost memory
  node_id on = no_node;                       // the node to start on; none: this one; any_node: as the policy says
  bool by_policy = true;                      // a placement policy may move it (see placement.hpp)
  transfer moves_by = transfer::by_default;   // how its memory moves, unless a move asks for another way
  bool recover = false;                       // restart it when its node dies (see this_task::checkpoint)
};

template <class R = void> class task;

namespace detail {

inline task_id running_task() noexcept {
  resident* task = current_task();
  return task != nullptr ? task->id : task_id{};
}

inline void detach_task(task_id id) noexcept {
  if (the_services != nullptr) the_services->detach(id);
}

struct unborn_task {
  birth born;
  control_block* control;
};

struct task_entry {
  control_block* control;
  boost::context::fiber operator()(boost::context::fiber&& from) const {
    scheduler::begin(std::move(from));
    control->body(*control);
    return this_scheduler->leave_finished(*this_worker());
  }
};

inline unborn_task make_task(const spawn_options& options, std::uint64_t awaited_as) {
  safe_point();
  resident* parent = current_task();
  birth born = node_services().conceive(parent != nullptr ? parent->id : task_id{}, options.region, awaited_as);
  std::size_t size = born.region.size();
  std::size_t stack = (std::clamp<std::size_t>(options.stack_bytes, 16 * 1024, size / 2) + span_size - 1) /
                      span_size * span_size;
  char* heap_begin = born.region.base() + stack;
  auto* control = new (control_block_place(born.region, stack))
      control_block(born.id, born.region, stack, heap_begin, size - stack, born.zeroed);
  control->parent = parent != nullptr ? parent->id : task_id{};
  control->by_policy = options.by_policy;
  control->moves_by = options.moves_by;
  control->recoverable = options.recover;
  std::memcpy(control->name, options.name.data(), std::min(options.name.size(), sizeof control->name - 1));
  return {born, control};
}

inline task_id start_task(const unborn_task& fresh, node_id where) {
  control_block& control = *fresh.control;
  char* top = reinterpret_cast<char*>(&control);
  boost::context::stack_context stack;
  stack.sp = top;
  stack.size = static_cast<std::size_t>(top - control.stack_limit());
  control.suspended.fiber =
      boost::context::fiber(std::allocator_arg, boost::context::preallocated(top, stack.size, stack),
                            no_stack_allocator{}, task_entry{&control});
  control.suspended.stack_pointer = top - 1024; // below it Boost's frames for a context that never ran
#ifdef MIGRATE_ASAN
  control.suspended.stack_bottom = control.stack_limit();
  control.suspended.stack_bytes = stack.size;
#endif
  control.suspended.enter_process();
  task_id id = control.id;
  resident& task = the_services->enter(fresh.born, control);
  the_services->start(task, where);
  return id;
}

template <class F, class... A> struct closure {
  F function;
  std::tuple<A...> arguments;
  using result = std::invoke_result_t<F, A...>;

  closure(const F& f, const A&... a) : function(f), arguments(a...) {}
  // Copies, never moves: what is moved would go on pointing into the parent's heap.

  static void run(control_block& control) noexcept {
    auto* self = static_cast<closure*>(control.closure);
    try {
      byte_writer bytes;
      if constexpr (std::is_void_v<result>)
        std::apply(std::move(self->function), std::move(self->arguments));
      else
        bytes.put<std::decay_t<result>>(std::apply(std::move(self->function), std::move(self->arguments)));
      store_outcome(control, outcome_kind::value, bytes);
    } catch (...) {
      store_exception(control);
    }
    if (control.outcome == outcome_kind::value) run_exit_handlers(control);
    std::destroy_at(self);
    last_calls();
  }
};

template <class F, class... A> struct child_closure {
  F function;
  std::tuple<A...> arguments;
  using result = std::invoke_result_t<F, A...>;

  child_closure(const F& f, const A&... a) : function(f), arguments(a...) {}

  static void run(control_block& control) noexcept {
    auto* self = static_cast<child_closure*>(control.closure);
    try {
      if constexpr (std::is_convertible_v<result, int>)
        control.process.status =
            exited_with(static_cast<int>(std::apply(std::move(self->function), std::move(self->arguments))));
      else
        static_cast<void>(std::apply(std::move(self->function), std::move(self->arguments)));
      control.outcome = outcome_kind::value;
    } catch (...) {
      store_exception(control);
    }
    if (control.outcome == outcome_kind::value) run_exit_handlers(control);
    std::destroy_at(self);
    last_calls();
  }
};
// The same for a task whose end is asked for by wait(): its result is an exit status, as main's is.

template <class T> inline constexpr bool shares_memory = false;
template <class T> inline constexpr bool shares_memory<std::reference_wrapper<T>> = true;
template <class T> inline constexpr bool shares_memory<std::shared_ptr<T>> = true;
template <class T> inline constexpr bool shares_memory<std::weak_ptr<T>> = true;
template <class T, class D> inline constexpr bool shares_memory<std::unique_ptr<T, D>> = true;

template <class Made, class F, class... A>
task_id launch(const spawn_options& options, std::uint64_t awaited_as, const F& function, const A&... arguments) {
  static_assert((!shares_memory<A> && ...) && !shares_memory<F>,
                "tasks share no memory: pass values, not references or smart pointers");
  unborn_task fresh = make_task(options, awaited_as);
  byte_writer thrown;
  try {
    heap_scope in_child(&fresh.control->heap);
    void* place = fresh.control->heap.allocate(sizeof(Made), alignof(Made));
    if (place == nullptr)
      throw region_exhausted(sizeof(Made), fresh.control->heap.reserved_bytes(), fresh.control->heap.capacity());
    fresh.control->closure = new (place) Made(function, arguments...);
    if (resident* parent = current_task()) the_process_parts.inherit(*parent->control, *fresh.control);
    fresh.control->body = &Made::run;
  } catch (...) {
    encode_current_exception(thrown); // into the caller's heap: the child's is about to go
  }
  if (fresh.control->body == nullptr) {
    the_services->cancel(fresh.born);
    byte_reader reader(thrown.bytes().data(), thrown.bytes().size());
    throw_encoded_exception(reader);
  }
  return start_task(fresh, options.on);
}

} // namespace detail

template <class F, class... A>
  requires std::invocable<std::decay_t<F>, std::decay_t<A>...>
auto spawn(const spawn_options& options, F&& function, A&&... arguments)
    -> task<std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<A>...>>>;

template <class F, class... A>
  requires std::invocable<std::decay_t<F>, std::decay_t<A>...>
auto spawn(F&& function, A&&... arguments) {
  return spawn(spawn_options{}, std::forward<F>(function), std::forward<A>(arguments)...);
}
// Runs function(arguments...) in a new task. The function with its captures and the arguments are
// copied into the new task's heap; they must own what they refer to, as tasks share no memory.
// Throws migrate::error when home cannot give out an id and a region, region_exhausted when the copies
// do not fit, and whatever the copying throws. In a task the child's home is the caller's home.

inline void migrate_task(task_id task, node_id target, transfer how, std::error_code& code) {
  detail::safe_point();
  code = task ? detail::node_services().move(task, target, how).code : make_error_code(errc::no_such_task);
}

inline void migrate_task(task_id task, node_id target, std::error_code& code) {
  migrate_task(task, target, transfer::by_default, code);
}

inline void migrate_task(task_id task, node_id target, transfer how = transfer::by_default) {
  detail::safe_point();
  if (!task) throw error(errc::no_such_task, "migrate_task: the id is no task's");
  detail::failure failed = detail::node_services().move(task, target, how);
  if (failed.code) throw error(failed.code, failed.what);
}
// Has the task moved at its next safe point, its memory as `how` says, and returns when it runs on the target. When it cannot be moved it goes on
// where it was. errc::no_such_task when it ended first, errc::move_in_progress when another move is under way,
// errc::not_permitted when the caller is not the task itself, its parent, or a thread of its home node that runs no
// task.

template <class R> class [[nodiscard]] task {
public:
  task() noexcept = default;
  explicit task(task_id id) noexcept : id_(id), holder_(detail::running_task()) {}
  task(task&& other) noexcept : id_(std::exchange(other.id_, {})), holder_(other.holder_) {}
  task& operator=(task&& other) noexcept {
    if (this != &other) {
      detach();
      id_ = std::exchange(other.id_, {});
      holder_ = other.holder_;
    }
    return *this;
  }
  ~task() { detach(); }

  task_id id() const noexcept { return id_; }
  bool joinable() const noexcept { return static_cast<bool>(id_); }

  R join();
  // Waits for the task's end, wherever it and the caller are then, and returns its value or throws its
  // exception (see task_error for exceptions of unknown type; migrate::error with errc::node_lost when its
  // node died, with errc::message_too_large when the value takes more than 64 MiB). The caller may have moved when it
  // returns.

  void detach() noexcept {
    if (task_id id = std::exchange(id_, {}); id && holder_ == detail::running_task()) detail::detach_task(id);
  }
  // Nobody will ask for the outcome. The destructor does this too.

  template <class Rep, class Period> bool wait_for(const std::chrono::duration<Rep, Period>& limit) {
    return wait_until(detail::task_now() + std::chrono::duration_cast<std::chrono::nanoseconds>(limit));
  }
  template <class Duration>
  bool wait_until(const std::chrono::time_point<std::chrono::steady_clock, Duration>& deadline) {
    detail::safe_point();
    return detail::node_services().wait_until(
        held("waiting"), std::chrono::time_point_cast<std::chrono::nanoseconds>(deadline));
  }
  // Whether the task has ended by then. join() does not block after true.

  node_id where() const {
    detail::safe_point();
    return detail::node_services().locate(held("where"));
  }
  // The node it is on by home's record; no_node when it has ended.

  void migrate_to(node_id target, transfer how = transfer::by_default) { migrate_task(held("migrate_to"), target, how); }
  void migrate_to(node_id target, transfer how, std::error_code& code) { migrate_task(id_, target, how, code); }
  void migrate_to(node_id target, std::error_code& code) { migrate_task(id_, target, code); }
  // As migrate_task().

  void checkpoint() {
    detail::safe_point();
    detail::failure failed = detail::node_services().checkpoint(held("checkpoint"));
    if (failed.code) throw error(failed.code, failed.what);
  }
  // Has an image of the task committed, as this_task::checkpoint() does for itself, and returns when its home knows of it.
  // The task goes on meanwhile, and stands still twice for a moment at safe points. Who may ask for it is who may move the task.

private:
  task_id held(const char* what) const {
    if (!id_) throw error(errc::no_such_task, std::string(what) + ": the handle holds no task");
    return id_;
  }

  task_id id_;
  task_id holder_; // who made the handle
};
// Holds a task that can be joined once. Movable; thread-safe as an int is. A handle belongs to the
// task that made it: pass task ids, not handles, to others. In a copy of that task (see fork.hpp) it holds nothing.
// All but detach() throw errc::no_such_task when it holds none.

// ---------------------------------------------------------------------------------------------------

template <class F, class... A>
  requires std::invocable<std::decay_t<F>, std::decay_t<A>...>
auto spawn(const spawn_options& options, F&& function, A&&... arguments)
    -> task<std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<A>...>>> {
  using made = detail::closure<std::decay_t<F>, std::decay_t<A>...>;
  using result = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<A>...>>;
  return task<result>(detail::launch<made>(options, 0, function, arguments...));
}

namespace detail {

inline void throw_failure(const outcome& ended) {
  if (ended.kind == outcome_kind::value) return;
  byte_reader reader(ended.bytes.data(), ended.bytes.size());
  if (ended.bytes.size() == 0) throw region_exhausted("the task's region had no room for its exception");
  throw_encoded_exception(reader);
}

} // namespace detail

template <class R> R task<R>::join() {
  if (id_ && holder_ != detail::running_task())
    throw error(errc::no_such_task, "join: the handle is a copy made by fork; its task is the original's child");
  detail::safe_point();
  task_id id = held("join");
  id_ = {};
  detail::outcome ended = detail::node_services().join(id);
  detail::throw_failure(ended);
  if constexpr (!std::is_void_v<R>) {
    byte_reader reader(ended.bytes.data(), ended.bytes.size());
    return reader.get<R>();
  }
}

} // namespace migrate
