// How a node is put together. Included by node/functions.hpp.
#pragma once

#include <csignal>

#include <sys/resource.h>

#include <migrate/file/descriptors.hpp>
#include <migrate/hex.hpp>
#include <migrate/node/body.hpp>

namespace migrate::detail {

struct node_calls {
  // The tables through which the lower layers reach the node.

  static node_id here() noexcept { return this_home->here(); }
  static std::uint64_t incarnation() noexcept { return this_calling.incarnation; }

  static void start(resident& task, node_id where) {
    node_heap_scope scope;
    if (where == any_node) where = this_node->placement_->at_spawn();
    if (where != no_node && where != this_home->here()) {
      // It goes before its first instruction; if it cannot, it begins here and says so.
      failure refused;
      task.state.store(run_state::ready, std::memory_order_relaxed);
      task.move = new move_order;
      task.move->target = where;
      task.move->asker = {no_node, 0, {}, move_reason::spawned};
      attention.fetch_add(1);
      task.wants.fetch_or(want_move);
    }
    task_id id = task.id;
    this_scheduler->start_task(task);
    this_engine->may_have_to_go(task, id);
  }

  static void wake_at(resident& task, steady_point when) {
    node_heap_scope scope;
    this_node->sleepers_->add(task, when);
  }
  static void forget_wake(resident& task) noexcept {
    node_heap_scope scope;
    this_node->sleepers_->forget(task);
  }
  static void start_node(std::uint64_t call) { this_node->start_sibling(call); }
  static std::size_t nodes(node_id* into, std::size_t most) noexcept {
    return this_node->members_.copy(into, most);
  }
  static node_id random_node(std::uint64_t random) noexcept { return this_node->members_.pick(random); }
  static void report(const char* text) noexcept {
    node_heap_scope scope;
    this_node->say(text);
  }

  static constexpr services table{
      .here = here,
      .incarnation = incarnation,
      .conceive = family::conceive,
      .cancel = family::cancel,
      .enter = family::enter,
      .start = start,
      .join = family::join,
      .wait_until = family::wait_until,
      .detach = family::detach,
      .locate = family::locate_or_throw,
      .move = moving::move,
      .move_me = moving::move_me,
      .moves_in_rounds = [](const resident& task, std::uint64_t random) noexcept {
        return this_engine->moves_in_rounds(task, random);
      },
      .move_soon = moving::move_soon,
      .residual =
          [](residual_dependency& on) {
            node_heap_scope scope;
            auto found = this_node->pages_->residual(current_task()->id);
            if (found) on = *found;
            return found.has_value();
          },
      .checkpoint = checkpointing::checkpoint,
      .checkpoint_me = checkpointing::checkpoint_me,
      .fork_me = forking::fork_me,
      .start_node = start_node,
      .settle = mail::settle,
      .wake_at = wake_at,
      .forget_wake = forget_wake,
      .nodes = nodes,
      .random_node = random_node,
      .report = report,
      .signal_waits = signal_waits_for,
      .take_signals = take_signals,
  };

  static void woken(resident& task) noexcept { this_scheduler->wake(task); }
  static void timer_due(resident& task) noexcept {
    {
      held guard(task.lock);
      if (task.signals == nullptr) return;
      task.signals->wakes_at = 0;
      if (task.state.load() != run_state::frozen) raise_attention(task); // or its arrival does
    }
    this_scheduler->wake(task);
  }

  static constexpr signal_services signal_table{
      .send = signals::send,
      .tell_change = signals::tell_change,
      .foreground_group = signals::foreground_group,
      .set_foreground_group = signals::set_foreground_group,
      .wake_at = [](resident& task, steady_point when) { this_node->timers_->add(task, when); },
      .forget_wake = [](resident& task) noexcept { this_node->timers_->forget(task); },
      .pass_on = running::pass_on,
      .pass_stop_on = running::pass_stop_on,
  };

  static void moved(task_id task, const char* name, const move_order& how) noexcept {
    // When it stopped here: by now it may have moved on, and another node have told of that.
    this_node->events_.add({cluster_event::kind::moved, this_node->id_, how.target, task, name, reason_of(how),
                            how.frozen_at.time_since_epoch().count()});
    this_eviction->gone(task);
  }
  static void move_failed(task_id task, const char* name, const move_order& how) noexcept {
    if (how.asker.reason == move_reason::evicted) return; // it is tried again; the eviction's end says what came of it
    this_node->events_.add({cluster_event::kind::refused, this_node->id_, how.target, task, name, how.why.what, 0});
  }
  static void not_gone(resident& task, task_id id, node_id refused_by, const failure& why) noexcept {
    this_eviction->not_gone(task, id, refused_by, why);
  }
  static std::string reason_of(const move_order& how) {
    std::string reason = move_reason_names[static_cast<std::size_t>(how.asker.reason)];
    if (!how.why_so.empty()) reason += "; " + how.why_so;
    std::string compressed = how.carried ? how.carried->compress.outcome() : std::string();
    return compressed.empty() ? reason : reason + "; " + compressed;
  }
  static void restarted(task_id task, node_id from, node_id on) noexcept {
    node_heap_scope scope;
    this_streams->restarted(task);
    this_pipe_home->task_ended(task); // what it had of pipes since
    this_node->events_.add({cluster_event::kind::restarted, from, on, task, {}, "node " + to_string(from) + " has died", 0});
  }

  static void memory_is_lost(resident& task, const char* why) noexcept { faulted(this_node, task, errc::node_lost, why); }

  static constexpr move_listener listener{.moved = moved, .failed = move_failed, .not_gone = not_gone,
                                          .restarted = restarted, .memory_lost = memory_is_lost};

  static void memory_whole(task_id task) noexcept { this_engine->memory_whole(task); }
  static void memory_losing(task_id task, node_id source) noexcept { this_engine->memory_losing(task, source); }
  static void memory_lost(task_id task) noexcept { this_engine->memory_lost(task); }

  static void serve(void* owner, resident& task) noexcept { static_cast<node_body*>(owner)->engine_->serve(task); }

  static void finished(void* owner, resident& task) noexcept {
    node_body& here = *static_cast<node_body*>(owner);
    if (task.lost_from.load() != no_node) { // whatever it made of memory that was not there
      faulted(owner, task, errc::node_lost, here.engine_->why_lost(task).c_str());
      return;
    }
    if (task.id.home() == here.id_ && ended_by_exception(task.control->outcome, task.control->process.status))
      here.report_exception(task.id, task.control->name, task.control->outcome_bytes, task.control->outcome_size);
    here.engine_->ended(task);
    here.home_->end_here(task);
  }

  static void faulted(void* owner, resident& task, errc why, const char* text) noexcept {
    node_body& here = *static_cast<node_body*>(owner);
    here.say(text);
    byte_writer bytes;
    bytes.put(standard_exception::migrate_error);
    bytes.put(std::string("migrate::error"));
    bytes.put(std::string(text));
    bytes.put(static_cast<int>(why));
    bytes.put(true);
    task.control->outcome = outcome_kind::exception;
    task.control->process.status = killed_by(SIGSEGV);
    task.control->outcome_bytes = bytes.bytes().data(); // until end_here has copied it
    task.control->outcome_size = bytes.bytes().size();
    here.engine_->ended(task);
    here.home_->end_here(task);
  }
};

inline node_body::node_body(node_options options) : options_(std::move(options)) {
  if (this_node != nullptr)
    throw error(errc::address_space, "this process has a node already; regions lie at the same addresses for both");
  fix_addresses();
  int agent = agent_link::take_inherited();
  // Buffers that the C library would allocate at the first output, perhaps inside a task.
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  ::tzset();
  if (options_.helper) ::prctl(PR_SET_PDEATHSIG, options_.forward_signals ? SIGKILL : SIGTERM);
  if (options_.helper && options_.forward_signals) outside_signals::leave_to_first_node();
  if (options_.workers == 0) options_.workers = std::max(1u, std::thread::hardware_concurrency());
  torture.period = options_.torture;
  torture.seed = options_.seed;

  open_store();
  space_.emplace();
  vacated_.emplace(*space_, +[]() noexcept {
    node_heap_scope scope;
    node_body& here = *this_node;
    here.loop_.post([&here] {
      here.loop_.after(vacated_regions::patience, [&here] { here.sweep_regions(); });
    });
  });
  scanner_.emplace();
  faults_.emplace(departed_);
  loop_.start();
  peer_options with;
  with.listen = options_.listen;
  store_id id = images_->id();
  with.self = identity::of_this_process({id.high, id.low});
  with.limits.silence = std::chrono::milliseconds(options_.keepalive_ms);
  // Who does not say hello is silent as well; but a node that is just starting may take its time.
  with.handshake =
      std::clamp<std::chrono::milliseconds>(with.limits.silence, std::chrono::seconds(2), with.handshake);
  if (!options_.credentials.empty()) with.security = credentials::in(options_.credentials);
  pages_network_ = with;
  network_.emplace(loop_, std::move(with), static_cast<peer_listener&>(*this));
  this_node = this;
  try {
    network_->start();
    if (options_.join.empty()) {
      cluster_ = random_id();
      id_ = ledger_.next_node();
      network_->set_own_id(id_, cluster_);
      set_tables();
      home_->keep_ledger(ledger_);
      for (std::size_t kind = 0; kind < region_classes; ++kind)
        home_->grant_own(static_cast<region_class>(kind));
      members_.add(id_);
    } else {
      join_cluster();
    }
    if (options_.torture != 0) {
      attention.fetch_add(1);
      if (first())
        say("torture: every task moves at every " + std::to_string(options_.torture) +
            " library calls, seed " + std::to_string(options_.seed));
    }
    if (options_.forward_signals && !options_.helper) {
      outside_.emplace(loop_);
      outside_->forward();
    }
    if (agent >= 0) listen_to_agent(agent);
    if (first() && options_.control) open_control_desk();
    if (first()) {
      start_siblings();
      start_hosts();
    }
  } catch (...) {
    stop_cluster();
    throw;
  }
}

inline void node_body::stop_cluster() {
  if (engine_) engine_->end_restarts();
  if (host_client_) // its nodes are no children of this process
    for (const granted_host& each : host_client_->hosts())
      send_message(*network_, each.node, [](auto message) { message.setStop(); });
  stop_hosts();
  if (children_ && children_->running() > 0) {
    if (first()) // the others' children are stopped by the first node too
      for (node_id other : members_.all())
        if (other != id_) send_message(*network_, other, [](auto message) { message.setStop(); });
    children_->stop();
    if (!children_->wait_for_end(std::chrono::seconds(10))) {
      say("a node that was started here did not stop within 10 s and is killed");
      children_->kill_all();
      children_->wait_for_end(std::chrono::seconds(10));
    }
  }
  desk_.reset();
  if (eviction_) eviction_->cancel();
  std::vector<std::thread> evictors;
  {
    std::lock_guard guard(state_lock_);
    evictors.swap(evictors_);
  }
  for (std::thread& each : evictors) each.join();
  if (children_) children_->close_links();
  if (scheduler_)
    loop_.run([this] {
      if (auto link = std::exchange(agent_, nullptr)) link->close();
    });
  if (scheduler_) scheduler_->stop();
  if (engine_) engine_->stop();
  if (programs_) programs_->stop();
  if (network_) network_->stop();
  loop_.stop();
  this_eviction = nullptr;
  if (placement_) placement_->stop();
  the_placement = nullptr;
  this_placement = nullptr;
  the_services = nullptr;
  the_hosts = nullptr;
  host_client_.reset();
  the_process_parts.clear();
  the_surroundings = nullptr;
  the_clocks = nullptr;
  process_streams_.reset();
  the_streams = nullptr;
  streams_.reset();
  this_streams = nullptr;
  this_clocks = nullptr;
  this_node_mark = 0;
  the_mail = nullptr;
  the_processes = nullptr;
  this_engine = nullptr;
  this_post = nullptr;
  the_files = nullptr;
  when_task_ended = nullptr;
  this_passing = nullptr;
  the_programs = nullptr;
  this_programs = nullptr;
  this_readiness = nullptr;
  this_signals = nullptr;
  the_signals = nullptr;
  this_home = nullptr;
  this_calling = {};
  this_node = nullptr;
  if (options_.torture != 0) attention.store(0);
  own_store_.reset();
}

inline id128 node_body::random_id() {
  id128 id;
  if (::getrandom(&id, sizeof id, 0) != sizeof id) throw error(errc::address_space, "getrandom failed");
  return id;
}

inline id128 node_body::boot_id() {
  // Whose steady clock this is: the machine and its boot.
  id128 id;
  if (std::FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "re")) {
    char text[64] = {};
    if (std::fgets(text, sizeof text, file) != nullptr) {
      std::string digits;
      for (char c : std::string(text))
        if (std::isxdigit(static_cast<unsigned char>(c)) != 0) digits += c;
      if (digits.size() == 32) {
        id.high = std::stoull(digits.substr(0, 16), nullptr, 16);
        id.low = std::stoull(digits.substr(16), nullptr, 16);
      }
    }
    std::fclose(file);
  }
  return id;
}

inline void node_body::open_store() {
  store_options how;
  how.create = options_.join.empty();
  std::string path = options_.store;
  if (path.empty()) {
    if (!options_.join.empty())
      throw error(errc::store_missing, "a node that joins a cluster needs its store: give --migrate-store");
    own_store_.emplace();
    options_.store = path = own_store_->path();
  }
  images_.emplace(store::open(path, how));
}

inline void node_body::set_tables() {
  fault_node = id_;
  home_.emplace(id_, *network_, *space_, *vacated_);
  post_.emplace(*home_, *network_);
  carriers_.add(mail_carrier);
  carriers_.add(usage_carrier);
  signals_.emplace(*home_, *network_, loop_);
  home_->when_place_changes([](task_id task) noexcept { this_signals->send_again(task); });
  carriers_.add(signal_carrier);
  clock_skew = skew_from_environment(id_);
  id128 boot = boot_id();
  boot.low ^= static_cast<std::uint64_t>(clock_skew); // with other clocks it stands for another machine
  home_services.set(service::fork, forking::serve);
  std::vector<std::string> words{program_invocation_name};
  words.insert(words.end(), options_.arguments.begin(), options_.arguments.end());
  surroundings_.emplace(home_surroundings::of_this_process(std::move(words)));
  set_file_tables();
  programs_.emplace(loop_);
  carriers_.add(program_carrier);
  pages_.emplace(page_office::parts{id_, cluster_, std::move(pages_network_), *scanner_, options_.push_rest,
                                    &node_calls::memory_whole, &node_calls::memory_losing, &node_calls::memory_lost});
  engine_.emplace(transfer_engine::parts{*home_, *network_, calls_, *vacated_, *scanner_, &*images_, carriers_, departed_,
                                         boot, options_.most_inline, options_.moves_by, node_calls::listener, loop_,
                                         std::chrono::milliseconds(options_.keepalive_ms) * 6, *pages_,
                                         options_.compress});
  eviction_.emplace(*home_, *engine_, members_);
  this_eviction = &*eviction_;
  home_services.set(service::cluster, &node_body::serve_cluster);
  sleepers_.emplace(loop_, &node_calls::woken);
  timers_.emplace(loop_, &node_calls::timer_due);
  children_.emplace(loop_);
  scheduler_.emplace(scheduler::hooks{this, &node_calls::serve, &node_calls::finished,
                                              &node_calls::faulted});
  this_calling = {&*network_, &calls_, network_->incarnation()};
  this_home = &*home_;
  this_post = &*post_;
  this_signals = &*signals_;
  the_signals = &node_calls::signal_table;
  home_services.set(service::signal, signals::serve);
  the_process_hooks.post = signals::post_from_home;
  the_process_parts.add(signals_part);
  this_engine = &*engine_;
  the_mail = &mail::services;
  surroundings_at_home::of_this_home = &*surroundings_;
  the_surroundings = &surroundings_at_home::services;
  home_services.set(service::surroundings, surroundings_at_home::on_request);
  the_process_parts.add({.inherit = surroundings::inherit});
  the_process_parts.add({.inherit = [](control_block& parent, control_block& child) {
    child.process.accounted = parent.process.accounted;
  }});
  home_services.set(service::process, process::serve);
  the_processes = &process::services;
  streams_.emplace();
  this_streams = &*streams_;
  the_streams = &streams_at_home::services;
  home_services.set(service::stream, home_streams::on_request);
  the_process_parts.add({.ending = stream_state::ending});
  this_programs = &*programs_;
  the_programs = &program_calls::services;
  the_process_parts.add(running::part); // the first to end, as what programs wrote is the streams' next
  process_streams_.emplace();
  clocks_.emplace();
  this_clocks = &*clocks_;
  this_node_mark = network_->incarnation();
  the_clocks = &clock_calls;
  home_services.set(service::time, home_clocks::on_request);
  the_process_parts.add({.inherit = time_state::inherit});
  carriers_.add(placement_carrier);
  the_hosts = host_table();
  home_services.set(service::hosts, &node_body::serve_hosts);
  the_services = &node_calls::table;
  // Before anybody can be told of this node: tasks may come with the next message.
  scheduler_->start(options_.workers);
  placement_.emplace(placement_office::parts{loop_, *home_, *network_, members_, *engine_, *scheduler_},
                     options_.policy, options_.choose);
  this_placement = &*placement_;
  the_placement = &placing::services;
  placement_->start();
  if (options_.usage) scheduler_->account_usage();
  if (options_.checkpoint_ms != 0) loop_.post([this] { checkpoint_from_time_to_time(); });
}

inline void node_body::set_file_tables() {
  // A process's table of descriptors grows by doubling, and each time waits until every thread has noticed.
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    int far = ::fcntl(2, F_DUPFD_CLOEXEC, static_cast<int>(std::min<rlim_t>(limit.rlim_max, 4096) - 1));
    if (far >= 0) ::close(far);
  }
  passing_.emplace(images_->path(), hex(cluster_.low), id_);
  readiness_.emplace(loop_);
  this_passing = &*passing_;
  this_readiness = &*readiness_;
  bool several_machines = options_.reopen_files || !options_.credentials.empty(); // without them all nodes are on one
  file_carrying::how = {options_.reopen_files, several_machines, images_->path()};
  this_offset_home = &offset_home_;
  this_offset_tokens = &offset_tokens_;
  home_services.set(service::offset, offsets::on_request);
  this_pipe_home = &pipe_home_;
  home_services.set(service::pipe, home_pipes::on_request);
  when_task_ended = [](task_id task) noexcept {
    node_heap_scope scope;
    this_pipe_home->task_ended(task);
  };
  std::signal(SIGPIPE, SIG_IGN); // it would end the node; the task's write says EPIPE
  static file_services table{
      .wake_when = [](int kernel, std::uint32_t events) { this_readiness->wake_when(self(), kernel, events); },
      .forget = [](int kernel) noexcept { this_readiness->forget(kernel); },
      .sharing = {},
      .step_offset = offsets::step,
      .take_token = offsets::take_token,
      .put_token = offsets::put_token,
      .holders_change = offsets::holders_change,
      .pipes_at_home = false,
      .read_pipe = home_pipes::read,
      .write_pipe = home_pipes::write,
      .look_at_pipe = home_pipes::state,
      .give_pipe = home_pipes::give,
      .leave_pipe = home_pipes::leave,
  };
  // What only the kernel has cannot leave its machine.
  table.sharing = options_.shared_offset == offset_sharing::kernel && several_machines ? offset_sharing::home
                                                                                       : options_.shared_offset;
  table.pipes_at_home = several_machines;
  the_files = &table;
  the_process_parts.add({.inherit = descriptors::inherit, .ending = descriptors::ending});
  carriers_.add(file_carrier);
}

inline void node_body::say(const std::string& line) const {
  if (!options_.quiet) std::fprintf(stderr, "migrate: node %s: %s\n", to_string(id_).c_str(), line.c_str());
}

inline void node_body::checkpoint_from_time_to_time() {
  loop_.after(std::chrono::milliseconds(options_.checkpoint_ms), [this] {
    engine_->checkpoint_all();
    checkpoint_from_time_to_time();
  });
}

inline void node_body::sweep_regions() {
  if (vacated_->sweep()) loop_.after(vacated_regions::patience, [this] { sweep_regions(); });
}

inline void node_body::report_exception(task_id task, const char* name, const std::byte* bytes, std::size_t size) {
  // One that nobody will ask for must not vanish.
  if (!home_->detached(task)) return;
  try {
    byte_reader reader(bytes, size);
    throw_encoded_exception(reader);
  } catch (const std::exception& thrown) {
    say("task " + to_string(task) + (*name != 0 ? std::string(" (") + name + ")" : "") +
        " ended by an exception: " + thrown.what());
  }
}

// --- the cluster -------------------------------------------------------------------------------------

inline std::vector<std::string> node_body::sibling_arguments() const {
  std::vector<std::string> arguments{"migrate-node"};
  arguments.insert(arguments.end(), options_.arguments.begin(), options_.arguments.end());
  auto add = [&](const std::string& name, const std::string& value) {
    arguments.push_back("--migrate-" + name + "=" + value);
  };
  add("join", first() ? address() : network_->address_of(family::registrar));
  add("store", options_.store);
  add("workers", std::to_string(options_.workers));
  add("nodes", "1");
  add("torture", std::to_string(options_.torture) + ":" + std::to_string(options_.seed));
  add("inline", std::to_string(options_.most_inline));
  add("transfer", std::string(name_of(options_.moves_by)));
  add("push", options_.push_rest ? "1" : "0");
  add("compress", std::string(name_of(options_.compress)));
  add("keepalive", std::to_string(options_.keepalive_ms));
  add("checkpoint", seconds_text(options_.checkpoint_ms));
  add("policy", placement_policy_names[static_cast<std::size_t>(options_.policy)]);
  if (!options_.credentials.empty()) add("credentials", options_.credentials);
  if (options_.quiet) arguments.push_back("--migrate-quiet");
  if (options_.usage) arguments.push_back("--migrate-usage");
  if (options_.reopen_files) arguments.push_back("--migrate-reopen-files");
  add("shared-offset", std::string(offset_sharing_names[static_cast<std::size_t>(options_.shared_offset)]));
  arguments.push_back("--migrate-helper");
  return arguments;
}

inline void node_body::start_sibling(std::uint64_t call) {
  if (engine_->closed()) {
    calls_.complete(call, {errc::node_leaving, "node " + to_string(id_) + " is leaving its host, and starts no other there", 0, 0, {}});
    return;
  }
  {
    std::lock_guard guard(state_lock_);
    wait_for_a_node_.push_back(call);
  }
  children_->start(sibling_arguments());
}

inline void node_body::member_came() {
  if (placement_) placement_->on_node_came();
  std::vector<std::uint64_t> waiting;
  {
    std::lock_guard guard(state_lock_);
    waiting.swap(wait_for_a_node_);
  }
  for (std::uint64_t call : waiting) calls_.complete(call, {});
}

inline void node_body::start_siblings() {
  if (options_.nodes <= 1) return;
  for (unsigned i = 1; i < options_.nodes; ++i) children_->start(sibling_arguments());
  std::unique_lock guard(state_lock_);
  bool all = state_changed_.wait_for(guard, std::chrono::seconds(30), [&] {
    return members_.count() >= options_.nodes || children_->running() + 1 < options_.nodes;
  });
  if (!all || members_.count() < options_.nodes)
    throw error(errc::node_unreachable,
                "of the " + std::to_string(options_.nodes) + " nodes asked for, " + std::to_string(members_.count()) +
                    " came up" + (join_failure_ ? std::string("; the last was refused: ") + join_failure_->what() : ""));
}

inline void node_body::join_cluster() {
  network_->connect(options_.join);
  std::unique_lock guard(state_lock_);
  bool in_time = state_changed_.wait_for(guard, std::chrono::seconds(20), [&] { return joined_ || join_failure_; });
  if (join_failure_) throw *join_failure_;
  if (!in_time)
    throw error(errc::node_unreachable, "joining the cluster at " + options_.join + ": no welcome within 20 s");
}

inline void node_body::on_connected(node_id peer, const peer_info& info) {
  if (id_ == no_node) {
    // The node whose address was given, or the first one, which it named.
    send_message(*network_, peer, [](protocol::Message::Builder message) { message.setEnter(); });
    return;
  }
  network_->set_address(peer, info.address);
  members_.add(peer); // it may have been believed lost
  member_came();
  calls_.fail(peer, errc::cancelled, "");
  home_->tell_ends_again(peer);
  engine_->on_node_back(peer);
  post_->on_node_back(peer);
  signals_->on_node_back(peer);
}

template <class Fill> void node_body::send_on(connection& to, Fill&& fill) {
  capnp::MallocMessageBuilder message;
  fill(message.initRoot<protocol::Message>());
  to.send(message);
}

inline void node_body::on_enter(connection& from) {
  if (!first()) {
    send_on(from, [&](protocol::Message::Builder message) {
      auto list = message.initMembers(1);
      list[0].setNode(number(family::registrar));
      list[0].setAddress(network_->address_of(family::registrar));
    });
    return;
  }
  node_id fresh = ledger_.next_node();
  std::vector<node_id> known = members_.all();
  send_on(from, [&](protocol::Message::Builder message) {
    auto welcome = message.initWelcome();
    welcome.setNode(number(fresh));
    welcome.initCluster().setHigh(cluster_.high);
    welcome.getCluster().setLow(cluster_.low);
    auto list = welcome.initMembers(static_cast<unsigned>(known.size()));
    for (unsigned i = 0; i < list.size(); ++i) {
      list[i].setNode(number(known[i]));
      list[i].setAddress(known[i] == id_ ? network_->address() : network_->address_of(known[i]));
    }
    auto ranges = welcome.initRanges(region_classes);
    for (unsigned kind = 0; kind < region_classes; ++kind) {
      region_range range = ledger_.next_range(static_cast<region_class>(kind));
      ranges[kind].setKind(static_cast<std::uint8_t>(kind));
      ranges[kind].setFirst(range.first);
      ranges[kind].setCount(range.count);
    }
  });
  network_->name(from, fresh);
  announce(fresh, false);
  for (node_id each : members_.closed()) {
    cluster_event leaving{cluster_event::kind::leaving, each, no_node, {}, {}, "since before this node came", 0};
    tell(fresh, leaving);
  }
  {
    std::lock_guard guard(state_lock_);
    members_.add(fresh);
  }
  events_.add({cluster_event::kind::joined, fresh, no_node, {}, {}, {}, 0});
  member_came();
  state_changed_.notify_all();
}

inline void node_body::announce(node_id which, bool left) {
  for (node_id other : members_.all()) {
    if (other == id_ || other == which) continue;
    send_message(*network_, other, [&](protocol::Message::Builder message) {
      auto list = message.initMembers(1);
      list[0].setNode(number(which));
      list[0].setAddress(network_->address_of(which));
      list[0].setLeft(left);
    });
  }
}

inline void node_body::on_welcome(protocol::Welcome::Reader message) {
  if (id_ != no_node) return;
  id_ = node_id(message.getNode());
  cluster_ = {message.getCluster().getHigh(), message.getCluster().getLow()};
  network_->set_own_id(id_, cluster_);
  set_tables();
  for (auto range : message.getRanges())
    if (range.getKind() < region_classes)
      home_->grant({static_cast<region_class>(range.getKind()), range.getFirst(), range.getCount()});
  on_members(message.getMembers());
  {
    std::lock_guard guard(state_lock_);
    members_.add(id_);
    joined_ = true;
  }
  if (options_.grant != 0)
    send_message(*network_, family::registrar,
                         [&](protocol::Message::Builder into) { into.setForGrant(options_.grant); });
  state_changed_.notify_all();
}

inline void node_body::on_members(capnp::List<protocol::Member>::Reader list) {
  for (auto each : list) {
    auto which = static_cast<node_id>(each.getNode());
    if (id_ == no_node) {
      network_->connect(each.getAddress().cStr()); // the first node, named by the one that was asked
      continue;
    }
    if (which == id_) continue;
    if (each.getLeft()) {
      members_.remove(which);
    } else {
      network_->set_address(which, each.getAddress().cStr());
      members_.add(which);
    }
  }
  member_came();
}

inline void node_body::on_grant(node_id asker, protocol::GrantRequest::Reader message) {
  answer reply;
  if (!first() || message.getKind() >= region_classes) {
    reply = {errc::protocol, "only the cluster's first node grants regions", 0, 0, {}};
  } else {
    region_range range = ledger_.next_range(static_cast<region_class>(message.getKind()));
    if (range.count == 0)
      reply = {errc::region_exhausted, "the cluster has no more regions of this class", 0, 0, {}};
    reply.first = (std::uint64_t{range.first} << 32) | range.count;
    reply.second = message.getKind() + 1u;
  }
  send_answer(*network_, asker, message.getCall(), reply);
}

inline void node_body::on_message(connection& from, node_id peer, protocol::Message::Reader message,
                             kj::ArrayPtr<const kj::byte> attachment) {
  auto which = message.which();
  if (peer == no_node) {
    if (which == protocol::Message::ENTER) on_enter(from);
    return;
  }
  if (id_ == no_node) {
    if (which == protocol::Message::WELCOME) on_welcome(message.getWelcome());
    if (which == protocol::Message::MEMBERS) on_members(message.getMembers());
    return;
  }
  switch (which) {
  case protocol::Message::ANSWER: {
    auto reply = message.getAnswer();
    answer got = to_answer(reply, attachment);
    if ((reply.getCall() & transfer_engine::claim_mark) != 0) {
      engine_->on_claim_answer(task_id(reply.getCall() & ~transfer_engine::claim_mark), got);
    } else if (reply.getCall() == family::refill_mark) {
      family::on_refill(got);
    } else if (reply.getCall() == home_clocks::answer_mark) {
      clocks_->on_answer(peer, got);
    } else {
      calls_.complete(reply.getCall(), std::move(got));
    }
    return;
  }
  case protocol::Message::MEMBERS: on_members(message.getMembers()); return;
  case protocol::Message::GRANT: on_grant(peer, message.getGrant()); return;
  case protocol::Message::STOP: {
    std::lock_guard guard(state_lock_);
    stopped_ = true;
    state_changed_.notify_all();
    return;
  }
  case protocol::Message::STATISTICS: {
    byte_writer bytes;
    bytes.put(engine_->statistics());
    answer reply;
    reply.bytes = {bytes.bytes().data(), bytes.bytes().size()};
    send_answer(*network_, peer, message.getStatistics().getCall(), reply);
    return;
  }
  case protocol::Message::CHILD: family::on_child(peer, message.getChild()); return;
  case protocol::Message::JOIN: family::on_join(peer, message.getJoin()); return;
  case protocol::Message::RELEASE: home_->release(task_id(message.getRelease())); return;
  case protocol::Message::LOCATE: family::on_locate(peer, message.getLocate()); return;
  case protocol::Message::ENDED: {
    auto ended = message.getEnded();
    if (ended_by_exception(static_cast<outcome_kind>(ended.getKind()), ended.getStatus()))
      report_exception(task_id(ended.getTask()), "", reinterpret_cast<const std::byte*>(attachment.begin()),
                       attachment.size());
    family::on_ended(peer, ended, attachment);
    return;
  }
  case protocol::Message::FOR_GRANT:
    if (host_client_) host_client_->node_came(message.getForGrant(), peer);
    return;
  case protocol::Message::ENDED_SEEN: home_->end_seen(task_id(message.getEndedSeen())); return;
  case protocol::Message::CLAIM: engine_->on_claim(peer, message.getClaim()); return;
  case protocol::Message::MOVE: engine_->on_move(peer, message.getMove()); return;
  case protocol::Message::OFFER: engine_->on_offer(peer, message.getOffer(), attachment); return;
  case protocol::Message::REFUSAL: engine_->on_refusal(peer, message.getRefusal()); return;
  case protocol::Message::TAKEN: engine_->on_taken(peer, message.getTaken()); return;
  case protocol::Message::RECEIVE: engine_->on_receive(peer, message.getReceive()); return;
  case protocol::Message::PAGES: engine_->on_pages(peer, message.getPages(), attachment); return;
  case protocol::Message::LAY: engine_->on_lay(peer, message.getLay()); return;
  case protocol::Message::READY: engine_->on_ready(peer, message.getReady()); return;
  case protocol::Message::DROP_AHEAD: engine_->on_drop_ahead(peer, message.getDropAhead()); return;
  case protocol::Message::RUNNING: engine_->on_running(peer, message.getRunning()); return;
  case protocol::Message::STILL_HELD: engine_->on_still_held(peer, message.getStillHeld()); return;
  case protocol::Message::REQUEST: on_request(peer, message.getRequest(), attachment); return;
  case protocol::Message::DISOWN: engine_->on_disown(peer, message.getDisown()); return;
  case protocol::Message::CHECKPOINTED: engine_->on_checkpointed(peer, message.getCheckpointed()); return;
  case protocol::Message::CHECKPOINT_SEEN: engine_->on_checkpoint_seen(message.getCheckpointSeen()); return;
  case protocol::Message::NOT_HELD: engine_->on_not_held(peer, message.getNotHeld()); return;
  case protocol::Message::LOADS: placement_->on_loads(peer, message.getLoads()); return;
  case protocol::Message::ROOM_ASKED: placement_->on_room_asked(peer, message.getRoomAsked()); return;
  case protocol::Message::ROOM: placement_->on_room(peer, message.getRoom()); return;
  case protocol::Message::MAIL: post_->on_mail(peer, message.getMail(), attachment); return;
  case protocol::Message::MAIL_SEEN: post_->on_mail_seen(peer, message.getMailSeen()); return;
  case protocol::Message::SIGNAL: signals_->on_signal(peer, message.getSignal(), attachment); return;
  case protocol::Message::SIGNAL_SEEN: signals_->on_signal_seen(peer, message.getSignalSeen()); return;
  case protocol::Message::MAIL_AGAIN: post_->on_mail_again(peer, message.getMailAgain()); return;
  default: return;
  }
}

inline void node_body::on_disconnected(node_id peer, const error& reason, peer_loss how) {
  if (id_ == no_node) return;
  if (how == peer_loss::broken) {
    engine_->on_connection_broken(peer, reason.what());
    post_->on_node_lost(peer, false);
    return;
  }
  bool process_is_gone = how == peer_loss::gone;
  if (peer == family::registrar && options_.helper) {
    std::lock_guard guard(state_lock_);
    stopped_ = true;
    state_changed_.notify_all();
    return;
  }
  if (!process_is_gone && network_->connected(peer)) return; // there again: on_connected has dealt with it
  if (members_.contains(peer)) {
    bool left = reason.code() == errc::ok;
    events_.add({left ? cluster_event::kind::left : cluster_event::kind::lost, peer, no_node, {}, {},
                 left ? "" : reason.what(), 0});
  }
  members_.remove(peer);
  if (host_client_) host_client_->node_gone(peer, reason.what());
  if (first()) announce(peer, true);
  calls_.fail(peer, errc::node_unreachable, "node " + to_string(peer) + " was lost: " + reason.what());
  engine_->on_node_lost(peer, process_is_gone, reason.what());
  post_->on_node_lost(peer, true);
  placement_->on_node_lost(peer);
  offset_home_.on_node_lost(peer);
  if (process_is_gone) home_->forget_ends(peer);
  state_changed_.notify_all();
}

inline void node_body::on_unreachable(node_id peer, const error& reason, std::size_t) {
  if (id_ == no_node) {
    std::lock_guard guard(state_lock_);
    if (!joined_) join_failure_ = reason;
    state_changed_.notify_all();
    return;
  }
  if (peer != no_node) on_disconnected(peer, reason, peer_loss::unreachable);
}

inline void node_body::on_refused(const std::string& peer, const error& reason) {
  say("sent away " + peer + ": " + reason.what());
  std::lock_guard guard(state_lock_);
  join_failure_ = reason;
}

inline move_statistics node_body::statistics() {
  move_statistics all = engine_->statistics();
  for (node_id other : members_.all()) {
    if (other == id_) continue;
    called made = call_node(other, [](protocol::Message::Builder message, std::uint64_t call) {
      message.initStatistics().setCall(call);
    });
    if (made.got.code != errc::ok) continue;
    byte_reader reader(made.got.bytes.data(), made.got.bytes.size());
    all.add(reader.get<move_statistics>());
  }
  return all;
}

} // namespace migrate::detail
