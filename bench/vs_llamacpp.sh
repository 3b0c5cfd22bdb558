#!/bin/sh
# Speed and memory against llama.cpp: same files, same threads, runs interleaved, medians, one table.
# usage: PEER_BIN=DIR vs_llamacpp.sh [-t THREADS] [-r REPS] [-p PROMPT] [-n GEN] MODEL.gguf...
#   PEER_BIN       folder of llama-bench and llama-completion (default: sh bench/peer.sh)
#   PEER_AVX2_BIN  a peer built for AVX2 (PEER_LEVEL=avx2 sh bench/peer.sh): adds rows with ASHLAR_CPU=avx2 against it; without
#                  it those rows have no ratio
#   ASHLAR         the program (default build/release/ashlar)
# first token: wall time of a process that loads the model, reads a two-word prompt and gives one token. memory: largest
# resident set of the prefill and decode run. Ratios: ashlar over llama.cpp for speeds, llama.cpp over ashlar for time and memory,
# so that more than 1 is better everywhere.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
[ -n "${PEER_BIN:-}" ] || PEER_BIN=$(sh "$root/bench/peer.sh")
export PEER_BIN ASHLAR="${ASHLAR:-$root/build/release/ashlar}"
exec python3 - "$@" <<'PY'
import argparse, json, os, statistics as st, subprocess, sys, time

ap = argparse.ArgumentParser(prog="vs_llamacpp.sh")
ap.add_argument("-t", type=int, default=2)
ap.add_argument("-r", type=int, default=5)
ap.add_argument("-p", type=int, default=512)
ap.add_argument("-n", type=int, default=128)
ap.add_argument("--json")
ap.add_argument("models", nargs="+")
a = ap.parse_args()
ours, peer, peer2 = os.environ["ASHLAR"], os.environ["PEER_BIN"], os.environ.get("PEER_AVX2_BIN")


def run(cmd, env=None):
    """wall seconds, peak resident bytes, stdout"""
    t = time.monotonic()
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    out = p.stdout.read()
    _, status, ru = os.wait4(p.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(cmd)}")
    return time.monotonic() - t, ru.ru_maxrss * 1024, out.decode()


def bench_ours(m, level):
    env = {"ASHLAR_CPU": level} if level else {}
    _, rss, out = run([ours, "bench", m, "-p", str(a.p), "-n", str(a.n), "-t", str(a.t), "-r", "1", "--json"], env)
    j = json.loads(out)
    first, _, _ = run([ours, "run", m, "--raw", "Hello there", "-n", "1", "--temp", "0", "-t", str(a.t), "--no-stats"], env)
    return {"prefill": j["prefill_tps"], "decode": j["decode_tps"], "first": first, "rss": rss, "level": j["level"], "cpu": j["cpu"]}


def bench_peer(m, bindir):
    _, rss, out = run([f"{bindir}/llama-bench", "-m", m, "-p", str(a.p), "-n", str(a.n), "-t", str(a.t), "-r", "1", "-o", "json"])
    j = json.loads(out)
    first, _, _ = run([f"{bindir}/llama-completion", "-m", m, "-p", "Hello there", "-n", "1", "--temp", "0", "-t", str(a.t), "-no-cnv", "--no-warmup", "-c", "4096"])
    return {"prefill": next(x["avg_ts"] for x in j if x["n_gen"] == 0), "decode": next(x["avg_ts"] for x in j if x["n_prompt"] == 0),
            "first": first, "rss": rss}


def median(rows, key):
    return st.median(r[key] for r in rows) if rows else None


report = []
print(f"threads {a.t}, prompt {a.p}, generated {a.n}, median of {a.r} interleaved runs")
print(f"{'model':28} {'level':8} {'':10} {'prefill t/s':>12} {'decode t/s':>11} {'first token ms':>15} {'memory MB':>10}")
for m in a.models:
    for level in (None, "avx2"):
        bindir = peer if level is None else peer2
        o, p = [], []
        for _ in range(a.r):
            if bindir:
                p.append(bench_peer(m, bindir))
            o.append(bench_ours(m, level))
        name, lv = os.path.basename(m), o[0]["level"]
        if level is None:
            native = lv
        elif lv == native and not bindir:
            continue  # this machine has nothing above AVX2
        row = {"model": name, "level": lv, "cpu": o[0]["cpu"], "threads": a.t}
        for who, rows in (("llama.cpp", p), ("ashlar", o)):
            if not rows:
                continue
            f = {k: median(rows, k) for k in ("prefill", "decode", "first", "rss")}
            row[who] = f
            print(f"{name:28} {lv:8} {who:10} {f['prefill']:12.1f} {f['decode']:11.1f} {1e3 * f['first']:15.0f} {f['rss'] / 1e6:10.0f}")
        if p:
            x, y = row["ashlar"], row["llama.cpp"]
            r = row["ratio"] = {"prefill": x["prefill"] / y["prefill"], "decode": x["decode"] / y["decode"], "first": y["first"] / x["first"], "rss": y["rss"] / x["rss"]}
            print(f"{'':28} {'':8} {'ratio':10} {r['prefill']:11.2f}x {r['decode']:10.2f}x {r['first']:14.2f}x {r['rss']:9.2f}x")
        report.append(row)
if a.json:
    with open(a.json, "w") as f:
        json.dump(report, f, indent=1)
PY
