#!/bin/bash
# kv_types.sh MODEL.gguf ... - what quantized KV caches cost: perplexity and KL divergence to the same model's float32 cache, keys
# only, values only, both; and llama-perplexity's cost where it is found in $PEER (a folder of llama.cpp's programs).
# CTX (4096), CHUNKS (4), ASHLAR (ashlar), TEXT (the program's test text), RUN (a command put before every run).
set -u
ASHLAR=${ASHLAR:-ashlar} CTX=${CTX:-4096} CHUNKS=${CHUNKS:-4} RUN=${RUN:-}
text=() peer_text=${TEXT:-}
[ -n "$peer_text" ] && text=(--text "$peer_text")
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
row() { printf '%-16s %-8s %-6s %-6s %10s %9s %10s\n' "$@"; }
num() { python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); b=d["ppl_ref"]["value"]; p=d["ppl"]["value"]; print("%.4f %+.2f%% %.5f" % (p, 100*(p/b-1), d["kld"]["value"]))' "$1"; }
row model program keys values ppl change KLD
for m in "$@"; do
    name=$(basename "$m" .gguf)
    $RUN "$ASHLAR" eval "$m" "${text[@]}" --ctx "$CTX" --chunks "$CHUNKS" --save-ref "$tmp/ref.aref" 2>/dev/null || { echo "$name: no reference"; continue; }
    for kv in "f16 f16" "q8_0 q8_0" "q4_0 f16" "f16 q4_0" "q4_0 q4_0"; do
        read -r k v <<<"$kv"
        $RUN "$ASHLAR" eval "$m" --ref "$tmp/ref.aref" --ctk "$k" --ctv "$v" --json >"$tmp/out.json" 2>/dev/null || { row "$name" ashlar "$k" "$v" failed - -; continue; }
        # shellcheck disable=SC2046
        row "$name" ashlar "$k" "$v" $(num "$tmp/out.json")
    done
    [ -x "${PEER:-}/llama-perplexity" ] && [ -n "$peer_text" ] || continue
    base=
    for kv in "f16 f16" "q8_0 q8_0" "q4_0 f16" "f16 q4_0" "q4_0 q4_0"; do
        read -r k v <<<"$kv"
        p=$($RUN "$PEER/llama-perplexity" -m "$m" -f "$peer_text" -c "$CTX" --chunks "$CHUNKS" -ctk "$k" -ctv "$v" -fa on 2>&1 |
            sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p')
        [ -n "$p" ] || { row "$name" llama.cpp "$k" "$v" failed - -; continue; }
        base=${base:-$p}
        row "$name" llama.cpp "$k" "$v" "$p" "$(python3 -c "print('%+.2f%%' % (100*($p/$base-1)))")" -
    done
done
