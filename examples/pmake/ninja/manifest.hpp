// Reads a manifest into a graph.
#pragma once

#include <functional>
#include <string>

#include "graph.hpp"

namespace pmake {

struct manifest_options {
  bool doubled_output_is_error = true; // -w dupbuild
  bool phony_cycle_is_error = false;   // -w phonycycle
};

void read_manifest(graph& into, const std::string& path, const manifest_options& options,
                   const std::function<void(const std::string&)>& warn);
// Throws build_error, whose text says where, and fatal_error when the manifest wants a newer Ninja.

inline constexpr const char* ninja_version = "1.11.1"; // whose language and behaviour this is

void check_required_version(std::string_view wanted, const std::function<void(const std::string&)>& warn);

} // namespace pmake
