#!/bin/sh
# `ashlar tokenize` from outside: ids on one line, BOS and special tokens by default, switches, JSON,
# broken input. Needs ASHLAR (the program) and ASH_TEST_DATA.
set -u
A=${ASHLAR:?} D=${ASH_TEST_DATA:?}/tokenizers
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
fails=0 checks=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }
# ids "WANT" "TEXT" ARGS...
ids() {
    want=$1 text=$2
    shift 2
    checks=$((checks + 1))
    got=$(printf '%s' "$text" | "$A" tokenize "$@" 2>&1)
    [ "$got" = "$want" ] || fail "tokenize $* of \"$text\": $got, not $want"
}
bad() { # CODE REGEX ARGS...
    code=$1 re=$2
    shift 2
    checks=$((checks + 1))
    "$A" tokenize "$@" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    [ $rc -eq "$code" ] || fail "tokenize $*: exit $rc, not $code"
    grep -Eq "$re" "$T/err" || fail "tokenize $*: no /$re/ in $(cat "$T/err")"
    [ -s "$T/out" ] && fail "tokenize $*: output in spite of the error"
    return 0
}
ids "1 15043 3186 2" "Hello world</s>" "$D/llama-spm.gguf"
ids "15043 3186 2" "Hello world</s>" "$D/llama-spm.gguf" --no-bos
ids "1 15043 3186 829 29879 29958" "Hello world</s>" "$D/llama-spm.gguf" --no-special
ids "19556 905 2" "Hello world<|im_end|>" "$D/smollm2.gguf"
ids "" "" "$D/smollm2.gguf"
ids "1" "" "$D/llama-spm.gguf"
ids '{"model":"gpt2","n_vocab":49152,"n_bytes":11,"n_tokens":2,"ids":[19556,905]}' "Hello world" "$D/smollm2.gguf" --json
printf 'x' >"$T/text.gguf"
: >"$T/empty.gguf"
head -c 300000 "$D/smollm2.gguf" >"$T/cut.gguf"
bad 2 'usage' && bad 3 'text.gguf' "$T/text.gguf" && bad 3 'empty.gguf' "$T/empty.gguf" && bad 3 'cut.gguf' "$T/cut.gguf"
bad 3 'No such file' "$T/none.gguf" && bad 2 'bogus' "$D/smollm2.gguf" --bogus
# ten megabytes in a pipe, on one line
i=0
while [ $i -lt 10 ]; do head -c 1000000 /dev/zero | tr '\0' "$(printf 'abcdefghij' | cut -c $((i + 1)))"; i=$((i + 1)); done >"$T/big"
checks=$((checks + 1))
[ "$("$A" tokenize "$D/gpt-2.gguf" <"$T/big" | wc -l)" -eq 1 ] || fail "10 MB"
[ $fails -eq 0 ] && echo "tokenize: $checks checks passed"
exit $fails
