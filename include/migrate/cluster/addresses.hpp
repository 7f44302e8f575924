// Having the executable and its libraries at the same addresses in every process.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <link.h>
#include <sys/personality.h>
#include <unistd.h>

#include <migrate/error.hpp>

namespace migrate::detail {

inline bool loaded_at_fixed_addresses() noexcept {
  // A static, non-PIE executable has a load offset of 0 and no libraries but the vDSO.
  struct seen {
    unsigned objects = 0;
    bool fixed = true;
  } all;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& found = *static_cast<seen*>(data);
        bool main = found.objects++ == 0;
        bool vdso = info->dlpi_name != nullptr && std::strncmp(info->dlpi_name, "linux-vdso", 10) == 0;
        if (main ? info->dlpi_addr != 0 : !vdso) found.fixed = false;
        return 0;
      },
      &all);
  return all.fixed;
}

inline void fix_addresses() {
  // Restarts the program once with address randomisation off. Nothing of the program has run by then but
  // what stands before the call in main.
  constexpr const char* mark = "MIGRATE_ADDRESSES_FIXED";
  if (loaded_at_fixed_addresses()) return;
  int persona = ::personality(0xffffffff);
  if (persona != -1 && (persona & ADDR_NO_RANDOMIZE) != 0) {
    ::unsetenv(mark);
    return;
  }
  std::string remedy = "; link the program statically and without PIE (CMake: MIGRATE_STATIC), or allow "
                       "personality(ADDR_NO_RANDOMIZE) to this process";
  if (std::getenv(mark) != nullptr)
    throw error(errc::address_space, "address randomisation stays on although the program was restarted without it" + remedy);
  if (persona == -1 || ::personality(static_cast<unsigned long>(persona) | ADDR_NO_RANDOMIZE) == -1)
    throw error(errc::address_space, std::string("address randomisation cannot be switched off: ") +
                                         std::strerror(errno) + remedy);
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string line((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<char*> arguments;
  for (std::size_t at = 0; at < line.size(); at += std::strlen(&line[at]) + 1) arguments.push_back(&line[at]);
  arguments.push_back(nullptr);
  ::setenv(mark, "1", 1);
  ::execv("/proc/self/exe", arguments.data());
  throw error(errc::address_space, std::string("restarting the program without address randomisation: ") +
                                       std::strerror(errno) + remedy);
}

} // namespace migrate::detail
