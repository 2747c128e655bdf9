#!/usr/bin/env python3
"""Prints, as Markdown, the final losses of the runs that recipe_results.sh made: recipe_table.py DIRECTORY RECIPE..."""
import json
import math
import pathlib
import sys


def mean_and_error(values):
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def final_losses(run):
    """Returns the validation loss after the last step, and the mean training loss of the last tenth of the steps."""
    validation, training = None, {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "validation":
            validation = event["loss"]
        elif event["event"] == "step":
            training[event["step"]] = event["loss"]
    last = sorted(training)[-max(1, len(training) // 10):]
    if not all(math.isfinite(loss) for loss in training.values()) or validation is None:
        raise SystemExit(f"{run}: not every loss is finite, or the run is not finished")
    return validation, sum(training[step] for step in last) / len(last)


def forward_cost(directory, seed, recipe):
    """Returns the milli-nats that a recipe's forward pass adds to the loss of the model that was trained in bf16."""
    def loss(name):
        text = (directory / f"{seed}-{name}.json").read_text()
        return json.loads(text[text.index("{"):])["loss"]
    return 1000 * (loss(recipe) - loss("bf16"))


def main():
    directory, recipes = pathlib.Path(sys.argv[1]), sys.argv[2:]
    seeds = sorted(path.name for path in directory.glob("seed-*") if path.is_dir())
    losses = {r: [final_losses(directory / seed / r) for seed in seeds] for r in recipes}
    baseline = losses["bf16"]
    rows = []
    for recipe in recipes:
        validation, validation_error = mean_and_error([v for v, _ in losses[recipe]])
        gap, gap_error = mean_and_error([1000 * (v - b) for (v, _), (b, _) in zip(losses[recipe], baseline)])
        training, training_error = mean_and_error([1000 * (t - b) for (_, t), (_, b) in zip(losses[recipe], baseline)])
        forward, forward_error = mean_and_error([forward_cost(directory, seed, recipe) for seed in seeds])
        rows.append((gap, f"| {recipe} | {validation:.4f} ± {validation_error:.4f} | {gap:+.1f} ± {gap_error:.1f} "
                          f"| {100 * gap / 1000 / mean_and_error([v for v, _ in baseline])[0]:+.2f} % "
                          f"| {training:+.1f} ± {training_error:.1f} | {forward:+.2f} ± {forward_error:.2f} |"))
    print(f"| recipe ({len(seeds)} seeds) | validation loss, nats | gap to bf16, milli-nats | in per cent "
          "| gap in training loss, last tenth, milli-nats | its forward pass on the bf16 model, milli-nats |")
    print("|---|---|---|---|---|---|")
    for _, row in sorted(rows):
        print(row)


main()
