#!/bin/sh
# Run one fuzz target for some seconds from its committed corpus; new inputs stay in the build folder. A finding prints the end of the log
# and fails (255 stops the others that xargs would start).
# usage: fuzz_one.sh SECONDS TARGET
set -eu
seconds=$1 f=$2
n=$(basename "$f")
work=build/fuzz/work/$n
mkdir -p "$work"
if ! "$f" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=0 -artifact_prefix="$work-" \
  "$work" "tests/fuzz/corpus/${n#fuzz_}" >"build/fuzz/$n.log" 2>&1; then
  tail -n 40 "build/fuzz/$n.log"
  echo "$n: FAILED"
  exit 255
fi
echo "$n: $(grep -c . "build/fuzz/$n.log") log lines, no finding"
