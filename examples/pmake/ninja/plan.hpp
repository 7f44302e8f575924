// Which statements are still to be run, and which of them next.
#pragma once

#include <cstddef>
#include <vector>

#include "graph.hpp"
#include "scan.hpp"

namespace pmake {

class plan {
public:
  plan(graph& of, scan& with);
  plan(const plan&) = delete;
  plan& operator=(const plan&) = delete;

  void add(node& target);
  // And all that it needs. The target has been looked at. Throws build_error when an input is missing.

  void begin();
  // Everything is added: what has its inputs may be run.

  bool more_to_do() const noexcept { return wanted_ > 0 && commands_ > 0; }
  std::size_t commands() const noexcept { return commands_; }
  // How many are to be run in all, phony ones not counted; less when one with restat leaves its outputs alone.

  edge* next();
  // The one that the end of the build waits for longest, or none that can run now.

  void succeeded(edge& what);
  void failed(edge& what);
  // It gives its place in its pool to others. What succeeds makes its dependents ready.

  void clean(node& output);
  // A command that has run left this output as it was: whoever is only dirty by it need not run.

private:
  struct ready_order {
    bool operator()(const edge* one, const edge* other) const noexcept {
      return one->priority != other->priority ? one->priority < other->priority : one->id > other->id;
    }
  };

  void want_to_run(edge& what);
  void look(edge& what);
  void schedule(edge& what);
  void release(pool& from);
  void leave_pool(edge& what);
  void finished(node& output);
  void dyndep_loaded(node& file);
  void look_again_at_dependents(node& of);
  void set_priorities();

  graph& graph_;
  scan& scan_;
  std::vector<edge*> ready_; // a heap
  std::vector<edge*> finishing_;
  std::size_t wanted_ = 0;
  std::size_t commands_ = 0;
  std::size_t prioritized_ = 0;        // of scan_.order
  std::vector<edge*>* walk_ = nullptr; // statements met while a dyndep file is taken in
};

} // namespace pmake
