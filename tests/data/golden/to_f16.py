#!/usr/bin/env python3
"""to_f16.py IN.gguf OUT.gguf - store the matrices of a golden model as F16. The values are the same: the golden weights
are exact in 16 bits, which is checked. Needs numpy and gguf."""
import sys
import numpy as np
import gguf

src, dst = sys.argv[1:]
r = gguf.GGUFReader(src)
arch = r.fields["general.architecture"].contents()
w = gguf.GGUFWriter(dst, arch)
for name, f in r.fields.items():
    if name.startswith("GGUF.") or name == "general.architecture":
        continue
    t = f.types[0]
    sub = f.types[-1] if t == gguf.GGUFValueType.ARRAY else None
    w.add_key_value(name, f.contents(), t, sub_type=sub)
for t in r.tensors:
    d = np.array(t.data)
    if d.ndim >= 2 and not any(x in t.name for x in ("ffn_gate_inp", "position_embd", "token_types")):
        h = d.astype(np.float16)
        assert np.array_equal(h.astype(np.float32), d), t.name
        d = h
    w.add_tensor(t.name, d)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
