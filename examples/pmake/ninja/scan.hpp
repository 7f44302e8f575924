// Which files are out of date.
#pragma once

#include <string>
#include <vector>

#include "build_log.hpp"
#include "deps_log.hpp"
#include "dyndep.hpp"
#include "explain.hpp"
#include "graph.hpp"

namespace pmake {

class scan {
public:
  scan(graph& of, build_log& log, deps_log& deps, explanation explain);
  scan(const scan&) = delete;
  scan& operator=(const scan&) = delete;

  void look_at(node& target, std::vector<node*>& validations);
  // Looks at all that the target is made from and marks what is dirty. Appends the validations of the statements
  // that it comes by. Throws build_error for a cycle, and for what cannot be read.

  bool out_of_date(const edge& of, const node* newest_input);
  // Whether a statement none of whose inputs is dirty has to run.

  dyndep_entries load_dyndep(node& file);

  std::vector<edge*> order;
  // All statements seen, each after those that make its inputs.

private:
  struct frame {
    edge* at;
    node* by; // whose maker it is
    std::uint32_t next = 0;
    std::uint8_t stage = 0;
    bool dirty = false;
    node* newest = nullptr;
  };

  bool enter(node& what);
  void advance();
  bool take_inputs(frame& top);
  void leave(frame& top);
  void look_at_leaf(node& what);
  [[noreturn]] void report_cycle(node& again) const;
  bool output_out_of_date(const edge& of, node& output, const node* newest_input);
  bool load_deps(edge& of);
  bool load_logged_deps(edge& of);
  bool load_depfile(edge& of, const std::string& path);
  void add_discovered(edge& of, const std::vector<node*>& inputs);

  graph& graph_;
  build_log& log_;
  deps_log& deps_;
  explanation explain_;
  std::vector<frame> stack_;
  std::vector<node*>* validations_ = nullptr;
  std::string command_;
  std::uint64_t command_hash_ = 0;
  bool hashed_ = false; // command_hash_ is of the statement at hand
};

} // namespace pmake
