#!/bin/sh
# A conversation on the real models, saved and restored, its last turns edited: how many tokens are computed again, exactly
# (test_kv's replay on a file). usage: [MODELS=FOLDER of NAME-f16.gguf] replay.sh [MODEL.gguf...]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
test_kv=${TEST_KV:-$root/build/release/tests/test_kv}
ASH_TEST_DATA=${ASH_TEST_DATA:-$root/tests/data}
export ASH_TEST_DATA
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n=0
for m in "$@" ${MODELS:+"$MODELS"/*-f16.gguf}; do
  case $m in *.imatrix.gguf) continue ;; esac
  m=$(readlink -f "$m")
  (cd "$tmp" && ASH_REPLAY_MODEL=$m "$test_kv") || { echo "replay: $m failed"; exit 1; }
  n=$((n + 1))
done
[ "$n" -gt 0 ] || { echo "replay: no models; skipped"; exit 0; }
echo "replay: $n models, every token computed once"
