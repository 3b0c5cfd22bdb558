#!/bin/sh
# `ashlar run --grammar` and `--json-schema` from outside, with a tiny random model: whatever it says keeps to the grammar.
# Needs ASHLAR and ASH_TEST_DATA.
set -u
A=${ASHLAR:?} M=${ASH_TEST_DATA:?}/golden/llama/model.gguf
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
fails=0 checks=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }
# says REGEX ARGS...: the whole answer fits the extended regular expression
says() {
    re=$1
    shift
    checks=$((checks + 1))
    "$A" run "$M" hello --raw --no-stats "$@" >"$T/out" 2>"$T/err" </dev/null || fail "$*: $(cat "$T/err")"
    tr '\n' '~' <"$T/out" | grep -Eqx "$re~" || fail "$*: $(cat "$T/out") does not fit $re"
}
bad() { # CODE TEXT ARGS...
    code=$1 text=$2
    shift 2
    checks=$((checks + 1))
    "$A" run "$M" hello --raw --no-stats "$@" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    [ $rc -eq "$code" ] || fail "$*: exit $rc, not $code: $(cat "$T/err")"
    grep -Fq -- "$text" "$T/err" || fail "$*: no \"$text\" in $(cat "$T/err")"
}
printf 'root ::= [0-9]{3} "-" ("yes" | "no")\n' >"$T/g"
printf 'root ::= root "a" | "b"\n' >"$T/left"
printf 'root ::= "a\n' >"$T/open"
for seed in 1 2 3 4; do
    says '[0-9]{3}-(yes|no)' --grammar "$T/g" --seed $seed --temp 2
    says '[0-9]{3}-(yes|no)' --grammar "$T/g" --seed $seed --temp 2 --top-k 0 --ignore-eos
    says '\{~?[ 	]*"a": ?~?[ 	]*(1[0-9]|20),~?[ 	]*"b": ?~?[ 	]*(true|false)~?[ 	]*\}|\{.*' --seed $seed --temp 1.5 --json-schema \
        '{"type": "object", "properties": {"a": {"type": "integer", "minimum": 10, "maximum": 20}, "b": {"type": "boolean"}}, "required": ["a", "b"]}' -n 200
    says '"[ab]{2,3}"' --seed $seed --json-schema '{"type": "string", "pattern": "^[ab]{2,3}$"}'
done
says '[0-9]{3}-(yes|no)' --grammar "$T/g" --temp 0
echo '{"enum": ["x", 5]}' >"$T/s.json"
says '("x"|5)' --json-schema "$T/s.json"
bad 3 'left recursion' --grammar "$T/left"
bad 3 'grammar line' --grammar "$T/open"
bad 3 'cannot open' --grammar "$T/none"
bad 2 'give one' --grammar "$T/g" --json-schema "$T/s.json"
bad 3 'uniqueItems is not supported' --strict-schema --json-schema '{"type": "array", "uniqueItems": true}'
bad 0 'warning: schema /uniqueItems: is not supported (left out)' --json-schema '{"type": "array", "uniqueItems": true, "items": {"const": 1}, "maxItems": 2}'
# what it costs: one row for each way of sampling
checks=$((checks + 1))
"$A" bench "$M" --grammar "$T/g" -n 40 --json >"$T/out" 2>"$T/err" && [ "$(grep -c '"cost"' "$T/out")" -eq 3 ] || fail "bench --grammar: $(cat "$T/out" "$T/err")"
[ $fails -eq 0 ] && echo "$checks checks"
exit $((fails > 0))
