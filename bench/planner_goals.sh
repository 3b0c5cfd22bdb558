#!/bin/sh
# The planner against stock presets and against the Lagrangian baseline, at equal bytes, for one model.
#  wide: the de-gridded model with rows widened to 768, so that every type applies: `ashlar front` (what `fit` makes) at the sizes of llama-quantize's IQ2_M, IQ3_XXS,
#        Q2_K, Q3_K_S and Q4_K_M (llama-imatrix), and the Lagrangian baseline at the same sizes, with the same encoders and rounding. Prints the geometric mean and the worst of the ratios.
#  own:  the model as it is: the smallest file with KLD <= 0.10, and the ratio at the size of stock Q2_K.
# Every file is judged by llama-perplexity (mean KLD to the de-gridded F16 reference, 16 chunks of 512 of data/wikitext2-test.txt; the reference of `wide` is the same: widening does not
# change what is computed). Calibration on data/wikitext2-valid.txt. One sweep per variant serves all sizes. Continues where it stopped: rows of the CSV are not made again.
# usage: planner_goals.sh OUTDIR smollm2|gemma3 [wide|own|all]      needs PEER_BIN (bench/peer.sh), python3-venv (not with REF)
#   REF=FILE        the de-gridded F16 model, where it exists         BASE=FILE  its llama-perplexity base file (16 chunks of 512)
#   PRESETS="..."   default "IQ2_M IQ3_XXS Q2_K Q3_K_S Q4_K_M"        BASELINES="lagrange lagrange-rel"  default "lagrange"
#   EFFORT=normal   of fit                                            PLAIN=1    plain rounding on both sides
#   TYPES=A,B,...   types to choose from              OWN_KLD=0.091  what the search of `own` aims at, in our own measure
#   CHAT=FILE       conversations (JSONL): fits, stock and baseline files of `wide` are judged on them too, by `ashlar eval --chat`
#   QUICK=1         a trial run: two presets, two chunks, no sweep; its figures mean nothing
# Time: `front` prints its estimate first. Two cores: SmolLM2 135M about an hour for wide and half an hour for own, Gemma 3 270M about half as much again; rounding with second moments
# is most of it (PLAIN=1 takes about a third), and a busy machine doubles it.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:?usage: planner_goals.sh OUTDIR smollm2|gemma3 [wide|own|all]}
m=${2:?usage: planner_goals.sh OUTDIR smollm2|gemma3 [wide|own|all]}
what=${3:-all}
ashlar=${ASHLAR:-$root/build/release/ashlar}
peer=${PEER_BIN:-$(sh "$root/bench/peer.sh")}
presets=${PRESETS:-IQ2_M IQ3_XXS Q2_K Q3_K_S Q4_K_M}
baselines=${BASELINES-lagrange}
effort=${EFFORT:-normal}
chunks=16 im_chunks=64 search="--kld ${OWN_KLD:-0.091}"
[ -z "${QUICK:-}" ] || { chunks=2 im_chunks=2 effort=quick search= presets=${PRESETS:-Q2_K Q4_K_M}; }
case $m in
  smollm2) goal=80000000 ;;
  gemma3) goal=155000000 ;;
  *) echo "smollm2 or gemma3, not $m" >&2; exit 2 ;;
esac
mkdir -p "$out"
valid=$root/data/wikitext2-valid.txt
test=$root/data/wikitext2-test.txt
csv=$out/planner.csv
[ -f "$csv" ] || echo "model,variant,file,bytes,kld,kld_err,same_top1_pct,judge" >"$csv"
say() { echo "$(date -u +%H:%M:%S) $*"; }
col() { awk -F, -v m="$m" -v v="$1" -v f="$2" -v k="$3" '$1 == m && $2 == v && $3 == f { print $k; exit }' "$csv"; } # variant file column
have() { [ -n "$(col "$1" "$2" 4)" ]; }

ref=${REF:-$out/$m-f16.gguf}
if [ ! -f "$ref" ]; then
  [ -x "$out/venv/bin/python" ] || { python3 -m venv "$out/venv" && "$out/venv/bin/pip" -q install numpy gguf; }
  "$out/venv/bin/python" "$root/bench/degrid.py" "$(sh "$root/scripts/fetch_model.sh" "$m")" "$ref" 1
fi
base=${BASE:-$out/$m.base}
[ -f "$base" ] || "$peer/llama-perplexity" -m "$ref" -f "$test" -c 512 --chunks $chunks -t 2 --kl-divergence-base "$base" >"$out/$m.base.log" 2>&1

judge() { # variant label file
  have "$1" "$2" && return 0
  "$peer/llama-perplexity" -m "$3" -c 512 --chunks $chunks -t 2 --kl-divergence-base "$base" --kl-divergence >"$out/judge.$m.log" 2>&1
  kld=$(sed -n 's/^Mean *KLD: *\([0-9.e-]*\) *± *\([0-9.e-]*\).*/\1,\2/p' "$out/judge.$m.log")
  top=$(sed -n 's/^Same top p: *\([0-9.]*\).*/\1/p' "$out/judge.$m.log")
  [ -n "$kld" ] || { echo "no KLD of $3, see $out/judge.$m.log" >&2; exit 1; }
  echo "$m,$1,$2,$(stat -c %s "$3"),$kld,$top,llama-perplexity" | tee -a "$csv"
}
judge_chat() { # variant label file
  [ -n "${CHAT:-}" ] && ! have "$1" "$2@chat" || return 0
  [ -f "$out/$m-chat.aref" ] || "$ashlar" eval "$ref" --chat "$CHAT" --chunks $chunks --save-ref "$out/$m-chat.aref" >"$out/judge.$m.log" 2>&1
  "$ashlar" eval "$3" --chat "$CHAT" --chunks $chunks --ref "$out/$m-chat.aref" --json >"$out/judge.$m.json"
  python3 - "$out/judge.$m.json" >"$out/judge.$m.line" <<'PY'
import json, sys
r = json.load(open(sys.argv[1]))
k, t = r["kld"], r["same_top1"]
print(f"{k['value']:.6f},{(k['hi'] - k['lo']) / 3.92:.6f},{100 * t['value']:.3f}")
PY
  echo "$m,$1,$2@chat,$(stat -c %s "$3"),$(cat "$out/judge.$m.line"),ashlar" | tee -a "$csv"
}
make_stock() { # variant preset source imatrix
  f=$out/$m-$1-$2.gguf
  have "$1" "$2" && [ -f "$f" ] && return 0
  [ -f "$f" ] || { "$peer/llama-quantize" --imatrix "$4" "$3" "$f.part" "$2" 2 >"$out/$m-$1-$2.log" 2>&1 && mv "$f.part" "$f"; }
  judge "$1" "$2" "$f"
  judge_chat "$1" "$2" "$f"
}
# All fits (and baselines) of a variant in one go: one importance matrix, sweep, planner and reference. Rows already made are taken from the work directory.
make_fits() { # variant source sizes baselines types sweep-types [options]
  v=$1 src=$2 sizes=$3 bl=$4 types=$5 sw=$6
  shift 6
  say "front $v: sizes $sizes"
  "$ashlar" front "$src" --sizes "$sizes" --baseline "$bl" --presets none --keep -o "$out/$m-$v.front.csv" --plot "$out/$m-$v.front.svg" --workdir "$out/$m-$v.front" \
    --calib "$valid" --test "$test" --effort "$effort" --allow-types "$types" --sweep-types "$sw" ${PLAIN:+--no-compensate} "$@" | tee "$out/$m-$v.front.log"
  tail -1 "$out/$m-$v.front.log" | grep -q '^table: ' # a failed front ends here
}
judge_both() { judge "$@" && judge_chat "$@"; }
# Ratios of rows A over rows B ("fit-%s" means fit-Q2_K and so on), where B is at most 0.8 nats.
ratios() { # variant A B suffix title
  for p in $presets; do
    a=$(printf "$2" "$p")$4 b=$(printf "$3" "$p")$4
    echo "$p $(col "$1" "$a" 4) $(col "$1" "$a" 5) $(col "$1" "$b" 4) $(col "$1" "$b" 5)"
  done | awk -v t="$5" 'NF == 5 { r = $3 / $5; s = $5 > 0.8 ? "  (above 0.8: not scored)" : ""
      printf "%s, %s: KLD %.4f against %.4f, ratio %.3f, bytes %+.2f %%%s\n", t, $1, $3, $5, r, 100 * ($2 / $4 - 1), s
      if ($5 <= 0.8) { n++; l += log(r); if (r > w) w = r } }
    END { if (n) printf "%s: geometric mean %.3f, worst %.3f over %d sizes\n", t, exp(l / n), w, n }'
}

if [ "$what" != own ]; then
  types=${TYPES:-IQ2_XXS,IQ2_XS,IQ2_S,Q2_K,IQ3_XXS,IQ3_S,Q3_K,IQ4_XS,IQ4_NL,Q4_K,Q5_K,Q6_K,Q8_0}
  wide=$out/$m-wide.gguf
  [ -f "$wide" ] || { say widen; "$ashlar" widen "$ref" "$wide"; }
  [ -f "$out/$m-wide.imatrix" ] || { say imatrix; "$peer/llama-imatrix" -m "$wide" -f "$valid" -o "$out/$m-wide.imatrix" -c 512 --chunks $im_chunks -t 2 >"$out/$m-wide.imatrix.log" 2>&1; }
  for p in $presets; do make_stock wide "$p" "$wide" "$out/$m-wide.imatrix"; done
  sizes='' missing=''
  for p in $presets; do
    size=$(col wide "$p" 4)
    sizes=$sizes${sizes:+,}$size
    for k in fit $baselines; do have wide "$k-$p" || missing=1; done
  done
  [ -z "$missing" ] || make_fits wide "$wide" "$sizes" "$(echo "${baselines:-none}" | tr ' ' ,)" $types Q4_0,Q2_K
  for p in $presets; do
    for k in fit $baselines; do judge_both wide "$k-$p" "$out/$m-wide.front/$k-$(col wide "$p" 4).gguf"; done
  done
  for s in "" ${CHAT:+@chat}; do
    ratios wide fit-%s %s "$s" "$m$s, fit over stock"
    for b in $baselines; do ratios wide fit-%s "$b-%s" "$s" "$m$s, fit over $b"; done
  done
fi
if [ "$what" != wide ]; then
  types=${TYPES:-Q2_K,Q3_K,IQ3_XXS,IQ3_S,IQ4_XS,Q4_K,Q5_K,Q6_K,Q4_0,Q4_1,IQ4_NL,Q5_0,Q5_1,Q8_0}
  [ -f "$out/$m-own.imatrix" ] || "$peer/llama-imatrix" -m "$ref" -f "$valid" -o "$out/$m-own.imatrix" -c 512 --chunks $im_chunks -t 2 >"$out/$m-own.imatrix.log" 2>&1
  make_stock own Q2_K "$ref" "$out/$m-own.imatrix"
  # llama-perplexity runs on 8-bit activations and measures some 10 % more than our float32: the search aims below 0.10
  q2k=$(col own Q2_K 4)
  make_fits own "$ref" "$q2k,$goal" none $types Q4_0,Q3_K $search
  for f in "$out/$m-own.front"/fit-*.gguf; do
    size=${f##*-} size=${size%.gguf}
    if [ "$size" = "$q2k" ]; then judge own fit-Q2_K "$f"; else judge own "fit-$size" "$f"; fi
  done
  presets=Q2_K ratios own fit-%s %s "" "$m as it is, fit over stock"
  awk -F, -v m="$m" -v g="$goal" '$1 == m && $2 == "own" && $3 ~ /^fit-/ && $5 <= 0.10 && (!b || $4 < b) { b = $4; k = $5 }
    END { if (b) printf "%s: smallest file with KLD <= 0.10 of those made: %d bytes, KLD %.4f (goal: %d bytes)\n", m, b, k, g; else printf "%s: no file with KLD <= 0.10 was made\n", m }' "$csv"
fi
