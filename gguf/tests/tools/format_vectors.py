#!/usr/bin/env python3
"""Makes ../fixtures/formats.txt: hashes of what each format's codec must give, from independent codecs.

    pip install gguf llama-cpp-python
    python format_vectors.py [--files DIR] > ../fixtures/formats.txt
    python format_vectors.py --golden        # the constants of the unit tests in gguf/src/block

Decoding comes from the `gguf` package (integers and F64, which it does not decode, from numpy), encoding from
ggml's reference functions in the library that `llama-cpp-python` ships (plain formats from numpy). --files adds
a hash of all decoded tensors of each .gguf file of a folder.
"""

import argparse
import ctypes
import importlib.util
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants

np.seterr(all="ignore")

PLAIN = {Type.F32: "<f4", Type.F16: "<f2", Type.F64: "<f8", Type.I8: "i1", Type.I16: "<i2", Type.I32: "<i4", Type.I64: "<i8"}
NAMES = "F32 F16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS I8 I16 I32 I64 F64 BF16 MXFP4".split()


def splitmix64(seed, n):
    """The first n outputs of splitmix64."""
    z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def digest(words):
    """Sum of (word + 1) * K^(position + 1) modulo 2^64 over 32-bit words."""
    words = np.ascontiguousarray(words).astype(np.uint64) + np.uint64(1)
    powers = np.cumprod(np.full(words.size, 0x9E3779B97F4A7C15, np.uint64))
    return f"{int((words * powers).sum(dtype=np.uint64)):016x}"


def digest_values(values):
    bits = values.astype(np.float32, copy=False).ravel().view(np.uint32)
    return digest(np.where(np.isnan(values.ravel()), np.uint32(0x7FC00000), bits))


def decode(kind, data):
    if kind in PLAIN:
        return data.view(PLAIN[kind]).astype(np.float32)
    return quants.dequantize(data, kind).ravel()


def encoder_library():
    spec = importlib.util.find_spec("llama_cpp")
    folder = pathlib.Path(spec.submodule_search_locations[0]) / "lib"
    return ctypes.CDLL(str(folder / "libggml-base.so"))


def encode(library, kind, values):
    if kind in PLAIN:
        if np.dtype(PLAIN[kind]).kind == "i":
            info = np.iinfo(PLAIN[kind])
            rounded = np.trunc(values.astype(np.float64) + np.copysign(0.5, values))
            limited = [min(max(int(v), info.min), info.max) for v in rounded]
            return np.array(limited, PLAIN[kind]).view(np.uint8)
        return values.astype(PLAIN[kind]).view(np.uint8)
    if kind == Type.BF16:
        return quants.quantize(values, kind).view(np.uint8)
    length, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros(values.size // length * size, np.uint8)
    name = kind.name.lower().replace("_k", "_K")
    function = getattr(library, f"quantize_row_{name}_ref")
    function(ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(values.size))
    if kind == Type.IQ4_NL:
        # Some versions leave the indices of a block of zeros uninitialised; later ones write zeros.
        out.reshape(-1, size)[np.abs(values.reshape(-1, length)).max(axis=1) < 1e-15] = 0
    return out


def encoder_input():
    """48 rows of 256: bell-shaped values at several scales, constants, zeros, huge and tiny rows."""
    words = splitmix64(0xC0DEC, 48 * 256)
    parts = sum(((words >> np.uint64(s)) & np.uint64(0xFFFF)).astype(np.int64) for s in (0, 16, 32, 48))
    values = ((parts - 131070) / 65536.0).reshape(48, 256)
    index = np.arange(256)
    for row in range(48):
        case = row % 8
        if case < 3:
            values[row] *= 2.0 ** (row % 5 - 6)
        elif case == 3:
            values[row] *= 2.0 ** ((index // 16) % 7 - 3.0)
        elif case == 4:
            values[row] = values[row][0]
        elif case == 5:
            values[row] = 0 if row < 24 else np.where(index // 32 % 2 == 0, values[row], 0)
        elif case == 6:
            values[row] *= 2.0**100 if row < 24 else 2.0**14
        else:
            values[row] *= 2.0**-60 if row < 24 else 2.0**-18
    return values.astype(np.float32).ravel()


def file_input():
    """48 rows of 256 that squares do not overflow, and the importances of 1024 columns."""
    words = splitmix64(0xF11E, 48 * 256)
    parts = sum(((words >> np.uint64(s)) & np.uint64(0xFFFF)).astype(np.int64) for s in (0, 16, 32, 48))
    values = ((parts - 131070) / 65536.0).reshape(48, 256)
    index = np.arange(256)
    for row in range(48):
        case = row % 8
        if case < 3:
            values[row] *= 2.0 ** (row % 5 - 6)
        elif case == 3:
            values[row] *= 2.0 ** ((index // 16) % 7 - 3.0)
        elif case == 4:
            values[row] = values[row][0]
        elif case == 5:
            values[row] = np.where(index // 32 % 2 == 0, values[row], 0)
    importance = ((splitmix64(0x1394, 1024) & np.uint64(0xFFFF)) + np.uint64(1)).astype(np.float64) / 4096
    return values.astype(np.float32).ravel(), importance.astype(np.float32)


def for_file(library, kind, values, importance):
    """As files are encoded: rows of 1024, with or without importances."""
    length, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros(values.size // length * size, np.uint8)
    weights = None if importance is None else ctypes.c_void_p(importance.ctypes.data)
    pointer = lambda array: ctypes.c_void_p(array.ctypes.data)
    rows = ctypes.c_int64(values.size // 1024)
    library.ggml_quantize_chunk(
        ctypes.c_int(kind.value), pointer(values), pointer(out), ctypes.c_int64(0), rows, ctypes.c_int64(1024), weights
    )
    return out


def vectors(files):
    library = encoder_library()
    values = encoder_input()
    print("# Made by tests/tools/format_vectors.py: what, name, hash. Do not edit.")
    for name in NAMES:
        kind = Type[name]
        length, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = 64 if length > 1 else 4096
        data = splitmix64(kind.value, -(-blocks * size // 8)).view(np.uint8)[: blocks * size]
        print("decode", name, digest_values(decode(kind, data)))
        print("encode", name, digest(encode(library, kind, values)))
        if length > 1:
            rows, importance = file_input()
            print("quantize", name, digest(for_file(library, kind, rows, None)))
            print("weighted", name, digest(for_file(library, kind, rows, importance)))
    for path in sorted(pathlib.Path(files).glob("*.gguf")) if files else []:
        tensors = gguf.GGUFReader(path).tensors
        parts = [decode(t.tensor_type, np.array(t.data).ravel().view(np.uint8)) for t in tensors]
        print("file", path.name, digest_values(np.concatenate(parts)))


def golden():
    library = encoder_library()
    index = np.arange(256)
    values = (((index * 37 + 11) % 101 - 50) * (1 + index // 16 % 5) / 128.0).astype(np.float32)
    for name in NAMES:
        kind = Type[name]
        length, size = gguf.GGML_QUANT_SIZES[kind]
        if length == 1:
            continue
        data = encode(library, kind, values[:length].copy())
        stride = 1 if length == 32 else 17
        print(name, data.tobytes().hex(), " ".join(str(v) for v in decode(kind, data)[::stride]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", metavar="DIR")
    parser.add_argument("--golden", action="store_true")
    arguments = parser.parse_args()
    golden() if arguments.golden else vectors(arguments.files)
