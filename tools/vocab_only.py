#!/usr/bin/env python3
"""Write a vocabulary-only GGUF: the tokenizer.* and general.architecture entries of IN, no tensors.

    tools/vocab_only.py IN.gguf OUT.gguf

Entries are copied byte for byte. Needs nothing but Python."""
import struct
import sys

SIZE = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def skip_value(b, at, t):
    if t in SIZE:
        return at + SIZE[t]
    if t == 8:
        return at + 8 + struct.unpack_from("<Q", b, at)[0]
    if t == 9:
        elem, n = struct.unpack_from("<IQ", b, at)
        at += 12
        if elem in SIZE:
            return at + n * SIZE[elem]
        for _ in range(n):
            at = skip_value(b, at, elem)
        return at
    sys.exit(f"unknown value type {t} at byte {at}")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    b = open(sys.argv[1], "rb").read()
    magic, version, _, n_kv = struct.unpack_from("<4sIQQ", b, 0)
    if magic != b"GGUF" or version not in (2, 3):
        sys.exit(f"{sys.argv[1]}: not a GGUF v2 or v3 file")
    at, kept = 24, []
    for _ in range(n_kv):
        start = at
        n = struct.unpack_from("<Q", b, at)[0]
        key = b[at + 8:at + 8 + n].decode()
        at += 8 + n
        t = struct.unpack_from("<I", b, at)[0]
        at = skip_value(b, at + 4, t)
        if key == "general.architecture" or key.startswith("tokenizer."):
            kept.append(b[start:at])
    with open(sys.argv[2], "wb") as f:
        f.write(struct.pack("<4sIQQ", b"GGUF", version, 0, len(kept)))
        f.write(b"".join(kept))


main()
