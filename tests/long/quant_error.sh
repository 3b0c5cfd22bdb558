#!/bin/sh
# Encoding error on real tensors, ours against llama-quantize: first layers of SmolLM2 (taken off its 4-bit grid) and, for the
# super-block types, the same rows; each type without and with an importance matrix. Ours must not be larger in any line.
# usage: PEER_BIN=DIR [ASH_SMOLLM2=FILE] [ASHLAR=PROGRAM] quant_error.sh        needs python3 with numpy and gguf for the off-grid copy
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
: "${PEER_BIN:?folder of llama-quantize}"
model=${ASH_SMOLLM2:-$(sh "$root/scripts/fetch_model.sh" smollm2)}
ashlar=${ASHLAR:-$root/build/release/ashlar}
tool=$(dirname "$ashlar")/quant_error_bench
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" "$root/bench/degrid.py" "$model" "$tmp/f16.gguf" 1 >/dev/null
"$ashlar" imatrix "$tmp/f16.gguf" -o "$tmp/im.gguf" --chunks 4 >/dev/null
drop=$(seq -s, 4 29) # keep four layers
fail=0
for t in Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_XS IQ3_S IQ3_XXS IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ1_0 TQ2_0 Q2_0; do
  case $t in Q3_K | Q4_K | Q5_K) name=${t}_S ;; IQ2_S) name=IQ2_M ;; *) name=$t ;; esac
  for w in 0 1; do
    im=""
    case $w$t in 0IQ1* | 0IQ2* | 0IQ3_XXS) continue ;; esac # the peer refuses these without importance
    [ $w = 1 ] && im="--imatrix $tmp/im.gguf"
    # shellcheck disable=SC2086
    "$PEER_BIN/llama-quantize" --pure --prune-layers "$drop" --token-embedding-type f16 $im "$tmp/f16.gguf" "$tmp/p.gguf" "$name" 2 >"$tmp/log" 2>&1 ||
      { tail -n 5 "$tmp/log"; exit 1; }
    # shellcheck disable=SC2086
    "$tool" "$tmp/f16.gguf" "$tmp/p.gguf" "$t" ${im:+"$tmp/im.gguf"} || fail=1
  done
done
[ $fail = 0 ] && echo "quant_error: no type is worse than the peer's" || { echo "quant_error: FAILED"; exit 1; }
