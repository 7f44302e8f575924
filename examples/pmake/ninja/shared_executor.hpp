// Commands on this machine and on others.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../make/leaves_home.hpp"
#include "executor.hpp"
#include "foreign_places.hpp"
#include "local_executor.hpp"

namespace pmake {

class shared_executor final : public executor {
public:
  shared_executor(std::unique_ptr<local_executor> here, std::unique_ptr<foreign_places> there,
                  leaving_rules rules, unsigned most, host_note note, interruption& signals);
  // At most so many at a time in all (0: no limit).

  bool may_leave(const edge& what) override;
  bool can_start(bool may_leave) override;
  void start(job what) override;
  event wait_any(finished_job& one) override;
  std::vector<edge*> stop() override;
  capacity now() const override { return {there_->hosts(), there_->running() - there_->at_home()}; }

private:
  struct away {
    job what;
    unsigned runs = 0; // begun so far
    std::string but_not_on;
  };

  void send(away what);
  bool place_again();
  bool take(foreign_end&& ended, finished_job& one);
  bool below_limit() const noexcept;

  std::unique_ptr<local_executor> here_;
  std::unique_ptr<foreign_places> there_;
  leaving_rules rules_;
  unsigned most_;
  host_note note_;
  interruption& signals_;
  std::vector<std::string> environment_;
  std::string folder_;
  mode_t mask_;
  std::map<std::uint64_t, away> away_;
  std::deque<away> again_; // to be run once more
};

} // namespace pmake
