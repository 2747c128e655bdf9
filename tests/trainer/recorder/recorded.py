"""Compares what the stand-ins have recorded with metrics.jsonl. Usage: recorded.py wandb|mlflow RECORD RUN_DIR NAME: the
run NAME has each point of RUN_DIR once, and no other."""
import json
import sys

NAMES = {'step': {'loss/train': 'loss', 'grad_norm': 'grad_norm', 'learning_rate': 'lr', 'mfu': 'mfu',
                  'tokens_per_second': 'tokens_per_second'},
         'validation': {'loss/validation': 'loss', 'bits_per_byte/validation': 'bits_per_byte'},
         'telemetry': {'telemetry/grad_cosine': 'grad_cosine', 'telemetry/grad_relative_error': 'grad_relative_error'}}
SPEEDS = ('mfu', 'tokens_per_second')  # a step that is computed again has others; those of the first time were sent


def expected(run_dir):
    """(step, name, value), one for each number that must be sent."""
    numbers = []
    for line in open(run_dir + '/metrics.jsonl'):
        event = json.loads(line)
        if event['event'] == 'resume':
            numbers = [number for number in numbers if number[0] <= event['step']]
        for name, key in NAMES.get(event['event'], {}).items():
            numbers.append((event['step'], name, event[key]))
        if event['event'] == 'step':
            numbers.append((event['step'], 'tokens', event['tokens']))
        for name, figures in event.get('sets', {}).items():
            numbers += [(event['step'], f'loss/validation/{name}', figures['loss']),
                        (event['step'], f'bits_per_byte/validation/{name}', figures['bits_per_byte'])]
    return numbers


def sent_to_wandb(calls, run):
    numbers, lines = [], []
    for call in calls:
        if call['call'] == 'log' and call['run'] == run:
            row = call['row']
            lines.append(call['line'])
            numbers += [(row['step'], name, value) for name, value in row.items()
                        if name not in ('step', '_timestamp') and (name != 'tokens' or 'loss/train' in row)]
    assert lines == list(range(len(lines))), f'lines {lines}'
    return numbers


def sent_to_mlflow(calls, run):
    metrics = [metric for call in calls if call['call'] == 'batch' and call['run'] == run for metric in call['metrics']]
    numbers, tokens = [], set()
    for name, value, _, step in metrics:
        if name == 'tokens':  # comes with each event of a step
            tokens.add((step, name, value))
        else:
            numbers.append((step, name, value))
    return numbers + list(tokens)


def main():
    tool, record, run_dir, name = sys.argv[1:]
    calls = [json.loads(line) for line in open(record)]
    sent = {'wandb': sent_to_wandb, 'mlflow': sent_to_mlflow}[tool](calls, 'id-of-' + name)
    # Of telemetry there are more numbers, means over the layers: those are only counted.
    means = [number for number in sent if number[1].startswith('telemetry') and number[1] not in NAMES['telemetry']]
    sent = [number for number in sent if number not in means]
    sent, wanted = ([(step, name, name in SPEEDS or value) for step, name, value in numbers]
                    for numbers in (sent, expected(run_dir)))
    assert sorted(sent) == sorted(wanted), f'{tool}: {sorted(set(sent) ^ set(wanted))[:4]}, {len(sent)} of {len(wanted)}'
    telemetry = sum(name == 'telemetry/grad_cosine' for _, name, _ in wanted)
    assert telemetry > 0 and len(means) == len(set(means)) and len(means) % telemetry == 0 and means, len(means)
    assert len({step for step, _, _ in wanted}) > 1
    print(len(wanted))


main()
