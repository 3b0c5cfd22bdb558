#!/bin/sh
# `ashlar assess` from outside: a config.json, a GGUF, a header alone, JSON that parses, usage errors.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$ASHLAR" assess "$ASH_TEST_DATA/assess/e2b.json" --ctx 8192 --ram 7.6GB >"$tmp/out"
grep -q "^Q2_K  *2835.53 " "$tmp/out"
grep -q "^Q3_K_S  *2951.05 " "$tmp/out"
grep -q "hypothesis" "$tmp/out"
grep -q "^machine: 7.60 GB" "$tmp/out"
"$ASHLAR" assess "$ASH_TEST_DATA/convert/gemma4-e" --layers | grep -q "^5 .*of layer 3"
"$ASHLAR" assess "$ASH_TEST_DATA/golden/llama/model.gguf" --json >"$tmp/json"
python3 - "$tmp/json" <<'PY'
import json, sys
j = json.load(open(sys.argv[1]))
assert len(j["recipes"]) >= 34 and len(j["ffn_ratio_rule"]["forms"]) == 3
assert any("predicted_kld" in r for r in j["recipes"]) and j["facts"]["layers"]
PY
head -c 30000 "$ASH_TEST_DATA/golden/llama/model.gguf" >"$tmp/head.gguf"
"$ASHLAR" assess "$tmp/head.gguf" | grep -q "too early"
if "$ASHLAR" assess "$tmp/none.json" 2>"$tmp/err"; then exit 1; fi
grep -q "cannot open" "$tmp/err"
echo '{"architectures": ["Nope"]}' >"$tmp/nope.json"
rc=0
"$ASHLAR" assess "$tmp/nope.json" 2>"$tmp/err" || rc=$?
[ $rc = 3 ] && grep -q "Nope" "$tmp/err"
