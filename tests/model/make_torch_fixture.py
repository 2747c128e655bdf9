#!/usr/bin/env python3
"""Writes torch_fixture.bin: a tiny model computed by PyTorch in FP64, for torch_fixture_test.cpp.

Run once; the fixture is committed. Needs torch (any version with scaled_dot_product_attention(enable_gqa=...)).

The file is little-endian: the int32 sizes below in this order, then int32 tokens and targets
[sequences, sequence_length], then for every parameter in the model's order its float32 weight and its float32 gradient,
then the float64 summed loss and the float32 logits of the first sequence.
"""
import math
import pathlib
import struct

import torch
import torch.nn.functional as F

SIZES = dict(vocab=32, hidden=32, query_heads=4, kv_heads=2, head_dim=8, intermediate=48, length=16, sequences=2)
PATTERN = "*-*-"
THETA = 500.0
NORM_EPSILON = 1e-3  # large enough to be seen


def parameter_shapes():
    s = SIZES
    qkv = (s["query_heads"] + 2 * s["kv_heads"]) * s["head_dim"]
    shapes = [("embedding.weight", (s["vocab"], s["hidden"]))]
    for index, kind in enumerate(PATTERN):
        shapes.append((f"blocks.{index}.norm.weight", (s["hidden"],)))
        if kind == "*":
            shapes.append((f"blocks.{index}.attention.qkv.weight", (qkv, s["hidden"])))
            output = (s["hidden"], s["query_heads"] * s["head_dim"])
            shapes.append((f"blocks.{index}.attention.output.weight", output))
        else:
            shapes.append((f"blocks.{index}.mlp.gate_up.weight", (2 * s["intermediate"], s["hidden"])))
            shapes.append((f"blocks.{index}.mlp.down.weight", (s["hidden"], s["intermediate"])))
    return shapes + [("norm.weight", (s["hidden"],)), ("head.weight", (s["vocab"], s["hidden"]))]


def rotate_half(x):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def rope(x):  # [batch, heads, length, head_dim]
    head_dim = x.shape[-1]
    frequencies = THETA ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(x.shape[-2], dtype=torch.float64), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return x * angles.cos() + rotate_half(x) * angles.sin()


def forward(weights, tokens):
    s = SIZES
    norm = lambda x, name: F.rms_norm(x, (s["hidden"],), weights[name], NORM_EPSILON)
    split = lambda x, heads: x.unflatten(-1, (heads, s["head_dim"])).transpose(1, 2)
    x = F.embedding(tokens, weights["embedding.weight"])
    for index, kind in enumerate(PATTERN):
        block = f"blocks.{index}."
        y = norm(x, block + "norm.weight")
        if kind == "*":
            qkv = F.linear(y, weights[block + "attention.qkv.weight"])
            widths = [heads * s["head_dim"] for heads in (s["query_heads"], s["kv_heads"], s["kv_heads"])]
            q, k, v = qkv.split(widths, dim=-1)
            q, k, v = rope(split(q, s["query_heads"])), rope(split(k, s["kv_heads"])), split(v, s["kv_heads"])
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + F.linear(y.transpose(1, 2).flatten(2), weights[block + "attention.output.weight"])
        else:
            gate, up = F.linear(y, weights[block + "mlp.gate_up.weight"]).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, weights[block + "mlp.down.weight"])
    return F.linear(norm(x, "norm.weight"), weights["head.weight"])


def main():
    generator = torch.Generator().manual_seed(2024)
    weights = {}
    for name, shape in parameter_shapes():
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        value = 1 + 0.2 * noise if len(shape) == 1 else noise / math.sqrt(shape[1])
        weights[name] = value.to(torch.float64).requires_grad_()
    shape = (SIZES["sequences"], SIZES["length"])
    tokens = torch.randint(SIZES["vocab"], shape, generator=generator)
    targets = torch.randint(SIZES["vocab"], shape, generator=generator)
    logits = forward(weights, tokens)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    loss.backward()

    out = bytearray(struct.pack(f"<{len(SIZES)}i", *SIZES.values()))
    for integers in (tokens, targets):
        out += integers.to(torch.int32).numpy().astype("<i4").tobytes()
    for name, _ in parameter_shapes():
        out += weights[name].detach().to(torch.float32).numpy().astype("<f4").tobytes()
        out += weights[name].grad.to(torch.float32).numpy().astype("<f4").tobytes()
    out += struct.pack("<d", loss.item())
    out += logits[0].detach().to(torch.float32).numpy().astype("<f4").tobytes()
    pathlib.Path(__file__).with_name("torch_fixture.bin").write_bytes(out)
    print(f"torch {torch.__version__}: loss {loss.item():.12f}, {len(out)} bytes")


if __name__ == "__main__":
    main()
