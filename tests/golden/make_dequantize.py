"""Makes tests/data/dequantize/*.bin: random blocks of each GGML type and their values by gguf-py (pip package gguf).

Each file: u32 elements, u32 bytes of blocks, the blocks, the elements as float32; little endian.
Usage: python3 tests/golden/make_dequantize.py
"""

import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Offsets of the float16 fields in one block; all other bytes may hold anything.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.F16: None, T.BF16: None,
}

out = pathlib.Path(__file__).resolve().parent.parent / "data" / "dequantize"
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(20240601)
for kind, halves in HALVES.items():
    elems, size = GGML_QUANT_SIZES[kind]
    if halves is None:  # plain floats: ordinary values, both zeros, subnormals, the largest
        values = np.concatenate([rng.standard_normal(56), [0.0, -0.0, 6e-8, -5.9e-5, 6.1e-5, 65504, -65504, 1]])
        halfs = values.astype(np.float16)
        bits = halfs.view(np.uint16) if kind == T.F16 else (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        blocks = bits.view(np.uint8)
        floats = halfs.astype(np.float32) if kind == T.F16 else (bits.astype(np.uint32) << 16).view(np.float32)
    else:
        count = 8 if elems == 32 else 3
        grid = rng.integers(0, 256, (count, size), dtype=np.uint8)
        scales = np.array([0.013, -0.4, 3e-6, 1.75, 0.0078, -0.001, 0.1, 0.25], np.float16)
        for place, offset in enumerate(halves):
            for i in range(count):
                grid[i, offset:offset + 2] = np.frombuffer(scales[(i + 3 * place) % 8].tobytes(), np.uint8)
        blocks = grid.reshape(-1)
        floats = dequantize(grid, kind).astype(np.float32).reshape(-1)
    name = out / f"{kind.name.lower()}.bin"
    name.write_bytes(struct.pack("<II", floats.size, blocks.size) + blocks.tobytes() + floats.tobytes())
    print(name.name, floats.size, name.stat().st_size)
