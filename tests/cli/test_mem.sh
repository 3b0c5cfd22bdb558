#!/bin/sh
# `ashlar mem` against what `ashlar run` then takes: within 3 % on the real models, which scripts/test.sh fetches.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
[ "$("$ASHLAR" mem "$ASH_TEST_DATA/golden/gemma4-e/model.gguf" --json | python3 -c 'import json, sys; j = json.load(sys.stdin); print(j["resident_bytes"] > j["live_bytes"] > 0 and j["lookup_bytes"] > 0)')" = True ]
"$ASHLAR" mem "$ASH_TEST_DATA/golden/gemma4-e/model.gguf" --tables | grep -q "per_layer_token_embd.weight"
if "$ASHLAR" mem "$ASH_TEST_DATA/golden/gemma4-e/model.gguf" --ctx 8 --tokens 9 2>"$tmp/err"; then exit 1; fi
grep -q "tokens must be" "$tmp/err"
case $ASHLAR in *asan* | *tsan*) exit 0 ;; esac # sanitizers have memory of their own
for name in smollm2 gemma3; do
  model=${ASH_MODEL_DIR:-}/$name.gguf
  [ -r "$model" ] || { echo "skipped: no $name.gguf in ASH_MODEL_DIR"; continue; }
  python3 - "$ASHLAR" "$model" "$ASH_ROOT/data/wikitext2-test.txt" <<'PY'
import json, os, subprocess, sys
ashlar, model, text = sys.argv[1:]
prompt = open(text, encoding="utf-8").read()[:4200]
def run(cmd):
    p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdin.write(prompt.encode())
    p.stdin.close()
    out = p.stdout.read()
    p.stderr.read()
    _, status, ru = os.wait4(p.pid, 0)
    assert status == 0, cmd
    return out.decode(), ru.ru_maxrss * 1024
out, rss = run([ashlar, "run", model, "--raw", "--ctx", "2048", "-n", "32", "--ignore-eos", "-t", "2", "--json", "-"])
j = json.loads(out)
out, _ = run([ashlar, "mem", model, "--ctx", "2048", "-t", "2", "--tokens", str(j["prompt_tokens"] + j["tokens"]), "--json"])
said = json.loads(out)["resident_bytes"]
print("%s: said %.1f MB, took %.1f MB (%+.1f %%)" % (os.path.basename(model), said / 1e6, rss / 1e6, 100 * (said / rss - 1)))
sys.exit(abs(said / rss - 1) > 0.03)
PY
done
