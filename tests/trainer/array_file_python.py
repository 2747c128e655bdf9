"""Writes files of NumPy and h5py for checkpoint_array_test.cpp, and checks a file that the test wrote.
Usage: array_file_python.py write DIRECTORY | check FILE.safetensors"""

import json
import struct
import sys


def write(directory):
    import h5py
    import numpy

    generator = numpy.random.default_rng(7)
    doubles = generator.standard_normal((600, 500)) * 10.0 ** generator.integers(-46, 38, (600, 500))
    arrays = {
        "halves": numpy.arange(65536, dtype=numpy.uint16).view(numpy.float16).reshape(256, 256),
        "singles": doubles.astype(numpy.float32),
        "doubles": doubles,
        "cube": generator.standard_normal((3, 5, 7)),
        "vector": generator.standard_normal(400_000),
    }
    for name, array in arrays.items():
        numpy.save(f"{directory}/{name}.npy", array)
        numpy.save(f"{directory}/{name}.single.npy", array.astype(numpy.float32))
        for version in (2, 3):
            with open(f"{directory}/{name}.v{version}.npy", "wb") as file:
                numpy.lib.format.write_array(file, array, version=(version, 0))
    numpy.save(f"{directory}/fortran.npy", numpy.asfortranarray(doubles))
    numpy.save(f"{directory}/big_endian.npy", doubles.astype(">f8"))
    with h5py.File(f"{directory}/other.h5", "w") as file:
        file["group/cube"] = arrays["cube"]


def check(path):
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    assert header.pop("__metadata__") == {"recipe": "nvfp4", "quote": '"\\\n'}
    expected = {
        "codes": ("U8", [1, 5], bytes([0x10, 0x32, 0x54, 0x76, 0x98])),
        "values": ("F32", [4, 6], struct.pack("<24f", *(0.5 * i - 3.0 for i in range(24)))),
        "half": ("BF16", [24], struct.pack("<24H", *(0x3F80 + 7 * i for i in range(24)))),
        "scale": ("F32", [], struct.pack("<f", -3.0)),
    }
    assert set(header) == set(expected)
    for name, (dtype, shape, values) in expected.items():
        begin, end = header[name]["data_offsets"]
        assert (header[name]["dtype"], header[name]["shape"], data[begin:end]) == (dtype, shape, values), name
    assert len(data) == sum(len(values) for _, _, values in expected.values())


{"write": write, "check": check}[sys.argv[1]](*sys.argv[2:])
