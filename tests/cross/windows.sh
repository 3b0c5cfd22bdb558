#!/bin/sh
# The Windows program under wine against the Linux program: the same bytes from inspect, tokenize and logits on
# golden models at every CPU level, UTF-8 arguments and file names, outputs replaced, errors with their exit codes.
# usage: windows.sh LINUX_ASHLAR ASHLAR.EXE     Needs wine (WINE: its 64-bit loader).
set -u
L=$1
X=$2
D=$(cd "$(dirname "$0")/../data" && pwd)
wine=${WINE:-/usr/lib/wine/wine64}
[ -x "$wine" ] || wine=wine
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
export WINEDEBUG=-all WINEPREFIX="${WINEPREFIX:-$T/prefix}"
checks=0 fails=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }

# same ARGS...: both programs, same exit code and standard output
same() {
  checks=$((checks + 1))
  "$L" "$@" >"$T/l.out" 2>"$T/l.err" <"$T/in"
  want=$?
  "$wine" "$X" "$@" >"$T/w.out" 2>"$T/w.err" <"$T/in"
  rc=$?
  [ "$rc" -eq "$want" ] || fail "$*: exit $rc, not $want: $(cat "$T/w.err")"
  cmp -s "$T/l.out" "$T/w.out" || fail "$*: output differs"
}
# logits MODEL OPTIONS...: the float32 values are the same bytes
logits() {
  model=$1
  shift
  checks=$((checks + 1))
  ids=5,6,7,30,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24
  "$L" logits "$model" --tokens $ids -o "$T/l.f32" "$@" || fail "logits $model on Linux"
  "$wine" "$X" logits "$model" --tokens $ids -o "$T/w.f32" "$@" >"$T/w.out" 2>&1 || fail "logits $model: $(cat "$T/w.out")"
  cmp -s "$T/l.f32" "$T/w.f32" || fail "logits $model $*: $(cmp -l "$T/l.f32" "$T/w.f32" | wc -l) bytes differ of $(wc -c <"$T/l.f32")"
}

cd "$T" || exit 1
printf 'na\303\257ve caf\303\251, 1234 \346\227\245\346\234\254\r\nx\032y\n' >in # line ends and ^Z stay as they are
for m in llama gemma3 qwen3; do
  same inspect "$D/golden/$m/model.gguf"
  same inspect "$D/golden/$m/model.gguf" --json
  same tokenize "$D/golden/$m/model.gguf"
done
for m in llama gemma3 qwen3 phi3 mixtral; do
  [ -f "$D/golden/$m/model.gguf" ] || continue
  logits "$D/golden/$m/model.gguf"
  logits "$D/golden/$m/model.gguf" --fast
done
for level in scalar avx2 avx512; do
  export ASHLAR_CPU=$level
  for t in Q4_0 Q4_K Q6_K Q8_0 IQ4_XS; do logits "$D/golden/quant-models/$t.gguf" --fast; done
done
unset ASHLAR_CPU

# names that are not ASCII, a file that is replaced, a folder with spaces
d="$(printf 'mod\303\250le et plus')"
mkdir -p "$d"
cp "$D/golden/llama/model.gguf" "$d/$(printf '\346\227\245.gguf')"
same inspect "$d/$(printf '\346\227\245.gguf')"
cp in "$T/l.f32"
logits "$d/$(printf '\346\227\245.gguf')"
# writing and editing a model: the same file
checks=$((checks + 1))
if "$L" quantize "$D/golden/llama/model.gguf" l.gguf --type Q8_0 >l.out 2>&1; then
  "$wine" "$X" quantize "$D/golden/llama/model.gguf" w.gguf --type Q8_0 >w.out 2>&1 || fail "quantize: $(cat w.out)"
  cmp -s l.gguf w.gguf || fail "quantize: files differ"
else
  fail "quantize on Linux: $(cat l.out)"
fi
# answers
same run "$D/golden/llama/model.gguf" "$(printf 'caf\303\251')" --raw --temp 0 -n 12 --no-stats
# errors
same inspect "$T/not there.gguf"
same nonsense
same logits "$D/golden/llama/model.gguf" --tokens 1,2 -o "$T/no/such/folder/x"
echo "windows: $checks checks, $fails failed"
[ "$fails" = 0 ]
