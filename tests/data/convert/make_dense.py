#!/usr/bin/env python3
"""make_dense.py - the modules after the transformer of EmbeddingGemma, tiny: tests/data/convert/dense, and the vectors of the golden case
gemma-embedding that come out. Pooling, both matrices and the last normalisation are computed here in numpy float64 from the golden
hidden states of the other implementation; nothing of the engine is used."""
import json
import pathlib
import struct

import numpy as np

root = pathlib.Path(__file__).resolve().parent
gold = root.parent / "golden/gemma-embedding"
out = root / "dense"
rng = np.random.default_rng(7)
w = [rng.standard_normal((96, 64)).astype(np.float16), rng.standard_normal((64, 96)).astype(np.float16)]
names = ["2_Dense", "3_Dense"]
mods = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Dense", "Dense"), ("4_Normalize", "Normalize")]
(out / "1_Pooling").mkdir(parents=True, exist_ok=True)
(out / "modules.json").write_text(json.dumps(
    [{"idx": i, "name": str(i), "path": p, "type": "sentence_transformers.models." + t} for i, (p, t) in enumerate(mods)], indent=1))
(out / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}))
for n, m in zip(names, w):
    (out / n).mkdir(exist_ok=True)
    (out / n / "config.json").write_text(json.dumps({"in_features": m.shape[1], "out_features": m.shape[0], "bias": False,
                                                     "activation_function": "torch.nn.modules.linear.Identity"}))
    h = json.dumps({"linear.weight": {"dtype": "F16", "shape": list(m.shape), "data_offsets": [0, m.nbytes]}}).encode()
    h += b" " * (-len(h) % 8)
    (out / n / "model.safetensors").write_bytes(struct.pack("<Q", len(h)) + h + m.tobytes())
for i, s in enumerate(json.loads((gold / "cases.json").read_text())["sequences"]):
    x = np.fromfile(gold / s["hidden_file"], np.float32).reshape(-1, s["cols"]).astype(np.float64).mean(0)
    for m in w:
        x = m.astype(np.float64) @ x
    (out / f"embedding{i}.f32").write_bytes((x / np.linalg.norm(x)).astype(np.float32).tobytes())
