#!/bin/sh
# slices.sh - slices of the tiny models in llama.cpp: it loads them, and its probabilities are ours.
#   PEER_BIN   folder of llama.cpp's programs (bench/peer.sh)
# Bar: mean KL divergence between llama.cpp and float32 ashlar on the slice at most 1e-3, or twice what it is on the whole model
# (a router's close calls). Slices that come with a note about llama.cpp are exempt: what it does is printed.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
: "${ASHLAR:=$root/build/release/ashlar}"
: "${PEER_BIN:?set PEER_BIN to the folder of llama.cpp\'s programs}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0
head -c 12000 "$root/data/wikitext2-test.txt" >"$tmp/text"
# kld FILE: mean KL divergence, or why there is none
kld() {
  rm -f "$tmp/base"
  "$PEER_BIN/llama-perplexity" -m "$1" -f "$tmp/text" -c 64 -b 64 -t 2 --chunks 8 -ctk f32 -ctv f32 --kl-divergence-base "$tmp/base" >"$tmp/peer" 2>&1 || true
  if [ -s "$tmp/base" ]; then
    "$ASHLAR" eval "$1" --ref "$tmp/base" -t 2 --json | python3 -c 'import json,sys; print("%.2e" % json.load(sys.stdin)["kld"]["value"])'
  else
    echo "does not run: $(grep -iE 'error|assert|fail' "$tmp/peer" | tail -1)"
  fi
}
for case in gemma4-e:all gemma4-e:swa gemma4-e:full gemma4-e:first:5 gemma4-e:own gemma4-e:even "gemma4-e:!1" "gemma4-e:!7" gemma4-dense:swa gemma4-dense:2-5 gemma4-moe:swa \
  gemma4-moe:1-2 gemma3:swa gemma3:full gemma3:3-6 "gemma3:!0" gemma2:swa gemma2:full gemma2:1-2 llama:even qwen3-moe:first:2 phi3:last:2 ${EXTRA:-}; do
  name=${case%%:*} rule=${case#*:}
  "$ASHLAR" slice "$root/tests/data/golden/$name/model.gguf" --keep "$rule" -o "$tmp/s.gguf" >"$tmp/log" || { echo "FAIL $case: not sliced"; bad=1; continue; }
  note=$(sed -n 's/^  note: //p' "$tmp/log")
  k=$(kld "$tmp/s.gguf")
  if [ -n "$note" ]; then echo "note $case: $k ($note)"
  elif python3 -c 'import sys; sys.exit(not float(sys.argv[1]) <= 1e-3)' "$k" 2>/dev/null ||
    python3 -c 'import sys; sys.exit(not float(sys.argv[1]) <= 2 * float(sys.argv[2]))' "$k" "$(kld "$root/tests/data/golden/$name/model.gguf")" 2>/dev/null; then echo "ok   $case: $k"
  else echo "FAIL $case: $k"; bad=1; fi
done
exit $bad
