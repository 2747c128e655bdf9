"""Tools of the whole-program tests: losses and state hashes of runs, excerpts of the sample text."""

import hashlib
import json
import pathlib
import subprocess
import sys


def losses(run):
    """Returns lines 'step loss_hex grad_norm' in order; steps that a resume computed again count once."""
    steps = {}
    for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "resume":
            steps = {step: text for step, text in steps.items() if step < event["step"] + 1}
        elif event["event"] == "step":
            steps[event["step"]] = f'{event["step"]} {event["loss_hex"]} {event["grad_norm"]!r}'
        elif event["event"] == "validation":
            steps[event["step"] + 0.5] = f'validation {event["step"]} {event["loss_hex"]}'
    return [steps[step] for step in sorted(steps)]


def state(run):
    """Returns the SHA-256 of all tensors of the newest checkpoint, which are read through its index."""
    import h5py

    checkpoint = sorted(path for path in pathlib.Path(run, "checkpoints").glob("step-*") if not path.suffix)[-1]
    digest = hashlib.sha256()
    with h5py.File(checkpoint / "index.h5", "r") as index:
        names = []
        index.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in sorted(names):
            digest.update(name.encode())
            digest.update(index[name][()].tobytes())
    return f"{checkpoint.name} {len(names)} {digest.hexdigest()}"


def check_same(run, reference):
    """Both have the same losses, and some, and the same final state."""
    wanted, found = losses(reference), losses(run)
    if not wanted:
        sys.exit(f"{reference} has no losses")
    if found != wanted:
        lines = (f"{a!r} instead of {b!r}" for a, b in zip(found + [""], wanted + [""]) if a != b)
        sys.exit(f"losses of {run} differ from {reference}: {next(lines, 'other steps')}")
    if state(run) != state(reference):
        sys.exit(f"final state of {run} differs from {reference}")


def events(path):
    """Returns lines 'tag step' of the scalars in a TensorBoard file: records of length, CRC, event, CRC."""
    data = pathlib.Path(path).read_bytes()

    def varint(at):
        value = shift = 0
        while True:
            byte = record[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at

    lines, start = [], 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 8], "little")
        record = data[start + 12 : start + 12 + length]
        start += length + 16
        step, at = 0, 9  # the time, a fixed field of 64 bits, comes first
        while at < len(record):
            field, at = varint(at)
            if field == 2 << 3:
                step, at = varint(at)
                continue
            size, at = varint(at)
            if field == 5 << 3 | 2:  # a summary of one value, which begins with its tag
                tag = record[at + 4 : at + 4 + record[at + 3]].decode()
                lines.append(f"{tag} {step}")
            at += size
    return lines


def excerpt(compressed, output):
    """Returns the first 1,500 bytes of each address: 211 documents, small enough to train on in a second."""
    text = subprocess.run(["zstd", "-dc", compressed], check=True, capture_output=True).stdout.decode()
    cut = [line[:1500] for line in text.splitlines() if line.strip()]
    pathlib.Path(output).write_text("\n".join(cut) + "\n")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "losses":
        print("\n".join(losses(*arguments)))
    elif command == "state":
        print(state(*arguments))
    elif command == "events":
        print("\n".join(events(*arguments)))
    elif command == "same":
        check_same(*arguments)
    elif command == "excerpt":
        excerpt(*arguments)
    else:
        sys.exit(f"run_tools.py: unknown command {command}")
