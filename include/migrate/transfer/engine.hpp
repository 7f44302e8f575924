// The transfer engine: freezes a task, offers it, and hands it over once home has granted the claim.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <migrate/home/office.hpp>
#include <migrate/memory/dirty_pages.hpp>
#include <migrate/memory/write_tracker.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/store/store.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/transfer/background.hpp>
#include <migrate/transfer/carriage.hpp>
#include <migrate/transfer/carrier.hpp>
#include <migrate/task/departed.hpp>
#include <migrate/transfer/fault_point.hpp>
#include <migrate/transfer/memory.hpp>
#include <migrate/transfer/move_order.hpp>
#include <migrate/transfer/page_office.hpp>
#include <migrate/transfer/statistics.hpp>
#include <migrate/transfer/strategy.hpp>

namespace migrate::detail {

struct move_listener {
  // Who is told of what the engine does, on a worker, a serving thread or the I/O thread. Each may be null.

  void (*moved)(task_id task, const char* name, const move_order& how) noexcept = nullptr;
  // The task runs on the order's target now.
  void (*failed)(task_id task, const char* name, const move_order& how) noexcept = nullptr;
  // It goes on here; the order's `why` says for what reason.
  void (*not_gone)(resident& task, task_id id, node_id refused_by, const failure& why) noexcept = nullptr;
  // While the node is closed: a task has come to run here, or does not get away; `why` is empty when no move was tried.
  void (*restarted)(task_id task, node_id from, node_id on) noexcept = nullptr;
  // At home: the node that it was on has died, and it is about to go on from its last checkpoint.
  void (*memory_lost)(resident& task, const char* why) noexcept = nullptr;
  // Frozen here: it is to end with errc::node_lost.
};

class transfer_engine {
  // The way of one task from source to target, with home as the arbiter:
  //
  //   source                         target                          home
  //   freeze, flush, offer --------> lay out, claim ---------------> epoch + 1 if it is still epoch
  //                                  <------------------------------ granted
  //   vacate <------------- taken -- run
  //
  // A source that loses its target claims the task back at home in the same way; whichever claim comes
  // first decides. A target that is refused drops what it laid out. When the target dies between the
  // grant and `taken`, home asks the source, which still has the task frozen, and grants it again there.

public:
  struct parts {
    home_office& home;
    peers& network;
    call_table& calls;
    vacated_regions& vacated;
    page_scanner& scanner;
    store* images;
    const carrier_table& carriers;
    departed_regions& departed;
    id128 boot;
    std::size_t most_inline; // bytes of dirty pages that travel inside the offer
    transfer moves_by;       // of tasks that do not say
    move_listener listener;
    event_loop& loop;
    std::chrono::milliseconds patience; // with a node that cannot be reached and has tasks with checkpoints
    page_office& pages;
    compression compress; // of what goes straight to other nodes
  };

  explicit transfer_engine(parts with) : with_(with) {
    if (tracker_.served()) with_.scanner.protect_by(tracker_.descriptor());
    rounds_.start(2, behind_workers); // so that a short move does not wait for a long one
    movers_.start(2);
    receivers_.start(2);
    keepers_.start(1, behind_workers);
    finishers_.start(1);
    closers_.start(1);
  }
  ~transfer_engine() { stop(); }

  void stop() noexcept;
  // Pages that go ahead go no further. Before the network stops.

  bool order(resident& task, task_id id, node_id target, move_asker asker, failure& refused, task_id copy = {},
             transfer how = transfer::by_default, bool checkpoint = false);
  // Has the task moved at its next safe point. `refused` says why not, if at once: only the task itself, its parent and
  // who runs its home may ask for it. False: it has left this node, or ended. With `copy`, it stays and that copy of it goes; the answer comes when the copy runs.

  void checkpoint_all();
  // Of the tasks here that want to be restarted. On the I/O thread.
  void end_restarts() noexcept { ending_ = true; }
  // The cluster ends: what is lost from now on is not restarted.

  void serve(resident& task) noexcept;
  // On a worker's loop or a serving thread, with the task frozen.

  void close(std::string why);
  // From now on every offer is refused with errc::node_leaving and these words, and move_listener::not_gone hears of tasks
  // that are here nevertheless.
  void reopen() noexcept;
  bool closed() const noexcept { return closed_.load(); }
  void may_have_to_go(resident& task, task_id id) noexcept {
    if (closed()) not_gone(task, id, no_node, {});
  }
  // A task has begun here, or goes on.

  void ended(resident& task) noexcept;
  // The task has run its last instruction here.

  void on_move(node_id asker, protocol::Move::Reader message);
  void on_offer(node_id source, protocol::Offer::Reader message, kj::ArrayPtr<const kj::byte> attachment);
  void on_claim(node_id claimant, protocol::Claim::Reader message);
  void on_claim_answer(task_id task, const answer& verdict);
  void on_refusal(node_id target, protocol::OfferRefusal::Reader message);
  void on_taken(node_id target, protocol::TaskEpoch::Reader message);
  void on_running(node_id holder, protocol::TaskEpoch::Reader message);
  void on_still_held(node_id home, protocol::TaskEpoch::Reader message);
  void on_not_held(node_id source, protocol::TaskEpoch::Reader message);
  void on_disown(node_id home, protocol::TaskEpoch::Reader message);
  void on_checkpointed(node_id place, protocol::Checkpoint::Reader message);
  void on_checkpoint_seen(protocol::Checkpoint::Reader message);
  void on_connection_broken(node_id node, const std::string& why);
  // What was on its way is lost, but the process is there, and on_node_back() follows.
  void on_receive(node_id source, protocol::Receive::Reader message);
  void on_pages(node_id source, protocol::PagesAhead::Reader message, kj::ArrayPtr<const kj::byte> attachment);
  void on_lay(node_id source, protocol::ImageAhead::Reader message);
  void on_ready(node_id target, protocol::TaskEpoch::Reader message);
  void on_drop_ahead(node_id source, protocol::TaskEpoch::Reader message);
  void on_node_lost(node_id node, bool process_is_gone, const std::string& why);
  void on_node_back(node_id node);
  // On the I/O thread.

  static constexpr std::uint64_t claim_mark = std::uint64_t{1} << 63;
  // Call numbers with this bit are claims: the rest is the task. Node numbers are below 32,768.

  move_recorder& recorder() noexcept { return recorder_; }
  move_statistics statistics();

  bool keeps_memory() const noexcept { return with_.pages.kept() > 0; }
  // Of tasks that run elsewhere.
  void push_memory() { with_.pages.push_all(); }

  std::string why_lost(const resident& task) const;
  // Of a task whose lost_from says so.
  void memory_whole(task_id task) noexcept;
  void memory_losing(task_id task, node_id source) noexcept;
  void memory_lost(task_id task) noexcept;
  // See page_office.

  transfer wanted(const resident& task, transfer asked) const noexcept;
  // How the task is to be moved when that is asked for.
  bool moves_in_rounds(const resident& task, std::uint64_t random) const noexcept {
    transfer how = task.control->moves_by == transfer::by_default ? with_.moves_by : task.control->moves_by;
    return how == transfer::pre_copy || how == transfer::pre_flush || how == transfer::automatic ||
           (how == transfer::random && random % 2 == 0);
  }

private:
  static bool may_move(const resident& task, const move_asker& asker) noexcept;
  void depart(resident& task);
  bool departs_by_reference(resident& task);
  void depart_by_reference(resident& task, byte_writer&& bundle);
  bool waits_for_memory(resident& task);
  void end_without_memory(resident& task) noexcept;
  void lay_out_by_reference(arrival& from, task_id id);
  void offer_copy(resident& task);
  void checkpoint(resident& task);
  void commit_checkpoint(carriage& c, const page_reader* copied);
  void finish_checkpoint(const std::shared_ptr<carriage>& of) noexcept;
  void checkpoint_failed(task_id task, const move_asker& asker, failure why) noexcept;
  bool stop_checkpoint_rounds(resident& task, task_id id);
  void tell_checkpoint(task_id task, std::uint64_t epoch, std::uint64_t generation);
  void checkpoint_seen(task_id id, std::uint64_t epoch, std::uint64_t generation, bool accepted);
  void checkpoint_untold(node_id home, const failure& why);
  void tell_checkpoints_again(node_id home);
  void take_back_copies(node_id target);
  void copy_settled(task_id copy, const failure& how);
  bool occupied(region_number region, task_id by);
  void vacate(resident& task);
  void lay_out(resident& task);
  void give_up(resident& task, failure why) noexcept;
  void answer_asker(const move_asker& asker, const failure& how) noexcept;
  void not_gone(resident& task, task_id id, node_id refused_by, const failure& why) noexcept {
    if (with_.listener.not_gone != nullptr) with_.listener.not_gone(task, id, refused_by, why);
  }
  bool refuse_if_closed(node_id source, task_id task, std::uint64_t epoch);
  failure check_movable(resident& task) const;
  void offer(resident& task, const memory_survey& memory, const byte_writer& bundle,
             const std::vector<std::byte>& manifest, bool with_pages, bool unlaid);
  bool send_offer(resident& task, task_id id, std::uint64_t epoch, const memory_survey& memory,
                  const byte_writer& bundle, const std::vector<std::byte>& manifest, bool with_pages, bool unlaid = false);

  static const strategy* strategy_of(transfer which) noexcept;
  bool begin_rounds(resident& task, transfer how);
  void run_rounds(const std::shared_ptr<carriage>& from, bool undecided) noexcept;
  std::string decide(carriage& c);
  bool begin(carriage& c);
  std::vector<page_range> take_written(carriage& c);
  compression compression_to(node_id target) const;
  bool carry_straight(carriage& c, const std::vector<page_range>& pages);
  bool measure_link(carriage& c, std::size_t bytes, std::chrono::steady_clock::time_point begun);
  bool carry_by_image(carriage& c, const std::vector<page_range>& pages);
  bool send_pages(carriage& c, const std::vector<page_range>& pages, bool last);
  memory_survey send_rest(resident& task, carriage& c);
  void send_frozen(resident& task, memory_survey&& memory, byte_writer&& bundle);
  static std::size_t size_of(const std::vector<page_range>& pages) noexcept;
  void note_speed(std::unordered_map<node_id, double>& of, node_id target, std::size_t bytes,
                  std::chrono::steady_clock::time_point begun);
  std::shared_ptr<carriage> carriage_to(node_id target, task_id task, std::uint64_t epoch);
  void fail_carriages(node_id target, const std::string& why);
  void put_away(carriage& c, bool moved) noexcept;
  void forget_carriage(carriage& c, bool moved) noexcept;
  void drop_images(carriage& c) noexcept;
  void remove_images(task_id task) noexcept;

  void open_reception(task_id id, const std::shared_ptr<reception>& into);
  void settle_reception(task_id id, const std::shared_ptr<reception>& of, bool open, const failure& why);
  void tell_ready(const reception& of, task_id task);
  std::shared_ptr<reception> reception_of(task_id task, node_id source, std::uint64_t epoch);
  void lay_image(reception& into, task_id task, image&& newer);
  void close_reception(reception& of);
  void drop_reception(task_id task);
  void drop_receptions(node_id source);
  void claim(task_id task, std::uint64_t epoch, node_id source);
  void accept_offer(task_id id, std::unique_ptr<arrival> incoming);
  void granted(resident& task);
  void tell_taken(node_id source, task_id task, std::uint64_t epoch);
  void drop_arrival(resident& task) noexcept;
  void refuse(node_id source, task_id task, std::uint64_t epoch, const failure& why);
  void taken(resident& task);
  enum class target_loss { broken, unreachable, gone };
  void take_back(resident& task, target_loss how, const std::string& why);
  void run_without_home(resident& task);
  void run_unasked(resident& task);
  bool disowned(task_id task) noexcept;
  void discard(resident& task) noexcept;
  void gone(task_id task) noexcept;
  void tell_not_held(node_id home, task_id task);
  resident* departing(task_id id) noexcept;
  void lose(task_id id, std::uint64_t epoch, node_id may_hold, const std::string& why);
  void lose_all_on(node_id node, bool process_is_gone, const std::string& why, bool out_of_patience = false);
  struct restart {
    std::uint64_t epoch; // with which the task was lost
    std::uint64_t generation;
    std::vector<node_id> tried;
    std::string why;
    node_id from = no_node;
  };
  void try_restart(task_id id);
  bool offer_restart(task_id id, const restart& from, node_id target);
  void restart_refused(task_id id, node_id target, std::uint64_t epoch, const failure& why);
  void restarts_lost_on(node_id node, const std::string& why);
  void claim_granted(task_id id, std::uint64_t epoch, node_id claimant, node_id source);
  void go_on_from_checkpoint(resident& task, std::uint64_t epoch, std::uint64_t generation);
  void doubt(node_id node, const std::string& why);
  void ask_whether_it_lives(node_id node);
  image image_of(task_id task);
  std::vector<std::byte> image_manifest(task_id task);

  static constexpr int behind_workers = 12; // nicer, which is a fifteenth of their share where all want the processor

  parts with_;
  move_recorder recorder_;
  std::atomic<bool> closed_{false};
  spin_lock lock_;
  std::string why_closed_;
  struct known_image {
    image of;
    bool laid = true; // the task's memory is based on it; otherwise it is only what the store has of it
  };
  std::unordered_map<task_id, known_image> images_; // the newest image of tasks that are here
  std::unordered_map<task_id, node_id> sources_;  // where foreign tasks that are here came from
  std::unordered_map<task_id, resident*> moving_; // departures and arrivals under way
  std::set<task_id> unsure_;                      // tasks whose home may believe them elsewhere
  struct copy_offered {
    node_id target;
    std::uint64_t call;
    bool claimed = false; // back, as its target, or what that had to say, may be lost
  };
  std::unordered_map<task_id, copy_offered> copies_; // that no target has taken yet, of tasks that are here
  std::set<task_id> disowned_;                    // tasks that are here and that home has given up as lost
  std::unordered_map<task_id, std::shared_ptr<carriage>> carriages_;
  std::unordered_map<task_id, std::shared_ptr<reception>> receptions_;
  std::unordered_map<node_id, double> links_, stores_; // bytes a second that went to it straight, and by the image
  std::atomic<bool> stopping_{false};
  write_tracker tracker_;
  background rounds_;    // of tasks that run
  background movers_;    // for carriages of frozen tasks; these and the rounds wait for their targets
  background keepers_;   // for rounds of checkpoints, which no move has to wait for
  background finishers_; // for the last step of a checkpoint, which a move of its task waits for
  background closers_;   // of regions whose tasks have left and receptions that have ended, which takes the kernel a while
  background receivers_; // for receptions, which wait for nobody elsewhere: two nodes may each wait for the other
  struct untold_checkpoint {
    task_id task;
    std::uint64_t epoch;
    std::uint64_t generation; // 0: committed, but not to be restarted from
    move_asker asker;
  };
  std::vector<untold_checkpoint> untold_checkpoints_; // that their homes have not confirmed
  std::unordered_map<task_id, restart> restarts_;     // of this home's tasks, not claimed yet
  std::atomic<bool> ending_{false};
  // On the I/O thread only:
  std::set<node_id> dead_; // those that are lost
  std::set<node_id> gone_; // of these, those whose process is known to have ended
  struct doubted {
    std::chrono::steady_clock::time_point until;
    std::string why;
  };
  std::unordered_map<node_id, doubted> doubts_; // of the others, those that tasks with checkpoints are on
};

inline constinit transfer_engine* this_engine = nullptr;

} // namespace migrate::detail

#include <migrate/transfer/source.hpp>
#include <migrate/transfer/target.hpp>
#include <migrate/transfer/claims.hpp>
#include <migrate/transfer/losses.hpp>
#include <migrate/transfer/copies.hpp>
#include <migrate/transfer/ahead.hpp>
#include <migrate/transfer/receiving.hpp>
#include <migrate/transfer/checkpoint.hpp>
#include <migrate/transfer/restart.hpp>
#include <migrate/transfer/on_reference.hpp>
