"""Physical limits of training on a GPU: how much faster than BF16 four bits can be there, with the bytes that nibble's
kernels move beside the bytes that had to be moved, and with the instructions of its quantisers. Computed from data sheets
and counted instructions; nothing here is measured.

Usage: gpu_roofline.py        prints the tables of docs/gpu.md

A product takes max(FLOP / peak, bytes / bandwidth), a quantiser max(bytes / bandwidth, instructions / rate), every other
kernel bytes / bandwidth, one after the other.
"""

# Data sheets: dense TFLOP/s with FP32 sums in BF16 and NVFP4, TB/s.
DEVICES = {
    "H100, emulated": (989.4, None, 3.35),
    "B200": (2250.0, 9000.0, 8.0),
    "B300": (2250.0, 13125.0, 8.0),
    "RTX 5090": (209.5, 1676.0, 1.792),
}
# Lanes that begin an instruction in a second: multiprocessors, lanes, clock. H100 is not counted.
LANES = {"B200": 148 * 128 * 1.85e9, "B300": 148 * 128 * 1.9e9, "RTX 5090": 170 * 128 * 2.41e9}
NVFP4 = 0.5625  # bytes an element: half a byte, and an E4M3 scale for 16
DECODE = NVFP4 + 2  # emulation, a use of an operand

# Quantisers: bytes an element of X [tokens, in], W [out, in] and dY [tokens, out], forward and backward, one micro-batch
# a step. BF16 sources. An amax pass reads 2.
AMAX, READ = 2, 2
EDEN = 0.5 + 4 / 16 + 4 / 16 + 1 / 16  # codes; FP32 pseudo-scales, written and read; scales
SAVED = NVFP4 + EDEN  # from a saved operand's codes
ROWS = AMAX + READ + NVFP4
PAIR = AMAX + READ + 2 * NVFP4  # an operand and its transpose from one read
OURS = {
    "nvfp4": (PAIR, 2 * ROWS, PAIR),
    "quartet2": (ROWS + SAVED, ROWS + SAVED, READ + 2 * EDEN),
}
# Lane-cycles an element of X, W and dY: instructions on the shortest path of the group loop, read in the machine code for
# 10.0, where logical, shift, select and compare instructions take two cycles; with amax passes and 5 for loading and
# storing. W is left out: it is quantised once a step, however many micro-batches there are.
LANE_CYCLES = {"nvfp4": (60, 0, 128), "quartet2": (112, 0, 105)}
# The amax comes from the operator that made the tensor; pseudo-scales are in BF16.
IDEAL = {
    "nvfp4": (READ + 2 * NVFP4,) * 3,
    "quartet2": (READ + NVFP4 + 2 * NVFP4 + 0.25,) * 2 + (READ + 2 * NVFP4 + 0.5,),
}
# A token and a layer, per hidden and per inner feature: norms, residual additions, rotary embedding; SwiGLU.
OURS_ELEMENTWISE = (60, 16)  # (4+6) + (4+6) forward, 12 + 12 backward, 16 rotary
IDEAL_ELEMENTWISE = (48, 16)  # norm and addition in one kernel: 8 + 8 forward, 8 + 8 backward
OURS_OPTIMIZER = 32  # a parameter: AdamW 24 with FP32 moments, norm of the gradient 4, clearing it 4
IDEAL_OPTIMIZER = 16  # BF16 moments and gradients, 14, and the norm 2

LAYERS = [(32768, 2048, 2048), (32768, 4096, 4096), (32768, 4096, 22016), (32768, 16384, 6144), (4096, 4096, 4096),
          (1024, 4096, 4096)]
MODELS = {"1.3B": (2048, 5632, 24, 32000), "7B": (4096, 11008, 32, 32000)}  # hidden, inner, layers, vocabulary
TOKENS, LENGTH = 32768, 4096


def products(m, k, n, operand, peak, bandwidth):
    """Milliseconds of Y, dX and dW; dW is added to FP32 sums."""
    flop = 2 * m * k * n / (peak * 1e12)
    moved = (operand * (m * k + n * k) + 2 * m * n, operand * (m * n + n * k) + 2 * m * k,
             operand * (m * n + m * k) + 8 * n * k)
    return 1e3 * sum(max(flop, each / (bandwidth * 1e12)) for each in moved)


def linear(device, m, k, n, quantiser, cycles=(0, 0, 0)):
    """Milliseconds in BF16; of the products in NVFP4; and of what feeds those."""
    bf16, nvfp4, bandwidth = DEVICES[device]
    plain = products(m, k, n, 2, bf16, bandwidth)
    elements = (m * k, n * k, m * n)
    lanes = LANES.get(device, float("inf"))
    feeding = sum(count * max(moved / (bandwidth * 1e12), cycle / lanes)
                  for count, moved, cycle in zip(elements, quantiser, cycles))
    if nvfp4 is None:
        feeding += 2 * DECODE * sum(elements) / (bandwidth * 1e12)  # every operand is used twice
    four = plain if nvfp4 is None else products(m, k, n, NVFP4, nvfp4, bandwidth)
    return plain, four, 1e3 * feeding


def chunk_tokens(tokens, vocabulary):
    wanted = max(256, min(8192, (1 << 29) // vocabulary))  # head_chunk_tokens() of model/objectives/head.h
    chunks = -(-tokens // wanted)
    return min(tokens, -(-(-(-tokens // chunks)) // 16) * 16)


def head(device, hidden, vocabulary, ours):
    """Milliseconds of the BF16 head: its products and the cross-entropy, in chunks."""
    bf16, _, bandwidth = DEVICES[device]
    flop = 2 * TOKENS * hidden * vocabulary / (bf16 * 1e12)
    if not ours:
        return 3e3 * flop
    chunk = chunk_tokens(TOKENS, vocabulary)
    chunks = TOKENS / chunk
    weight = chunks * hidden * vocabulary
    logits = TOKENS * vocabulary
    moved = (2 * weight + 4 * logits, 2 * weight + 2 * logits, 8 * weight + 2 * logits)
    kept = min(vocabulary, 16384) / vocabulary  # of a row's logits, in shared memory; the others are read three times
    loss = logits * (4 * kept + 12 * (1 - kept) + 2)
    return 1e3 * (sum(max(flop, each / (bandwidth * 1e12)) for each in moved) + loss / (bandwidth * 1e12))


def step(device, model, recipe, ours, cycles=(0, 0, 0)):
    """Milliseconds of a step of one micro-batch: its parts, in BF16 and in NVFP4."""
    hidden, inner, layers, vocabulary = MODELS[model]
    bf16, _, bandwidth = DEVICES[device]
    shapes = [(3 * hidden, hidden), (hidden, hidden), (2 * inner, hidden), (hidden, inner)]
    plain = four = 0
    for n, k in shapes:
        wide, products_in_four, feeding = linear(device, TOKENS, k, n, (OURS if ours else IDEAL)[recipe], cycles)
        plain += layers * wide
        four += layers * (products_in_four + feeding)
    attention = 3.5 * 2 * LENGTH * hidden * TOKENS * layers / (bf16 * 1e12) * 1e3
    of_hidden, of_inner = OURS_ELEMENTWISE if ours else IDEAL_ELEMENTWISE
    elementwise = (of_hidden * hidden + of_inner * inner) * TOKENS * layers / (bandwidth * 1e12) * 1e3
    parameters = layers * sum(n * k for n, k in shapes) + 2 * vocabulary * hidden
    optimizer = (OURS_OPTIMIZER if ours else IDEAL_OPTIMIZER) * parameters / (bandwidth * 1e12) * 1e3
    return plain, four, (attention, elementwise, head(device, hidden, vocabulary, ours), optimizer)


def cells_of_step(device, model, recipe):
    variants = [step(device, model, recipe, ours=False), step(device, model, recipe, ours=True)]
    if device in LANES:
        variants.append(step(device, model, recipe, ours=True, cycles=LANE_CYCLES[recipe]))
    yield "%.0f" % variants[0][0]
    yield figures("%.0f", [four for _, four, _ in variants])
    for ideal, ours in zip(variants[0][2], variants[1][2]):
        yield "%.0f" % ideal if ideal == ours else "%.0f / **%.0f**" % (ideal, ours)
    yield figures("%.2f", [(plain + sum(others)) / (four + sum(others)) for plain, four, others in variants])


def figures(form, values):
    return " / ".join([form % value for value in values[:-1]] + ["**" + form % values[-1] + "**"])


def main():
    print("| layer: tokens x in x out | recipe | " + " | ".join(DEVICES) + " |")
    print("|---|---|" + "---|" * len(DEVICES))
    for m, k, n in LAYERS:
        for recipe in OURS:
            cells = []
            for device in DEVICES:
                plain, four, ideal = linear(device, m, k, n, IDEAL[recipe])
                feeding = [0, ideal, linear(device, m, k, n, OURS[recipe])[2]]
                if device in LANES:
                    feeding.append(linear(device, m, k, n, OURS[recipe], LANE_CYCLES[recipe])[2])
                cells.append(figures("%.2f", [plain / (four + each) for each in feeding]))
            print("| %d x %d x %d | `%s` | %s |" % (m, k, n, recipe, " | ".join(cells)))
    print()
    print("| device | model | recipe | linear BF16 | linear NVFP4 | attention | elementwise | head | optimizer | gain |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for device in DEVICES:
        for model in MODELS:
            for recipe in OURS:
                print("| %s | %s | `%s` | %s |" % (device, model, recipe, " | ".join(cells_of_step(device, model, recipe))))


if __name__ == "__main__":
    main()
