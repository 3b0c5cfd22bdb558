#!/bin/sh
# eval_vs_llama.sh - perplexity, KL divergence, base files and importance matrices against llama.cpp on real models.
#   PEER_BIN   folder of llama.cpp's programs (bench/peer.sh)
#   MODELS     folder with NAME-f16.gguf and a quantized NAME-Q4_K_M.gguf of each model (default: build/models, made by scripts/test.sh)
#   NAMES      default "smollm2 gemma3"
#   CHUNKS     of 512 tokens, default 4; PPL_CHUNKS for the perplexity of quantized models, default 16: llama.cpp's 8-bit activations
#              move a token's loss by some 0.08, so that 16 chunks are needed to see 5e-3
# A quantized model's perplexity is compared with the peer's on the same weights written as F32: the peer has no other way to leave 8-bit activations
# out, and they move its own by 6.1e-3 and 7.6e-3 here, more than the bar. Ours with float32 activations, ours with 8-bit ones, and what these cost
# beside what the peer's cost it.
# Bars: perplexity within 1e-3 (exact) and 5e-3 (8-bit) relative; 8-bit activations cost no more than the peer's; KLD within 10 % or 0.005; importance within 1 %.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
: "${ASHLAR:=$root/build/release/ashlar}"
: "${PEER_BIN:?set PEER_BIN to the folder of llama.cpp's programs}"
MODELS=${MODELS:-$root/build/models}
chunks=${CHUNKS:-4}
ppl_chunks=${PPL_CHUNKS:-16}
text=$root/data/wikitext2-test.txt
calib=$root/data/wikitext2-valid.txt
for name in ${NAMES:-smollm2 gemma3}; do
  [ -r "$MODELS/$name-f16.gguf" ] && [ -r "$MODELS/$name-Q4_K_M.gguf" ] || { echo "no $MODELS/$name-f16.gguf or -Q4_K_M.gguf; scripts/test.sh --long makes them"; exit 2; }
done
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0

get() { python3 -c 'import json,sys
v = json.load(open(sys.argv[1]))[sys.argv[2]]
print(v["value"] if isinstance(v, dict) else v)' "$1" "$2"; }
# near NAME OURS THEIRS RELATIVE ABSOLUTE
near() {
  python3 -c 'import sys
n, a, b, r, m = sys.argv[1], *map(float, sys.argv[2:])
ok = abs(a - b) <= max(r * abs(b), m)
print("%s  %-44s ours %.6g  llama.cpp %.6g  (%+.2e relative)" % ("ok  " if ok else "FAIL", n, a, b, a / b - 1 if b else 0))
sys.exit(not ok)' "$@" || bad=1
}
ppl() { sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' "$1" | tail -1; }
# llama-perplexity's figure "Mean    KLD:   0.04"
kld() { sed -n 's/.*Mean *KLD: *\([0-9.e-]*\).*/\1/p' "$1" | tail -1; }
peer() { "$PEER_BIN/llama-perplexity" -f "$text" -c 512 -t 2 "$@" 2>&1; }

check() { # F16 reference, quantized model
f16=$1
q=$2
echo "F16: $f16"
peer -m "$f16" --chunks "$chunks" --kl-divergence-base "$tmp/peer.base" >"$tmp/peer16.log"
"$ASHLAR" eval "$f16" --text "$text" --chunks "$chunks" -t 2 --json >"$tmp/our16.json"
near "perplexity, F16" "$(get "$tmp/our16.json" ppl)" "$(ppl "$tmp/peer16.log")" 1e-3 0
"$ASHLAR" eval "$f16" --text "$text" --chunks "$chunks" -t 2 --save-base "$tmp/our.base" --save-ref "$tmp/our.aref"
[ "$(wc -c <"$tmp/our.base")" = "$(wc -c <"$tmp/peer.base")" ] || { echo "FAIL  base files differ in size"; bad=1; }
python3 -c 'import os, sys
a, b = map(os.path.getsize, sys.argv[1:])
print("%s  .aref is %.1f times smaller than the base file" % ("ok  " if b >= 30 * a else "FAIL", b / a))
sys.exit(b < 30 * a)' "$tmp/our.aref" "$tmp/peer.base" || bad=1
"$ASHLAR" eval "$f16" --ref "$tmp/peer.base" -t 2 --json >"$tmp/x.json"
near "KLD of F16 to the peer's own base file" "$(get "$tmp/x.json" kld)" 0 0 0.005
"$ASHLAR" eval "$f16" --ref "$tmp/our.aref" -t 2 --json >"$tmp/x.json"
near "KLD of F16 to its own .aref" "$(get "$tmp/x.json" kld)" 0 0 1e-6

echo "quantized: $q"
peer -m "$q" --chunks "$chunks" --kl-divergence-base "$tmp/peer.base" --kl-divergence >"$tmp/peerq.log"
"$ASHLAR" eval "$q" --text "$text" --ref "$f16" --chunks "$chunks" -t 2 --json >"$tmp/ourq.json"
want=$(kld "$tmp/peerq.log")
near "KLD" "$(get "$tmp/ourq.json" kld)" "$want" 0.10 0.005
"$ASHLAR" eval "$q" --ref "$tmp/our.aref" -t 2 --json >"$tmp/x.json"
near "KLD from .aref against both models" "$(get "$tmp/x.json" kld)" "$(get "$tmp/ourq.json" kld)" 0.01 0
"$ASHLAR" eval "$q" --ref "$tmp/peer.base" -t 2 --json >"$tmp/x.json"
near "KLD, peer's base file" "$(get "$tmp/x.json" kld)" "$want" 0.10 0.005
"$ASHLAR" eval "$q" --ref "$tmp/peer.base" -t 2 --fast --json >"$tmp/x.json"
near "KLD, peer's base file, 8-bit activations" "$(get "$tmp/x.json" kld)" "$want" 0.10 0.005
peer -m "$q" --chunks "$chunks" --kl-divergence-base "$tmp/our.base" --kl-divergence >"$tmp/peerq2.log"
near "peer's KLD with our base file" "$(kld "$tmp/peerq2.log")" "$want" 0.02 1e-4
peer -m "$q" --chunks "$ppl_chunks" >"$tmp/peerp.log"
peer8=$(ppl "$tmp/peerp.log")
"$ASHLAR" quantize "$q" "$tmp/f32.gguf" --type F32 >/dev/null
peer -m "$tmp/f32.gguf" --chunks "$ppl_chunks" >"$tmp/peerp.log"
exact=$(ppl "$tmp/peerp.log")
rm "$tmp/f32.gguf"
"$ASHLAR" eval "$q" --text "$text" --chunks "$ppl_chunks" -t 2 --json >"$tmp/x.json"
near "perplexity, peer reads the same weights as F32" "$(get "$tmp/x.json" ppl)" "$exact" 1e-3 0
"$ASHLAR" eval "$q" --text "$text" --chunks "$ppl_chunks" -t 2 --fast --json >"$tmp/x.json"
ours8=$(get "$tmp/x.json" ppl)
near "perplexity, our 8-bit activations against that" "$ours8" "$exact" 5e-3 0
python3 -c 'import sys
ours, peer, exact = map(float, sys.argv[1:])
bad = abs(ours - exact) > abs(peer - exact)
print("%s  8-bit activations cost no more than the peer\x27s: %+.2e and %+.2e relative" % ("FAIL" if bad else "ok  ", ours / exact - 1, peer / exact - 1))
sys.exit(bad)' "$ours8" "$peer8" "$exact" || bad=1

echo "importance"
"$PEER_BIN/llama-imatrix" -m "$f16" -f "$calib" -c 512 --chunks "$chunks" -t 2 -o "$tmp/peer.imatrix" >"$tmp/im.log" 2>&1
"$ASHLAR" imatrix "$f16" --text "$calib" --chunks "$chunks" -t 2 -o "$tmp/our.imatrix" >/dev/null
python3 - "$tmp/our.imatrix" "$tmp/peer.imatrix" <<'PY' || bad=1
import struct, sys
def read(path):  # the GGUF parts an importance matrix uses
    b = open(path, "rb").read()
    pos = 4
    def u(f):
        nonlocal pos
        v = struct.unpack_from("<" + f, b, pos)
        pos += struct.calcsize("<" + f)
        return v[0] if len(v) == 1 else v
    def s():
        nonlocal pos
        n = u("Q")
        pos += n
        return b[pos - n:pos].decode()
    u("I"); nt, nk = u("QQ")
    def value(t):
        if t == 8: return s()
        if t == 9:
            e, n = u("I"), u("Q")
            return [value(e) for _ in range(n)]
        return u("BbHhIifB__QqD"[t] if t < 8 else {10: "Q", 11: "q", 12: "d"}[t])
    for _ in range(nk): s(); value(u("I"))
    t = []
    for _ in range(nt):
        name = s(); d = u("I"); ne = [u("Q") for _ in range(d)]; u("I"); t.append((name, ne, u("Q")))
    base = (pos + 31) // 32 * 32
    out = {}
    for name, ne, off in t:
        n = 1
        for x in ne: n *= x
        out[name] = struct.unpack_from("<%df" % n, b, base + off)
    return out
a, b = read(sys.argv[1]), read(sys.argv[2])
missing = [n for n in b if n not in a]
worst = max((sum(abs(x - y) for x, y in zip(a[n], b[n])) / sum(b[n]), n) for n in b if n.endswith("in_sum2"))
counts = all(a[n] == b[n] for n in b if n.endswith("counts"))
ok = not missing and worst[0] < 0.01 and counts
print("%s  importance: %d tensors, worst relative difference %.2e (%s), counts %s" % ("ok  " if ok else "FAIL", len(b) // 2, *worst, "equal" if counts else "differ"))
sys.exit(not ok)
PY
"$PEER_BIN/llama-quantize" --imatrix "$tmp/our.imatrix" "$f16" "$tmp/q.gguf" IQ4_NL 2 >"$tmp/quantize.log" 2>&1 \
  && echo "ok    llama-quantize accepts our importance matrix" || { echo "FAIL  llama-quantize refuses our importance matrix"; bad=1; }
}

for name in ${NAMES:-smollm2 gemma3}; do check "$MODELS/$name-f16.gguf" "$MODELS/$name-Q4_K_M.gguf"; done
exit $bad
