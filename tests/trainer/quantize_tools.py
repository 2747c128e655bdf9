"""Checks the files of nibble quantize with only the standard library.
Usage: quantize_tools.py write X.npy | check FILE.safetensors PRINTED.json | same A.safetensors B.safetensors"""

import json
import math
import pathlib
import random
import struct
import sys

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def npy(path, rows):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}"
    header = header.ljust(117) + "\n"
    values = [value for row in rows for value in row]
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
                     + struct.pack(f"<{len(values)}f", *values))


def write(path):
    """Writes a matrix [128, 128] with small and large rows, outlier columns, a block of zeros and numbers that underflow,
    and matrices that are refused."""
    generator = random.Random(7)
    rows = [[generator.gauss(0, 1) * 2.0 ** (row % 11 - 5) * (30 if column % 37 == 5 else 1) for column in range(128)]
            for row in range(144)]
    rows[3][16:32] = [0.0] * 16
    rows[9] = [value * 2.0**-30 for value in rows[9]]
    path = pathlib.Path(path)
    npy(path, rows[:128])
    npy(path.with_name("ragged.npy"), [row[:80] for row in rows])
    narrow = [row[:48] for row in rows[:3]]
    npy(path.with_name("narrow.npy"), narrow)
    narrow[1][7], narrow[2][9] = math.nan, -math.inf
    npy(path.with_name("infinite.npy"), narrow)
    npy(path.with_name("huge.npy"), [[3e38] * 128] * 128)


def read(path):
    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = content[8 + length + begin : 8 + length + end]
        count = math.prod(entry["shape"])
        values = list(data) if entry["dtype"] == "U8" else struct.unpack(f"<{count}f", data)
        assert len(values) == count, name
        arrays[name] = (entry["shape"], values)
    return metadata, arrays


def float_of(code, exponent_bits, mantissa_bits):
    """Decodes E4M3 and E5M2 by their definition."""
    bias = 2 ** (exponent_bits - 1) - 1
    exponent = (code & 0x7F) >> mantissa_bits
    mantissa = (code & (2**mantissa_bits - 1)) / 2**mantissa_bits
    magnitude = math.ldexp(mantissa, 1 - bias) if exponent == 0 else math.ldexp(1 + mantissa, exponent - bias)
    return -magnitude if code & 0x80 else magnitude


def decoded(metadata, arrays):
    """Computes every element: code * block scale * outer scale * tensor scale, rounded once to FP32."""
    rows, inner, kind = int(metadata["rows"]), int(metadata["inner"]), metadata["format"]
    four_bits = kind in ("nvfp4", "mxfp4")
    shape, codes = arrays["codes"]
    assert shape == [rows, inner // 2 if four_bits else inner], shape
    block = 16 if kind == "nvfp4" else 32
    rotation = 2.0 ** (-0.5 * int(metadata["rotation_bits"]))
    tensor_scale = arrays["tensor_scale"][1][0]
    assert arrays["tensor_scale"][0] == [2]
    for row in range(rows):
        for column in range(inner):
            at = row * inner + column
            if four_bits:
                code = codes[at // 2] >> 4 * (column % 2) & 15
                value = E2M1[code & 7] * (-1 if code & 8 else 1)
            elif kind.endswith("e4m3"):
                value = float_of(codes[at], 4, 3)
            else:
                value = float_of(codes[at], 5, 2)
            if "block_scales" in arrays:
                scale = arrays["block_scales"][1][at // block]
                value *= float_of(scale, 4, 3) if kind == "nvfp4" else 2.0 ** (scale - 127)
            factor = tensor_scale * rotation
            if "outer_scales" in arrays:
                factor *= arrays["outer_scales"][1][at // 128]
            yield struct.unpack("<f", struct.pack("<f", value * factor))[0]


def check_swizzled(arrays):
    (rows, blocks), scales = arrays["block_scales"]
    shape, swizzled = arrays["block_scales_swizzled"]
    assert shape == [-(-rows // 128) * 128, -(-blocks // 4) * 4], shape
    found = 0
    for row in range(rows):
        for block in range(blocks):
            tile = row // 128 * (shape[1] // 4) + block // 4
            offset = tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + block % 4
            assert swizzled[offset] == scales[row * blocks + block], (row, block)
            found += swizzled[offset] != 0
    assert found == sum(scale != 0 for scale in swizzled), "padding is zero"


def check(path, printed):
    metadata, arrays = read(path)
    printed = json.loads(pathlib.Path(printed).read_text())
    statistics = printed["statistics"]
    shape, values = arrays["values"]
    assert shape == [printed["rows"], printed["inner"]] == [int(metadata["rows"]), int(metadata["inner"])]
    for key in ("recipe", "operand", "spec", "input"):
        assert metadata[key] == printed[key], key
    assert metadata["seed"] == "5" == str(printed["seed"])
    if "codes" not in arrays:
        assert metadata["format"] in ("bf16", "fp32") and statistics["relative_mse"] < 2.0**-16, statistics
        return
    differ = sum(a != b for a, b in zip(values, decoded(metadata, arrays)))
    assert differ == 0, f"{differ} of {len(values)} values are not what codes and scales say"
    # The rotation is orthogonal: the squares add up to the same number.
    whole = sum(value * value for value in values)
    expected = statistics["sum_squares"] * (1 - 2 * statistics["shrinkage"]) + statistics["error_squares"]
    assert abs(whole - expected) <= 2.0**-23 * whole, (whole, expected)  # each value was rounded to FP32
    assert statistics["zeros"] == sum(value == 0 for value in values)
    for name, size in (("block_scales", 8), ("outer_scales", 32)):
        statistics["bits"] -= size * len(arrays[name][1]) / len(values) if name in arrays else 0
    assert statistics["bits"] == 8 * len(arrays["codes"][1]) / len(values)
    assert 0 < statistics["relative_mse"] < 0.05 and statistics["cosine"] > 0.98, statistics
    if "block_scales_swizzled" in arrays:
        check_swizzled(arrays)
    if "statistics_from_input" in printed:
        assert "from saved" in printed["spec"]
        assert printed["statistics_from_input"]["relative_mse"] > statistics["relative_mse"]


def same(first, second):
    sys.exit(0 if read(first)[1] == read(second)[1] else 1)


{"write": write, "check": check, "same": same}[sys.argv[1]](*sys.argv[2:])
