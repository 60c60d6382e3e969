# SPDX-License-Identifier: Apache-2.0
"""Writes quantised.safetensors: floats, and their blocks as gguf-py quantises them.

    python3 tests/golden/make_quantise_golden.py

needs gguf, numpy and safetensors. "x" (64, 32) has wide and narrow rows, one sign, ties, zeros and
tiny numbers; "Q8_0" and so on are the bytes of each row's block; "F16" and "BF16" its halves.
"""
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file

rng = np.random.default_rng(7)
x = rng.standard_normal((64, 32)).astype(np.float32)
x *= np.exp2(rng.integers(-12, 6, (64, 1))).astype(np.float32)
x[3] = np.abs(x[3])
x[4] = -np.abs(x[4])
x[5] = 0.0
x[6] = 0.25
x[7] = np.arange(32, dtype=np.float32) / 8 - 2.0
x[8] = 2.0 ** -np.arange(1, 33, dtype=np.float32)
x[9] = rng.standard_normal(32).astype(np.float32) * 1e-7
out = {"x": x, "F16": x.astype(np.float16)}
for name in ("BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
    out[name] = np.ascontiguousarray(gguf.quants.quantize(x, T[name])).view(np.uint8)
save_file(out, Path(__file__).resolve().parent / "quantised.safetensors")
