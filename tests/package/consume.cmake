# Configures and builds the consumer project from nothing, runs its programs, and looks at how they were linked.
separate_arguments(options UNIX_COMMAND "${options}")
file(REMOVE_RECURSE "${build}")
execute_process(
  COMMAND "${CMAKE_COMMAND}" -S "${source}" -B "${build}" -G "${generator}" "-DCMAKE_CXX_COMPILER=${compiler}"
          "-DCMAKE_CXX_COMPILER_LAUNCHER=${launcher}" ${options}
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${CMAKE_COMMAND}" --build "${build}" COMMAND_ERROR_IS_FATAL ANY)

foreach(program consumer other/other)
  execute_process(COMMAND "${build}/${program}" OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
  if(NOT output STREQUAL "task 3.42\n")
    message(FATAL_ERROR "${program} printed '${output}'")
  endif()

  execute_process(COMMAND readelf --wide --file-header --program-headers --notes "${build}/${program}"
    OUTPUT_VARIABLE elf COMMAND_ERROR_IS_FATAL ANY)
  if(NOT elf MATCHES "Build ID: [0-9a-f]+")
    message(FATAL_ERROR "${program} has no build id")
  endif()
  if(name STREQUAL static AND (NOT elf MATCHES "Type: +EXEC" OR elf MATCHES "INTERP|DYNAMIC"))
    message(FATAL_ERROR "${program} is not static at fixed addresses:\n${elf}")
  endif()
endforeach()
