// The page office: keeps what moved tasks have left behind on this node, and fetches what tasks here have left elsewhere.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <migrate/memory/dirty_pages.hpp>
#include <migrate/memory/missing_pages.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/peers.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/page_run.hpp>
#include <migrate/task/residual.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/transfer/background.hpp>
#include <migrate/transfer/compressor.hpp>
#include <migrate/transfer/fault_point.hpp>
#include <migrate/transfer/memory.hpp>
#include <migrate/transfer/page_set.hpp>
#include <migrate/transfer/reference_reader.hpp>
#include <migrate/transfer/statistics.hpp>

namespace migrate::detail {

class page_office final : private peer_listener, private event_loop::watcher {
  // Copy on reference (Zayas 1987): a task runs on its target with the pages that it needs for that; the others lie frozen
  // at the source until they are touched, or pushed.
  //
  //   where the task is              where its memory is
  //   fetch ----------------------->            a thread sleeps in a page that is not there
  //         <----------------------- pages
  //   push  ----------------------->            once the task runs
  //         <----------------------- pages, pages, ...
  //   seen  ----------------------->            and so on; fetched pages overtake all but a window's bytes
  //         <----------------------- all
  //   done  ----------------------->            the memory is let go
  //
  // A thread that waits for a page may hold any lock of the node, and it may be the node's I/O thread. So all this goes over
  // connections and a loop of its own, whose thread touches no memory that may be missing and takes no lock but the
  // office's, under which nobody touches such memory. They are made when the first task moves in this way.

public:
  struct parts {
    node_id here;
    id128 cluster;
    peer_options network; // as of the node's own connections
    page_scanner& scanner;
    bool push; // without being asked
    void (*whole)(task_id task) noexcept;
    // All of the task's memory is here.
    void (*losing)(task_id task, node_id source) noexcept;
    void (*lost)(task_id task) noexcept;
    // What is missing will not come: before and after touching it became a fault.
  };
  // The functions are called on the office's thread.

  explicit page_office(parts with) : with_(std::move(with)) {}
  ~page_office() { stop(); }
  page_office(const page_office&) = delete;
  page_office& operator=(const page_office&) = delete;

  void stop() noexcept;

  // --- where the memory is

  struct remains {
    task_id task;
    node_id target;
    control_block* control;
    char *from, *to;               // where the rest of the memory lies
    std::vector<page_range> sent;  // of it, with the offer
    image base;                    // that the memory is based on, if it is
    compression compress;
    std::uint64_t number = 0;
  };
  struct place {
    std::uint16_t port = 0;   // at which the office is called
    std::uint64_t number = 0; // of the move, for the office
  };

  place keep(remains what);
  // With the task frozen, before it is offered. Throws when there can be no office.
  void forget(task_id task, std::uint64_t number) noexcept;
  // It goes on here. When this returns, nobody reads its memory.
  void hand_over(task_id task, std::uint64_t number, std::function<void()> let_go);
  // It runs on the target. let_go() is called when its memory here is of no more use, on a thread of the office.
  std::size_t kept() const noexcept { return kept_count_.load(); }
  void push_all();
  // This node is about to leave.
  void node_lost(node_id target);

  // --- where the task is

  struct absence {
    task_id task;
    std::uint64_t number; // for the source's office
    node_id source;
    std::string address; // of that
    region_number region;
    char *from, *to;
    std::vector<page_range> here; // of that, what has come with the offer
  };

  bool await(const absence& what);
  // Before the task runs, with what has come in its place. False: this kernel cannot wait for single pages, so that all
  // of them have come. Throws when the source's office cannot be reached. Waits for it, if it was not spoken to before.

  bool begin(task_id task);
  // The task is about to run. False: what is missing will not come.
  void drop(task_id task) noexcept;
  // It has ended, or never came to run. The missing pages read as zero.

  enum class presence { whole, waited_for, lost };
  presence gather(task_id task);
  // Whether all of the task's memory is here. If it is waited for, `whole` or `lost` follows.

  bool hides_from_kernel(task_id task);
  // Whether a system call that touches a missing page would fail.

  std::optional<residual_dependency> residual(task_id task);
  std::vector<residual_dependency> residuals();

  void add_followed(move_statistics& to);
  // Of what has followed tasks from here.

private:
  struct kept_memory {
    explicit kept_memory(remains of) : what(std::move(of)), left(what.from, what.to), compress(what.compress) {}

    const remains what;
    std::shared_mutex memory; // shared while it is read
    bool gone = false;        // guarded by it
    // Guarded by the office's lock:
    std::function<void()> let_go;
    bool handed_over = false;
    bool done = false;
    // On the office's thread:
    page_set left; // to be pushed
    char* next = nullptr;
    bool surveying = false;
    bool surveyed = false;
    bool pushing = false;
    bool all_sent = false;
    std::size_t under_way = 0; // bytes of pages
    compressor compress;
    std::chrono::steady_clock::time_point pushed_from;
    std::size_t seen = 0; // bytes of pages since then, until the link's speed is known
  };
  using kept_pointer = std::shared_ptr<kept_memory>;

  struct awaited_memory {
    explicit awaited_memory(const absence& of) : what(of), here(what.from, what.to) {}

    const absence what;
    std::mutex lock; // held while pages are put in their places
    std::condition_variable changed;
    page_set here;
    std::unordered_set<char*> asked;
    std::uint64_t rest = ~std::uint64_t{0}; // bytes that are still to come, when that is known
    bool plain = false;                     // nobody waits for single pages
    bool greeted = false;
    bool begun = false;
    bool pushed = false;
    bool ended = false; // whole, or dropped
    bool lost = false;
    std::string why;
    bool interrupted = false; // on the office's thread
  };
  using awaited_pointer = std::shared_ptr<awaited_memory>;

  static constexpr std::size_t chunk = 256 * 1024;    // bytes of a message
  static constexpr std::size_t window = 2 * chunk;    // that may be under way
  static constexpr std::size_t most_looked_at = 1024; // pages, until others have their turn

  void start();
  void on_connected(node_id node, const peer_info& info) override;
  void on_message(connection& from, node_id node, protocol::Message::Reader message,
                  kj::ArrayPtr<const kj::byte> attachment) override;
  void on_disconnected(node_id node, const error& reason, peer_loss how) override;
  void on_unreachable(node_id node, const error& reason, std::size_t) override { unheard(node, reason.what()); }
  void on_ready(std::uint32_t) noexcept override;
  void unheard(node_id node, const std::string& why);
  template <class Fill>
  bool say(node_id to, task_id task, std::uint64_t number, Fill&& fill, std::span<const iovec> attachment = {});

  kept_pointer kept_of(task_id task, std::uint64_t number);
  void on_asked(const kept_pointer& of, protocol::Reference::Reader message);
  void serve_page(kept_memory& of, char* page);
  void start_push(const kept_pointer& of);
  void survey(const kept_pointer& of);
  void pump(const kept_pointer& of);
  void say_pages(kept_memory& of, const std::vector<page_range>& pages);
  void finish(const kept_pointer& of);
  void release(const kept_pointer& of);

  awaited_pointer awaited_of(task_id task);
  void on_told(const awaited_pointer& of, protocol::Reference::Reader message, kj::ArrayPtr<const kj::byte> attachment);
  void touched(char* page);
  void removed(char* from, std::size_t bytes);
  static void given_back(char* from, std::size_t bytes) noexcept;
  bool drain();
  void take_pages(const awaited_pointer& of, protocol::Reference::Reader message, kj::ArrayPtr<const kj::byte> attachment);
  void put(awaited_memory& of, char* to, const void* from, std::size_t bytes);
  bool ask_push(awaited_memory& of);
  void have_all(const awaited_pointer& of);
  void lose(const awaited_pointer& of, const std::string& why);
  void erase(const awaited_pointer& of);

  parts with_;
  std::mutex starting_;
  std::atomic<bool> started_{false};
  bool stopped_ = false; // guarded by starting_
  std::optional<missing_pages> pages_;
  std::optional<event_loop> loop_;
  std::optional<peers> network_;
  std::optional<background> keepers_;
  std::uint16_t port_ = 0;

  std::mutex lock_;
  std::unordered_map<task_id, kept_pointer> kept_;
  std::atomic<std::size_t> kept_count_{0};
  std::uint64_t last_number_ = 0;
  std::unordered_map<task_id, awaited_pointer> awaited_;
  std::unordered_map<std::uint32_t, awaited_pointer> by_region_;
  move_recorder recorder_;
  page_decompressor decompress_; // on the office's thread
  static inline page_office* told_of_heaps_ = nullptr;
};
// Thread safety: any thread but the office's own; stop() from one that runs no task.

// ---------------------------------------------------------------------------------------------------

inline void page_office::start() {
  if (started_.load()) return;
  std::lock_guard guard(starting_);
  if (started_.load()) return;
  if (stopped_) throw error(errc::shutting_down, "this node is stopping");
  peer_options how = with_.network;
  std::string host = split_address(how.listen).host;
  how.listen = (host.find(':') != std::string::npos ? "[" + host + "]" : host) + ":0";
  how.advertise.clear();
  pages_.emplace();
  loop_.emplace();
  loop_->start();
  network_.emplace(*loop_, std::move(how), static_cast<peer_listener&>(*this));
  network_->set_own_id(with_.here, with_.cluster);
  network_->start();
  port_ = split_address(network_->address()).port;
  keepers_.emplace();
  keepers_->start(1);
  if (pages_->available()) loop_->run([this] { loop_->watch(pages_->descriptor(), EPOLLIN, *this); });
  if (pages_->by_faults()) {
    told_of_heaps_ = this;
    heap_gives_back = &page_office::given_back;
  }
  started_ = true;
}

inline void page_office::stop() noexcept {
  {
    std::lock_guard guard(starting_);
    if (std::exchange(stopped_, true) || !started_.load()) return;
  }
  if (told_of_heaps_ == this) heap_gives_back = nullptr;
  network_->stop();
  keepers_->stop();
  if (pages_->available()) loop_->run([this] { loop_->unwatch(pages_->descriptor(), *this); });
  loop_->stop();
}

template <class Fill>
bool page_office::say(node_id to, task_id task, std::uint64_t number, Fill&& fill, std::span<const iovec> attachment) {
  return send_message(
      *network_, to,
      [&](protocol::Message::Builder message) {
        auto about = message.initReference();
        about.setTask(task.bits());
        about.setNumber(number);
        fill(about);
      },
      attachment);
}

inline void page_office::on_message(connection&, node_id node, protocol::Message::Reader message,
                                    kj::ArrayPtr<const kj::byte> attachment) {
  if (message.which() != protocol::Message::REFERENCE) return;
  auto about = message.getReference();
  task_id task(about.getTask());
  awaited_pointer mine = awaited_of(task);
  if (mine != nullptr && mine->what.source == node && mine->what.number == about.getNumber()) {
    on_told(mine, about, attachment);
    return;
  }
  kept_pointer kept = kept_of(task, about.getNumber());
  if (kept != nullptr && kept->what.target == node) {
    on_asked(kept, about);
    return;
  }
  auto which = about.which();
  if (which == protocol::Reference::GREETING || which == protocol::Reference::FETCH || which == protocol::Reference::PUSH)
    say(node, task, about.getNumber(), [](protocol::Reference::Builder out) { out.setUnknown(); });
}

inline void page_office::on_connected(node_id node, const peer_info&) {
  // What was asked for over a connection that broke is asked for again.
  std::vector<awaited_pointer> all;
  {
    std::lock_guard guard(lock_);
    for (auto& [id, each] : awaited_)
      if (each->what.source == node && std::exchange(each->interrupted, false)) all.push_back(each);
  }
  for (const awaited_pointer& each : all) {
    const absence& what = each->what;
    std::vector<char*> pages;
    bool pushed = false;
    {
      std::lock_guard guard(each->lock);
      pages.assign(each->asked.begin(), each->asked.end());
      pushed = each->pushed;
    }
    say(node, what.task, what.number, [](protocol::Reference::Builder out) { out.setGreeting(); });
    for (char* page : pages)
      say(node, what.task, what.number,
          [page](protocol::Reference::Builder out) { out.setFetch(reinterpret_cast<std::uint64_t>(page)); });
    if (pushed) say(node, what.task, what.number, [](protocol::Reference::Builder out) { out.setPush(); });
  }
}

inline void page_office::on_disconnected(node_id node, const error& reason, peer_loss how) {
  if (how != peer_loss::broken) {
    unheard(node, reason.what());
    return;
  }
  std::lock_guard guard(lock_);
  for (auto& [id, each] : awaited_)
    if (each->what.source == node) each->interrupted = true;
  for (auto& [id, each] : kept_)
    if (each->what.target == node) each->pushing = false;
}

inline void page_office::unheard(node_id node, const std::string& why) {
  std::vector<awaited_pointer> awaited;
  {
    std::lock_guard guard(lock_);
    for (auto& [id, each] : awaited_)
      if (each->what.source == node) awaited.push_back(each);
  }
  for (const awaited_pointer& each : awaited) lose(each, why);
  node_lost(node);
}

inline void page_office::on_ready(std::uint32_t) noexcept {
  for (int turns = 0; turns < 16 && drain(); ++turns) {
  }
}

inline bool page_office::drain() {
  return pages_->read([this](char* page) { touched(page); },
                      [this](char* from, std::size_t bytes) { removed(from, bytes); });
}

} // namespace migrate::detail

#include <migrate/transfer/page_office_fetching.hpp>
#include <migrate/transfer/page_office_keeping.hpp>
