"""Write expected.json: what each case's GGUF holds, made from golden model.gguf files by this independent reader.
usage: make_expected.py GOLDEN_FOLDER CASE..."""
import hashlib, json, struct, sys

W = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
BLOCK = {0: (1, 4), 1: (1, 2), 30: (1, 2)}


def read(path):
    b = open(path, "rb").read()
    at = 8

    def u(fmt):
        nonlocal at
        v = struct.unpack_from("<" + fmt, b, at)[0]
        at += struct.calcsize(fmt)
        return v

    def text():
        nonlocal at
        n = u("Q")
        at += n
        return b[at - n:at]

    n_t, n_kv = u("Q"), u("Q")
    kv, tensors = {}, {}
    for _ in range(n_kv):
        key, t = text().decode(), u("I")
        head = struct.pack("<I", t)
        if t == 8:
            val = text()
        elif t == 9:
            e, n = u("I"), u("Q")
            head += struct.pack("<I", e)
            start = at
            for _ in range(n):
                if e == 8:
                    text()
                else:
                    at += W[e]
            val = b[start:at]
        else:
            val = b[at:at + W[t]]
            at += W[t]
        kv[key] = hashlib.sha256(head + val).hexdigest()[:32]
    info = []
    for _ in range(n_t):
        name = text().decode()
        ne = [u("Q") for _ in range(u("I"))]
        info.append((name, ne, u("I"), u("Q")))
    at = (at + 31) // 32 * 32
    for name, ne, t, off in info:
        n = BLOCK[t][1]
        for d in ne:
            n *= d
        tensors[name] = [t, ne, hashlib.sha256(b[at + off:at + off + n]).hexdigest()[:32]]
    return {"kv": kv, "tensors": tensors}


print(json.dumps({c: read(f"{sys.argv[1]}/{c}/model.gguf") for c in sys.argv[2:]}, indent=0, separators=(",", ":")))
