#!/bin/sh
# slice, merge and patch from outside: controls are printed, hostile rules give one sentence and exit 2. Tiny models only.
set -u
. "$(dirname "$0")/lib.sh"
R=${ASH_ROOT:?}
E=$D/golden/gemma4-e/model.gguf
head -c 20000 "$R/data/wikitext2-test.txt" >"$T/text"

want 0 "loads and runs" slice "$E" --keep all -o "$T/all.gguf"
same "$E" "$T/all.gguf"
want 0 "5 with a window, 0 without" slice "$E" --keep swa -o "$T/swa.gguf"
want 0 "note: llama.cpp" slice "$E" --keep swa -o "$T/swa.gguf"
want 0 "" run "$T/swa.gguf" hello -n 4
want 0 "better than . of 2 random drops" slice "$E" --keep '!6' -o "$T/s.gguf" --text "$T/text" --random 2 --chunks 2 --ctx 32
want 0 '"random_drops"' slice "$E" --keep '!6' -o "$T/s.gguf" --ref "$E" --random 1 --chunks 2 --ctx 32 --json
[ -e "$T/s.gguf.random-drop" ] && bad "a random drop was left behind" || ok
want 0 "3 of 8 layers" slice "$E" --keep random:3 --seed 5 -o "$T/r.gguf"
want 0 "loads and runs" slice "$D/golden/bert/model.gguf" --keep first:2 -o "$T/b.gguf"
rm -f "$T"/*.gguf
for rule in "" , 0, x -1 8 0-8 5-3 1-2-3 0x1 999999999999999999999 first:0 first:9 random:x every: '!' '!!0' 'all,!all' '0;1' '*' "$(printf '\377\376')" "$(printf '0\n1')" shared; do
    want 2 "ashlar slice: " slice "$E" "--keep=$rule" -o "$T/x.gguf"
    [ "$(wc -l <"$T/log")" -eq 1 ] && ok || bad "rule \"$rule\": more than one line"
done
want 2 "keep" slice "$E" -o "$T/x.gguf"
want 2 "own source" slice "$E" --keep 0 -o "$E"
want 3 "" slice "$T/text" --keep 0 -o "$T/x.gguf"
[ -e "$T/x.gguf" ] && bad "a refused slice left a file" || ok

M=$D/golden/llama/model.gguf
want 0 "same file" merge --anchor "$M" --donor "$M" --layers 0-1 -o "$T/i.gguf"
same "$M" "$T/i.gguf"
want 0 "" quantize "$M" "$T/q.gguf" --type Q8_0
want 0 "every tensor compared" merge --anchor "$M" --donor "$T/q.gguf" --layers 1 -o "$T/m.gguf"
want 0 "" run "$T/m.gguf" hello -n 4
want 0 "ashlar.merge.donor_sha256" inspect "$T/m.gguf" --kv
for rule in "" x 3 0-3 2-1 -; do want 2 "ashlar merge: " merge --anchor "$M" --donor "$T/q.gguf" "--layers=$rule" -o "$T/x.gguf"; done
want 3 "is a llama and the donor a gemma4" merge --anchor "$M" --donor "$E" --layers 0 -o "$T/x.gguf"
[ -e "$T/x.gguf" ] && bad "a refused merge left a file" || ok

cp "$E" "$T/p.gguf"
want 0 "blk.0.attn_q.weight is 64 x 32" patch "$T/p.gguf" --dry-run 'gemma4.attention.sliding_window_pattern[*]=false'
want 3 "nothing was written" patch "$T/p.gguf" 'gemma4.attention.sliding_window_pattern[*]=false'
same "$E" "$T/p.gguf"
want 0 "" patch "$T/p.gguf" gemma4.attention.sliding_window=8 general.name=eight
cmp -s "$E" "$T/p.gguf" && bad "a patch changed nothing" || ok
want 0 "" run "$T/p.gguf" hello -n 4
want 0 "" patch "$T/p.gguf" --undo
same "$E" "$T/p.gguf"
want 5 "nothing to undo" patch "$T/p.gguf" --undo
want 2 "KEY=VALUE" patch "$T/p.gguf"
want 2 "no KEY=VALUE" patch "$T/p.gguf" nonsense
want 2 "goes alone" patch "$T/p.gguf" --undo general.name=x
want 0 '"n_conflicts": 0' patch "$T/p.gguf" general.name=x --dry-run --json
echo "$n checks, $fails failed"
[ $fails -eq 0 ]
