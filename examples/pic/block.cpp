#include "block.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include <time.h>

#include <migrate/group.hpp>
#include <migrate/mailbox.hpp>

#include "layout.hpp"
#include "messages.hpp"

namespace pic {

namespace {

std::uint64_t processor_time() {
  // Of the thread, so what other tasks and programs take from the processor does not count. It means nothing
  // across a safe point, where the task may come to another thread: read it on both sides of what has none.
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

class block {
public:
  block(const parameters& what, unsigned index, migrate::task_id coordinator,
        std::vector<migrate::task_id> all)
      : what_(what), index_(index), coordinator_(coordinator), area_(area_of(index, what)), charges_(area_),
        sources_(sources(index, what).size()), everybody_(all) {
    for (unsigned other : destinations(index, what)) exits_.push_back({all[other], area_of(other, what), {}});
    create_particles();
  }

  verdict run() {
    for (std::uint64_t step = 0; step < what_.steps; ++step) {
      if (step % what_.interval == 0) report(step);
      follow_orders();
      push_all();
      send_leavers(step);
      receive_arrivals(step);
      if (what_.sabotage != sabotage_kind::none && step == what_.steps / 2) sabotage();
    }
    finish_orders();
    report(what_.steps);
    return verify_all();
  }

private:
  struct way_out {
    migrate::task_id to;
    area where;
    std::vector<particle> leavers;
  };

  void create_particles() {
    initial_distribution initial(what_);
    for (std::int64_t x = area_.left; x < area_.right; ++x)
      for (std::int64_t y = area_.bottom; y < area_.top; ++y)
        for (std::uint64_t id = initial.before(x, y) + 1, end = initial.before(x, y + 1); id <= end; ++id)
          particles_.push_back(particle_at(x, y, id, what_));
  }

  void push_all() {
    constexpr std::size_t chunk = 4096; // particles between two safe points
    auto length = static_cast<double>(what_.cells);
    std::size_t kept = 0;
    for (std::size_t first = 0; first < particles_.size(); first += chunk) {
      std::size_t end = std::min(first + chunk, particles_.size());
      std::uint64_t begun = processor_time();
      for (std::size_t i = first; i < end; ++i) {
        particle p = particles_[i];
        push(p, charges_, length);
        if (area_.contains(p.x, p.y)) [[likely]]
          particles_[kept++] = p;
        else
          let_out(p);
      }
      work_ns_ += processor_time() - begun;
      migrate::this_task::poll();
    }
    particles_.resize(kept);
  }

  void let_out(const particle& p) {
    for (way_out& each : exits_)
      if (each.where.contains(p.x, p.y)) {
        each.leavers.push_back(p);
        return;
      }
    astray_.push_back(p); // no step leads there: the verification will find it at a wrong place
  }

  void send_leavers(std::uint64_t step) {
    constexpr std::size_t most = 100'000; // particles in a message, whose size is limited
    for (way_out& each : exits_) {
      for (; each.leavers.size() > most; each.leavers.resize(each.leavers.size() - most))
        migrate::send(each.to, arrivals{step, false, {each.leavers.end() - most, each.leavers.end()}});
      migrate::send(each.to, arrivals{step, true, std::exchange(each.leavers, {})});
    }
  }

  void receive_arrivals(std::uint64_t step) {
    // A block that waits for nobody here may be some steps ahead.
    std::size_t awaited = sources_;
    auto take = [&](const arrivals& some) {
      if (some.step != step) return false;
      particles_.insert(particles_.end(), some.particles.begin(), some.particles.end());
      if (some.last) --awaited;
      return true;
    };
    std::erase_if(early_, take);
    while (awaited > 0)
      if (arrivals some = inbox_.receive(); !take(some)) early_.push_back(std::move(some));
  }

  void report(std::uint64_t step) {
    finish_orders();
    migrate::send(coordinator_, load_report{index_, step, migrate::this_task::node(), particles_.size(),
                                            std::exchange(work_ns_, 0), migrate::this_task::moves()});
    answer_is_due_ = step < what_.steps;
  }

  void follow_orders() {
    // Between steps, and without waiting for them.
    if (!answer_is_due_) return;
    if (auto order = orders_.try_receive()) follow(*order);
  }

  void finish_orders() {
    if (answer_is_due_) follow(orders_.receive());
  }

  void follow(move_order order) {
    answer_is_due_ = false;
    if (order.target == migrate::no_node) return;
    std::error_code refused; // then it computes on where it is
    migrate::this_task::migrate_to(order.target, refused);
  }

  verdict verify_all() {
    particles_.insert(particles_.end(), astray_.begin(), astray_.end());
    verdict all = everybody_.reduce(verify(particles_, what_), together);
    if (all.complete(what_)) return all;
    for (std::uint64_t first = 1; first <= what_.particles; first += census_range) {
      census mine(first, static_cast<std::size_t>(
                             std::min<std::uint64_t>(census_range, what_.particles - first + 1)));
      mine.count(particles_);
      everybody_
          .reduce(mine,
                  [](census a, const census& b) {
                    a.add(b);
                    return a;
                  })
          .tell(all);
    }
    return all;
  }

  void sabotage() {
    auto found = std::find_if(particles_.begin(), particles_.end(),
                              [&](const particle& p) { return p.id == what_.victim; });
    if (found == particles_.end()) return;
    switch (what_.sabotage) {
    case sabotage_kind::none: break;
    case sabotage_kind::shift: found->vy += 1; break;
    case sabotage_kind::drop: particles_.erase(found); break;
    case sabotage_kind::repeat: particles_.push_back(particle(*found)); break;
    }
  }

  parameters what_;
  unsigned index_;
  migrate::task_id coordinator_;
  area area_;
  charges charges_;
  std::vector<particle> particles_;
  std::vector<particle> astray_;
  std::vector<way_out> exits_;
  std::size_t sources_;
  std::vector<arrivals> early_;
  migrate::mailbox<arrivals> inbox_;
  migrate::mailbox<move_order> orders_;
  bool answer_is_due_ = false;
  std::uint64_t work_ns_ = 0;
  migrate::group everybody_;
};

} // namespace

verdict run_block(const parameters& what, unsigned index, migrate::task_id coordinator) {
  auto started = migrate::mailbox<start_signal>().receive();
  return block(what, index, coordinator, std::move(started.blocks)).run();
}

} // namespace pic
