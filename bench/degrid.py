#!/usr/bin/env python3
"""Take a 4-bit GGUF off its grid: same function, other weights, written as F16.

A model that was quantized before looks lossless when it is quantized to its own type again, which no float model does. Random
channel scales move the weights off that grid while every product stays the same:

  a norm's weight takes 1/s per channel, the matrices that read it take s per column        (attention input, FFN input)
  up takes t per row, down takes 1/t per column; V takes v per row, the output projection 1/v per column

s, t, v are 2^u with u uniform in [-0.5, 0.5]. Architectures: llama, gemma3.
usage: degrid.py IN.gguf OUT.gguf [SEED=1]          needs the packages numpy and gguf
"""
import sys

import gguf
import numpy as np

src, dst = sys.argv[1:3]
seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
model = gguf.GGUFReader(src)


def key(name):
    field = model.fields.get(name)
    return field.contents() if field else None


arch = key("general.architecture")
if arch not in ("llama", "gemma3"):
    sys.exit(f"degrid: {arch} is not supported")
n_embd, n_ff, n_head = (key(f"{arch}.{k}") for k in ("embedding_length", "feed_forward_length", "attention.head_count"))
n_head_kv = key(f"{arch}.attention.head_count_kv") or n_head
head_dim = key(f"{arch}.attention.key_length") or n_embd // n_head
rng = np.random.default_rng(seed)
layers = [{part: np.exp2(rng.uniform(-0.5, 0.5, size)).astype(np.float32)
           for part, size in (("att", n_embd), ("ffn", n_embd), ("mid", n_ff), ("v", n_head_kv * head_dim))}
          for _ in range(key(f"{arch}.block_count"))]


def rescale(leaf, a, s):
    if leaf == "attn_norm": return a / s["att"]
    if leaf == "ffn_norm": return a / s["ffn"]
    if leaf in ("attn_q", "attn_k"): return a * s["att"]
    if leaf == "attn_v": return a * s["att"] * s["v"][:, None]
    if leaf == "attn_output":  # every query head of a group reads that group's V
        v = np.repeat(s["v"].reshape(n_head_kv, head_dim), n_head // n_head_kv, axis=0)
        return a / v.reshape(-1)
    if leaf == "ffn_gate": return a * s["ffn"]
    if leaf == "ffn_up": return a * s["ffn"] * s["mid"][:, None]
    if leaf == "ffn_down": return a / s["mid"]
    return a


out = gguf.GGUFWriter(dst, arch)
for field in model.fields.values():
    if field.name.startswith("GGUF.") or field.name == "general.architecture":
        continue
    kind = field.types[0]
    sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
    out.add_key_value(field.name, 1 if field.name == "general.file_type" else field.contents(), kind, sub)
for t in model.tensors:
    a = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(x) for x in reversed(t.shape)])
    part = t.name.split(".")
    if part[0] == "blk":
        a = rescale(part[2], a, layers[int(part[1])])
    out.add_tensor(t.name, a.astype(np.float32 if a.ndim == 1 else np.float16))
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
print(f"{dst}: {arch}, seed {seed}, F16")
