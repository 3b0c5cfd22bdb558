#!/bin/sh
# Quality at equal bytes: `ashlar fit` against llama-quantize's presets and the hand mixes, on both real models.
# Every file is judged by llama-perplexity (mean KLD to the de-gridded F16 reference, 16 chunks of 512 of data/wikitext2-test.txt); both
# sides calibrate on data/wikitext2-valid.txt. Presets use llama-imatrix (64 chunks). About an hour on two cores.
# usage: fit_goals.sh [OUTDIR=build/goals] [smollm2|gemma3 ...]     needs PEER_BIN (bench/peer.sh), python3-venv
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/build/goals}
[ $# -gt 0 ] && shift
models=${*:-smollm2 gemma3}
ashlar=${ASHLAR:-$root/build/release/ashlar}
peer=${PEER_BIN:-$(sh "$root/bench/peer.sh")}
controls=${CONTROLS:-20}
mkdir -p "$out"
[ -x "$out/venv/bin/python" ] || { python3 -m venv "$out/venv" && "$out/venv/bin/pip" -q install numpy gguf; }
valid=$root/data/wikitext2-valid.txt
test=$root/data/wikitext2-test.txt
csv=$out/goals.csv
[ -f "$csv" ] || echo "model,file,bytes,kld,kld_err,same_top1_pct" >"$csv"

judge() { # model label file
  grep -q "^$1,$2," "$csv" && return 0
  "$peer/llama-perplexity" -m "$3" -c 512 --chunks 16 -t 2 --kl-divergence-base "$out/$1.base" --kl-divergence >"$out/judge.log" 2>&1
  kld=$(sed -n 's/^Mean *KLD: *\([0-9.e-]*\) *± *\([0-9.e-]*\).*/\1,\2/p' "$out/judge.log")
  top=$(sed -n 's/^Same top p: *\([0-9.]*\).*/\1/p' "$out/judge.log")
  echo "$1,$2,$(stat -c %s "$3"),$kld,$top" | tee -a "$csv"
}

for m in $models; do
  ref=$out/$m-f16.gguf
  [ -f "$ref" ] || "$out/venv/bin/python" "$root/bench/degrid.py" "$(sh "$root/scripts/fetch_model.sh" "$m")" "$ref" 1
  [ -f "$out/$m.imatrix" ] || "$peer/llama-imatrix" -m "$ref" -f "$valid" -o "$out/$m.imatrix" -c 512 --chunks 64 -t 2 >"$out/$m.imatrix.log" 2>&1
  [ -f "$out/$m.base" ] || "$peer/llama-perplexity" -m "$ref" -f "$test" -c 512 --chunks 16 -t 2 --kl-divergence-base "$out/$m.base" >"$out/$m.base.log" 2>&1
  stock() { # label preset [extra options]
    label=$1; preset=$2; shift 2
    [ -f "$out/$m-$label.gguf" ] || "$peer/llama-quantize" --imatrix "$out/$m.imatrix" "$@" "$ref" "$out/$m-$label.gguf" "$preset" 2 >"$out/$m-$label.log" 2>&1
    judge "$m" "$label" "$out/$m-$label.gguf"
  }
  for p in Q4_K_M IQ3_XXS Q2_K IQ2_M IQ2_XXS; do stock $p $p; done
  stock IQ4_NL-pure IQ4_NL --pure
  case $m in
    smollm2) stock hand IQ4_NL --token-embedding-type q5_0 ;;
    gemma3) stock hand Q4_K_M --token-embedding-type iq4_nl ;;
  esac
  for goal in Q2_K hand; do
    size=$(stat -c %s "$out/$m-$goal.gguf")
    [ -f "$out/$m-fit-$goal.gguf" ] || "$ashlar" fit "$ref" --size "$size" -o "$out/$m-fit-$goal.gguf" --report "$out/$m-fit-$goal.html" \
      --calib "$valid" --test "$test" --controls "$controls" --json >"$out/$m-fit-$goal.json"
    judge "$m" "fit-$goal" "$out/$m-fit-$goal.gguf"
    awk -F, -v m="$m" -v g="$goal" '$1 == m && $2 == g { s = $4 } $1 == m && $2 == "fit-" g { f = $4 }
      END { printf "%s: fit at the size of %s: KLD %s against %s, ratio %.3f\n", m, g, f, s, f / s }' "$csv"
  done
done
