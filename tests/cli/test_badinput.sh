#!/bin/sh
# Bad input to every verb that this build has: one sentence on stderr that is no usage hint, nothing on
# stdout, the right exit code (3 bad input or permission, 4 limit), nothing half-written beside or under
# the output's name.
set -u
A=${ASHLAR:?} D=${ASH_TEST_DATA:?} ASH_ROOT=${ASH_ROOT:?}
T=$(mktemp -d) || exit 1
mnt=
cleanup() {
    [ -n "$mnt" ] && umount "$mnt"
    rm -rf "$T"
}
trap cleanup EXIT
fails=0 checks=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }
has() { echo "$verbs" | grep -qx "$1"; }
verbs=$("$A" help --list)
good=$D/golden/llama/model.gguf
[ -s "$good" ] || { echo "no $good"; exit 1; }
mkdir "$T/in" "$T/out" "$T/dir.gguf"
: >"$T/in/empty.gguf"
printf 'Once upon a time there was a text file.\nIt was no model.\n' >"$T/in/text.gguf"
head -c 20 "$good" >"$T/in/header.gguf"
head -c 3000 "$good" >"$T/in/half-header.gguf"
size=$(wc -c <"$good")
head -c $((size - 1)) "$good" >"$T/in/truncated.gguf"
head -c 100000 /dev/zero >"$T/in/zeros.gguf"
printf 'GGUF\003\000\000\000\377\377\377\377\377\377\377\177\377\377\377\377\377\377\377\177' >"$T/in/counts.gguf"
# A sound container without a model in it
printf 'GGUF\003\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000' >"$T/in/hollow.gguf"
cp "$good" "$T/m.gguf"
"$A" quantize "$good" "$T/q4.gguf" --type Q4_0 >/dev/null || fail "no second model to repair"
echo "The quick brown fox jumps over the lazy dog." >"$T/text.txt"

# verb: arguments that are right but for the model (@M) or the output (@O)
args() {
    case $1 in
    inspect) echo "@M" ;;
    tokenize) echo "@M" ;;
    logits | embed) echo "@M --tokens 1,2,3 -o @O" ;;
    eval) echo "@M --text $T/text.txt" ;;
    imatrix) echo "@M --text $T/text.txt -o @O" ;;
    quantize) echo "@M @O --type Q8_0" ;;
    experiment) echo "imatrix @M --chunks 1 --ctx 8 --text $T/text.txt --calib $T/text.txt" ;;
    slice) echo "@M --keep first:1 -o @O" ;;
    merge) echo "--anchor @M --donor @M --layers 0 -o @O" ;;
    patch) echo "@M general.name=x" ;;
    widen) echo "@M @O" ;;
    repair) echo "@M --of $T/q4.gguf --percent 50 -o @O" ;;
    sweep) echo "@M --text $T/text.txt -o @O" ;;
    plan) echo "@M --size 1MB -o @O" ;;
    fit) echo "@M --size 1MB -o @O" ;;
    front) echo "@M --sizes 1MB --presets none -o @O" ;;
    run) echo "@M hello" ;;
    bench) echo "@M -p 4 -n 2 -r 1" ;;
    edit) echo "@M general.name=x" ;;
    convert) echo "@M -o @O" ;;
    *) echo "@M" ;;
    esac
}
# try WHAT CODES VERB ARGS...: checks code, one line of stderr, silence of stdout, no leftovers
try() {
    what=$1 codes=$2
    shift 2
    checks=$((checks + 1))
    timeout 60 "$A" "$@" >"$T/stdout" 2>"$T/stderr" <"$T/text.txt"
    rc=$?
    case " $codes " in
    *" $rc "*) ;;
    *) fail "$what: ashlar $*: exit $rc, not $codes: $(head -c 300 "$T/stderr")" ;;
    esac
    [ "$(wc -l <"$T/stderr")" -eq 1 ] || fail "$what: ashlar $*: stderr is not one line: $(head -c 500 "$T/stderr")"
    [ -s "$T/stdout" ] && fail "$what: ashlar $*: stdout: $(head -c 200 "$T/stdout")"
    left=$(ls -A "$T/out")
    [ -z "$left" ] || fail "$what: ashlar $*: left behind: $left"
    rm -rf "$T/out" && mkdir "$T/out"
    return 0
}
fill() { args "$1" | sed "s|@M|$2|g; s|@O|$3|"; }

for v in $(echo "$verbs" | grep -vx -e pull -e list -e rm); do
    for f in "$T"/in/*.gguf "$T/dir.gguf" "$T/missing.gguf"; do
        case $v-$f in inspect-*hollow* | edit-*hollow* | patch-*hollow*) continue ;; esac
        case $v-$f in assess-*truncated*) continue ;; esac # it reads headers, and says that the file ends early
        case $v-$f in doctor-*missing* | doctor-*dir.gguf) ;; doctor-*) continue ;; esac # to say what is wrong with a file is what it does
        # shellcheck disable=SC2046
        try "bad model $(basename "$f")" 3 "$v" $(fill "$v" "$f" "$T/out/o")
        case $f in *hollow*) continue ;; esac # a sound container: the sentence names the key that is missing
        case $(cat "$T/stderr") in *"$(basename "$f")"*) ;; *) fail "ashlar $v: the sentence does not name $f: $(cat "$T/stderr")" ;; esac
    done
    cmp -s "$good" "$T/m.gguf" || fail "$v changed its input"
done
[ "$(printf 'Once upon a time there was a text file.\nIt was no model.\n' | cksum)" = "$(cksum <"$T/in/text.gguf")" ] || fail "a bad file was changed"

# Outputs that cannot be written
for v in logits quantize widen repair slice merge imatrix sweep plan fit front; do
    has $v || continue
    for o in /proc/o.gguf "$T/no/such/dir/o.gguf" "$T/dir.gguf"; do
        # shellcheck disable=SC2046
        try "output $o" 3 "$v" $(fill $v "$T/m.gguf" "$o")
    done
    [ -z "$(ls -A "$T/dir.gguf")" ] || fail "$v wrote into the directory given as output"
done
if has edit; then
    try "edit in /proc" 3 edit /proc/version a=b
    try "edit a bad value" 3 edit "$T/m.gguf" llama.block_count=many
    try "edit bad assignment" 2 edit "$T/m.gguf" nonsense
    cmp -s "$good" "$T/m.gguf" || fail "a failed edit changed the file"
fi

# A full disk: a tiny tmpfs where that is allowed, else a file-size limit
mkdir "$T/tiny"
if mount -t tmpfs -o size=64k tmpfs "$T/tiny" 2>/dev/null; then mnt=$T/tiny; fi
for v in quantize widen repair slice merge logits edit; do
    has $v || continue
    if [ -n "$mnt" ]; then o=$mnt/o limit=unlimited; else o=$T/tiny/o limit=64; fi
    case $v in
    logits | embed) a="$T/m.gguf --tokens $(seq -s, 1 400) -o $o" ;;
    edit)
        [ -n "$mnt" ] && continue # the input would not fit there
        a="$T/m.gguf general.name=x"
        ;;
    *) a=$(fill $v "$T/m.gguf" "$o") ;;
    esac
    checks=$((checks + 1))
    # shellcheck disable=SC2086
    (ulimit -f $limit && exec "$A" $v $a) >"$T/stdout" 2>"$T/stderr" </dev/null
    rc=$?
    [ $rc -eq 4 ] || fail "full disk: ashlar $v: exit $rc: $(head -c 300 "$T/stderr")"
    [ "$(wc -l <"$T/stderr")" -eq 1 ] || fail "full disk: ashlar $v: $(head -c 300 "$T/stderr")"
    left=$(ls -A "$T/tiny")
    [ -z "$left" ] || fail "full disk: ashlar $v left $left"
done
(ulimit -f 64 && exec "$A" edit "$T/m.gguf" general.name=x) 2>"$T/stderr"
rc=$?
[ $rc -eq 4 ] || fail "edit under a file-size limit: exit $rc: $(cat "$T/stderr")"
cmp -s "$good" "$T/m.gguf" || fail "an edit that ran out of space changed the file"
[ -z "$(find "$T" -mindepth 1 -maxdepth 1 -name '*tmp*')" ] || fail "an edit left $(find "$T" -mindepth 1 -maxdepth 1 -name '*tmp*')"

# Permissions, as an ordinary user (root may do anything, so another user is tried)
as=
if [ "$(id -u)" -eq 0 ]; then
    as="setpriv --reuid 65534 --regid 65534 --clear-groups"
    chmod 755 "$T"
    $as "$A" --version >/dev/null 2>&1 || as=none
fi
if [ "$as" != none ]; then
    mkdir "$T/ro" && cp "$good" "$T/ro/m.gguf" && chmod 444 "$T/ro/m.gguf" && cp "$good" "$T/secret.gguf" && chmod 000 "$T/secret.gguf" && chmod 555 "$T/ro"
    denied() {
        checks=$((checks + 1))
        $as "$A" "$@" >"$T/stdout" 2>"$T/stderr" </dev/null
        rc=$?
        [ $rc -eq 3 ] || fail "ashlar $*: exit $rc: $(cat "$T/stderr")"
        grep -q "Permission denied" "$T/stderr" && [ "$(wc -l <"$T/stderr")" -eq 1 ] || fail "ashlar $*: $(cat "$T/stderr")"
        return 0
    }
    denied inspect "$T/secret.gguf"
    for v in logits quantize widen imatrix sweep plan fit front; do
        # shellcheck disable=SC2046
        has $v && denied $v $(fill $v "$T/ro/m.gguf" "$T/ro/o")
    done
    denied edit "$T/ro/m.gguf" general.name=x
    [ "$(ls -A "$T/ro")" = m.gguf ] && cmp -s "$good" "$T/ro/m.gguf" || fail "a folder without write permission changed"
    chmod 755 "$T/ro"
fi

# Standard output that cannot be written
if [ -w /dev/full ]; then
    "$A" inspect "$T/m.gguf" >/dev/full 2>"$T/stderr"
    rc=$?
    [ $rc -eq 4 ] || fail "inspect >/dev/full: exit $rc"
fi

# Prompts, budgets, ids
bad=$(printf 'caf\351')
has run && try "prompt not UTF-8" 3 run "$T/m.gguf" "$bad"
has logits && try "id out of range" 3 logits "$T/m.gguf" --tokens 1,999999999 -o "$T/out/o"
has logits && try "no ids" 2 logits "$T/m.gguf" --tokens x -o "$T/out/o"
if has quantize; then
    try "unknown type" "2 3" quantize "$T/m.gguf" "$T/out/o" --type Q9_9
fi
for v in eval imatrix sweep fit front; do # texts
    has $v || continue
    case $v in
    eval) a="$T/m.gguf" o=--text ;;
    fit) a="$T/m.gguf --size 1MB -o $T/out/o" o=--calib ;;
    front) a="$T/m.gguf --sizes 1MB -o $T/out/o" o=--calib ;;
    *) a="$T/m.gguf -o $T/out/o" o=--text ;;
    esac
    for f in "$T/in/empty.gguf" "$T/missing.txt" "$T/dir.gguf"; do
        # shellcheck disable=SC2086
        try "text $f" 3 $v $a $o "$f"
    done
done
if has eval; then
    try "reference is no reference" 3 eval "$T/m.gguf" --text "$ASH_ROOT/LICENSE" --ctx 64 --ref "$T/in/text.gguf"
    try "empty reference" 3 eval "$T/m.gguf" --text "$ASH_ROOT/LICENSE" --ctx 64 --ref "$T/in/empty.gguf"
    try "context out of range" 2 eval "$T/m.gguf" --ctx -1
fi
if has quantize; then
    try "recipe is text" 3 quantize "$T/m.gguf" "$T/out/o" --recipe "$T/in/text.gguf"
    try "recipe is empty" 3 quantize "$T/m.gguf" "$T/out/o" --recipe "$T/in/empty.gguf"
    try "importance is text" 3 quantize "$T/m.gguf" "$T/out/o" --type Q8_0 --imatrix "$T/in/text.gguf"
fi
if has fit; then
    try "impossible budget" 4 fit "$T/m.gguf" --size 1000 -o "$T/out/o"
    try "budget is no size" 2 fit "$T/m.gguf" --size huge -o "$T/out/o"
    try "output without permission" 3 fit "$T/m.gguf" --size 1MB -o /proc/o.gguf
fi

if [ $fails -ne 0 ]; then echo "$fails failures in $checks checks"; exit 1; fi
echo "$checks checks passed"
