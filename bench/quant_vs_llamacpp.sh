#!/bin/sh
# Encoding error and time of every type against llama-quantize, one table (Markdown): both programs turn the same layers of one model, widened so
# that all types fit its rows, into one type; same threads, file to file. Errors are squared, relative to the peer's: with an importance matrix
# (weighted by it) and without (plain); below 1 is better. Speed: million weights per second of processor time, of the whole program, so that other
# load on the machine matters little.
# usage: PEER_BIN=DIR [THREADS=2] [LAYERS=3] [TYPES="..."] quant_vs_llamacpp.sh MODEL-F16.gguf
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
: "${PEER_BIN:?folder of llama-quantize}"
ashlar=${ASHLAR:-$root/build/release/ashlar}
tool=$(dirname "$ashlar")/quant_error_bench
threads=${THREADS:-2} layers=${LAYERS:-3}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$ashlar" widen "$1" "$tmp/wide.gguf" >/dev/null
n_layer=$("$ashlar" inspect "$1" --json | grep -c '"blk\.[0-9]*\.attn_q\.weight"')
"$PEER_BIN/llama-quantize" --prune-layers "$(seq -s, "$layers" $((n_layer - 1)))" "$tmp/wide.gguf" "$tmp/f16.gguf" F16 >"$tmp/log" 2>&1
"$ashlar" imatrix "$tmp/f16.gguf" -o "$tmp/im.gguf" --chunks 4 -t "$threads" >/dev/null
# processor seconds of all children so far
spent() {
  times >"$tmp/times"
  awk 'NR == 2 {for (i = 1; i <= 2; i++) {split($i, a, /[ms]/); t += 60 * a[1] + a[2]} print t}' "$tmp/times"
}
weights=$("$ashlar" quantize "$tmp/f16.gguf" "$tmp/none" --type Q8_0 --dry-run --json | tr -d ' \n' | sed 's/{/\n/g' | sed -n 's/.*"tensor":"blk.*"bytes":\([0-9]*\).*/\1/p' | awk '{s += $1 / 1.0625} END {print s}')
echo "| type | error, weighted | error, plain | ashlar, M/s per core | llama-quantize | speed |"
echo "|---|---|---|---|---|---|"
for t in ${TYPES:-Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K IQ3_S IQ3_XXS Q2_K IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ2_0 TQ1_0 Q2_0 Q1_0}; do
  case $t in Q3_K | Q4_K | Q5_K) name=${t}_S ;; IQ2_S) name=IQ2_M ;; *) name=$t ;; esac
  plain=-
  printf 'token_embd.weight = keep\n* = %s\n' "$t" >"$tmp/recipe"
  for w in 0 1; do
    im="" ratio=-
    case $w$t in 0IQ1* | 0IQ2* | 0IQ3_XXS) continue ;; esac # the peer refuses these without importance
    [ $w = 1 ] && im="--imatrix $tmp/im.gguf"
    spent >"$tmp/a"
    # shellcheck disable=SC2086
    "$PEER_BIN/llama-quantize" --pure --token-embedding-type f16 $im "$tmp/f16.gguf" "$tmp/p.gguf" "$name" "$threads" >"$tmp/log" 2>&1 || { tail -n 5 "$tmp/log"; exit 1; }
    spent >"$tmp/b"
    # shellcheck disable=SC2086
    "$ashlar" quantize "$tmp/f16.gguf" "$tmp/o.gguf" --recipe "$tmp/recipe" $im -t "$threads" >/dev/null
    spent >"$tmp/c"
    # shellcheck disable=SC2086
    ratio=$("$tool" "$tmp/f16.gguf" "$tmp/p.gguf" "$t" ${im:+"$tmp/im.gguf"} | sed 's/.*ratio \([^ ]*\).*/\1/') || :
    [ $w = 0 ] && plain=$ratio
  done
  echo "$weights $(cat "$tmp/a" "$tmp/b" "$tmp/c" | tr '\n' ' ')" | awk -v t="$t" -v r="$ratio" -v p="$plain" '{peer = $1 / ($3 - $2) / 1e6; our = $1 / ($4 - $3) / 1e6; printf "| %s | %s | %s | %.1f | %.1f | %.1f |\n", t, r, p, our, peer, our / peer}'
done
