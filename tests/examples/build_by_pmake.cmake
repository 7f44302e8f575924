# Configures this project with pmake as its build tool, and builds the engine of pmake by it, on granted hosts (on_lent_hosts).
# Called with NINJA, SOURCE, BUILD, C, CXX and LAUNCHER.
file(REMOVE_RECURSE "${BUILD}")

function(run output)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN}: ${status}\n${text}")
  endif()
  set(${output} "${text}" PARENT_SCOPE)
endfunction()

run(text "${CMAKE_COMMAND}" -S "${SOURCE}" -B "${BUILD}" -G Ninja "-DCMAKE_MAKE_PROGRAM=${NINJA}"
  "-DCMAKE_C_COMPILER=${C}" "-DCMAKE_CXX_COMPILER=${CXX}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}"
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0 -DMIGRATE_BUILD_TESTS=OFF -DMIGRATE_BUILD_BENCHMARKS=OFF)
run(text "${CMAKE_COMMAND}" --build "${BUILD}" --target pmake_engine pmake_shell -- --trace "${BUILD}/trace.json")
if(NOT text MATCHES "Linking CXX static library")
  message(FATAL_ERROR "nothing was built:\n${text}")
endif()
file(READ "${BUILD}/trace.json" trace)
string(JSON events LENGTH "${trace}" traceEvents)
if(events LESS 10 OR NOT text MATCHES " hosts, [1-9][0-9]* foreign\\] " OR NOT trace MATCHES "\"name\":\"(one|two)\"")
  message(FATAL_ERROR "nothing left this machine:\n${text}")
endif()
run(text "${CMAKE_COMMAND}" --build "${BUILD}" --target pmake_engine pmake_shell)
if(NOT text MATCHES "no work to do")
  message(FATAL_ERROR "it was built again:\n${text}")
endif()
run(text "${CMAKE_COMMAND}" --build "${BUILD}" --target clean)
file(GLOB_RECURSE left "${BUILD}/*.o")
if(left)
  message(FATAL_ERROR "left after cleaning: ${left}")
endif()
file(REMOVE_RECURSE "${BUILD}")
