#!/usr/bin/env python3
"""architectures.py - one table: every family from its Hugging Face folder to logits.

For each case of tests/data/convert: `ashlar convert` (float32), then the file's logits or embeddings against the golden ones of
an independent float32 implementation, the greedy continuation, and whether llama.cpp loads the file and generates from it.
Bars: rel 1e-4, embeddings 1e-3 and cosine 0.99999, greedy ids equal.
  ASHLAR    the program, default build/release/ashlar
  PEER_BIN  folder of llama.cpp's programs (bench/peer.sh); without it that column says "-"
Ends with status 1 if any bar is missed."""
import array
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parents[2]
ashlar = os.environ.get("ASHLAR", str(root / "build/release/ashlar"))
peer = os.environ.get("PEER_BIN")
data = root / "tests/data"


def floats(path):
    a = array.array("f")
    a.frombytes(pathlib.Path(path).read_bytes())
    return a


def run(*args):
    return subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, capture_output=True, timeout=300)


def rel(a, b):
    return max(abs(x - y) for x, y in zip(a, b)) / max(abs(y) for y in b)


def argmax(a):
    return max(range(len(a)), key=a.__getitem__)


def cases():
    """The list in test_convert.c: folder, tokenizer folder, pooling module."""
    text = (root / "tests/unit/test_convert.c").read_text()
    block = text[text.index("} cases[] = {"):]
    return re.findall(r'\{"([^"]+)", "([^"]+)", (true|false)\}', block[:block.index("};")])


def folder(tmp, name, tok, embed):
    d = tmp / name
    d.mkdir()
    parts = [data / "convert" / name, data / "convert" / f"tok-{tok}"] + ([data / "convert/embed"] if embed == "true" else [])
    for p in parts:
        shutil.copytree(p, d, dirs_exist_ok=True)
    return d


def check(tmp, name, tok, embed):
    gguf, out = tmp / f"{name}.gguf", tmp / "out.f32"
    row = {"case": name, "convert": "FAIL", "load": "-", "error": "-", "greedy": "-", "llama.cpp": "-"}
    c = run(ashlar, "convert", folder(tmp, name, tok, embed), "-o", gguf, "--type", "f32")
    if c.returncode:
        return row, [c.stderr.decode().strip()]
    row["convert"], notes, worst = "ok", [], 0.0
    gold = data / "golden" / name
    seqs = json.loads((gold / "cases.json").read_text())["sequences"]
    for i, s in enumerate(seqs):
        verb = "embed" if "embedding_file" in s else "logits"
        want = gold / (s["embedding_file"] if verb == "embed" else s["logits_file"])
        if not want.exists():
            continue
        ids = ",".join(map(str, s["tokens"]))
        r = run(ashlar, verb, gguf, "--tokens", ids, "-o", out)
        row["load"] = "FAIL" if r.returncode else "ok"
        if r.returncode:
            return row, notes + [r.stderr.decode().strip()]
        a, b = floats(out), floats(want)
        worst = max(worst, rel(a, b))
        if verb == "embed":
            cos = sum(x * y for x, y in zip(a, b)) / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
            if cos < 0.99999:
                notes.append(f"cosine {cos}")
        elif s.get("greedy"):
            more = s["tokens"] + s["greedy"][:-1]
            run(ashlar, "logits", gguf, "--tokens", ",".join(map(str, more)), "-o", out)
            a, n = floats(out), s["cols"]
            got = [argmax(a[(len(s["tokens"]) - 1 + k) * n:(len(s["tokens"]) + k) * n]) for k in range(len(s["greedy"]))]
            same = got == s["greedy"]
            row["greedy"] = "same" if same and row["greedy"] != "FAIL" else "FAIL"
    row["error"] = f"{worst:.1e}"
    if worst > (1e-3 if embed == "true" else 1e-4):
        notes.append(f"error {worst}")
    if row["greedy"] == "FAIL":
        notes.append("greedy ids differ")
    if peer:
        if embed == "true":
            p = run(f"{peer}/llama-tokenize", "-m", gguf, "-p", "the")
        else:
            p = run(f"{peer}/llama-completion", "-m", gguf, "-p", "the", "-n", "4", "--temp", "0", "-no-cnv", "-t", "2", "-c", "64")
        row["llama.cpp"] = "loads" if p.returncode == 0 else "FAIL"
        if p.returncode:
            notes.append("llama.cpp: " + p.stderr.decode(errors="replace").strip()[-200:])
    return row, notes


def main():
    bad = 0
    print("| case | convert | load | max relative error | greedy 16 | llama.cpp |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as t:
        for case in cases():
            row, notes = check(pathlib.Path(t), *case)
            print("| " + " | ".join(row.values()) + " |", flush=True)
            for n in notes:
                print(f"  {case[0]}: {n}", flush=True)
            bad += bool(notes) or row["load"] != "ok"
    sys.exit(bad != 0)


main()
