#!/usr/bin/env python3
"""Prints tests/quant/codec_fixture.h: digests of what PyPI's ml_dtypes makes of many numbers.

    python3 -m venv VENV && VENV/bin/pip install numpy ml_dtypes==0.6.0
    VENV/bin/python tests/quant/make_codec_fixture.py > tests/quant/codec_fixture.h

ml_dtypes rounds to nearest, ties to even, as nibble does, but beyond a format's range it makes a NaN (E4M3) or an
infinity (E5M2) where nibble saturates. So the inputs are first clamped to the range; NaN inputs count as 0. E8M0, which
nibble never rounds to nearest, is compared by its values only. Arrays, all little-endian:

    bf16     codes (uint8) of all 65536 BF16 numbers, ascending by their bits
    spread   codes of the FP32 numbers with bits i * 0x9E3779B9 mod 2^32, i < 2^20
    decoded  FP32 value of every code, every NaN as 0x7FC00000
"""
import hashlib

import ml_dtypes
import numpy as np

FORMATS = [("e2m1", ml_dtypes.float4_e2m1fn, 16), ("e4m3", ml_dtypes.float8_e4m3fn, 256),
           ("e5m2", ml_dtypes.float8_e5m2, 256), ("e8m0", ml_dtypes.float8_e8m0fnu, 256)]


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def codes(values, dtype):
    largest = np.float32(ml_dtypes.finfo(dtype).max)
    clamped = np.where(np.isnan(values), np.float32(0), np.clip(values, -largest, largest))
    return clamped.astype(np.float32).astype(dtype).view(np.uint8)


def decoded(dtype, count):
    values = np.arange(count, dtype=np.uint8).view(dtype).astype(np.float32).view(np.uint32)
    return np.where(np.isnan(values.view(np.float32)), np.uint32(0x7FC00000), values).astype("<u4")


bf16 = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
spread = ((np.arange(1 << 20, dtype=np.uint64) * 0x9E3779B9) % (1 << 32)).astype(np.uint32).view(np.float32)

print("// Made by make_codec_fixture.py, which says what is digested: do not edit.")
print(f"// ml_dtypes {ml_dtypes.__version__}, numpy {np.__version__}.")
print("#pragma once\n\nnamespace nibble::test {\n")
print("struct CodecDigests {\n  const char *format, *bf16, *spread, *decoded;\n};")
print("inline constexpr CodecDigests codec_digests[] = {")
for name, dtype, count in FORMATS:
    rounded = ["", ""] if name == "e8m0" else [digest(codes(bf16, dtype)), digest(codes(spread, dtype))]
    print("    {" + ", ".join(f'"{text}"' for text in [name, *rounded, digest(decoded(dtype, count))]) + "},")
print("};\n\n}  // namespace nibble::test")
