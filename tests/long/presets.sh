#!/bin/sh
# Stock presets against llama-quantize, tensor by tensor, both as dry runs: the real models and made-up headers (tools/preset_headers.py),
# with and without an importance matrix. usage: PEER_BIN=DIR [ASHLAR=PROGRAM] [MODELS=FOLDER of NAME-f16.gguf] presets.sh [MODEL.gguf...]
# needs python3 with numpy and gguf
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
: "${PEER_BIN:?folder of llama-quantize}"
ashlar=${ASHLAR:-$root/build/release/ashlar}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" "$root/tools/preset_headers.py" "$tmp"
names="F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M
 IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_XS IQ4_NL TQ1_0 TQ2_0 MXFP4_MOE Q1_0 Q2_0"
fail=0 n=0
for m in "$@" ${MODELS:+"$MODELS"/*-f16.gguf} "$tmp"/*.gguf; do
  case $m in *.imatrix.gguf) continue ;; esac
  im=$tmp/$(basename "$m" .gguf).imatrix.gguf
  [ -f "$im" ] || "${PYTHON:-python3}" "$root/tools/preset_headers.py" --imatrix "$m" "$im"
  for p in $names; do
    for w in 0 1; do
      o=""
      [ $w = 1 ] && o="--imatrix $im"
      # shellcheck disable=SC2086
      "$PEER_BIN/llama-quantize" --allow-requantize $o --dry-run "$m" "$p" 2>&1 | sed -n 's/^\[ *[0-9]*\/ *[0-9]*\] *\([^ ]*\) .* -> .*(\([A-Za-z0-9_]*\))$/\1 \2/p' |
        tr a-z A-Z | LC_ALL=C sort >"$tmp/peer"
      # shellcheck disable=SC2086
      "$ashlar" quantize "$m" "$tmp/none" --preset "$p" --dry-run --json $o >"$tmp/json" 2>"$tmp/log" || : >"$tmp/json"
      tr -d ' \n' <"$tmp/json" | sed 's/{/\n/g' | sed -n 's/.*"tensor":"\([^"]*\)","from":"\([^"]*\)","to":"\([^"]*\)".*/\1 \2 \3/p' | awk '$2 != $3 {print $1, $3}' |
        tr a-z A-Z | LC_ALL=C sort >"$tmp/ours"
      n=$((n + 1))
      if ! cmp -s "$tmp/peer" "$tmp/ours"; then
        echo "DIFFERS: $(basename "$m") $p imatrix=$w: $(diff "$tmp/peer" "$tmp/ours" | sed -n 2p) $(head -c 200 "$tmp/log")"
        fail=1
      fi
    done
  done
done
[ $fail = 0 ] && echo "presets: $n recipes equal to the peer's" || { echo "presets: FAILED"; exit 1; }
