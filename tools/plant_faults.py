#!/usr/bin/env python3
"""plant_faults.py - one fault of a given kind, planted by a seed into a good GGUF file: what `ashlar doctor` is measured with.

  plant_faults.py --list
  plant_faults.py GOOD.gguf OUT.gguf --kind zero_rows --seed 1 [--imatrix GOOD.imatrix]

Prints one line that says what was done. Exit code 3: this file cannot have that fault (no such tensor, no template, ...). Kinds marked `run` need a
trained model of 4,096 words or more (a forward pass tells), `trained` one whose weights were trained. The second list holds faults that no file shows
by itself; they are planted to say so, not to be found. Python's standard library only; the source is never written to."""
import argparse
import array
import random
import struct
import sys

# type id: (name, values per block, bytes per block, offset of a float16 scale or None)
TYPES = {0: ("F32", 1, 4, None), 1: ("F16", 1, 2, None), 2: ("Q4_0", 32, 18, 0), 3: ("Q4_1", 32, 20, 0), 6: ("Q5_0", 32, 22, 0), 7: ("Q5_1", 32, 24, 0),
         8: ("Q8_0", 32, 34, 0), 10: ("Q2_K", 256, 84, 80), 11: ("Q3_K", 256, 110, 108), 12: ("Q4_K", 256, 144, 0), 13: ("Q5_K", 256, 176, 0),
         14: ("Q6_K", 256, 210, 208), 16: ("IQ2_XXS", 256, 66, 0), 17: ("IQ2_XS", 256, 74, 0), 18: ("IQ3_XXS", 256, 98, 0), 19: ("IQ1_S", 256, 50, 0),
         20: ("IQ4_NL", 32, 18, 0), 21: ("IQ3_S", 256, 110, 0), 22: ("IQ2_S", 256, 82, 0), 23: ("IQ4_XS", 256, 136, 0), 29: ("IQ1_M", 256, 56, None),
         30: ("BF16", 1, 2, None), 34: ("TQ1_0", 256, 54, 52), 35: ("TQ2_0", 256, 66, 64), 39: ("MXFP4", 32, 17, None)}
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class No(Exception):
    """This file cannot have this fault."""


class Tensor:
    def __init__(self, name, dims, typ, data):
        self.name, self.dims, self.type, self.data = name, dims, typ, data

    @property
    def row_bytes(self):
        _, k, b, _ = TYPES[self.type]
        return self.dims[0] // k * b

    @property
    def n_rows(self):
        n = 1
        for d in self.dims[1:]:
            n *= d
        return n

    def edit(self):
        if not isinstance(self.data, bytearray):
            self.data = bytearray(self.data)
        return self.data


class Gguf:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.raw = memoryview(f.read())
        self.pos = 0
        magic, self.version, nt, nk = self.take("<4sIQQ")
        if magic != b"GGUF":
            raise No("no GGUF file")
        self.kv, self.tensors, info = {}, [], []
        for _ in range(nk):
            key = self.string().decode()
            t, = self.take("<I")
            self.kv[key] = (t, self.value(t))
        for _ in range(nt):
            name = self.string().decode()
            nd, = self.take("<I")
            dims = list(self.take("<%dQ" % nd))
            info.append((name, dims) + self.take("<IQ"))
        self.align = self.kv["general.alignment"][1] if "general.alignment" in self.kv else 32
        self.start = -(-self.pos // self.align) * self.align
        self.header_bytes = self.pos
        for name, dims, typ, off in info:
            if typ not in TYPES:
                raise No("type %d" % typ)
            t = Tensor(name, dims, typ, None)
            n = t.row_bytes * t.n_rows
            t.data = self.raw[self.start + off:self.start + off + n]
            self.tensors.append(t)

    def take(self, fmt):
        v = struct.unpack_from(fmt, self.raw, self.pos)
        self.pos += struct.calcsize(fmt)
        return v

    def string(self):
        n, = self.take("<Q")
        s = bytes(self.raw[self.pos:self.pos + n])
        self.pos += n
        return s

    def value(self, t):
        if t == STRING:
            return self.string()
        if t == ARRAY:
            e, n = self.take("<IQ")
            if e == STRING:
                return (e, [self.string() for _ in range(n)])
            return (e, list(self.take("<%d%s" % (n, SCALARS[e]))))
        return self.take("<" + SCALARS[t])[0]

    # ---- what the kinds ask for ----
    def arch(self):
        return self.kv["general.architecture"][1].decode() if "general.architecture" in self.kv else ""

    def find(self, name):
        for t in self.tensors:
            if t.name == name:
                return t
        return None

    def pick(self, rng, ok=lambda t: True, why="no such tensor"):
        c = [t for t in self.tensors if ok(t)]
        if not c:
            raise No(why)
        return rng.choice(c)

    def matrix(self, rng, ok=lambda t: True):
        return self.pick(rng, lambda t: t.name.startswith("blk.") and len(t.dims) >= 2 and t.n_rows >= 8 and t.dims[0] >= 32 and ok(t), "no matrix")

    def n_layer(self):
        n = 1 + max([int(t.name.split(".")[1]) for t in self.tensors if t.name.startswith("blk.")], default=-1)
        if n < 2:
            raise No("fewer than two layers")
        return n

    def key(self, leaf):
        k = self.arch() + "." + leaf
        if k not in self.kv:
            raise No("no key " + k)
        return k

    def set(self, key, value):
        if key not in self.kv:
            raise No("no key " + key)
        self.kv[key] = (self.kv[key][0], value)

    def tokens(self):
        if "tokenizer.ggml.tokens" not in self.kv:
            raise No("no vocabulary")
        return self.kv["tokenizer.ggml.tokens"][1][1]

    def types(self):
        self.tokens()
        if "tokenizer.ggml.token_type" not in self.kv:
            raise No("no token types")
        return self.kv["tokenizer.ggml.token_type"][1][1]

    def template(self):
        if "tokenizer.chat_template" not in self.kv:
            raise No("no template")
        return self.kv["tokenizer.chat_template"][1]

    # ---- writing ----
    def header(self):
        out = bytearray(struct.pack("<4sIQQ", b"GGUF", self.version, len(self.tensors), len(self.kv)))

        def s(b):
            out.extend(struct.pack("<Q", len(b)) + b)

        for k, (t, v) in self.kv.items():
            s(k.encode())
            out.extend(struct.pack("<I", t))
            if t == STRING:
                s(v)
            elif t == ARRAY:
                e, items = v
                out.extend(struct.pack("<IQ", e, len(items)))
                if e == STRING:
                    for i in items:
                        s(i)
                else:
                    out.extend(struct.pack("<%d%s" % (len(items), SCALARS[e]), *items))
            else:
                out.extend(struct.pack("<" + SCALARS[t], v))
        off, self.at = 0, []
        for t in self.tensors:
            s(t.name.encode())
            out.extend(struct.pack("<I%dQIQ" % len(t.dims), len(t.dims), *t.dims, t.type, off))
            self.at.append(off)
            off += -(-len(t.data) // self.align) * self.align
        out.extend(bytes(-len(out) % self.align))
        self.at = [len(out) + a for a in self.at]
        return out

    def whole(self):
        parts = [self.header()]
        for t in self.tensors:
            parts.append(bytes(t.data))
            parts.append(bytes(-len(t.data) % self.align))
        return bytearray(b"".join(parts))

    def write(self, path):
        with open(path, "wb") as f:
            f.write(self.header())
            for t in self.tensors:
                f.write(t.data)
                f.write(bytes(-len(t.data) % self.align))


KINDS, UNSEEN = {}, {}


def kind(text, needs=""):
    def add(f):
        KINDS[f.__name__] = (f, text, needs)
        return f
    return add


def unseen(text, needs=""):
    def add(f):
        UNSEEN[f.__name__] = (f, text, needs)
        return f
    return add


class Raw(Exception):
    """The file's bytes instead of a changed model: (bytes, sentence)."""


def some(g):
    if len(g.tensors) < 2:
        raise No("no tensors")


def bits(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


# ---- the container ----
@kind("the file is cut inside of the tensor data")
def cut_data(g, rng):
    some(g)
    n = len(g.raw)
    at = rng.randrange(g.start + 1, n)
    raise Raw(g.raw[:at], "cut at byte %d of %d" % (at, n))


@kind("the last bytes are missing")
def cut_last(g, rng):
    some(g)
    whole = g.whole()
    last = g.at[-1] + len(g.tensors[-1].data)
    k = rng.choice([1, 2, 7, 16, 64])
    raise Raw(whole[:last - k], "%d bytes" % k)


@kind("the file is cut inside of the header")
def cut_header(g, rng):
    at = rng.randrange(24, g.header_bytes)
    raise Raw(g.raw[:at], "cut at byte %d of a header of %d" % (at, g.header_bytes))


@kind("the magic is another one")
def wrong_magic(g, rng):
    b = bytearray(g.raw)
    b[:4] = rng.choice([b"GGML", b"GGJT", b"FUGG", b"PK\x03\x04", b"<htm"])
    raise Raw(b, "%r" % bytes(b[:4]))


@kind("a count in the header is wrong")
def wrong_count(g, rng):
    b = bytearray(g.raw)
    at = rng.choice([8, 16])
    n, = struct.unpack_from("<Q", b, at)
    v = rng.choice([n + 1, max(0, n - 1) if n else 2, n + 1000, 1 << 60])
    struct.pack_into("<Q", b, at, v)
    raise Raw(b, "count at %d: %d instead of %d" % (at, v, n))


@kind("a tensor's offset points into another one")
def overlap(g, rng):
    some(g)
    b = g.whole()
    t = g.pick(rng, lambda t: t is not g.tensors[0])
    at = bytes(b).find(struct.pack("<Q", len(t.name)) + t.name.encode()) + 8 + len(t.name) + 4 + 8 * len(t.dims) + 4
    off, = struct.unpack_from("<Q", b, at)
    struct.pack_into("<Q", b, at, off - g.align)
    raise Raw(b, "%s at %d instead of %d" % (t.name, off - g.align, off))


@kind("bytes of the header are noise")
def noise_header(g, rng):
    b = bytearray(g.raw)
    at = rng.randrange(24, max(25, g.header_bytes - 64))
    n = min(rng.choice([16, 64, 512]), g.header_bytes - at)
    b[at:at + n] = bytes(rng.randrange(256) for _ in range(n))
    raise Raw(b, "%d bytes at %d" % (n, at))


def split(g, rng):
    some(g)
    half = rng.randrange(1, len(g.tensors))
    parts = []
    for i, ts in enumerate((g.tensors[:half], g.tensors[half:])):
        p = Gguf.__new__(Gguf)
        p.version, p.align, p.tensors = g.version, g.align, ts
        p.kv = dict(g.kv) if i == 0 else {}
        p.kv["split.no"], p.kv["split.count"], p.kv["split.tensors.count"] = (2, i), (2, 2), (5, len(g.tensors))
        parts.append(p)
    return parts


class Parts(Exception):
    """Two parts, to be written beside each other: (first, second or None, sentence)."""


@kind("a part of a split model is missing")
def part_missing(g, rng):
    a, _ = split(g, rng)
    raise Parts(a.whole(), None, "part 2 of 2")


@kind("a part of a split model is cut")
def part_cut(g, rng):
    a, b = split(g, rng)
    w = b.whole()
    last = b.at[-1] + len(b.tensors[-1].data)
    at = rng.randrange(len(b.header()), last)
    raise Parts(a.whole(), w[:at], "part 2 of 2 at byte %d of %d" % (at, len(w)))


@kind("a part of a split model is of another set")
def part_foreign(g, rng):
    a, b = split(g, rng)
    if rng.random() < 0.5:
        b.tensors = b.tensors[:-1] or b.tensors
        if len(b.tensors) + len(a.tensors) == len(g.tensors):
            b.kv["split.no"] = (2, 0)
    else:
        b.kv["split.count"] = (2, 3)
    raise Parts(a.whole(), b.whole(), "part 2 of 2")


# ---- shapes and hyperparameters ----
@kind("a tensor is missing", "model")
def tensor_missing(g, rng):
    t = g.pick(rng, lambda t: not t.name.startswith("rope_") and t.name != "output.weight" and not t.name.endswith(".bias"))
    g.tensors.remove(t)
    return t.name


@kind("a tensor has another's name or none that is known", "model")
def tensor_renamed(g, rng):
    t = g.pick(rng, lambda t: t.name != "output.weight" and not t.name.startswith("rope_"))
    old = t.name
    t.name = rng.choice([old + ".1", old.replace("weight", "wieght"), "model." + old, old.replace("blk.", "blk.9")])
    if t.name == old:
        t.name = old + "x"
    return "%s is %s" % (old, t.name)


@kind("rows and columns are exchanged in the header", "model")
def dims_exchanged(g, rng):
    t = g.pick(rng, lambda t: len(t.dims) == 2 and t.dims[0] != t.dims[1] and t.dims[1] % TYPES[t.type][1] == 0, "no matrix that is not square")
    t.dims = [t.dims[1], t.dims[0]]
    return t.name


@kind("the number of layers is wrong", "model")
def layers_wrong(g, rng):
    k = g.key("block_count")
    n = g.kv[k][1]
    v = rng.choice([n + 1, n - 1, n + rng.randrange(2, 9)])
    if v < 1:
        v = n + 1
    g.set(k, v)
    return "%d instead of %d" % (v, n)


@kind("the number of heads or a width is wrong (of a mixture of experts, perhaps one that nothing reads)", "model")
def width_wrong(g, rng):
    k = g.key(rng.choice(["feed_forward_length", "embedding_length", "attention.head_count_kv", "attention.head_count"]))
    t, n = g.kv[k]
    if t == ARRAY:
        raise No("an array")
    v = rng.choice([n * 2, n + 1, n * 3])
    g.set(k, v)
    return "%s %d instead of %d" % (k, v, n)


@kind("the base of the rotations is wild", "model")
def rope_wild(g, rng):
    k = g.key("rope.freq_base")
    v = rng.choice([0.0, 1.0, -10000.0, 1e20, float("nan")])
    g.set(k, v)
    return "%g" % v


@kind("the norms' epsilon is wild", "model")
def eps_wild(g, rng):
    k = g.key("attention.layer_norm_rms_epsilon")
    v = rng.choice([0.5, -1e-5, 0.01, float("nan"), 1e5])
    g.set(k, v)
    return "%g" % v


@kind("the architecture's name is missing or another one", "model")
def arch_wrong(g, rng):
    if rng.random() < 0.5:
        del g.kv["general.architecture"]
        return "no general.architecture"
    other = rng.choice([a for a in ("llama", "gemma3", "qwen3", "phi3", "bert", "qwen2") if a != g.arch()])
    g.set("general.architecture", other.encode())
    return other


# ---- values ----
def poke(t, rng, what):
    """A value of a float tensor, or the scale of a block, becomes `what`."""
    _, k, b, scale = TYPES[t.type]
    d = t.edit()
    i = rng.randrange(len(d) // b)
    if t.type == 0:
        struct.pack_into("<f", d, i * b, what)
    elif t.type == 1:
        struct.pack_into("<e", d, i * b, what)
    elif t.type == 30:
        struct.pack_into("<H", d, i * b, bits(what) >> 16)
    elif t.type == 39:
        d[i * b] = 255
    elif scale is None:
        raise No("no scale")
    else:
        struct.pack_into("<e", d, i * b + scale, what)
    return "%s, block %d" % (t.name, i)


@kind("a weight or a block's scale is NaN")
def nan_value(g, rng):
    return poke(g.pick(rng, lambda t: t.type != 29), rng, float("nan"))


@kind("a weight or a block's scale is infinite")
def inf_value(g, rng):
    return poke(g.pick(rng, lambda t: t.type not in (29, 39)), rng, rng.choice([float("inf"), float("-inf")]))


@kind("the highest bit of an exponent is flipped")
def exponent_bit(g, rng):
    t = g.matrix(rng, lambda t: t.type not in (29, 39))
    _, k, b, scale = TYPES[t.type]
    d = t.edit()
    fmt, top = ("<I", 1 << 30) if t.type == 0 else ("<H", 1 << 14)
    for _ in range(1000):
        at = rng.randrange(len(d) // b) * b + (scale or 0)
        v, = struct.unpack_from(fmt, d, at)
        mag = abs(struct.unpack("<f", struct.pack("<I", v))[0]) if t.type == 0 else abs(struct.unpack("<f", struct.pack("<I", v << 16))[0]) if t.type == 30 else abs(struct.unpack("<e", struct.pack("<H", v))[0])
        if 1e-3 < mag < 2:
            struct.pack_into(fmt, d, at, v ^ top)
            return "%s at byte %d" % (t.name, at)
    raise No("no plain value")


@kind("pages of the data are noise")
def noise_pages(g, rng):
    w = g.whole()
    t = g.matrix(rng, lambda t: len(t.data) >= 4096)
    i = g.tensors.index(t)
    n = min(len(t.data), 4096 * rng.choice([1, 2, 8]))
    at = g.at[i] + rng.randrange(len(t.data) - n + 1)
    w[at:at + n] = rng.randbytes(n)
    raise Raw(w, "%d bytes in %s" % (n, t.name))


@kind("a tensor's data are shifted by a byte")
def byte_shift(g, rng):
    t = g.matrix(rng)
    d = t.edit()
    t.data = d[1:] + d[:1] if rng.random() < 0.5 else d[-1:] + d[:-1]
    return t.name


@kind("a float tensor is of the other byte order")
def byte_order(g, rng):
    t = g.pick(rng, lambda t: t.type in (0, 1, 30) and len(t.data) >= 256, "no float tensor")
    a = array.array("I" if t.type == 0 else "H", bytes(t.data))
    a.byteswap()
    t.data = a.tobytes()
    return t.name


@kind("F16 data are called BF16, or the other way round")
def half_type(g, rng):
    t = g.matrix(rng, lambda t: t.type in (1, 30))
    t.type = 31 - t.type
    return t.name


@kind("a tensor is zeros")
def zero_tensor(g, rng):
    t = g.pick(rng, lambda t: not t.name.endswith(".bias") and t.type not in (39,))
    t.data = bytes(len(t.data))
    return t.name


@kind("rows of a layer's matrix are zeros")
def zero_rows(g, rng):
    t = g.matrix(rng, lambda t: t.type != 39)
    n = rng.choice([1, 3, t.n_rows // 4])
    r = rng.randrange(t.n_rows - n + 1)
    t.edit()[r * t.row_bytes:(r + n) * t.row_bytes] = bytes(n * t.row_bytes)
    return "%s, rows %d to %d" % (t.name, r, r + n - 1)


@kind("pages of the file are zeros: a hole of a download")
def zero_pages(g, rng):
    w = g.whole()
    t = g.matrix(rng, lambda t: len(t.data) >= 3 * 4096 and t.type != 39)
    i = g.tensors.index(t)
    first, last = -(-g.at[i] // 4096), (g.at[i] + len(t.data)) // 4096
    n = rng.choice([1, 2, 4])
    n = min(n, last - first)
    p = rng.randrange(first, last - n + 1)
    w[p * 4096:(p + n) * 4096] = bytes(n * 4096)
    raise Raw(w, "%d pages in %s" % (n, t.name))


@kind("a matrix holds one value")
def constant_matrix(g, rng):
    t = g.matrix(rng, lambda t: t.type in (0, 1, 8))
    if t.type == 0:
        t.data = struct.pack("<f", 0.01) * (len(t.data) // 4)
    elif t.type == 1:
        t.data = struct.pack("<e", 0.01) * (len(t.data) // 2)
    else:
        t.data = (struct.pack("<e", 0.001) + bytes([10] * 32)) * (len(t.data) // 34)
    return t.name


@kind("rows are repeated")
def repeated_rows(g, rng):
    t = g.matrix(rng)
    n = rng.choice([1, 2, t.n_rows // 4])
    a = rng.randrange(t.n_rows - n + 1)
    b = rng.choice([x for x in range(t.n_rows - n + 1) if abs(x - a) >= n])
    d = t.edit()
    d[b * t.row_bytes:(b + n) * t.row_bytes] = d[a * t.row_bytes:(a + n) * t.row_bytes]
    return "%s, %d rows from %d at %d" % (t.name, n, a, b)


@kind("a matrix holds another layer's bytes")
def copied_tensor(g, rng):
    t = g.matrix(rng)
    leaf = t.name.split(".", 2)[2]
    o = g.pick(rng, lambda o: o is not t and o.name.startswith("blk.") and o.name.split(".", 2)[2] == leaf and o.type == t.type and o.dims == t.dims, "no other layer's")
    t.data = o.data
    return "%s is %s" % (t.name, o.name)


@kind("a whole layer is there twice")
def copied_layer(g, rng):
    n = g.n_layer()
    a, b = rng.sample(range(n), 2)
    k = 0
    for t in g.tensors:
        if t.name.startswith("blk.%d." % b):
            o = g.find(t.name.replace("blk.%d." % b, "blk.%d." % a))
            if o is not None and o.dims == t.dims:
                t.type, t.data = o.type, o.data
                k += len(t.dims) >= 2
    if not k:
        raise No("layers differ")
    return "layer %d is layer %d" % (b, a)


@kind("a piece of the download stands in two places")
def copied_pages(g, rng):
    w = g.whole()
    ok = [i for i, t in enumerate(g.tensors) if t.name.startswith("blk.") and len(t.dims) >= 2 and len(t.data) >= 4 * 4096]
    if len(ok) < 2:
        raise No("too small")
    i, j = rng.sample(ok, 2)
    n = rng.choice([1, 2, 3])

    def page(i):
        first, last = -(-g.at[i] // 4096), (g.at[i] + len(g.tensors[i].data)) // 4096
        return rng.randrange(first, last - n + 1)
    a, b = page(i), page(j)
    w[b * 4096:(b + n) * 4096] = w[a * 4096:(a + n) * 4096]
    raise Raw(w, "%d pages of %s in %s" % (n, g.tensors[i].name, g.tensors[j].name))


def scale_blocks(t, first, n, f):
    """Blocks first .. first+n-1 times f: every float16 or float32 scale of them."""
    _, k, b, scale = TYPES[t.type]
    d = t.edit()
    if t.type == 0:
        a = array.array("f", bytes(d[first * 4:(first + n) * 4]))
        d[first * 4:(first + n) * 4] = array.array("f", [x * f for x in a]).tobytes()
        return
    if t.type == 30 or t.type == 29 or t.type == 39:
        raise No("no scale")
    mins = {3: 2, 7: 2, 10: 82, 12: 2, 13: 2}.get(t.type)
    for i in range(first, first + n):
        for at in ([0] if t.type == 1 else [scale] + ([mins] if mins is not None else [])):
            v, = struct.unpack_from("<e", d, i * b + at)
            struct.pack_into("<e", d, i * b + at, max(-65504.0, min(65504.0, v * f)))


@kind("a matrix is many times too large or small")
def scaled_tensor(g, rng):
    if g.n_layer() < 4:
        raise No("too few layers")
    t = g.matrix(rng, lambda t: t.type not in (29, 30, 39) and len(t.data) < 4 << 20)
    f = 2.0 ** rng.choice([5, 6, 8])
    if t.type == 0 and rng.random() < 0.5:
        f = 1 / f
    scale_blocks(t, 0, len(t.data) // TYPES[t.type][2], f)
    return "%s times %g" % (t.name, f)


@kind("a row is many times too large")
def scaled_row(g, rng):
    t = g.matrix(rng, lambda t: t.type not in (29, 30, 39))
    n = t.row_bytes // TYPES[t.type][2]
    r, f = rng.randrange(t.n_rows), 2.0 ** rng.choice([9, 10, 12])
    scale_blocks(t, r * n, n, f)
    return "%s, row %d times %g" % (t.name, r, f)


def norm(g, rng):
    if g.n_layer() < 4:
        raise No("too few layers")
    return g.pick(rng, lambda t: t.name.startswith("blk.") and "_norm" in t.name and t.name.endswith(".weight") and t.type == 0 and len(t.dims) == 1 and t.dims[0] > 1, "no norm")


def norm_values(t, f):
    t.data = array.array("f", [f(x) for x in array.array("f", bytes(t.data))]).tobytes()


@kind("a norm is many times too large or small")
def norm_scaled(g, rng):
    t = norm(g, rng)
    f = rng.choice([100.0, 1000.0, 0.01, 0.001])
    norm_values(t, lambda x: x * f)
    return "%s times %g" % (t.name, f)


@kind("a norm has the wrong sign")
def norm_negated(g, rng):
    t = norm(g, rng)
    norm_values(t, lambda x: -x)
    return t.name


@kind("a norm is ones, unlike the other layers'", "trained")
def norm_lost(g, rng):
    t = norm(g, rng)
    norm_values(t, lambda x: 1.0)
    return t.name


@kind("rope factors are zero, negative or wild")
def rope_factors(g, rng):
    t = g.pick(rng, lambda t: t.name.startswith("rope_") and t.type == 0, "no rope factors")
    v = rng.choice([0.0, -1.0, float("nan"), 1e-30])
    struct.pack_into("<f", t.edit(), 4 * rng.randrange(len(t.data) // 4), v)
    if v == 1e-30:
        t.data = struct.pack("<f", v) * (len(t.data) // 4)
    return "%s: %g" % (t.name, v)


@kind("a router row is zeros: an expert that is never chosen")
def dead_expert(g, rng):
    t = g.pick(rng, lambda t: t.name.endswith("ffn_gate_inp.weight"), "no experts")
    r = rng.randrange(t.n_rows)
    t.edit()[r * t.row_bytes:(r + 1) * t.row_bytes] = bytes(t.row_bytes)
    return "%s, row %d" % (t.name, r)


@kind("a layer writes nothing: its output matrices are zeros")
def dead_layer(g, rng):
    il = rng.randrange(g.n_layer())
    k = 0
    for t in g.tensors:
        if t.name in ("blk.%d.attn_output.weight" % il, "blk.%d.ffn_down.weight" % il) and t.type != 39:
            t.data = bytes(len(t.data))
            k += 1
    if not k:
        raise No("no such matrices")
    return "layer %d" % il


# ---- matrices in the wrong place ----
def exchange(a, b):
    a.type, b.type, a.dims, b.dims, a.data, b.data = b.type, a.type, b.dims, a.dims, b.data, a.data


def other_layer(g, rng, leaves):
    n = g.n_layer()
    for _ in range(100):
        i, j = rng.sample(range(n), 2)
        leaf = rng.choice(leaves)
        a, b = g.find("blk.%d.%s.weight" % (i, leaf)), g.find("blk.%d.%s.weight" % (j, leaf))
        if a is not None and b is not None and a.dims == b.dims:
            exchange(a, b)
            return "%s and %s" % (a.name, b.name)
    raise No("no two layers")


def in_layer(g, rng, x, y):
    il = rng.randrange(g.n_layer())
    a, b = g.find("blk.%d.%s.weight" % (il, x)), g.find("blk.%d.%s.weight" % (il, y))
    if a is None or b is None or a.dims != b.dims:
        raise No("not of one shape")
    exchange(a, b)
    return "%s and %s" % (a.name, b.name)


@kind("ffn_up or ffn_down of two layers changed places", "trained")
def swapped_ffn(g, rng):
    return other_layer(g, rng, ["ffn_up", "ffn_down"])


@kind("attn_q and attn_output of a layer changed places", "trained f16")
def swapped_q_o(g, rng):
    return in_layer(g, rng, "attn_q", "attn_output")


@kind("a matrix of another shape changed places with one of its layer", "model")
def swapped_shapes(g, rng):
    il = rng.randrange(g.n_layer())
    leaves = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm", "attn_q_norm"]
    there = [g.find("blk.%d.%s.weight" % (il, x)) for x in leaves]
    there = [t for t in there if t is not None]
    pairs = [(a, b) for i, a in enumerate(there) for b in there[i + 1:] if a.dims != b.dims]
    if not pairs:
        raise No("all of one shape")
    a, b = rng.choice(pairs)
    exchange(a, b)
    return "%s and %s" % (a.name, b.name)


@kind("a square matrix is transposed", "trained f16")
def transposed(g, rng):
    t = g.pick(rng, lambda t: t.name.startswith("blk.") and t.name.split(".")[2] in ("attn_q", "attn_output") and len(t.dims) == 2 and t.dims[0] == t.dims[1] and t.type in (0, 1, 30),
               "no square float matrix")
    n = t.dims[0]
    a = array.array("I" if t.type == 0 else "H", bytes(t.data))
    out = array.array(a.typecode, bytes(len(t.data)))
    for r in range(n):
        out[r * n:(r + 1) * n] = a[r::n]
    t.data = out.tobytes()
    return t.name


# ---- vocabulary ----
@kind("the vocabulary is shorter or longer than the table", "model")
def vocab_short(g, rng):
    tok = g.tokens()
    k = rng.choice([1, 3, len(tok) // 10 or 1])
    if rng.random() < 0.5:
        del tok[-k:]
    else:
        tok.extend(b"<extra_%d>" % i for i in range(k))
    return "%d tokens" % len(tok)


@kind("token types or scores are fewer than tokens")
def vocab_lists(g, rng):
    keys = [k for k in ("tokenizer.ggml.token_type", "tokenizer.ggml.scores") if k in g.kv]
    g.tokens()
    if not keys:
        raise No("no lists")
    k = rng.choice(keys)
    items = g.kv[k][1][1]
    del items[-rng.choice([1, 2, len(items) // 2]):]
    return "%s: %d" % (k, len(items))


@kind("a token is there twice")
def vocab_twice(g, rng):
    tok, typ = g.tokens(), g.types()
    n = [i for i, t in enumerate(typ) if t == 1 and i < len(tok) and len(tok[i]) > 1]
    if len(n) < 2:
        raise No("no plain tokens")
    a, b = rng.sample(n, 2)
    tok[b] = tok[a]
    return "%d is %d" % (b, a)


@kind("tokens are empty")
def vocab_empty(g, rng):
    tok = g.tokens()
    n = rng.choice([2, 10, len(tok) // 4])
    for i in rng.sample(range(len(tok)), n):
        tok[i] = b""
    return "%d tokens" % n


@kind("the merges are another vocabulary's")
def merges_foreign(g, rng):
    if "tokenizer.ggml.merges" not in g.kv:
        raise No("no merges")
    m = g.kv["tokenizer.ggml.merges"][1][1]
    if len(m) < 8:
        raise No("few merges")
    cut = rng.choice([3, 5])
    for i in range(0, len(m), 2):
        a, _, b = m[i].partition(b" ")
        m[i] = b"Zq%d" % (i % cut) + a[::-1] + b" " + b[::-1] + b"Xj"
    return "every second of %d" % len(m)


@kind("a special token's id is outside of the vocabulary")
def special_outside(g, rng):
    keys = [k for k in g.kv if k.startswith("tokenizer.ggml.") and k.endswith("_token_id")]
    n = len(g.tokens())
    if not keys:
        raise No("no special ids")
    k = rng.choice(keys)
    v = rng.choice([n, n + 1, n * 2, n + 100000])
    g.set(k, v)
    return "%s: %d" % (k, v)


def ordinary(g, rng, key):
    tok, typ = g.tokens(), g.types()
    if g.kv.get("tokenizer.ggml.model", (8, b""))[1] == b"bert":
        raise No("an encoder")
    n = [i for i, t in enumerate(typ) if t == 1 and i < len(tok)]
    if not n:
        raise No("no plain tokens")
    v = rng.choice(n)
    g.set(key, v)
    return "%d, %r" % (v, tok[v])


@kind("the end token is an ordinary token")
def stop_ordinary(g, rng):
    return ordinary(g, rng, "tokenizer.ggml.eos_token_id")


@kind("the begin token is an ordinary token")
def start_ordinary(g, rng):
    return ordinary(g, rng, "tokenizer.ggml.bos_token_id")


@kind("the end token is one that opens turns, or of no turn", "template")
def stop_opens(g, rng):
    tok, typ = g.tokens(), g.types()
    g.template()
    opens = [i for i, t in enumerate(tok) if t in (b"<|im_start|>", b"<start_of_turn>", b"<|start_header_id|>")]
    none = [i for i, t in enumerate(tok) if typ[i] in (3, 4) and not any(x in t.lower() for x in (b"end", b"eo", b"sep", b"/s", b"stop", b"return")) and i not in opens and
            t not in g.template() and b"im_" not in t and b"turn" not in t and i != g.kv.get("tokenizer.ggml.bos_token_id", (4, -1))[1]]
    c = opens + ([rng.choice(none)] if none else [])
    c = [i for i in c if i != g.kv.get("tokenizer.ggml.bos_token_id", (4, -1))[1]]  # a model may begin and end with one token
    if not c:
        raise No("no other special token")
    v = rng.choice(c)
    g.set("tokenizer.ggml.eos_token_id", v)
    return "%d, %r" % (v, tok[v])


@kind("all tokens are called ordinary: the list of types is lost")
def types_lost(g, rng):
    typ = g.types()
    if g.kv.get("tokenizer.ggml.model", (8, b""))[1] == b"bert" or "tokenizer.ggml.eos_token_id" not in g.kv:
        raise No("no end token")
    typ[:] = [1] * len(typ)
    return "%d types" % len(typ)


# ---- template ----
@kind("the chat template is cut", "template")
def template_cut(g, rng):
    s = g.template()
    marks = [i for i in range(len(s) - 2) if s[i:i + 2] in (b"{%", b"{{")]
    at = rng.choice(marks) + rng.choice([2, 3, 4])
    g.set("tokenizer.chat_template", s[:at])
    return "at byte %d of %d" % (at, len(s))


TURNS = {b"<|im_start|>": b"{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}",
         b"<start_of_turn>": b"{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] + '<end_of_turn>\n' }}{% endfor %}",
         b"<|start_header_id|>": b"{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}{% endfor %}",
         b"<|user|>": b"{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"}


@kind("the chat template is another model's: its markers are not in the vocabulary", "template")
def template_foreign(g, rng):
    tok = set(g.tokens())
    g.template()
    c = [k for k in TURNS if k not in tok]
    if not c:
        raise No("it has them all")
    k = rng.choice(c)
    g.set("tokenizer.chat_template", TURNS[k])
    return k.decode()


@kind("the chat template is another model's: it prints no markers", "template")
def template_plain(g, rng):
    g.template()
    g.set("tokenizer.chat_template", rng.choice([
        b"{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}",
        b"{% for m in messages %}{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n### Response:\n{% else %}{{ m['content'] }}\n\n{% endif %}{% endfor %}",
        b"{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }} {% endif %}{% endfor %}"]))
    return "plain text"


@kind("the chat template does not print what is said", "template")
def template_silent(g, rng):
    s = g.template()
    t = s.replace(b"content", b"contents")
    if t == s:
        raise No("no content")
    g.set("tokenizer.chat_template", t if rng.random() < 0.5 else b"{{ bos_token }}Hello")
    return "content"


# ---- importance ----
def entries(im):
    return [t for t in im.tensors if t.name.endswith(".in_sum2")]


@kind("an importance matrix lacks a matrix", "imatrix")
def importance_missing(im, rng):
    t = rng.choice(entries(im))
    base = t.name[:-len(".in_sum2")]
    im.tensors = [x for x in im.tensors if not x.name.startswith(base + ".")]
    return base


@kind("an importance matrix holds NaN, negative sums or nothing", "imatrix")
def importance_broken(im, rng):
    t = rng.choice(entries(im))
    v = rng.choice([float("nan"), -1.0, 0.0])
    if v == 0.0:
        t.data = bytes(len(t.data))
        im.find(t.name.replace(".in_sum2", ".counts")).edit()[:] = bytes(4)
    else:
        struct.pack_into("<f", t.edit(), 4 * rng.randrange(len(t.data) // 4), v)
    return "%s: %g" % (t.name, v)


@kind("an importance matrix is of another model", "imatrix")
def importance_foreign(im, rng):
    t = rng.choice(entries(im))
    if rng.random() < 0.5:
        k = rng.choice([32, 64])
        t.dims[0] -= k
        t.data = t.data[:4 * t.dims[0]]
        return "%s has %d columns" % (t.name, t.dims[0])
    base = t.name[:-len(".in_sum2")]
    new = base.replace("blk.", "blk.1").replace("attn", "attention")
    for x in im.tensors:
        if x.name.startswith(base + "."):
            x.name = x.name.replace(base, new)
    return "%s is %s" % (base, new)


# ---- told by a forward pass ----
def table(g, name="token_embd.weight"):
    t = g.find(name)
    if t is None:
        raise No("no " + name)
    return t


@kind("the table of words is shifted: every word has its neighbour's row", "run")
def table_shifted(g, rng):
    t = table(g)
    k = rng.choice([1, 2, 7, 100]) * t.row_bytes
    d = bytes(t.data)
    t.data = d[k:] + d[:k]
    return "by %d rows" % (k // t.row_bytes)


@kind("a tied model got an output table that is not its own", "run")
def tied_wrong(g, rng):
    t = table(g)
    if g.find("output.weight") is not None:
        raise No("not tied")
    d = bytes(t.data)
    order = list(range(t.n_rows))
    rng.shuffle(order)
    r = t.row_bytes
    g.tensors.append(Tensor("output.weight", list(t.dims), t.type, b"".join(d[i * r:(i + 1) * r] for i in order)))
    return "rows in another order"


@kind("the vocabulary is in another order than the table", "run")
def vocab_order(g, rng):
    tok, typ = g.tokens(), g.types()
    n = [i for i, t in enumerate(typ) if t == 1]
    s = n[:]
    rng.shuffle(s)
    old = tok[:]
    for a, b in zip(n, s):
        tok[a] = old[b]
    return "%d tokens" % len(n)


@kind("all layers stand in reverse order", "run")
def layers_reversed(g, rng):
    n = g.n_layer()
    for t in g.tensors:
        p = t.name.split(".")
        if p[0] == "blk":
            t.name = ".".join(["blk", str(n - 1 - int(p[1]))] + p[2:])
    return "%d layers" % n


@kind("gate and up changed places in all layers", "run")
def gate_up_all(g, rng):
    for il in range(g.n_layer()):
        in_one = g.find("blk.%d.ffn_gate.weight" % il), g.find("blk.%d.ffn_up.weight" % il)
        if None in in_one:
            raise No("no gate")
        exchange(*in_one)
    return "all layers"


@kind("a word is so loud that the model says nothing else: looping", "run")
def loud_word(g, rng):
    t = table(g)
    if t.type in (29, 30, 39):
        raise No("no scale")
    n = t.row_bytes // TYPES[t.type][2]
    r = rng.randrange(300, t.n_rows - 300)
    scale_blocks(t, r * n, n, -60.0 if rng.random() < 0.5 else 60.0)
    return "row %d of %s" % (r, t.name)


@kind("the last norm is negative: the likeliest word becomes the unlikeliest", "run")
def last_norm(g, rng):
    t = table(g, "output_norm.weight")
    norm_values(t, lambda x: -x)
    return t.name


# ---- what no file shows by itself ----
@unseen("weights a little off: no healthy file tells how they should be")
def small_noise(g, rng):
    t = g.matrix(rng, lambda t: t.type in (0, 1))
    d = t.edit()
    fmt, w = ("<f", 4) if t.type == 0 else ("<e", 2)
    for _ in range(1000):
        at = rng.randrange(len(d) // w) * w
        v, = struct.unpack_from(fmt, d, at)
        struct.pack_into(fmt, d, at, v * rng.uniform(0.5, 1.5))
    return t.name


@unseen("a matrix twice too large: layers differ by more")
def scaled_twice(g, rng):
    t = g.matrix(rng, lambda t: t.type not in (29, 30, 39) and len(t.data) < 4 << 20)
    scale_blocks(t, 0, len(t.data) // TYPES[t.type][2], 2.0)
    return t.name


@unseen("rows in another order: nothing says which row is whose", "untrained")
def rows_permuted(g, rng):
    t = g.matrix(rng)
    r = t.row_bytes
    order = list(range(t.n_rows))
    rng.shuffle(order)
    d = bytes(t.data)
    t.data = b"".join(d[i * r:(i + 1) * r] for i in order)
    return t.name


@unseen("two neighbouring layers changed places: each is whole, and models bear it")
def layers_swapped(g, rng):
    n = g.n_layer()
    i = rng.randrange(n - 1)
    for t in g.tensors:
        if t.name.startswith("blk.%d." % i):
            t.name = t.name.replace("blk.%d." % i, "blk.%d." % (i + 1))
        elif t.name.startswith("blk.%d." % (i + 1)):
            t.name = t.name.replace("blk.%d." % (i + 1), "blk.%d." % i)
    return "layers %d and %d" % (i, i + 1)


@unseen("gate and up of one layer changed places: their marks are too alike", "trained")
def gate_up_one(g, rng):
    return in_layer(g, rng, "ffn_gate", "ffn_up")


@unseen("attention matrices of two layers changed places: models differ in whether their marks are a layer's own", "trained")
def swapped_attention(g, rng):
    return other_layer(g, rng, ["attn_q", "attn_k", "attn_v", "attn_output"])


@unseen("key and value of one layer changed places: models differ in whether their marks tell", "trained")
def swapped_k_v(g, rng):
    return in_layer(g, rng, "attn_k", "attn_v")


@unseen("another base of the rotations that some model has")
def rope_other(g, rng):
    k = g.key("rope.freq_base")
    v = rng.choice([x for x in (10000.0, 100000.0, 500000.0, 1000000.0) if x != g.kv[k][1]])
    g.set(k, v)
    return "%g" % v


@unseen("another pre-tokenizer of the same kind: text is only cut a little differently")
def pretokenizer(g, rng):
    if "tokenizer.ggml.pre" not in g.kv:
        raise No("none")
    g.set("tokenizer.ggml.pre", rng.choice([b"gpt-2", b"qwen2", b"llama-bpe"]))
    return g.kv["tokenizer.ggml.pre"][1].decode()


def plant(src, out, name, seed, imatrix=None):
    """Returns (sentence, file to examine, importance matrix or None)."""
    f, _, needs = KINDS.get(name) or UNSEEN[name]
    rng = random.Random("%s/%s" % (name, seed))
    if needs == "imatrix":
        if not imatrix:
            raise No("no importance matrix")
        im = Gguf(imatrix)
        what = f(im, rng)
        im.write(out)
        return what, src, out
    g = Gguf(src)
    if needs == "model" and ("general.architecture" not in g.kv or g.find("token_embd.weight") is None):
        raise No("no model")
    try:
        what = f(g, rng)
    except Raw as r:
        with open(out, "wb") as o:
            o.write(r.args[0])
        return r.args[1], out, None
    except Parts as p:
        base = out[:-5] if out.endswith(".gguf") else out
        for i in (0, 1):
            if p.args[i] is not None:
                with open("%s-%05d-of-00002.gguf" % (base, i + 1), "wb") as o:
                    o.write(p.args[i])
        return p.args[2], base + "-00001-of-00002.gguf", None
    g.write(out)
    return what, out, None


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("src", nargs="?")
    a.add_argument("out", nargs="?")
    a.add_argument("--kind", choices=list(KINDS) + list(UNSEEN))
    a.add_argument("--seed", default="1")
    a.add_argument("--imatrix")
    a.add_argument("--list", action="store_true")
    o = a.parse_args()
    if o.list:
        for title, d in (("to be found:", KINDS), ("not to be seen without the source:", UNSEEN)):
            print(title)
            for k, (_, text, needs) in d.items():
                print("  %-20s %-8s %s" % (k, needs, text))
        return 0
    if not (o.src and o.out and o.kind):
        a.error("a good file, an output and --kind are needed")
    try:
        what, path, im = plant(o.src, o.out, o.kind, o.seed, o.imatrix)
    except No as e:
        print("%s: cannot have %s: %s" % (o.src, o.kind, e), file=sys.stderr)
        return 3
    print("%s: %s%s" % (path, what, ", importance " + im if im else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
