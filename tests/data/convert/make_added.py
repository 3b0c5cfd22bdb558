#!/usr/bin/env python3
"""make_added.py - tokenizers with added tokens of every kind (lstrip, rstrip, single_word, normalized), and what the Hugging Face
tokenizers library makes of random texts with them: added/BASE.json = [{"base", "added", "cases"}, ...]. The vocabulary is that of ../tok-BASE.

usage: make_added.py [SEED]      without a seed the files of the tests are written; with one, TEXTS (2000) texts a base are compared with
the program ASHLAR, which tells how often the two differ."""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Tokenizer

here = pathlib.Path(__file__).resolve().parent
TEXTS = ["<tool>", "<TOOL>", "foo", "Foo", "foobar", "caf\u00e9", "cafe\u0301", "\u00c5x", "<b>", "b>", "a b", "[x]", "\u4e2d", "na\u00efve", "_y_", "\n\n\n"]
PARTS = TEXTS + [" ", "  ", "\n", "\t", "a", "x", "1", "_", "-", ".", "\u0301", "\u00e9", "e", "\u0661", "\u200d", "\u20ac", "\u24b6", "\u2160", "\u3000", "fo", "o", "b",
                 "<", ">", "\u03b1", "A\u030a", "\u212b", "hello", "A"]
BASES = {"qwen": "byte-level with NFC", "llama": "byte-level", "bert": "WordPiece", "gemma": "SentencePiece", "mistral": "SentencePiece with a space in front"}


def added(r, first):
    out = []
    one = {unicodedata.normalize("NFC", t).casefold(): t for t in r.sample(TEXTS, 12)}.values()  # which of two equal ones is found is not said
    for t in list(one)[:9]:
        out.append({"id": first + len(out), "content": t, "single_word": r.random() < 0.4, "lstrip": r.random() < 0.3, "rstrip": r.random() < 0.3,
                    "normalized": r.random() < 0.5, "special": r.random() < 0.3})
    if any(not x["content"].strip() for x in out):  # white space that two tokens claim: the library gives it to both, and the rest of it twice
        for x in out:
            x["lstrip"] = x["rstrip"] = False
            x["single_word"] &= bool(x["content"].strip())
    return out


def make(base, r, n):
    j = json.loads((here / f"tok-{base}/tokenizer.json").read_text())
    vocab = j["model"]["vocab"]
    known = set(vocab) if base != "bert" else set()
    first = max(max(vocab.values()), max(a["id"] for a in j["added_tokens"])) + 1
    a = [x for x in added(r, first) if x["content"] not in known]
    for i, x in enumerate(a):
        x["id"] = first + i
    j["added_tokens"] += a
    t = Tokenizer.from_str(json.dumps(j))
    cases = []
    while len(cases) < n:
        s = "".join(r.choice(PARTS) for _ in range(r.randrange(1, 14)))
        cases.append([s, t.encode(s, add_special_tokens=False).ids])
    return j, {"base": base, "added": a, "cases": cases}


if len(sys.argv) == 1:
    for base in BASES:
        r = random.Random(base)
        out = [make(base, r, 40)[1] for _ in range(3)]
        (here / f"added/{base}.json").write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
    sys.exit()
bad = 0
for base in BASES:
    r, differ, n, shown = random.Random(f"{base}{sys.argv[1]}"), 0, int(os.environ.get("TEXTS", "2000")), 0
    for _ in range(n // 40):
        j, out = make(base, r, 40)
        with tempfile.TemporaryDirectory() as d:
            d = pathlib.Path(d)
            (d / "tokenizer.json").write_text(json.dumps(j))
            (d / "tokenizer_config.json").write_text((here / f"tok-{base}/tokenizer_config.json").read_text())
            subprocess.run([os.environ["ASHLAR"], "convert", d, "-o", d / "v.gguf", "--vocab-only"], check=True, capture_output=True)
            for s, ids in out["cases"]:
                p = subprocess.run([os.environ["ASHLAR"], "tokenize", d / "v.gguf", "--no-bos"], input=s.encode(), capture_output=True)
                got = list(map(int, p.stdout.split()))
                if got != ids:
                    differ += 1
                    if shown < 5:
                        shown += 1
                        print(f"  {s!r}: {got} for {ids} with {[x for x in out['added'] if x['content'][0] in s or x['normalized']]}")
    print(f"{base}: {n} texts, {differ} differ")
    bad += differ
sys.exit(bad != 0)
