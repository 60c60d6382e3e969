#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes formats_golden.inc: digests of what the gguf package dequantises.

The blocks come from a generator that check_formats.c repeats, so only a digest a
format is kept: FNV-1a over the bytes of the floats. Needs the packages gguf and numpy:

    python3 make_formats.py > formats_golden.inc
"""
import numpy as np
from gguf import GGMLQuantizationType as Q, quants
from gguf.constants import GGML_QUANT_SIZES

BLOCKS = 24
# Where the halves d and m begin in a block; plain F16 is one half.
SCALES = {"F16": [0], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0],
          "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
          "IQ4_NL": [0], "F32": [], "BF16": []}


def blocks(name, size):
    state, out = 1, bytearray()
    for _ in range(BLOCKS):
        block = bytearray()
        for _ in range(size):
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            block.append(state >> 24)
        for at in SCALES[name]:
            block[at + 1] = (block[at + 1] & 0x8F) | 0x20  # finite
        out += block
    return np.frombuffer(bytes(out), dtype=np.uint8)


def digest(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


print("/* SPDX-License-Identifier: Apache-2.0 */")
print("/* Written by make_formats.py; do not edit. */")
print("/* clang-format off */")
for name in SCALES:
    kind = Q[name]
    size = GGML_QUANT_SIZES[kind][1]
    data = blocks(name, size)
    if name == "F16":
        out = data.view(np.float16).astype(np.float32)
    else:
        out = quants.dequantize(data, kind)
    out = np.ascontiguousarray(out, dtype=np.float32)
    print("{DTYPE_%s, 0x%016xull}," % (name, digest(out.tobytes())))
