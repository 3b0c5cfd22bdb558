#!/bin/sh
# logits, bench and run from outside, on golden models: sizes and determinism of the logits file, --json, limits, bad prompts,
# a chat through a pipe. Needs ASHLAR and ASH_TEST_DATA.
set -u
A=${ASHLAR:?} D=${ASH_TEST_DATA:?}/golden
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
fails=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }
want() { # want CODE ARGS...
    code=$1
    shift
    "$A" "$@" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    [ $rc -eq "$code" ] || fail "ashlar $*: exit $rc, not $code: $(cat "$T/err")"
}
err() { grep -Eq -- "$1" "$T/err" || fail "no /$1/ on stderr: $(cat "$T/err")"; }
out() { grep -Eq -- "$1" "$T/out" || fail "no /$1/ on stdout: $(cat "$T/out")"; }

ids=2,351,154,272,468,266,142,321,28,397,400,368
M=$D/gemma3/model.gguf
want 0 logits "$M" --tokens $ids -o "$T/a" -t 1
[ "$(wc -c <"$T/a")" -eq $((12 * 512 * 4)) ] || fail "logits file has $(wc -c <"$T/a") bytes"
want 0 logits "$M" --tokens $ids -o "$T/b" -t 2 --batch 5
cmp -s "$T/a" "$T/b" || fail "logits depend on threads or batch"
want 0 logits "$M" --tokens $ids -o "$T/c" --fast -t 1
want 0 logits "$M" --tokens $ids -o "$T/d" --fast -t 2 --batch 1
cmp -s "$T/c" "$T/d" || fail "fast logits depend on threads or batch"
cmp -s "$T/a" "$T/c" && fail "--fast changes nothing"
want 0 logits "$M" --tokens 5 -o "$T/e" --json && out '"n_vocab": 512'
want 3 logits "$M" --tokens 1,2,512 -o "$T/no" && err 'id 512.*0 to 511'
want 3 logits "$M" --tokens 1,-2 -o "$T/no"
want 3 logits "$M" --tokens 99999999999999999999 -o "$T/no"
want 2 logits "$M" --tokens 1,,2 -o "$T/no"
want 2 logits "$M" --tokens x -o "$T/no"
want 2 logits "$M" --tokens 1
want 2 logits "$M" -o "$T/no"
want 3 logits "$T/absent.gguf" --tokens 1 -o "$T/no"
want 3 logits "$M" --tokens 1 -o "$T/nodir/f"
[ -e "$T/no" ] && fail "a failed run left a file"
ls "$T" | grep -q tmp && fail "a temporary file is left"

# adapters: at 0 nothing changes, at 1 and twice at 0.5 the same up to rounding
L=$D/llama
want 0 logits "$L/model.gguf" --tokens 1,2,3 -o "$T/l0"
want 0 logits "$L/model.gguf" --tokens 1,2,3 -o "$T/l1" --lora "$L/lora/adapter.gguf:0"
cmp -s "$T/l0" "$T/l1" || fail "an adapter at scale 0 changes the logits"
want 0 logits "$L/model.gguf" --tokens 1,2,3 -o "$T/l1" --lora "$L/lora/adapter.gguf"
cmp -s "$T/l0" "$T/l1" && fail "an adapter changes nothing"
want 3 logits "$L/model.gguf" --tokens 1,2,3 -o "$T/no" --lora "$D/qwen3/lora/adapter.gguf:0.5" && err 'not made for architecture llama'
want 3 logits "$L/model.gguf" --tokens 1,2,3 -o "$T/no" --lora "$L/model.gguf" && err 'no adapter'

# embeddings
want 0 embed "$D/bert/model.gguf" --tokens 2,5,439,83 -o "$T/v"
[ "$(wc -c <"$T/v")" -eq $((64 * 4)) ] || fail "embedding has $(wc -c <"$T/v") bytes"
want 0 embed "$D/bert/model.gguf" --tokens 2,5,439,83 --pool cls --json && out '"n_embd": 64' && out '"n_tokens": 4'
want 0 embed "$L/model.gguf" "Hello world" && [ "$(wc -w <"$T/out")" -eq 64 ] || fail "no vector of 64 numbers"
want 2 embed "$D/bert/model.gguf"
want 2 embed "$D/bert/model.gguf" --tokens 1 text
want 2 embed "$D/bert/model.gguf" --tokens 1 --pool sum
want 3 embed "$D/bert/model.gguf" --tokens 1,2,512
want 3 logits "$D/bert/model.gguf" --tokens 1,2 -o "$T/no" && err 'makes embeddings'
want 4 embed "$D/bert/model.gguf" --tokens "$(seq -s, 1 129)" && err '128 positions'

want 0 bench "$M" -p 20 -n 5 -r 2 -t 1 --json
for k in prefill_tps decode_tps load_ms first_token_ms peak_rss_bytes threads level; do out "\"$k\": "; done
want 0 bench "$M" -p 20 -n 5 -r 1 -t 2 && out 'prefill +20 tokens'
want 2 bench "$M" -p 0 -n 0
want 3 bench "$T/absent.gguf"

if "$A" help --list | grep -qx run; then
    L=$D/llama/model.gguf
    want 0 run "$L" "Hello world" -n 5 --temp 0 && err 'prompt [0-9]+ tokens'
    cp "$T/out" "$T/first"
    want 0 run "$L" "Hello world" -n 5 --temp 0 -t 2 --no-stats
    cmp -s "$T/out" "$T/first" || fail "a greedy answer changed"
    [ -s "$T/err" ] && fail "--no-stats: $(cat "$T/err")"
    want 0 run "$L" "Hello world" -n 5 --seed 7 --json && out '"seed": 7' && out '"stop": "(limit|end)"'
    cp "$T/out" "$T/first"
    want 0 run "$L" "Hello world" -n 5 --seed 7 --json
    grep -v _tps "$T/first" | grep -v '"tps"' >"$T/x"
    grep -v _tps "$T/out" | grep -v '"tps"' | cmp -s - "$T/x" || fail "a seeded answer changed"
    want 3 run "$L" "$(printf 'a\377b')" && err 'not UTF-8: byte 1'
    want 3 run "$L" "$(printf '\355\240\200')" && err 'not UTF-8' # a surrogate
    want 4 run "$L" "one two three four five six seven" --ctx 3 && err 'tokens long and the context 3'
    want 0 run "$L" "one two" -n 1000 --ctx 40 --temp 0 --ignore-eos && err 'stopped: context'
    want 0 run "$L" "one two" -n 3 --temp 0 --logit-bias 65=1000 --ignore-eos --json && out '"tokens": 3'
    want 3 run "$L" x --logit-bias 99999=1
    want 2 run "$L" x --logit-bias nonsense
    want 2 run "$L" --json
    want 2 run "$L" "x" --system "be brief" && err 'chat template'
    printf 'one two three\nfour five\n/again\n/nonsense\n/new\nsix\n/bye\nnever\n' | "$A" run "$L" -n 4 --temp 0 >"$T/out" 2>"$T/err" || fail "a chat failed: $(cat "$T/err")"
    [ "$(grep -c '; answer' "$T/err")" -eq 4 ] || fail "a chat of 4 answers: $(cat "$T/err")"
    sed -n 2p "$T/err" | grep -q ' 0 reused' && fail "the second turn reused nothing: $(cat "$T/err")"
    printf 'one\n\377\n' | "$A" run "$L" -n 2 >"$T/out" 2>"$T/err"
    [ $? -eq 3 ] || fail "a line that is not UTF-8: exit code"
    printf 'one two' | "$A" run "$L" - -n 2 --no-stats >"$T/out" 2>"$T/err" || fail "prompt on standard input"
fi

[ $fails -eq 0 ] && echo "engine commands: ok"
exit $fails
