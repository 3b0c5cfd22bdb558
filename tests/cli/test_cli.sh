#!/bin/sh
# The command-line framework from outside: help of every verb, man pages, completion, usage errors, exit
# codes. Needs ASHLAR (the program).
set -u
A=${ASHLAR:?}
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
fails=0 checks=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }
# want CODE REGEX ARGS...: exit code, and REGEX on the one line of stderr ("" means silence)
want() {
    code=$1 re=$2
    shift 2
    checks=$((checks + 1))
    "$A" "$@" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    [ $rc -eq "$code" ] || fail "ashlar $*: exit $rc, not $code: $(cat "$T/err")"
    if [ -z "$re" ]; then
        [ -s "$T/err" ] && fail "ashlar $*: stderr: $(cat "$T/err")"
    else
        grep -Eq -e "$re" "$T/err" || fail "ashlar $*: no /$re/ in: $(cat "$T/err")"
        [ "$(wc -l <"$T/err")" -eq 1 ] || fail "ashlar $*: stderr is not one line: $(cat "$T/err")"
    fi
    return 0
}
out() { grep -Eq -- "$1" "$T/out" || fail "no /$1/ on stdout: $(head -c 300 "$T/out")"; }

want 0 "" --version && out '^ashlar [0-9]+\.[0-9]+'
want 0 "" help && out 'commands:'
want 0 "" --help && out 'commands:'
"$A" >"$T/out" 2>"$T/err"
[ $? -eq 2 ] && [ -s "$T/err" ] && [ ! -s "$T/out" ] || fail "no arguments: exit code or streams"

want 0 "" help --list
verbs=$(cat "$T/out")
[ -n "$verbs" ] || fail "no verbs"
for v in $verbs; do
    want 0 "" help "$v" && out '^usage: ashlar'
    cp "$T/out" "$T/help"
    want 0 "" "$v" --help
    cmp -s "$T/out" "$T/help" || fail "help $v and $v --help differ"
    out '--help'
    grep -q ' $' "$T/out" && fail "$v --help: trailing blanks"
    want 0 "" help --man "$v" && out '^\.TH ASHLAR'
    if command -v man >/dev/null && command -v groff >/dev/null; then
        groff -man -Tutf8 -ww "$T/out" >/dev/null 2>"$T/err" || fail "$v: groff fails"
        [ -s "$T/err" ] && fail "$v: groff: $(head -3 "$T/err")"
    fi
    want 2 "there is no option --frobnicate" "$v" --frobnicate
    want 2 "there is no option -Q" "$v" -Q
    "$A" help | grep -q "^  $v " || fail "$v is not in the list"
done
want 0 "" help --man all && out '^\.TH ASHLAR 1'
for s in bash zsh fish; do
    want 0 "" help --completion $s && out inspect
    if command -v $s >/dev/null; then $s -n "$T/out" || fail "$s completion does not parse"; fi
done
want 2 'bash, zsh or fish' help --completion tcsh
want 2 'command.s name' help --man nope
want 2 'no command "nope"' help nope

want 2 'no command "inpect"; did you mean "inspect"' inpect x
want 2 'no command "zzzzzzz"' zzzzzzz
want 2 'a command comes first' --json inspect
want 2 'did you mean --tensors' inspect --tensosr x
want 2 'too few arguments' inspect
want 2 'unexpected argument "b"' inspect a b
want 2 'takes no value' inspect --json=yes a
want 2 'takes no value' inspect --no-json=1 a
want 2 'there is no option --no-such' inspect --no-such a
want 3 'cannot open /no/such/file' inspect /no/such/file
want 3 'cannot open --json' inspect -- --json
want 3 'no such|No such' inspect --no-json /no/such/file
want 3 'KEY=VALUE|cannot open' edit /no/such/file k

# Ways to write options, on a verb that takes values
if echo "$verbs" | grep -qx logits; then
    m=${ASH_TEST_DATA:?}/golden/llama/model.gguf
    want 0 "" logits "$m" --tokens 1,2,3 -o "$T/a"
    for form in "--tokens=1,2,3 -o$T/b" "-t1 --output=$T/b --tokens 1,2,3" "-t 2 --output $T/b --tokens=1,2,3 --" "--no-fast --tokens=1,2,3 -o $T/b"; do
        rm -f "$T/b"
        # shellcheck disable=SC2086
        want 0 "" logits $form "$m"
        cmp -s "$T/a" "$T/b" || fail "logits $form: another result"
    done
    want 0 "" logits "$m" --tokens 1 -o /dev/null --json
    out '^\{.*\}$'
    want 2 '--tokens needs a value' logits "$m" -o "$T/b" --tokens
    want 2 '--tokens needs a value .* before --output' logits "$m" --tokens --output "$T/b"
    want 2 '-o needs a value' logits "$m" --tokens 1 -o
    want 2 'wants a whole number, not "x"' logits "$m" --tokens 1 -o "$T/b" -t x
    want 2 'wants a whole number, not "1.5"' logits "$m" --tokens 1 -o "$T/b" --threads=1.5
    want 2 'out of range' logits "$m" --tokens 1 -o "$T/b" -t 99999999999999999999
    want 2 'threads must be' logits "$m" --tokens 1 -o "$T/b" -t -1
    want 2 'there is no --no-tokens' logits "$m" --no-tokens -o "$T/b"
fi

if [ -w /dev/full ]; then
    "$A" help >/dev/full 2>"$T/err"
    rc=$?
    [ $rc -eq 4 ] || fail "help >/dev/full: exit $rc"
    grep -q 'standard output' "$T/err" || fail "help >/dev/full: $(cat "$T/err")"
fi
if [ $fails -ne 0 ]; then echo "$fails of $checks checks failed"; exit 1; fi
echo "$checks checks passed"
