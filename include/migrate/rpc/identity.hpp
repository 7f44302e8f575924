// The identity: what two nodes must have in common before a task can move between them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/hex.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/rpc/protocol.capnp.h>

#if defined(__x86_64__)
#include <migrate/rpc/cpu_x86_64.hpp>
#else
#error "migrate has no description of this processor yet: it needs a file like cpu_x86_64.hpp"
#endif

namespace migrate {

inline constexpr std::uint32_t protocol_version = 1;

struct id128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  explicit operator bool() const noexcept { return (high | low) != 0; }
  friend bool operator==(const id128&, const id128&) noexcept = default;
};
// A random name, of a cluster or of a store. Zero is none.

inline std::string to_string(const id128& id) {
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(id.high),
                static_cast<unsigned long long>(id.low));
  return text;
}

namespace detail {

inline std::string shortened(const id128& id) { return to_string(id).substr(0, 8) + "..."; }
// For messages that others may see: who knows a store's or cluster's whole name may pass for one of its nodes.

} // namespace detail

struct loaded_object {
  std::string name;      // without its folder
  std::uint64_t address; // where it is loaded
  std::string build;     // its build id, or a hash of its file where it has none; binary

  friend bool operator==(const loaded_object&, const loaded_object&) = default;
};

struct identity {
  std::uint32_t protocol = protocol_version;
  id128 cluster; // none in a node that is about to join
  id128 store;
  std::uint64_t page_size = 0;
  std::uint64_t plan_base = 0;
  std::uint64_t plan_size = 0;
  std::vector<detail::class_layout> classes;
  std::vector<loaded_object> objects; // the executable first
  std::string architecture;
  std::vector<std::string> cpu_compiled;
  std::vector<std::string> cpu_active;
  uid_t user = 0;            // as which the process acts
  std::vector<gid_t> groups; // the main one first, then the others, ascending

  static identity of_this_process(id128 store, id128 cluster = {});
  // Takes about a millisecond; libraries loaded later are not in it.

  void write(protocol::Identity::Builder out) const;
  static identity read(protocol::Identity::Reader in);
};

std::optional<std::string> first_difference(const identity& mine, const identity& theirs);
// A sentence that names the first thing that keeps tasks from moving between the two, and what to do
// about it; nothing when they are compatible.

namespace detail {

inline std::string hex(std::string_view bytes) {
  std::string text;
  for (char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    text += two;
  }
  return text;
}

inline std::string build_id_of(const dl_phdr_info& object) {
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const auto& header = object.dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(object.dlpi_addr + header.p_vaddr);
    const char* end = at + header.p_memsz;
    const std::size_t align = header.p_align == 8 ? 8 : 4;
    auto up = [align](std::size_t n) { return (n + align - 1) / align * align; };
    while (static_cast<std::size_t>(end - at) >= sizeof(ElfW(Nhdr))) {
      ElfW(Nhdr) note;
      std::memcpy(&note, at, sizeof note);
      const char* name = at + sizeof note;
      std::size_t description = up(sizeof note + note.n_namesz);
      std::size_t whole = up(description + note.n_descsz);
      if (whole > static_cast<std::size_t>(end - at)) break;
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0)
        return std::string(at + description, note.n_descsz);
      at += whole;
    }
  }
  return {};
}

inline std::string hash_of_file(const std::string& path) {
  // FNV-1a in two lanes over the whole file, with its length: stands in where the linker wrote no build id.
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  struct stat status {};
  std::uint64_t lanes[2] = {0xcbf2'9ce4'8422'2325u, 0x9e37'79b9'7f4a'7c15u};
  if (::fstat(file, &status) == 0 && status.st_size > 0) {
    auto size = static_cast<std::size_t>(status.st_size);
    void* bytes = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (bytes != MAP_FAILED) {
      auto* from = static_cast<const unsigned char*>(bytes);
      for (std::size_t i = 0; i < size; ++i) {
        lanes[0] = (lanes[0] ^ from[i]) * 0x100'0000'01b3u;
        lanes[1] = (lanes[1] + from[i]) * 0x9e37'79b9'7f4a'7c15u;
        lanes[1] ^= lanes[1] >> 29;
      }
      ::munmap(bytes, size);
    }
    lanes[0] ^= size;
  }
  ::close(file);
  return std::string(reinterpret_cast<const char*>(lanes), sizeof lanes);
}

inline std::vector<loaded_object> loaded_objects() {
  std::vector<loaded_object> objects;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        auto& list = *static_cast<std::vector<loaded_object>*>(out);
        // The kernel's own object is neither part of the program nor at an address that tasks hold.
        auto vdso = static_cast<std::uintptr_t>(::getauxval(AT_SYSINFO_EHDR));
        for (int i = 0; i < info->dlpi_phnum; ++i)
          if (vdso != 0 && info->dlpi_phdr[i].p_type == PT_LOAD &&
              info->dlpi_addr + info->dlpi_phdr[i].p_vaddr == vdso)
            return 0;
        std::string path = info->dlpi_name;
        if (path.empty()) {
          if (!list.empty()) return 0; // only the executable has no name
          path = "/proc/self/exe";
        }
        loaded_object object;
        object.address = info->dlpi_addr;
        object.build = build_id_of(*info);
        if (object.build.empty()) object.build = hash_of_file(path);
        object.name = list.empty() ? "the executable" : path.substr(path.rfind('/') + 1);
        list.push_back(std::move(object));
        return 0;
      },
      &objects);
  return objects;
}

inline std::vector<gid_t> groups_of_this_process() {
  std::vector<gid_t> others(static_cast<std::size_t>(std::max(0, ::getgroups(0, nullptr))));
  int count = ::getgroups(static_cast<int>(others.size()), others.data());
  others.resize(static_cast<std::size_t>(std::max(0, count)));
  std::erase(others, ::getegid());
  std::sort(others.begin(), others.end());
  others.insert(others.begin(), ::getegid());
  return others;
}

} // namespace detail

inline identity identity::of_this_process(id128 store, id128 cluster) {
  identity made;
  made.store = store;
  made.cluster = cluster;
  made.page_size = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  made.plan_base = detail::plan_base;
  made.plan_size = detail::plan_size;
  made.classes.assign(detail::plan.begin(), detail::plan.end());
  made.objects = detail::loaded_objects();
  made.architecture = detail::architecture_name;
  made.cpu_compiled = detail::cpu_features_compiled();
  made.cpu_active = detail::cpu_features_active();
  made.user = ::geteuid();
  made.groups = detail::groups_of_this_process();
  return made;
}

inline std::optional<std::string> first_difference(const identity& mine, const identity& theirs) {
  using detail::hex;
  auto differ = [](const std::string& what, const std::string& here, const std::string& there,
                   const std::string& remedy) {
    return what + " differs: here it is " + here + ", there " + there + "; " + remedy;
  };
  auto lacks = [](const std::vector<std::string>& all, const std::vector<std::string>& some) {
    for (const std::string& name : some)
      if (std::find(all.begin(), all.end(), name) == all.end()) return name;
    return std::string();
  };

  if (mine.protocol != theirs.protocol)
    return differ("the protocol's version", std::to_string(mine.protocol), std::to_string(theirs.protocol),
                  "build all nodes with the same version of migrate");
  if (mine.cluster && theirs.cluster && mine.cluster != theirs.cluster)
    return differ("the cluster", detail::shortened(mine.cluster), detail::shortened(theirs.cluster),
                  "the address belongs to another cluster; name one of this cluster's nodes");
  if (mine.architecture != theirs.architecture)
    return differ("the processor architecture", mine.architecture, theirs.architecture,
                  "a cluster has one architecture");
  if (mine.objects.empty() || theirs.objects.empty()) return "a node does not say what executable it runs";
  if (mine.objects[0].build != theirs.objects[0].build)
    return differ("the executable's build id", hex(mine.objects[0].build), hex(theirs.objects[0].build),
                  "start the same executable file on every node");
  for (std::size_t i = 0; i < std::max(mine.objects.size(), theirs.objects.size()); ++i) {
    if (i >= theirs.objects.size())
      return "library " + mine.objects[i].name +
             " is loaded here and not there; load the same libraries everywhere (LD_PRELOAD, dlopen)";
    if (i >= mine.objects.size())
      return "library " + theirs.objects[i].name +
             " is loaded there and not here; load the same libraries everywhere (LD_PRELOAD, dlopen)";
    const loaded_object& here = mine.objects[i];
    const loaded_object& there = theirs.objects[i];
    if (here.name != there.name)
      return differ("library number " + std::to_string(i), here.name, there.name,
                    "load the same libraries in the same order everywhere (LD_PRELOAD, LD_LIBRARY_PATH)");
    if (here.build != there.build)
      return differ("the build id of " + here.name, hex(here.build), hex(there.build),
                    "install the same version of it on every host, or link it statically");
    if (here.address != there.address)
      return differ(
          "the load address of " + here.name, "0x" + hex(here.address), "0x" + hex(there.address),
          "address randomisation must be off on both (personality ADDR_NO_RANDOMIZE; where a container "
          "forbids that, build a static executable with MIGRATE_STATIC)");
  }
  if (mine.page_size != theirs.page_size)
    return differ("the page size", std::to_string(mine.page_size), std::to_string(theirs.page_size),
                  "use kernels with the same page size");
  if (mine.plan_base != theirs.plan_base)
    return differ("the base of the address plan", hex(mine.plan_base), hex(theirs.plan_base),
                  "compile both with the same MIGRATE_PLAN_BASE and sanitizers");
  if (mine.plan_size != theirs.plan_size)
    return differ("the size of the address plan", hex(mine.plan_size), hex(theirs.plan_size),
                  "compile both with the same MIGRATE_PLAN_BASE and sanitizers");
  if (mine.classes.size() != theirs.classes.size())
    return differ("the number of region classes", std::to_string(mine.classes.size()),
                  std::to_string(theirs.classes.size()), "build both with the same version of migrate");
  for (std::size_t i = 0; i < mine.classes.size(); ++i) {
    const auto& here = mine.classes[i];
    const auto& there = theirs.classes[i];
    auto text = [](const detail::class_layout& layout) {
      return std::to_string(layout.regions) + " regions of 2^" + std::to_string(layout.size_bits) +
             " bytes at " + hex(layout.first) + " in grants of " + std::to_string(layout.grant);
    };
    if (here.first != there.first || here.size_bits != there.size_bits || here.regions != there.regions ||
        here.grant != there.grant)
      return differ("region class " + std::to_string(i), text(here), text(there),
                    "build both with the same version of migrate");
  }
  if (auto name = lacks(theirs.cpu_active, mine.cpu_compiled); !name.empty())
    return "the executable was compiled for processors with " + name +
           ", which the other node's lacks; compile for the weaker processor (-march)";
  if (auto name = lacks(mine.cpu_active, theirs.cpu_compiled); !name.empty())
    return "the other node's executable was compiled for processors with " + name +
           ", which this one lacks; compile for the weaker processor (-march)";
  auto only = [&](const std::vector<std::string>& these, const std::vector<std::string>& those) {
    for (const std::string& name : these)
      if (detail::cpu_feature_chosen_by(name) && std::find(those.begin(), those.end(), name) == those.end())
        return name;
    return std::string();
  };
  auto advice = [](const std::string& name, const std::string& has, const std::string& lacks_it) {
    return "the C library " + has + " has chosen functions that need the processor feature " + name +
           ", which " + lacks_it + " lacks; start every node with GLIBC_TUNABLES=glibc.cpu.hwcaps=-" + name;
  };
  if (auto name = only(mine.cpu_active, theirs.cpu_active); !name.empty())
    return advice(name, "here", "the other node");
  if (auto name = only(theirs.cpu_active, mine.cpu_active); !name.empty())
    return advice(name, "there", "this node");
  if (mine.user != theirs.user)
    return differ("the user", std::to_string(mine.user), std::to_string(theirs.user),
                  "tasks open files as their home's user: start every node as the same one");
  if (mine.groups != theirs.groups) {
    auto text = [](const std::vector<gid_t>& groups) {
      std::string all;
      for (gid_t each : groups) {
        if (!all.empty()) all += ',';
        all += std::to_string(each);
      }
      return all;
    };
    return differ("the list of the user's groups", text(mine.groups), text(theirs.groups),
                  "tasks open files in their home's groups: start every node in the same ones");
  }
  if (mine.store != theirs.store)
    return differ("the store", detail::shortened(mine.store), detail::shortened(theirs.store),
                  "give every node the same shared store directory");
  return std::nullopt;
}

inline void identity::write(protocol::Identity::Builder out) const {
  out.setProtocolVersion(protocol);
  out.initCluster().setHigh(cluster.high);
  out.getCluster().setLow(cluster.low);
  out.initStore().setHigh(store.high);
  out.getStore().setLow(store.low);
  out.setPageSize(page_size);
  out.setPlanBase(plan_base);
  out.setPlanSize(plan_size);
  auto class_list = out.initClasses(static_cast<unsigned>(classes.size()));
  for (unsigned i = 0; i < classes.size(); ++i) {
    class_list[i].setFirst(classes[i].first);
    class_list[i].setSizeBits(classes[i].size_bits);
    class_list[i].setRegions(classes[i].regions);
    class_list[i].setGrant(classes[i].grant);
  }
  auto object_list = out.initObjects(static_cast<unsigned>(objects.size()));
  for (unsigned i = 0; i < objects.size(); ++i) {
    object_list[i].setName(objects[i].name.c_str());
    object_list[i].setAddress(objects[i].address);
    object_list[i].setBuild(
        kj::arrayPtr(reinterpret_cast<const kj::byte*>(objects[i].build.data()), objects[i].build.size()));
  }
  out.setArchitecture(architecture.c_str());
  auto write_names = [](capnp::List<capnp::Text>::Builder list, const std::vector<std::string>& names) {
    for (unsigned i = 0; i < names.size(); ++i) list.set(i, names[i].c_str());
  };
  write_names(out.initCpuCompiled(static_cast<unsigned>(cpu_compiled.size())), cpu_compiled);
  write_names(out.initCpuActive(static_cast<unsigned>(cpu_active.size())), cpu_active);
  out.setUser(user);
  auto group_list = out.initGroups(static_cast<unsigned>(groups.size()));
  for (unsigned i = 0; i < groups.size(); ++i) group_list.set(i, groups[i]);
}

inline identity identity::read(protocol::Identity::Reader in) {
  identity made;
  made.protocol = in.getProtocolVersion();
  made.cluster = {in.getCluster().getHigh(), in.getCluster().getLow()};
  made.store = {in.getStore().getHigh(), in.getStore().getLow()};
  made.page_size = in.getPageSize();
  made.plan_base = in.getPlanBase();
  made.plan_size = in.getPlanSize();
  for (auto layout : in.getClasses())
    made.classes.push_back({layout.getFirst(), layout.getSizeBits(), layout.getRegions(), layout.getGrant()});
  for (auto object : in.getObjects()) {
    auto build = object.getBuild();
    made.objects.push_back({object.getName().cStr(), object.getAddress(),
                            std::string(reinterpret_cast<const char*>(build.begin()), build.size())});
  }
  made.architecture = in.getArchitecture().cStr();
  for (auto name : in.getCpuCompiled()) made.cpu_compiled.emplace_back(name.cStr());
  for (auto name : in.getCpuActive()) made.cpu_active.emplace_back(name.cStr());
  made.user = in.getUser();
  for (gid_t each : in.getGroups()) made.groups.push_back(each);
  return made;
}

} // namespace migrate
