#!/usr/bin/env python3
"""architectures.py [-o FILE.md] - one table: every family, its golden model and its Hugging Face folder.

First what tests/arch_table finds with the golden GGUF of each case (error of logits or hidden states on both paths, greedy
continuation, chunking, template). Then, for each case of tests/data/convert: `ashlar convert` (float32), the file's logits or
embeddings against the golden ones of an independent float32 implementation, the greedy continuation, and whether llama.cpp loads
the file and takes the same next tokens. Bars: rel 1e-4, embeddings 1e-3 and cosine 0.99999, greedy ids equal.
  ASHLAR      the program, default build/release/ashlar
  ARCH_TABLE  the test program, default tests/arch_table beside it
  PEER_BIN    folder of llama.cpp's programs (bench/peer.sh); without it that column says "skipped"
docs/architectures.md is this script's output. Ends with status 1 if any bar is missed."""
import argparse
import array
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

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


def peer_logits(gguf, ids, greedy):
    """"agrees": from the same ids llama.cpp takes our greedy ids; "loads" where that cannot be asked."""
    port = free_port()
    cmd = [f"{peer}/llama-server", "-m", str(gguf), "--port", str(port), "-t", "2", "-c", "256", "--no-webui", "-ctk", "f32", "-ctv", "f32", "-fa", "off"]
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                if urllib.request.urlopen(url + "/health", timeout=5).status == 200:
                    break
            except OSError:
                pass
            if p.poll() is not None:
                return "FAIL", p.stderr.read().decode(errors="replace").strip()[-200:]
            time.sleep(0.1)
        ask = {"prompt": ids, "n_predict": len(greedy), "temperature": 0, "top_k": 1, "return_tokens": True, "ignore_eos": True, "cache_prompt": False}
        r = urllib.request.Request(url + "/completion", json.dumps(ask).encode(), {"Content-Type": "application/json"})
        got = json.load(urllib.request.urlopen(r, timeout=120)).get("tokens", [])
        if not got:
            return "loads", ""
        same = 0
        while same < min(len(got), len(greedy)) and got[same] == greedy[same]:
            same += 1
        return ("agrees", "") if same == len(greedy) else (f"{same} of {len(greedy)}", "")
    except (OSError, ValueError) as e:
        return "loads", f"no answer from the server: {e}"
    finally:
        p.stderr.close()
        p.terminate()
        p.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def check(tmp, name, tok, embed):
    gguf, out = tmp / f"{name}.gguf", tmp / "out.f32"
    row = {"convert": "FAIL", "load": "-", "error": "-", "greedy": "-", "llama.cpp": "skipped"}
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
    if peer and embed == "true":
        p = run(f"{peer}/llama-tokenize", "-m", gguf, "-p", "the")
        row["llama.cpp"] = "loads" if p.returncode == 0 else "FAIL"
        if p.returncode:
            notes.append("llama.cpp: " + p.stderr.decode(errors="replace").strip()[-200:])
    elif peer:
        s = seqs[-1]  # the longest: llama.cpp chooses LongRoPE's factors by the context, which is longer than the original one
        full = s.get("full_attention_greedy")  # llama.cpp has no window for the llama architecture
        row["llama.cpp"], why = peer_logits(gguf, s["tokens"], full or s["greedy"])
        if full and row["llama.cpp"] == "agrees":
            row["llama.cpp"] = "agrees, without the window"
        if row["llama.cpp"] == "FAIL":
            notes.append("llama.cpp: " + why)
    return row, notes


def word(v):
    return "-" if v is None else "yes" if v else "NO"


HEAD = """# Architectures

Output of `python3 tests/long/architectures.py -o docs/architectures.md` (in the long tier). Tiny random models with logits of an
independent float32 implementation; how one is added: [howto/add-architecture.md](howto/add-architecture.md).

- *golden file*: the case's `model.gguf`, its matrices as F16 with the same values: largest error of a logit (encoders: of a hidden state),
  relative to the largest reference value, with float32 activations and on the everyday path (8-bit activations).
- *chunking*: the prompt in chunks of 1, 7, 16 and at once gives the same bits. *template*: a published template of the family renders.
- *converted*: the Hugging Face folder through `ashlar convert --type f32`, the file loaded, its logits (encoders: the pooled vector) against the reference.
- *greedy*: the 16 next tokens, of the golden and of the converted file, are the reference's.
- *llama.cpp*: loads the converted file and takes the same 16 tokens ("agrees"); encoders: loads. It has no sliding window for the llama architecture,
  so mistral-swa is compared with the reference's tokens for full attention.
"""


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("-o", metavar="FILE", help="also write the table there")
    out = ap.parse_args().o
    table = os.environ.get("ARCH_TABLE", str(pathlib.Path(ashlar).parent / "tests/arch_table"))
    golden = json.loads(subprocess.run([table, "--json"], capture_output=True, check=False, timeout=900,
                                       env={**os.environ, "ASH_TEST_DATA": str(data)}).stdout)
    lines, notes, bad = [], [], 0

    def say(line):
        lines.append(line)
        print(line, flush=True)

    say("| case | architecture | load | golden file, float32 | golden file, everyday | chunking | convert | converted | greedy | llama.cpp | template |")
    say("|---|---|---|---|---|---|---|---|---|---|---|")
    folders = {c[0]: c for c in cases()}
    with tempfile.TemporaryDirectory() as t:
        for g in golden:
            name = g["case"]
            c, more = check(pathlib.Path(t), *folders[name]) if name in folders else ({"convert": "-", "load": "ok", "error": "-", "greedy": "-", "llama.cpp": "-"}, [])
            greedy = [v for v in (g.get("greedy_equal"), None if c["greedy"] == "-" else c["greedy"] == "same") if v is not None]
            say("| " + " | ".join([name, g.get("architecture", "-"), word(g.get("load") and c["load"] == "ok"),
                                   f"{g['rel']:.1e}" if "rel" in g else "-", f"{g['fast_rel']:.1e}" if "fast_rel" in g else "-",
                                   word(g.get("chunking_equal")), word(None if c["convert"] == "-" else c["convert"] == "ok"), c["error"],
                                   word(all(greedy) if greedy else None), c["llama.cpp"], word(g.get("template"))]) + " |")
            if not g.get("ok"):
                more.append("golden file: " + g.get("error", "outside the bars of arch_table"))
            notes += [f"{name}: {n}" for n in more]
            bad += bool(more) or c["load"] != "ok"
    for n in notes:
        print("  " + n)
    if out and not bad:
        pathlib.Path(out).write_text(HEAD + "\n" + "\n".join(lines) + "\n")
    sys.exit(bad != 0)


main()
