#!/bin/bash
# kv_types.sh MODEL.gguf ... - what quantized KV caches cost: perplexity, and KL divergence to the same program with a cache that
# is not quantized; keys only, values only, both. llama-perplexity beside it where it is found in $PEER (a folder of
# llama.cpp's programs) and TEXT is given; ROT is what it says of its rotation: keys, values. "-": as LLAMA_ATTN_ROT_DISABLE=1.
# CTX (4096), CHUNKS (4), ASHLAR (ashlar), TEXT (default: the program's test text, ashlar only), RUN (a command put before every run),
# THREADS (all), PAIRS (types of keys:values), PROGRAMS ("ashlar peer"). llama.cpp's logits go through TMPDIR:
# CHUNKS * CTX / 2 * vocabulary * 2 bytes.
set -u
ASHLAR=${ASHLAR:-ashlar} CTX=${CTX:-4096} CHUNKS=${CHUNKS:-4} RUN=${RUN:-} PROGRAMS=${PROGRAMS:-ashlar peer}
PAIRS=${PAIRS:-q8_0:f16 f16:q8_0 q8_0:q8_0 q4_0:f16 f16:q4_0 q4_0:q4_0}
text=() threads=() peer_text=${TEXT:-}
[ -n "$peer_text" ] && text=(--text "$peer_text")
[ -n "${THREADS:-}" ] && threads=(-t "$THREADS")
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
row() { printf '%-14s %-10s %-5s %-6s %-4s %10s %9s %9s\n' "$@"; }
change() { python3 -c "print('%+.2f%%' % (100 * ($1 / $2 - 1)))"; }
num() { python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); b=d["ppl_ref"]["value"]; p=d["ppl"]["value"]; print("%.4f %+.2f%% %.5f" % (p, 100*(p/b-1), d["kld"]["value"]))' "$1"; }

# ours MODEL NAME
ours() {
    $RUN "$ASHLAR" eval "$1" "${text[@]}" "${threads[@]}" --ctx "$CTX" --chunks "$CHUNKS" --save-ref "$tmp/ref.aref" 2>/dev/null || { row "$2" ashlar f32 f32 - failed - -; return; }
    for kv in f16:f16 $PAIRS; do
        $RUN "$ASHLAR" eval "$1" --ref "$tmp/ref.aref" "${text[@]}" "${threads[@]}" --ctk "${kv%:*}" --ctv "${kv#*:}" --json >"$tmp/out.json" 2>/dev/null ||
            { row "$2" ashlar "${kv%:*}" "${kv#*:}" - failed - -; continue; }
        # shellcheck disable=SC2046
        row "$2" ashlar "${kv%:*}" "${kv#*:}" - $(num "$tmp/out.json")
    done
}

# peer MODEL NAME TYPES KLD-OPTION: runs it; perplexity, KL divergence and rotations in $p, $kld, $rot
peer() {
    $RUN "$PEER/llama-perplexity" -m "$1" -f "$peer_text" "${threads[@]}" -c "$CTX" --chunks "$CHUNKS" -ctk "${3%:*}" -ctv "${3#*:}" -fa on -lv 4 \
        --kl-divergence-base "$tmp/base" ${4:+"$4"} >"$tmp/peer.log" 2>&1
    p=$(sed -n -e 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' -e 's/.*Mean PPL(Q) *: *\([0-9.]*\).*/\1/p' "$tmp/peer.log" | head -n 1)
    kld=$(sed -n 's/.*Mean *KLD: *\([-0-9.]*\).*/\1/p' "$tmp/peer.log" | head -n 1)
    rot=$(sed -n 's/.*attn_rot_[kv] = \([01]\).*/\1/p' "$tmp/peer.log" | head -n 2 | paste -sd,)
    [ -n "$p" ]
}

# theirs MODEL NAME
theirs() {
    local p kld rot base
    peer "$1" "$2" f16:f16 || { row "$2" llama.cpp f16 f16 - failed - -; return; }
    base=$p
    row "$2" llama.cpp f16 f16 "$rot" "$p" "$(change "$p" "$base")" -
    for kv in $PAIRS; do
        peer "$1" "$2" "$kv" --kl-divergence || { row "$2" llama.cpp "${kv%:*}" "${kv#*:}" - failed - -; continue; }
        row "$2" llama.cpp "${kv%:*}" "${kv#*:}" "$rot" "$p" "$(change "$p" "$base")" "$kld"
    done
    rm -f "$tmp/base"
}

row model program keys values rot ppl change KLD
for m in "$@"; do
    name=$(basename "$m" .gguf)
    case $PROGRAMS in *ashlar*) ours "$m" "$name" ;; esac
    case $PROGRAMS in *peer*) [ -x "${PEER:-}/llama-perplexity" ] && [ -n "$peer_text" ] && theirs "$m" "$name" ;; esac
done
