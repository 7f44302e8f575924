// The transfer strategies behind one interface: how a task's pages get to its target.
#pragma once

#include <array>
#include <vector>

#include <migrate/store/page_run.hpp>
#include <migrate/task/transfer.hpp>

namespace migrate::detail {

class transfer_engine;
struct carriage;

struct strategy {
  transfer name;
  bool in_rounds;
  // Pages go while the task runs, those it has written meanwhile again, until the rest is small enough for the freeze.
  bool (transfer_engine::*carry)(carriage& from, const std::vector<page_range>& pages);
  // Gets these pages to the target ahead of the offer; false: from.why says why not, or the task has ended. Null: all
  // goes with the offer, or with the image that it names.
  bool by_image;
  // What has gone is in the image that the offer names.
};
// Follows Douglis and Ousterhout 1991, section 3.2, where these are compared as Sprite's, V's, Accent's and LOCUS's.

} // namespace migrate::detail
