// A store: a directory that the nodes of a cluster share, and the images in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/current_heap.hpp>
#include <migrate/store/commit.hpp>
#include <migrate/store/data_file.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/manifest_file.hpp>
#include <migrate/store/page_run.hpp>
#include <migrate/store/resume.hpp>
#include <migrate/store/store_file.hpp>
#include <migrate/store/store_id.hpp>
#include <migrate/store/store_state.hpp>

namespace migrate {

struct stored_task {
  task_id task;
  std::vector<std::uint64_t> generations; // ascending; the older ones may only hold pages for the newest
  std::size_t files = 0;                  // in the task's folder, unfinished ones too
  std::uint64_t file_bytes = 0;           // of those files
  std::uint64_t image_bytes = 0;          // of the newest image's pages
  std::string problem;                    // why the newest image cannot be used; empty when it can
};
// What a store holds of one task.

class store {
public:
  using options = store_options;

  static store open(const std::string& path, const options& how = {});
  // Opens a store, or makes it when that is asked. Throws migrate::error: store_missing, store_read_only,
  // store_owner (it must belong to this process's user, with no access for others), store_mismatch (not
  // a store, or of another format), store_full, store_io.

  store_id id() const noexcept { return state_->id; }
  const std::string& path() const noexcept { return state_->path; }

  image commit(task_id task, detail::region_number region, const image* base,
               std::span<const page_range> dirty, std::span<const page_range> live,
               std::span<const std::byte> metadata);
  // Writes a new generation: the dirty pages as they are in memory now, and of the base image those
  // pages that are in live and not in dirty. When this returns the generation is committed and no death
  // of a process loses it; when it throws (store_full, store_read_only, store_missing, store_io, or
  // image_damaged when an older file that is to be merged is damaged), nothing of it is left and the
  // earlier generations stand as they were. The pages must not be written meanwhile. Dirty pages that
  // hold what the base holds are not written again (see options::skip_unchanged).

  image commit_running(task_id task, detail::region_number region, const image* base,
                       std::span<const page_range> dirty, std::span<const page_range> live,
                       const detail::page_reader& read, std::span<const std::byte> metadata = {});
  // The same while the task may be writing the pages: each is read once, by `read`. Such an image is whole only together
  // with the pages that were written since they were read; or `read` knows them as they were when the task stood still.

  image share(const image& of, task_id with);
  // The same image as `with`'s own, to base its first commit on: its files get a second name, and go when the last of
  // both tasks has no use for them. An invalid image where the store's file system has no hard links. For a task that
  // has no image yet.

  void verify(const image& of) const;
  // Checks every page of the image. Files that this process wrote or verified before are not read
  // again while their device, inode, size and times stay the same. Throws image_missing,
  // image_truncated, image_damaged, image_foreign or store_owner; the message says which block of
  // which file, and which older generation is intact.

  void map(const image& of, char* region_base) const;
  // Lays the image's pages at their addresses, unverified: long extents are mapped privately, short ones
  // read into what must be writable anonymous memory. Other pages of the region are left alone. When it
  // throws, zeros lie wherever the image has pages.

  void resume_into(const image& of, char* region_base, const image* over = nullptr) const;
  // verify() and map() in one, sharing their work. Throws as either. `over`: an earlier image of the task that lies there
  // already, so that only what is newer has to be laid.

  image load(task_id task, std::uint64_t generation = 0) const;
  // Reads a generation's manifest; 0 is the newest committed one. Throws image_missing, image_truncated,
  // image_damaged, image_version, image_foreign.

  void collect(task_id task, const image& current, std::uint64_t kept_from = 0);
  // Removes the earlier generations' files that the current image does not use. For whoever has taken
  // the task over. With `kept_from`, that generation and all later ones stay as they are.

  void discard(const image& unwanted);
  // Removes the task's newest generation, which nobody is to resume. Does nothing when a newer one exists.

  void remove(task_id task);
  // Removes every image of a task.

  std::vector<stored_task> list(bool verify_pages = false) const;
  // What the store holds, by task. Looks into the newest image's manifest and at the sizes of its files;
  // asked to, at every page.

  stored_task examine(task_id task, bool verify_pages = false) const;
  // The same for one task; no generations when it has none.

private:
  explicit store(std::unique_ptr<detail::store_state> state) noexcept : state_(std::move(state)) {}

  template <class F> auto naming_an_older_one(task_id task, std::uint64_t generation, F&& work) const;
  void check_sizes(const image& of) const {
    for (std::size_t i = 0; i < of.files().size(); ++i) detail::data_file(*state_, of, i);
  }
  void unlink(task_id task, std::uint64_t generation, bool committed) const;

  image begin_commit(task_id task, detail::region_number region, const image* base, std::span<const page_range> dirty,
                     std::span<const page_range> live, std::span<const std::byte> metadata,
                     const detail::page_reader* read);

  std::unique_ptr<detail::store_state> state_;
};
// Any number of threads may use a store at once, each for another task. What it allocates, results too,
// lies in the process's own heap, whichever heap is current: a task must not keep it across a move.

inline store store::open(const std::string& path, const options& how) {
  node_heap_scope process_heap;
  return store(detail::open_store(path, how));
}

inline image store::commit(task_id task, detail::region_number region, const image* base,
                           std::span<const page_range> dirty, std::span<const page_range> live,
                           std::span<const std::byte> metadata) {
  return begin_commit(task, region, base, dirty, live, metadata, nullptr);
}

inline image store::commit_running(task_id task, detail::region_number region, const image* base,
                                   std::span<const page_range> dirty, std::span<const page_range> live,
                                   const detail::page_reader& read, std::span<const std::byte> metadata) {
  return begin_commit(task, region, base, dirty, live, metadata, &read);
}

inline image store::begin_commit(task_id task, detail::region_number region, const image* base,
                                 std::span<const page_range> dirty, std::span<const page_range> live,
                                 std::span<const std::byte> metadata, const detail::page_reader* read) {
  node_heap_scope process_heap;
  if (!task || !region.valid())
    throw std::invalid_argument("migrate: store::commit needs a task and a region");
  if (base != nullptr) {
    detail::check_ours(*state_, *base);
    if (base->task() != task || base->region() != region)
      throw error(errc::image_foreign, "cannot base an image of task " + to_string(task) + " on " +
                                           to_string(*base) + ": it is another task's or another region's");
  }
  struct stat status;
  if (::fstat(state_->root.get(), &status) == 0) // it may have got another owner since it was opened
    detail::check_owner(status, "the store " + path(), "give it back to this process's user, with mode 700");
  auto dirty_runs = detail::to_runs(dirty, region);
  auto live_runs = detail::to_runs(live, region);
  return detail::committer(*state_, task, region, base, read).run(dirty_runs, live_runs, metadata);
}

inline image store::share(const image& of, task_id with) {
  node_heap_scope process_heap;
  detail::check_ours(*state_, of);
  int images = state_->images.get();
  if (::mkdirat(images, detail::image_name(with).c_str(), 0700) != 0 && errno != EEXIST)
    detail::throw_store_error(errno, "share " + to_string(of), path() + "/images/" + detail::image_name(with).str());
  for (const image_file& file : of.files()) {
    detail::image_name from(of.task(), file.generation), to(with, file.generation);
    if (::linkat(images, from.c_str(), images, to.c_str(), 0) == 0) continue;
    int reason = errno;
    remove(with);
    if (reason == EPERM || reason == EOPNOTSUPP || reason == EMLINK) return {};
    detail::throw_store_error(reason, "share " + to_string(of), path() + "/images/" + to.str());
  }
  return detail::image_access::make(with, of.region(), of.generation(), of.store(), 0,
                                    {of.files().begin(), of.files().end()}, {of.extents().begin(), of.extents().end()},
                                    {});
}

template <class F> auto store::naming_an_older_one(task_id task, std::uint64_t generation, F&& work) const {
  try {
    return work();
  } catch (const error& problem) {
    if (problem.code() != errc::image_missing && problem.code() != errc::image_truncated &&
        problem.code() != errc::image_damaged)
      throw;
    std::string intact = "; no older generation is intact";
    auto generations = detail::list_generations(state_->images.get(), task).committed;
    for (auto older = generations.rbegin(); older != generations.rend(); ++older) {
      if (*older >= generation) continue;
      try {
        detail::verify_image(*state_, detail::load_image(*state_, task, *older));
        intact = "; generation " + std::to_string(*older) + " is intact";
        break;
      } catch (const error&) {
        continue;
      }
    }
    throw error(problem.code(), problem.what() + intact);
  }
}
// Does the work; an error about a damaged image is thrown on with the newest older generation that is whole.

inline void store::verify(const image& of) const {
  node_heap_scope process_heap;
  detail::check_ours(*state_, of);
  naming_an_older_one(of.task(), of.generation(), [&] { detail::verify_image(*state_, of); });
}

inline void store::map(const image& of, char* region_base) const {
  node_heap_scope process_heap;
  detail::check_ours(*state_, of);
  detail::resumer(*state_, of, region_base, false).run();
}

inline void store::resume_into(const image& of, char* region_base, const image* over) const {
  node_heap_scope process_heap;
  detail::check_ours(*state_, of);
  std::uint64_t after = over != nullptr ? over->generation() : 0;
  naming_an_older_one(of.task(), of.generation(),
                      [&] { detail::resumer(*state_, of, region_base, true, after).run(); });
}

inline image store::load(task_id task, std::uint64_t generation) const {
  node_heap_scope process_heap;
  if (generation == 0) {
    auto there = detail::list_generations(state_->images.get(), task);
    if (there.reason != 0 && there.reason != ENOENT)
      detail::throw_store_error(there.reason, "list the images of task " + to_string(task), path());
    if (there.committed.empty())
      throw error(errc::image_missing, "task " + to_string(task) + " has no image in the store " + path());
    generation = there.committed.back();
  }
  return naming_an_older_one(task, generation, [&] { return detail::load_image(*state_, task, generation); });
}

inline void store::unlink(task_id task, std::uint64_t generation, bool committed) const {
  detail::image_name name(task, generation, committed);
  if (::unlinkat(state_->images.get(), name.c_str(), 0) != 0 && errno != ENOENT && errno != ESTALE)
    detail::throw_store_error(errno,
                              "remove image " + std::to_string(generation) + " of task " + to_string(task),
                              path() + "/images/" + name.str());
  if (committed) state_->verified.forget(task, generation);
}

inline void store::collect(task_id task, const image& current, std::uint64_t kept_from) {
  node_heap_scope process_heap;
  detail::check_ours(*state_, current);
  if (current.task() != task)
    throw error(errc::image_foreign,
                "cannot collect images of task " + to_string(task) + " by " + to_string(current));
  image kept;
  if (kept_from != 0) kept = detail::load_image(*state_, task, kept_from);
  auto used = [&](std::uint64_t generation) {
    for (const image* each : {&current, static_cast<const image*>(&kept)})
      for (const image_file& file : each->files())
        if (file.generation == generation) return true;
    return generation >= current.generation() || (kept_from != 0 && generation >= kept_from);
  };
  auto there = detail::list_generations(state_->images.get(), task);
  for (std::uint64_t generation : there.committed)
    if (!used(generation)) unlink(task, generation, true);
  for (std::uint64_t generation : there.unfinished)
    if (generation <= current.generation()) unlink(task, generation, false);
}

inline void store::discard(const image& unwanted) {
  node_heap_scope process_heap;
  detail::check_ours(*state_, unwanted);
  auto there = detail::list_generations(state_->images.get(), unwanted.task());
  if (there.committed.empty() || there.committed.back() != unwanted.generation()) return;
  unlink(unwanted.task(), unwanted.generation(), true);
}

inline void store::remove(task_id task) {
  node_heap_scope process_heap;
  constexpr int attempts = 10; // a node that dies may be writing still
  for (int attempt = 0; attempt < attempts; ++attempt) {
    auto there = detail::list_generations(state_->images.get(), task);
    if (there.reason == ENOENT) return;
    for (std::uint64_t generation : there.unfinished) unlink(task, generation, false);
    for (std::uint64_t generation : there.committed) unlink(task, generation, true);
    if (::unlinkat(state_->images.get(), detail::image_name(task).c_str(), AT_REMOVEDIR) == 0 ||
        errno == ENOENT)
      return;
    if (errno != ENOTEMPTY && errno != EEXIST) break;
  }
  detail::throw_store_error(errno, "remove the images of task " + to_string(task),
                            path() + "/images/" + detail::image_name(task).str());
}

inline stored_task store::examine(task_id task, bool verify_pages) const {
  node_heap_scope process_heap;
  stored_task found;
  found.task = task;
  auto there = detail::list_generations(state_->images.get(), task);
  found.generations = there.committed;
  auto add = [&](std::uint64_t generation, bool committed) {
    struct stat status;
    detail::image_name name(task, generation, committed);
    if (::fstatat(state_->images.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;
    ++found.files;
    found.file_bytes += static_cast<std::uint64_t>(status.st_size);
  };
  for (std::uint64_t generation : there.committed) add(generation, true);
  for (std::uint64_t generation : there.unfinished) add(generation, false);
  if (there.committed.empty()) {
    found.problem = there.reason != 0 ? detail::system_message(there.reason) : "it has no committed image";
    return found;
  }
  std::uint64_t newest = there.committed.back();
  try {
    naming_an_older_one(task, newest, [&] {
      image of = detail::load_image(*state_, task, newest);
      found.image_bytes = of.bytes();
      check_sizes(of);
      if (verify_pages) detail::verify_image(*state_, of);
    });
  } catch (const error& problem) {
    found.problem = problem.what();
  }
  return found;
}

inline std::vector<stored_task> store::list(bool verify_pages) const {
  node_heap_scope process_heap;
  std::vector<task_id> tasks;
  int reason = detail::for_each_name(state_->images.get(), ".", [&](std::string_view name) {
    if (auto task = detail::parse_task_id(name)) tasks.push_back(*task);
  });
  if (reason != 0) detail::throw_store_error(reason, "list the store's tasks", path());
  std::sort(tasks.begin(), tasks.end());
  std::vector<stored_task> found;
  for (task_id task : tasks) found.push_back(examine(task, verify_pages));
  return found;
}

} // namespace migrate
