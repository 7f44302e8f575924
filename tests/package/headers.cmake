# Each header of the library that others than the node include compiles alone. Checked without code being made, which takes a third of the time.
execute_process(
  COMMAND "${CMAKE_COMMAND}" -S "${source}" -B "${build}" -G "${generator}" -DCMAKE_BUILD_TYPE=Debug
    "-DCMAKE_CXX_COMPILER=${compiler}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${source}/.ci/parse-only"
    -DMIGRATE_BUILD_TESTS=OFF -DMIGRATE_BUILD_EXAMPLES=OFF -DMIGRATE_BUILD_BENCHMARKS=OFF
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(
  COMMAND "${CMAKE_COMMAND}" --build "${build}" --target migrate_verify_interface_header_sets
  COMMAND_ERROR_IS_FATAL ANY)
