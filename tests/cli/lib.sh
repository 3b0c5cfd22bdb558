# lib.sh - what the program tests share; sourced after `set -u`. Sets A (program), D (test data), T (scratch, removed at the end).
A=${ASHLAR:?} D=${ASH_TEST_DATA:?}
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
fails=0 n=0
ok() { n=$((n + 1)); }
bad() { n=$((n + 1)); fails=$((fails + 1)); echo "FAIL: $*"; }
# want CODE PATTERN ARGS...: exit code, and a pattern in stdout+stderr where one is given
want() {
    code=$1 pat=$2
    shift 2
    "$A" "$@" >"$T/log" 2>&1
    rc=$?
    if [ $rc -ne "$code" ]; then bad "$*: exit $rc, not $code: $(head -c 600 "$T/log")"
    elif [ -n "$pat" ] && ! grep -q -e "$pat" "$T/log"; then bad "$*: no \"$pat\" in: $(head -c 600 "$T/log")"
    else ok; fi
}
same() { if cmp -s "$1" "$2"; then ok; else bad "$1 and $2 differ"; fi; }
