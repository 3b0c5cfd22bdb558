#!/bin/sh
# Memory at real scale: a file in the shape of Gemma 4 E2B (random weights), Q3_K_S types, and a smaller one (IQ2_XXS blocks, Q4_K head).
# Resident memory after 1,000 distinct tokens at a context of 4,096 against the bars and against what `ashlar mem` says; the answer under hard
# limits of a memory cgroup, where those can be made (else that part says skipped). With ASH_LONG_FIT=1 also `fit --effort quick` on the F16 file (9.3 GB, and
# 10 GB for the work) under 4 GB: an hour or more on two cores.
# usage: [ASHLAR=PROGRAM] memory.sh        needs python3, 6 GB of disk, and the Gemma 3 vocabulary (scripts/fetch_model.sh gemma3)
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
ASHLAR=${ASHLAR:-$root/build/release/ashlar}
gemma=${ASH_GEMMA3:-$(sh "$root/scripts/fetch_model.sh" gemma3)}
tmp=${TMP_MODELS:-$(mktemp -d)}
mkdir -p "$tmp"
[ -n "${TMP_MODELS:-}" ] || trap 'rm -rf "$tmp"' EXIT
[ -f "$tmp/e2b-q3.gguf" ] || python3 "$root/tools/e2b_shape.py" "$tmp/e2b-q3.gguf" --vocab "$gemma"
[ -f "$tmp/e2b-iq2.gguf" ] || python3 "$root/tools/e2b_shape.py" "$tmp/e2b-iq2.gguf" --vocab "$gemma" --blocks IQ2_XXS --head Q4_K
python3 - "$root" "$ASHLAR" "$gemma" "$tmp" <<'PY'
import json, os, random, re, subprocess, sys
root, ashlar, gemma, tmp = sys.argv[1:]
source = open(root + "/tools/e2b_shape.py", encoding="utf-8").read().rsplit("\nmain()", 1)[0]
shape = {}
exec(compile(source, "e2b_shape.py", "exec"), shape)
tokens, types = shape["vocabulary"](gemma)
space = "\u2581".encode()
words = [t for t, k in zip(tokens, types) if k == 1 and t.startswith(space) and t[3:].isalpha() and len(t) > 6]
random.Random(5).shuffle(words)
prompt = b"".join(t.replace(space, b" ") for t in words[:1000])
args = ["--raw", "--ctx", "4096", "-n", "16", "--ignore-eos", "--temp", "0", "-t", "2", "--json", "-"]
bad = 0


def run(model, group=None):
    """(result, MiB resident); in a memory cgroup if named"""
    cmd = [ashlar, "run", model] + args
    if group:
        cmd = ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', group] + cmd
    p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdin.write(prompt)
    p.stdin.close()
    out = p.stdout.read()
    _, status, ru = os.wait4(p.pid, 0)
    return (json.loads(out) if status == 0 else None), ru.ru_maxrss / 1024


def check(ok, text):
    global bad
    bad += not ok
    print(("ok    " if ok else "FAIL  ") + text)


free = {}
for name, bar in (("e2b-q3", 1190), ("e2b-iq2", 800)):
    model = f"{tmp}/{name}.gguf"
    r, mib = run(model)
    free[name] = r
    n = r["prompt_tokens"] + r["tokens"]
    said = json.loads(subprocess.run([ashlar, "mem", model, "--ctx", "4096", "--tokens", str(n), "-t", "2", "--json"], stdout=subprocess.PIPE, check=True).stdout)
    check(mib <= bar, f"{name}: {mib:.0f} MiB resident after {n} tokens, bar {bar}; {r['prompt_tps']:.0f} and {r['tps']:.1f} tokens/s")
    check(abs(said["resident_bytes"] / 2**20 / mib - 1) <= 0.03, f"{name}: mem says {said['resident_bytes'] / 2**20:.0f} MiB")
    heap = os.path.getsize(model) / 2**20 + said["session_heap_bytes"] / 2**20 + (said["program_bytes"] + said["metadata_and_tokenizer_bytes"]) / 2**20
    print(f"      read into the heap instead of mapped it would take {heap:.0f} MiB")

base = "/sys/fs/cgroup/memory" if os.path.isdir("/sys/fs/cgroup/memory") else "/sys/fs/cgroup"
limit = "memory.limit_in_bytes" if base.endswith("memory") else "memory.max"
for megabytes in (1300, 1000):
    group = f"{base}/ashlar-test-{os.getpid()}"
    try:
        os.mkdir(group)
        with open(f"{group}/{limit}", "w") as f:
            f.write(str(megabytes * 10**6))
    except OSError as e:
        print(f"skipped: no memory cgroup here ({e.strerror})")
        if os.path.isdir(group):
            os.rmdir(group)
        break
    fd = os.open(f"{tmp}/e2b-q3.gguf", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # cached pages would be charged to nobody
    os.close(fd)
    r, mib = run(f"{tmp}/e2b-q3.gguf", group)
    os.rmdir(group)
    same = r is not None and r["text"] == free["e2b-q3"]["text"]
    check(same, f"limit {megabytes} MB: " + (f"the same answer, {r['prompt_tps']:.0f} and {r['tps']:.1f} tokens/s" if r else "killed"))
if os.environ.get("ASH_LONG_FIT") == "1":
    source, out, group = f"{tmp}/e2b-f16.gguf", f"{tmp}/e2b-fit.gguf", f"{base}/ashlar-test-fit-{os.getpid()}"
    try:
        os.mkdir(group)
        with open(f"{group}/{limit}", "w") as f:
            f.write(str(4 * 10**9))
    except OSError as e:
        print(f"skipped: fit under 4 GB: no memory cgroup here ({e.strerror})")
        if os.path.isdir(group):
            os.rmdir(group)
        sys.exit(bad > 0)
    if not os.path.exists(source):
        subprocess.run([sys.executable, root + "/tools/e2b_shape.py", source, "--vocab", gemma, "--blocks", "F16", "--head", "F16", "--table", "F16"], check=True)
    fd = os.open(source, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    cmd = ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', group, ashlar, "fit", source, "--size", "3.2GB", "--effort", "quick", "--controls", "0", "-t", "2", "-o", out]
    p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    heap = 0
    while p.poll() is None:
        with open(f"/proc/{p.pid}/status", encoding="ascii") as f:
            m = re.search(r"RssAnon:\s+(\d+) kB", f.read())
        heap = max(heap, int(m[1]) // 1024 if m else 0)
        try:
            p.wait(1)
        except subprocess.TimeoutExpired:
            pass
    os.rmdir(group)
    check(p.returncode == 0 and os.path.getsize(out) <= 3.2e9, f"fit --effort quick of 9.3 GB under 4 GB: exit {p.returncode}, {heap} MiB of heap")
sys.exit(bad > 0)
PY
