// One build at a time in a tree.
#pragma once

#include <functional>
#include <string>

namespace pmake {

class tree_lock {
public:
  tree_lock(const std::string& folder, const std::function<void()>& on_wait);
  // Waits for whoever builds in that folder, after on_wait(). A build that a command of such a build starts goes on
  // at once, as waiting for its own end would take for ever. Where the folder cannot be locked nobody waits.
  ~tree_lock();
  tree_lock(const tree_lock&) = delete;
  tree_lock& operator=(const tree_lock&) = delete;

private:
  int folder_ = -1;
  std::string outer_; // the variable's value before
  bool named_ = false, had_outer_ = false;
};

} // namespace pmake
