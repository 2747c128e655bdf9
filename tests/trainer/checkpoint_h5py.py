"""Reads a checkpoint of the tests' small state (checkpoint_fixture.h) with h5py: index.h5 shows every tensor whole, rank
files hold the slices that their attributes name.
Usage: checkpoint_h5py.py DIRECTORY"""

import glob
import json
import os
import re
import shutil
import sys

import h5py
import numpy


def expected(step, group, flat):
    if group == "parameters":
        bits = (flat * 40503 + step * 977) & 0xFFFF
        bits = numpy.where((bits & 0x7F80) == 0x7F80, bits & ~0x4000, bits).astype(numpy.uint32)
        return (bits << 16).view(numpy.float32)
    number = {"optimizer/adam_m": 1, "optimizer/adam_v": 2}[group]
    return (0.25 * flat + 1000.0 * number + step).astype(numpy.float32)


def same_bits(found, wanted):
    assert found.dtype == numpy.float32, found.dtype
    return found.shape == wanted.shape and numpy.array_equal(found.view(numpy.uint32), wanted.view(numpy.uint32))


directory = sys.argv[1]
os.chdir("/")
with open(os.path.join(directory, "manifest.json"), encoding="utf-8") as file:
    manifest = json.load(file)
step = manifest["step"]
groups = [array["name"] for array in manifest["arrays"]]
assert len(groups) == 3 and len(manifest["tensors"]) == 5

with h5py.File(os.path.join(directory, "index.h5"), "r") as index:
    for group in groups:
        for tensor in manifest["tensors"]:
            count = int(numpy.prod(tensor["shape"]))
            flat = numpy.arange(tensor["offset"], tensor["offset"] + count)
            wanted = expected(step, group, flat).reshape(tensor["shape"])
            assert same_bits(index[group][tensor["name"]][...], wanted), (group, tensor["name"])

slices = 0
stored = 0
rank_files = sorted(glob.glob(os.path.join(directory, "rank-*.h5")))
assert len(rank_files) == manifest["ranks"]
for path in rank_files:
    with h5py.File(path, "r") as rank_file:
        for group in groups:
            for tensor in manifest["tensors"]:
                if group not in rank_file:
                    continue
                parts = [name for name in rank_file[group] if re.fullmatch(re.escape(tensor["name"]) + r"(\.\d+)?", name)]
                for name in parts:
                    dataset = rank_file[group][name]
                    assert list(dataset.attrs["shape"]) == tensor["shape"]
                    start = tensor["offset"] + int(dataset.attrs["offset"])
                    flat = numpy.arange(start, start + dataset.shape[0])
                    assert same_bits(dataset[...], expected(step, group, flat)), (path, group, name)
                    slices += 1
                    stored += dataset.shape[0]
assert slices >= 15 and stored == 3 * sum(int(numpy.prod(tensor["shape"])) for tensor in manifest["tensors"])
ranges = sorted(sum((entry.get("ranges", []) for entry in manifest["files"]), []))
assert ranges[0][0] == 0 and ranges[-1][1] == manifest["elements"] == 720
assert all(a[1] == b[0] for a, b in zip(ranges, ranges[1:])), ranges

# A missing rank file must read as NaN, not as zeros.
damaged = directory + ".damaged"
shutil.copytree(directory, damaged)
end = manifest["tensors"][-1]["offset"] + int(numpy.prod(manifest["tensors"][-1]["shape"])) - 1  # the last element
last = next(entry["name"] for entry in manifest["files"] if any(a <= end < b for a, b in entry.get("ranges", [])))
os.remove(os.path.join(damaged, last))
with h5py.File(os.path.join(damaged, "index.h5"), "r") as index:
    for group in groups:
        assert numpy.isnan(index[group]["head.weight"][-1, -1]), group
