#!/usr/bin/env python3
"""A GGUF with the shape of Gemma 4 E2B and random weights: for measuring memory and load at real scale, where the real file is not at hand.

35 layers, 1536 wide, 8 heads on 1 KV head, head sizes 256 (window 512) and 512 (every fifth layer), FFN 6144 then 12288, the last 20 layers
share K and V, a per-layer embedding table of 8960 x 262144. 601 tensors; in the types of Q3_K_S the tensors have 2951.05 MiB, as the published
file. Blocks hold random codes under constant scales, so that activations stay finite; the text it writes is noise.

usage: e2b_shape.py OUT.gguf [--blocks TYPE] [--head TYPE] [--table TYPE] [--vocab GEMMA.gguf] [--seed N]
  --blocks   type of the layers' matrices: Q3_K (default), Q2_K, Q4_K, IQ2_XXS, Q8_0, F16
  --head     type of token_embd, the tied head: Q6_K (default), Q4_K, Q8_0, F16
  --table    type of per_layer_token_embd: Q6_K (default), Q4_K, F16
  --vocab    a GGUF with Gemma's 262,144 tokens: they become the vocabulary, with every split of a token into two tokens as a merge, which is
             the size of the real tokenizer; without it tokens are made up and merges few
Standard library only."""
import argparse
import mmap
import random
import struct

N_LAYER, N_EMBD, N_VOCAB, N_PLE, N_HEAD, WINDOW = 35, 1536, 262144, 256, 8, 512
SHARED = 20
full = lambda il: il % 5 == 4
head_dim = lambda il: 512 if full(il) else 256
n_ff = lambda il: 6144 if il < 15 else 12288

# name: (GGUF id, weights per block, bytes per block, where the f16 scales lie and what they are for unit codes)
TYPES = {
    "F32": (0, 1, 4, ()),
    "F16": (1, 1, 2, ()),
    "BF16": (30, 1, 2, ()),
    "Q8_0": (8, 32, 34, ((0, 1 / 74),)),
    "Q2_K": (10, 256, 84, ((80, 1 / 11), (82, 1 / 11))),
    "Q3_K": (11, 256, 110, ((108, 1 / 42),)),
    "Q4_K": (12, 256, 144, ((0, 1 / 290), (2, 1 / 40))),
    "Q6_K": (14, 256, 210, ((208, 1 / 1370),)),
    "IQ2_XXS": (16, 256, 66, ((0, 1 / 28),)),
}


def rows_of(name, rng, rms):
    """About a megabyte of random blocks of a type, with scales for weights of this root mean square."""
    _, _, size, scales = TYPES[name]
    n = (1 << 20) // size
    if name == "F32":
        return struct.pack("<%df" % n, *(rng.gauss(0, rms) for _ in range(n)))
    if name == "F16":
        return struct.pack("<%de" % n, *(rng.gauss(0, rms) for _ in range(n)))
    if name == "BF16":
        return b"".join(struct.pack("<f", rng.gauss(0, rms))[2:] for _ in range(n))
    b = bytearray(rng.randbytes(n * size))
    for i in range(n):
        for at, unit in scales:
            struct.pack_into("<e", b, i * size + at, rms * unit)
    return bytes(b)


def tensors(a):
    """(name, ne, type, constant or rms) in file order"""
    out = [("rope_freqs.weight", (256,), "F32", "freqs"), ("token_embd.weight", (N_EMBD, N_VOCAB), a.head, N_EMBD ** -0.5),
           ("per_layer_token_embd.weight", (N_PLE * N_LAYER, N_VOCAB), a.table, N_PLE ** -0.5)]
    for il in range(N_LAYER):
        q, kv, ff = N_HEAD * head_dim(il), head_dim(il), n_ff(il)
        vec = lambda n, s: ("blk.%d.%s.weight" % (il, s), (n,), "F32", 1.0)
        mat = lambda k, n, s: ("blk.%d.%s.weight" % (il, s), (k, n), a.blocks, k ** -0.5)
        out += [vec(N_EMBD, "attn_norm"), vec(1, "layer_output_scale"), mat(ff, N_EMBD, "ffn_down"), mat(N_EMBD, ff, "ffn_gate"), mat(N_EMBD, ff, "ffn_up"),
                mat(N_EMBD, N_PLE, "inp_gate"), mat(N_PLE, N_EMBD, "proj"), vec(N_EMBD, "post_attention_norm"), vec(N_EMBD, "post_ffw_norm"),
                vec(N_EMBD, "post_norm"), vec(N_EMBD, "ffn_norm"), vec(kv, "attn_k_norm"), mat(N_EMBD, kv, "attn_k"), mat(q, N_EMBD, "attn_output"),
                vec(kv, "attn_q_norm"), mat(N_EMBD, q, "attn_q"), mat(N_EMBD, kv, "attn_v")]
    return out + [("output_norm.weight", (N_EMBD,), "F32", 1.0), ("per_layer_model_proj.weight", (N_EMBD, N_PLE * N_LAYER), "BF16", N_EMBD ** -0.5),
                  ("per_layer_proj_norm.weight", (N_PLE,), "F32", 1.0)]


def vocabulary(path):
    """tokens and types of a GGUF"""
    with open(path, "rb") as f:
        b = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    pos = 4
    def u(f):
        nonlocal pos
        v = struct.unpack_from("<" + f, b, pos)
        pos += struct.calcsize("<" + f)
        return v[0] if len(v) == 1 else v
    def s():
        nonlocal pos
        n = u("Q")
        pos += n
        return b[pos - n:pos]
    def value(t):
        if t == 8:
            return s()
        if t == 9:
            e, n = u("I"), u("Q")
            return [s() for _ in range(n)] if e == 8 else list(u("%d%s" % (n, "BbHhIif?__QqD"[e])))
        return u("BbHhIif?__Qqd"[t])
    u("I")
    _, nk = u("QQ")
    kv = {}
    for _ in range(nk):
        k = s().decode()
        kv[k] = value(u("I"))
    return kv["tokenizer.ggml.tokens"], kv["tokenizer.ggml.token_type"]


def made_up():
    special = [b"<pad>", b"<eos>", b"<bos>", b"<unk>", b"<mask>", b"<|turn>", b"<turn|>"]
    tokens = special + [b"<0x%02X>" % i for i in range(256)]
    types = [3] * len(special) + [6] * 256
    tokens += [b"t%d" % i for i in range(N_VOCAB - len(tokens))]
    return tokens, types + [1] * (N_VOCAB - len(types))


def merges_of(tokens, types):
    known = {t for t, k in zip(tokens, types) if k == 1}
    out = []
    for t, k in zip(tokens, types):
        if k != 1 or len(t) > 64:
            continue
        for i in range(1, len(t)):
            if t[i] & 0xC0 != 0x80 and t[:i] in known and t[i:] in known:
                out.append(t[:i] + b" " + t[i:])
    return out


def main():
    ap = argparse.ArgumentParser(usage=__doc__)
    ap.add_argument("out")
    ap.add_argument("--blocks", default="Q3_K", choices=TYPES)
    ap.add_argument("--head", default="Q6_K", choices=TYPES)
    ap.add_argument("--table", default="Q6_K", choices=TYPES)
    ap.add_argument("--vocab")
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    rng = random.Random(a.seed)
    tokens, types = vocabulary(a.vocab) if a.vocab else made_up()
    if len(tokens) != N_VOCAB:
        ap.error("%s has %d tokens, not %d" % (a.vocab, len(tokens), N_VOCAB))
    merges = merges_of(tokens, types)

    kv = []
    text = lambda s: struct.pack("<Q", len(s)) + s
    def put(key, kind, data):
        kv.append(text(key.encode()) + struct.pack("<I", kind) + data)
    def u32(key, v): put(key, 4, struct.pack("<I", v))
    def f32(key, v): put(key, 6, struct.pack("<f", v))
    def boolean(key, v): put(key, 7, struct.pack("<?", v))
    def string(key, v): put(key, 8, text(v))
    def array(key, kind, n, data): put(key, 9, struct.pack("<IQ", kind, n) + data)
    g = "gemma4."
    string("general.architecture", b"gemma4")
    string("general.name", b"random weights in the shape of Gemma 4 E2B")
    u32(g + "block_count", N_LAYER)
    u32(g + "context_length", 131072)
    u32(g + "embedding_length", N_EMBD)
    u32(g + "attention.head_count", N_HEAD)
    u32(g + "attention.head_count_kv", 1)
    f32(g + "attention.layer_norm_rms_epsilon", 1e-6)
    f32(g + "rope.freq_base", 1e6)
    f32(g + "rope.freq_base_swa", 1e4)
    f32(g + "final_logit_softcapping", 30)
    u32(g + "attention.sliding_window", WINDOW)
    u32(g + "attention.shared_kv_layers", SHARED)
    u32(g + "embedding_length_per_layer_input", N_PLE)
    array(g + "attention.sliding_window_pattern", 7, N_LAYER, bytes(not full(il) for il in range(N_LAYER)))
    for k, v in (("key_length", 512), ("value_length", 512), ("key_length_swa", 256), ("value_length_swa", 256)):
        u32(g + "attention." + k, v)
    array(g + "feed_forward_length", 5, N_LAYER, struct.pack("<%di" % N_LAYER, *(n_ff(il) for il in range(N_LAYER))))
    u32(g + "rope.dimension_count", 512)
    u32(g + "rope.dimension_count_swa", 256)
    u32("general.quantization_version", 2)
    string("tokenizer.ggml.model", b"gemma4")
    array("tokenizer.ggml.tokens", 8, N_VOCAB, b"".join(map(text, tokens)))
    array("tokenizer.ggml.scores", 6, N_VOCAB, struct.pack("<f", -1000) * N_VOCAB)
    array("tokenizer.ggml.token_type", 5, N_VOCAB, struct.pack("<%di" % N_VOCAB, *types))
    array("tokenizer.ggml.merges", 8, len(merges), b"".join(map(text, merges)))
    for k, v in (("bos", 2), ("eos", 1), ("unknown", 3), ("padding", 0)):
        u32("tokenizer.ggml.%s_token_id" % k, v)
    boolean("tokenizer.ggml.add_space_prefix", False)
    boolean("tokenizer.ggml.add_bos_token", True)

    infos, offset, plan = [], 0, []
    for name, ne, kind, fill in tensors(a):
        n = 1
        for d in ne:
            n *= d
        ident, per, size, _ = TYPES[kind]
        n_bytes = n // per * size
        infos.append(text(name.encode()) + struct.pack("<I%dQIQ" % len(ne), len(ne), *ne, ident, offset))
        plan.append((n_bytes, kind, fill))
        offset += (n_bytes + 31) // 32 * 32
    pools = {}
    with open(a.out, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(kv)) + b"".join(kv) + b"".join(infos))
        f.write(bytes(-f.tell() % 32))
        for n_bytes, kind, fill in plan:
            if fill == "freqs":
                f.write(struct.pack("<256f", *[1.0] * 64, *[1e30] * 192))
                continue
            if fill == 1.0:
                f.write(struct.pack("<f", 1.0) * (n_bytes // 4) + bytes(-n_bytes % 32))
                continue
            pool = pools.setdefault((kind, fill), rows_of(kind, rng, fill))
            size, left, at = TYPES[kind][2], n_bytes, 0
            while left:
                at = rng.randrange(len(pool) // size) * size  # another start each time, so that no two stretches line up
                k = min(left, len(pool) - at)
                f.write(memoryview(pool)[at:at + k])
                left -= k
            f.write(bytes(-n_bytes % 32))
    total = sum(p[0] for p in plan)
    print("%s: %d tensors, %.2f MiB of tensors, %d merges" % (a.out, len(plan), total / 2 ** 20, len(merges)))


main()
