#!/usr/bin/env python3
"""encoder_ref.py - a second implementation of the bert and nomic-bert forward pass, in numpy float64, straight from the
papers' description; it shares nothing with the engine.

  encoder_ref.py MODEL.gguf 1,2,3 [1,4 ...]      print cosine-ready vectors (mean pooled, length 1), one row each
  encoder_ref.py --make-nomic DIR                write the golden case nomic-bert: tiny random weights, exact in 16 bits

Post-norm transformer (Devlin et al. 2018); nomic-bert (Nussbaum et al. 2024): no learned positions but rotary ones on
half-split pairs, SwiGLU instead of GELU, no biases in the linear layers."""
import json
import os
import sys

import gguf
import numpy as np
from math import erf

verf = np.vectorize(erf)


def load(path):
    r = gguf.GGUFReader(path)
    kv = {k: f.contents() for k, f in r.fields.items() if not k.startswith("GGUF.")}
    w = {t.name: gguf.quants.dequantize(np.array(t.data), t.tensor_type).astype(np.float64) for t in r.tensors}
    return kv, w


def layer_norm(x, w, b, eps):
    m = x.mean(-1, keepdims=True)
    v = ((x - m) ** 2).mean(-1, keepdims=True)
    return (x - m) / np.sqrt(v + eps) * w + b


def rotate(x, base):
    """x[n, heads, hd]: pair (i, i + hd/2) turns by pos * base^(-2i/hd)."""
    n, _, hd = x.shape
    a = np.arange(n)[:, None] * base ** (-2.0 * np.arange(hd // 2) / hd)[None, :]
    c, s = np.cos(a)[:, None, :], np.sin(a)[:, None, :]
    x0, x1 = x[..., : hd // 2], x[..., hd // 2 :]
    return np.concatenate([x0 * c - x1 * s, x1 * c + x0 * s], -1)


def forward(kv, w, tokens):
    arch = kv["general.architecture"]
    heads, eps = kv[arch + ".attention.head_count"], kv[arch + ".attention.layer_norm_epsilon"]
    n = len(tokens)
    x = w["token_embd.weight"][tokens] + w["token_types.weight"][0]
    if arch == "bert":
        x = x + w["position_embd.weight"][:n]
    x = layer_norm(x, w["token_embd_norm.weight"], w["token_embd_norm.bias"], eps)
    e = x.shape[1]
    hd = e // heads
    layers = [x]

    def linear(name, y):
        out = y @ w[name + ".weight"].T
        return out + w[name + ".bias"] if name + ".bias" in w else out

    for il in range(kv[arch + ".block_count"]):
        p = f"blk.{il}."
        if p + "attn_qkv.weight" in w:
            q, k, v = np.split(linear(p + "attn_qkv", x), 3, axis=1)
        else:
            q, k, v = (linear(p + "attn_" + c, x) for c in "qkv")
        q, k, v = (y.reshape(n, heads, hd) for y in (q, k, v))
        if arch == "nomic-bert":
            base = kv[arch + ".rope.freq_base"]
            q, k = rotate(q, base), rotate(k, base)
        s = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(hd)
        s = np.exp(s - s.max(-1, keepdims=True))
        s = s / s.sum(-1, keepdims=True)
        a = np.einsum("hqk,khd->qhd", s, v).reshape(n, e)
        x = layer_norm(x + linear(p + "attn_output", a), w[p + "attn_output_norm.weight"], w[p + "attn_output_norm.bias"], eps)
        u = linear(p + "ffn_up", x)
        if arch == "nomic-bert":
            g = linear(p + "ffn_gate", x)
            u = u * (g / (1 + np.exp(-g)))
        else:
            u = u * 0.5 * (1 + verf(u / np.sqrt(2)))
        x = layer_norm(x + linear(p + "ffn_down", u), w[p + "layer_output_norm.weight"], w[p + "layer_output_norm.bias"], eps)
        layers.append(x)
    pooled = x.mean(0)
    return x, pooled / np.linalg.norm(pooled), np.stack(layers)


def make_nomic(out):
    rng = np.random.default_rng(1011)
    arch, L, E, F, V, heads = "nomic-bert", 3, 64, 96, 256, 4
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, "model.gguf")
    g = gguf.GGUFWriter(path, arch)
    g.add_type("model")
    g.add_name("tiny-nomic-bert")
    g.add_block_count(L)
    g.add_context_length(128)
    g.add_embedding_length(E)
    g.add_feed_forward_length(F)
    g.add_head_count(heads)
    g.add_layer_norm_eps(1e-12)
    g.add_rope_freq_base(1000.0)
    g.add_causal_attention(False)
    g.add_pooling_type(gguf.PoolingType.MEAN)

    def mat(name, rows, cols, scale):
        g.add_tensor(name, (rng.standard_normal((rows, cols)) * scale).astype(np.float16))

    def vec(name, mean):
        g.add_tensor(name, (mean + 0.1 * rng.standard_normal(E)).astype(np.float16).astype(np.float32))

    mat("token_embd.weight", V, E, 0.5)
    mat("token_types.weight", 2, E, 0.2)
    vec("token_embd_norm.weight", 1), vec("token_embd_norm.bias", 0)
    for il in range(L):
        p = f"blk.{il}."
        mat(p + "attn_qkv.weight", 3 * E, E, 0.14)
        mat(p + "attn_output.weight", E, E, 0.15)
        mat(p + "ffn_gate.weight", F, E, 0.15)
        mat(p + "ffn_up.weight", F, E, 0.15)
        mat(p + "ffn_down.weight", E, F, 0.15)
        for n in ("attn_output_norm", "layer_output_norm"):
            vec(p + n + ".weight", 1), vec(p + n + ".bias", 0)
    g.write_header_to_file()
    g.write_kv_data_to_file()
    g.write_tensors_to_file()
    g.close()
    kv, w = load(path)
    cases = {"name": "nomic-bert", "provenance": "encoder_ref.py (numpy float64); no other implementation was at hand", "seed": 1011, "sequences": []}
    for i, n in enumerate((12, 80)):
        t = [int(x) for x in rng.integers(0, V, n)]
        h, pooled, layers = forward(kv, w, t)
        h.astype("<f4").tofile(os.path.join(out, f"hidden{i}.f32"))
        pooled.astype("<f4").tofile(os.path.join(out, f"embedding{i}.f32"))
        if i == 0:
            layers.astype("<f4").tofile(os.path.join(out, "layers0.f32"))
        cases["sequences"].append({"tokens": t, "rows": n, "cols": E, "hidden_file": f"hidden{i}.f32", "embedding_file": f"embedding{i}.f32"})
    with open(os.path.join(out, "cases.json"), "w") as f:
        json.dump(cases, f)


if sys.argv[1] == "--make-nomic":
    make_nomic(sys.argv[2])
else:
    kv, w = load(sys.argv[1])
    for arg in sys.argv[2:]:
        print(" ".join(f"{v:.9g}" for v in forward(kv, w, [int(t) for t in arg.split(",")])[1]))
