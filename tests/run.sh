#!/bin/sh
# Installs what is missing, builds everything and runs all tests with GCC, optimised, and with Clang, not optimised, as
# in a user's debug build, but for what takes long and depends on no compiler. Arguments choose among gcc, clang, static,
# sanitize and thread; the last three run some of the tests: in static executables, under the address and
# undefined-behaviour sanitizers, and under ThreadSanitizer (docs/design.md says which, and why not the others).
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/.ci/common.sh"

[ $# -gt 0 ] || set -- gcc clang
for stage; do
  case $stage in
    gcc | clang | static | sanitize | thread) ;;
    *) echo "usage: sh tests/run.sh [gcc] [clang] [static] [sanitize] [thread]" >&2; exit 2 ;;
  esac
done

need_packages $build_packages $test_packages
root=$(build_root)
echo "building in $root"

passed=0
failed=0
skipped=0
failures=
unsteady=

fail() {
  failed=$((failed + 1))
  failures="$failures
  $1"
}

read_results() {
  # read_results XML: a line for each test, its status and its name. One that could not start has failed; only one that
  # asked for it is skipped.
  awk '
    /<testcase / { name = status = $0; sub(/.*<testcase name="/, "", name); sub(/".*/, "", name)
                   sub(/.* status="/, "", status); sub(/".*/, "", status); order[++count] = name; state[name] = status }
    /<skipped message="SKIP_/ { state[name] = "skipped" }
    END { for (i = 1; i <= count; ++i) {
            status = state[order[i]]
            print (status == "run" ? "passed" : status == "skipped" || status == "disabled" ? "skipped" : "failed"), order[i] } }
  ' "$1"
}

run_stage() {
  # run_stage NAME OPTIMISATION LABELS-NOT-RUN CMAKE-OPTION...: a build counts as one test, and what did build is tested.
  stage=$1
  optimisation=$2
  without=$3
  shift 3
  build=$root/$stage
  started=$(date +%s)
  echo
  echo "== $stage"
  configure "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=$optimisation" "$@" || { fail "$stage: configuring"; return 0; }
  if cmake --build "$build" -- -k 0 >"$build/build.log" 2>&1; then
    passed=$((passed + 1))
  else
    grep -v '^\[' "$build/build.log" || :
    fail "$stage: the build"
  fi
  echo "built in $(($(date +%s) - started)) s"

  if [ "$(id -u)" -ne 0 ]; then
    rooted=$(ctest --test-dir "$build" -N -L '^root$' | sed -n 's/^Total Tests: //p')
    if [ "$rooted" -gt 0 ]; then
      echo "$rooted tests need root and are skipped"
      skipped=$((skipped + rooted))
    fi
    without="$without|^root\$"
  fi
  rm -f "$build/tests.xml"
  # One more than there are processors, since many tests wait for most of their time.
  ctest --test-dir "$build" -LE "$without" -j "$(($(nproc) + 1))" --timeout 120 --no-tests=error --output-on-failure \
    --output-junit "$build/tests.xml" </dev/null || :
  echo "built and tested in $(($(date +%s) - started)) s"
  if ! grep -q '<testsuite' "$build/tests.xml" 2>/dev/null; then
    fail "$stage: the tests did not run"
    return 0
  fi
  results=$build/results
  read_results "$build/tests.xml" >"$results"
  # What failed runs once more by itself. If it passes then, it is unsteady, which is a fault to be found: it is named.
  if grep -q '^failed ' "$results"; then
    echo
    echo "== $stage: what failed, once more and alone"
    rm -f "$build/again.xml"
    ctest --test-dir "$build" --rerun-failed -LE "$without" --timeout 120 --output-on-failure \
      --output-junit "$build/again.xml" </dev/null || :
    if grep -q '<testsuite' "$build/again.xml" 2>/dev/null; then
      read_results "$build/again.xml" >"$results.again"
      while read -r result name; do
        [ "$result" = passed ] || continue
        sed "s|^failed $name\$|passed $name|" "$results" >"$results.new" && mv "$results.new" "$results"
        unsteady="$unsteady
  $stage: $name"
      done <"$results.again"
    fi
  fi
  passed=$((passed + $(grep -c '^passed ' "$results" || :)))
  skipped=$((skipped + $(grep -c '^skipped ' "$results" || :)))
  while read -r result name; do
    [ "$result" != failed ] || fail "$stage: $name"
  done <"$results"
}

for stage; do
  case $stage in
    gcc)
      run_stage gcc '-O2 -g0' '^none$' -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++
      ;;
    clang)
      run_stage clang '-O0 -g0' '^(package|nobody|once)$' -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
        -DMIGRATE_BUILD_BENCHMARKS=OFF
      ;;
    static)
      run_stage static '-O2 -g1' '^(package|nobody)$' -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++ -DMIGRATE_STATIC=ON \
        -DMIGRATE_BUILD_BENCHMARKS=OFF
      ;;
    sanitize)
      run_stage sanitize '-O2 -g1' '^package$' -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++ \
        -DMIGRATE_SANITIZE=address,undefined -DMIGRATE_BUILD_EXAMPLES=OFF -DMIGRATE_BUILD_BENCHMARKS=OFF
      ;;
    thread)
      run_stage thread '-O2 -g1' '^package$' -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++ -DMIGRATE_SANITIZE=thread \
        -DMIGRATE_BUILD_EXAMPLES=OFF -DMIGRATE_BUILD_BENCHMARKS=OFF
      ;;
  esac
done

echo
[ -z "$failures" ] || printf 'failed:%s\n\n' "$failures"
[ -z "$unsteady" ] || printf 'failed beside others and passed alone:%s\n\n' "$unsteady"
if [ $skipped -gt 0 ]; then
  echo "$passed passed, $failed failed, $skipped skipped"
else
  echo "$passed passed, $failed failed"
fi
[ $failed -eq 0 ]
