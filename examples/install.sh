#!/bin/sh
# install.sh PREFIX: installs what is missing, builds the commands (pmake, migrated, migrate-hostd, migrate, ...) and installs
# them into PREFIX, with the library.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/.ci/common.sh"
[ $# -eq 1 ] || { sed -n 2,3p "$0"; exit 2; }

need_packages $build_packages
build=$(build_root)/commands
echo "building in $build"
configure "$build" -DCMAKE_BUILD_TYPE=Release -DMIGRATE_BUILD_TESTS=OFF -DMIGRATE_BUILD_BENCHMARKS=OFF ||
  stop "the build could not be configured"
cmake --build "$build" --target commands || stop "the commands did not build"
cmake --install "$build" --prefix "$1" >"$build/install.log" 2>&1 ||
  { cat "$build/install.log"; stop "the commands could not be installed"; }
echo "done: the commands are in $(cd "$1" && pwd)/bin"
