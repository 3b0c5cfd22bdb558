#!/usr/bin/env python3
"""Headers of made-up models for tests/long/presets.sh: right shapes and metadata, no data (sparse files).

usage: preset_headers.py FOLDER          write the headers
       preset_headers.py --imatrix MODEL.gguf OUT.gguf      an importance matrix of ones for a model's block matrices
Needs numpy and gguf."""
import math
import os
import sys

import numpy as np
from gguf import GGUFReader, GGUFWriter


def model(path, arch, d, ff, n_layer, heads, kv, head_dim=0, tied=False, experts=0, fused=False, ple=0):
    w = GGUFWriter(path, arch)
    hd = head_dim or d // heads
    w.add_block_count(n_layer), w.add_embedding_length(d), w.add_feed_forward_length(ff), w.add_context_length(2048)
    w.add_head_count(heads), w.add_head_count_kv(kv), w.add_layer_norm_rms_eps(1e-5)
    if experts:
        w.add_expert_count(experts), w.add_expert_used_count(2)
    tensors = [("token_embd", d, 512)]
    if not tied:
        tensors.append(("output", d, 512))
    tensors.append(("output_norm", d))
    for i in range(n_layer):
        b = f"blk.{i}."
        tensors.append((b + "attn_norm", d))
        if fused:
            tensors.append((b + "attn_qkv", d, hd * (heads + 2 * kv)))
        else:
            tensors += [(b + "attn_q", d, hd * heads), (b + "attn_k", d, hd * kv), (b + "attn_v", d, hd * kv)]
        tensors += [(b + "attn_output", hd * heads, d), (b + "ffn_norm", d)]
        if experts:
            tensors.append((b + "ffn_gate_inp", d, experts))
        e, x = ((experts,), "_exps") if experts else ((), "")
        tensors += [(b + "ffn_gate" + x, d, ff, *e), (b + "ffn_up" + x, d, ff, *e), (b + "ffn_down" + x, ff, d, *e)]
    total = 0
    for name, *ne in tensors:
        wide = len(ne) == 1 or "gate_inp" in name
        size = math.prod(ne) * (4 if wide else 2)
        w.add_tensor_info(name + ".weight", tuple(reversed(ne)), np.dtype(np.float32 if wide else np.float16), size)
        total += (size + 31) // 32 * 32
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_ti_data_to_file()
    w.close()
    os.truncate(path, (os.path.getsize(path) + 31) // 32 * 32 + total)


def imatrix(src, out):
    w = GGUFWriter(out, "llama")
    w.kv_data[0].pop("general.architecture", None)
    w.add_type("imatrix"), w.add_array("imatrix.datasets", ["ones"]), w.add_uint32("imatrix.chunk_count", 1), w.add_uint32("imatrix.chunk_size", 512)
    for t in GGUFReader(src).tensors:
        ne = [int(x) for x in t.shape]
        if len(ne) < 2 or not t.name.startswith("blk."):
            continue
        n = ne[2] if len(ne) > 2 else 1
        w.add_tensor(t.name + ".in_sum2", np.ones((n, ne[0]), np.float32))
        w.add_tensor(t.name + ".counts", np.ones((n, 1), np.float32))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file()
    w.close()


def main():
    if sys.argv[1] == "--imatrix":
        return imatrix(sys.argv[2], sys.argv[3])
    p = sys.argv[1]
    model(p + "/mha32.gguf", "llama", 512, 1024, 32, 8, 8)
    model(p + "/gqa4-28.gguf", "llama", 512, 1024, 28, 8, 2)
    model(p + "/tied30.gguf", "llama", 512, 1024, 30, 8, 4, tied=True)
    model(p + "/moe8.gguf", "llama", 512, 512, 32, 8, 2, experts=8)
    model(p + "/moe4.gguf", "llama", 512, 512, 16, 8, 4, experts=4)
    model(p + "/moe16.gguf", "llama", 512, 512, 16, 8, 8, experts=16)
    model(p + "/deep80-gqa8.gguf", "llama", 512, 512, 80, 64, 8, head_dim=8)
    model(p + "/deep80-mha.gguf", "llama", 512, 512, 80, 8, 8)
    model(p + "/qwen2-896.gguf", "qwen2", 896, 4864, 24, 14, 2)
    model(p + "/qwen2-80.gguf", "qwen2", 512, 512, 80, 8, 2)
    model(p + "/gemma3-1152.gguf", "gemma3", 1152, 2304, 26, 4, 1, head_dim=256, tied=True)
    model(p + "/phi3-fused.gguf", "phi3", 512, 1024, 32, 8, 8, fused=True)
    model(p + "/rows-528.gguf", "llama", 528, 1040, 16, 11, 11)
    model(p + "/rows-576.gguf", "llama", 576, 1600, 17, 9, 3)
    model(p + "/layers-5.gguf", "llama", 512, 1024, 5, 8, 8)


main()
