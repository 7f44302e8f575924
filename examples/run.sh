#!/bin/sh
# Installs what is missing, builds the simulation examples/pic and runs it. Arguments go to the simulation.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/.ci/common.sh"

need_packages $build_packages
build=$(build_root)/examples
echo "building in $build"
configure "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMIGRATE_BUILD_TESTS=OFF -DMIGRATE_BUILD_BENCHMARKS=OFF ||
  stop "the build could not be configured"
cmake --build "$build" --target pic || stop "the simulation did not build"

status=0
"$build/examples/pic" "$@" || status=$?
if [ $status -eq 0 ]; then
  echo "done: the simulation ran, and its result is right"
else
  echo "failed: the simulation ended with status $status"
fi
exit $status
