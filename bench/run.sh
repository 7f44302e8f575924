#!/bin/sh
# Installs what is missing, builds every benchmark (or those named as arguments) and runs them in turn. At the end
# stands one table of all rows that they printed, as: what | measured | to reach | ok or short (or a dash,
# where there is nothing to reach).
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/.ci/common.sh"

need_packages $build_packages $bench_packages $rival_packages
build=$(build_root)/bench
echo "building in $build"
configure "$build" -DCMAKE_BUILD_TYPE=Release -DMIGRATE_BUILD_TESTS=OFF ||
  stop "the build could not be configured"
cmake --build "$build" --target benchmarks || stop "the benchmarks did not build"

[ $# -gt 0 ] || set -- $(cat "$build/bench/programs")
rows=$build/rows
: >"$rows"
row='^[^|]+([|][^|]*){2}[|] *(ok|short|shown?|-|–)? *$'
broken=
for name; do
  echo
  echo "== $name"
  status=0
  { "$build/bench/$name" 2>&1 || echo $? >"$build/status"; } | tee "$build/output"
  if [ -e "$build/status" ]; then
    status=$(cat "$build/status")
    rm "$build/status"
  fi
  grep -E "$row" "$build/output" >>"$rows" || :
  # A benchmark may end with status 1 because a row is short; without such a row it is broken.
  if [ "$status" -ne 0 ] && ! grep -qE '\| *short *$' "$build/output"; then
    echo "$name ended with status $status"
    broken="$broken $name"
  elif ! grep -qE "$row" "$build/output"; then
    echo "$name printed no row"
    broken="$broken $name"
  fi
done

echo
awk -F ' *[|] *' '
  { sub(/^ +/, "", $1); sub(/ +$/, "", $4); for (i = 1; i <= 4; ++i) cell[NR, i] = $i }
  END {
    split("what|measured|to reach|result", head, "|")
    for (i = 1; i <= 4; ++i) cell[0, i] = head[i]
    for (r = 0; r <= NR; ++r)
      for (i = 1; i <= 4; ++i)
        if (length(cell[r, i]) > width[i]) width[i] = length(cell[r, i])
    for (r = 0; r <= NR; ++r) {
      line = "|"
      for (i = 1; i <= 4; ++i) line = line sprintf(" %-" width[i] "s |", cell[r, i])
      print line
      if (r == 0) {
        line = "|"
        for (i = 1; i <= 4; ++i) { bar = ""; while (length(bar) < width[i]) bar = bar "-"; line = line " " bar " |" }
        print line
      }
    }
  }' "$rows"
echo
ok=$(grep -cE '[|] *ok *$' "$rows" || :)
short=$(grep -cE '[|] *short *$' "$rows" || :)
shown=$(($(wc -l <"$rows") - ok - short))
echo "benchmarks: $ok ok, $short short, $shown with nothing to reach${broken:+; broken:$broken}"
[ -z "$broken" ]
