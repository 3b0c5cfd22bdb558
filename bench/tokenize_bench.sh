#!/bin/sh
# Tokenizer against llama-tokenize: whole processes on one thread, vocabulary load and output included,
# same text, interleaved, median of ROUNDS. Ids must be equal. Then the cost per byte of a megabyte of
# unpleasant text relative to ordinary text (ours only).
#   usage: tokenize_bench.sh MODEL.gguf...
#   ASHLAR   program (default build/release/ashlar)   PEER   folder of llama-tokenize (default: bench/peer.sh)
#   TEXT     default data/wikitext2-test.txt          MB=10  ROUNDS=5
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -ge 1 ] || { sed -n 2,8p "$0"; exit 2; }
PEER=${PEER:-$(sh "$root/bench/peer.sh")} ASHLAR=${ASHLAR:-$root/build/release/ashlar} TEXT=${TEXT:-$root/data/wikitext2-test.txt}
export PEER ASHLAR TEXT
exec python3 - "$@" <<'PY'
import os, re, resource, statistics, subprocess, sys, tempfile, time

env = dict(os.environ, LD_LIBRARY_PATH=os.environ["PEER"], OMP_NUM_THREADS="1")
rounds, size = int(env.get("ROUNDS", 5)), int(float(env.get("MB", 10)) * 1e6)
text = open(env["TEXT"], "rb").read()
big = (text * (size // len(text) + 1))[:size]
big = big[:big.rfind(b"\n")]


def run(cmd, path):
    """(wall, processor time, stdout) of one process"""
    with open(path, "rb") as f:
        a, r = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        p = subprocess.run(cmd, stdin=f, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, check=True)
        b, s = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    return b - a, s.ru_utime + s.ru_stime - r.ru_utime - r.ru_stime, p.stdout


def med(rows, i):
    return statistics.median(r[i] for r in rows)


with tempfile.TemporaryDirectory() as d:
    def put(name, data):
        p = os.path.join(d, name)
        open(p, "wb").write(data)
        return p
    path, none = put("big", big), put("none", b"a")
    letters = re.sub(rb"[^A-Za-z]", b"", big)
    cases = {"text": big[:1 << 20], "no spaces": re.sub(rb"\s", b"", big)[:1 << 20], "letters only": letters[:1 << 20],
             "one letter": b"a" * (1 << 20), "spaces": b" " * (1 << 20)}
    for model in sys.argv[1:]:
        ours = [env["ASHLAR"], "tokenize", model]
        peer = [os.path.join(env["PEER"], "llama-tokenize"), "-m", model, "--stdin", "--ids", "--no-escape", "--log-disable", "-t", "1"]
        a, b, load_a, load_b = [], [], [], []
        for _ in range(rounds):
            a.append(run(ours, path))
            b.append(run(peer, path))
            load_a.append(run(ours, none))
            load_b.append(run(peer, none))
        same = a[0][2].split() == b[0][2].decode("ascii", "replace").replace("[", " ").replace("]", " ").replace(",", " ").encode().split()
        print(f"{os.path.basename(model)}: {len(big) / 1e6:.1f} MB, {len(a[0][2].split())} tokens, ids {'equal' if same else 'DIFFER'}")
        for name, rows, load in (("ashlar", a, load_a), ("llama-tokenize", b, load_b)):
            w, c, lw, lc = med(rows, 0), med(rows, 1), med(load, 0), med(load, 1)
            print(f"  {name:15} wall {w:.3f} s ({len(big) / 1e6 / w:.1f} MB/s), processor {c:.3f} s; load alone wall {lw:.3f} s, processor {lc:.3f} s")
        print(f"  ratio           wall {med(b, 0) / med(a, 0):.2f}x, processor {med(b, 1) / med(a, 1):.2f}x")
        base = None
        for name, data in cases.items():
            p = put("case", data)
            c = (med([run(ours, p) for _ in range(rounds)], 1) - med(load_a, 1)) / len(data)
            base = base or c
            print(f"  {name:15} {c * 1e9:7.1f} ns/byte without load, {c / base:.2f}x")
PY
