#!/bin/sh
# Set up, build, and pass all tests.
# usage: test.sh            fast tier: gcc and clang with -Werror, unit, golden and program tests at every CPU level this machine
#                           has, sanitizers, fuzz targets 10 s each (under 25 minutes on two cores)
#        test.sh --quick    gcc build and tests only
#        test.sh --long     the fast tier with fuzz targets at 60 s each, then tests/long/*.sh (real models, llama.cpp as peer)
set -eu
cd "$(dirname "$0")/.."
tier=${1:-fast}
fuzz_s=10
[ "$tier" = --long ] && fuzz_s=60
jobs=$(nproc)
sh scripts/setup.sh --tests

stage() { printf '\n== %s\n' "$*"; }
build() { cmake --preset "$1" >/dev/null && cmake --build --preset "$1" -j "$jobs" | tail -n 1; }

stage "fetch the real models"
ASH_SMOLLM2=$(sh scripts/fetch_model.sh smollm2)
ASH_GEMMA3=$(sh scripts/fetch_model.sh gemma3)
export ASH_SMOLLM2 ASH_GEMMA3

stage "release build (gcc, -Werror)"
build release
if [ "$tier" != --quick ]; then
  stage "clang build (-Werror)"
  build clang

  stage "tests under address and undefined-behaviour sanitizers"
  build asan
  ctest --preset asan -j "$jobs" --output-on-failure -LE slow | tail -n 4

  stage "thread sanitizer"
  build tsan
  ctest --preset tsan -j "$jobs" --output-on-failure -L threads | tail -n 4

  stage "fuzz targets, $fuzz_s s each"
  build fuzz
  for f in build/fuzz/tests/fuzz/fuzz_*; do
    [ -x "$f" ] && [ -f "$f" ] || continue
    n=$(basename "$f")
    mkdir -p "build/fuzz/work/$n"
    if ! "$f" -max_total_time="$fuzz_s" -timeout=20 -rss_limit_mb=2048 -print_final_stats=0 -artifact_prefix="build/fuzz/work/$n-" \
      "build/fuzz/work/$n" "tests/fuzz/corpus/${n#fuzz_}" >"build/fuzz/$n.log" 2>&1; then
      tail -n 40 "build/fuzz/$n.log"
      echo "$n: FAILED"
      exit 1
    fi
    echo "$n: $(grep -c . "build/fuzz/$n.log") log lines, no finding"
  done
fi

if [ "$tier" = --long ]; then
  stage "long tier: peer"
  PEER_BIN=$(sh bench/peer.sh)
  export PEER_BIN
  for t in tests/long/*.sh; do
    stage "$t"
    ASHLAR=$PWD/build/release/ashlar sh "$t"
  done
fi

stage "tests (release)"
ctest --preset release -j "$jobs" --output-on-failure
