"""The checks of check_loggers.sh. Usage: check_loggers.py RUN_DIR..., in the directory where log_to_wandb.py (offline) and
log_to_mlflow.py have written. Compares what wandb and mlflow have stored with metrics.jsonl, number by number."""
import collections
import json
import pathlib
import struct
import sys

import mlflow
from wandb.proto import wandb_internal_pb2


def expected(run):
    """{(name, step): value} of a run directory, without the steps that a resume computed again."""
    points = {}
    for line in (run / 'metrics.jsonl').read_text().splitlines():
        event = json.loads(line)
        if event['event'] == 'resume':
            points = {key: value for key, value in points.items() if key[1] <= event['step']}
        elif event['event'] == 'step':
            for name, key in (('loss/train', 'loss'), ('grad_norm', 'grad_norm'), ('learning_rate', 'lr'),
                              ('tokens', 'tokens')):
                points[name, event['step']] = event[key]
        elif event['event'] == 'validation':
            points['loss/validation', event['step']] = event['loss']
            for name, figures in event.get('sets', {}).items():
                points['loss/validation/' + name, event['step']] = figures['loss']
        elif event['event'] == 'telemetry' and event['grad_cosine'] is not None:
            points['telemetry/grad_cosine', event['step']] = event['grad_cosine']
    return points


def records(path):
    """The records of a file of W&B's: LevelDB's log format after a header of 7 bytes, pieces in blocks of 32 KiB."""
    content, position, record = path.read_bytes(), 7, b''
    while position + 7 <= len(content):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        _, length, kind = struct.unpack_from('<IHB', content, position)
        record += content[position + 7:position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(record)
            record = b''


def stored_by_wandb():
    """By name of the run: its points, how often each was stored, and its configuration."""
    runs, names = collections.defaultdict(lambda: ({}, collections.Counter(), {})), {}
    for path in sorted(pathlib.Path('wandb').glob('offline-run-*/*.wandb')):
        identifier = path.stem
        for record in records(path):
            kind = record.WhichOneof('record_type')
            if kind == 'run':
                names[identifier] = record.run.display_name
                items = record.run.config.update
            else:
                items = record.config.update if kind == 'config' else []
            points, counts, configuration = runs[identifier]
            for item in items:
                configuration[item.key or '/'.join(item.nested_key)] = json.loads(item.value_json)
            if kind == 'history':
                row = {item.key or '/'.join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                counts['line', row['_step']] += 1
                for name, value in row.items():
                    if name[0] == '_' or name == 'step' or (name == 'tokens' and 'loss/train' not in row):
                        continue
                    points[name, row['step']] = value
                    counts[name, row['step']] += 1
    return {names[identifier]: stored for identifier, stored in runs.items()}


def stored_by_mlflow():
    client, runs = mlflow.MlflowClient(), {}
    experiment = client.get_experiment_by_name('nibble')
    for run in client.search_runs([experiment.experiment_id]):
        points, counts = {}, collections.Counter()
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                points[name, metric.step] = metric.value
                counts[name, metric.step] += name != 'tokens'  # a validation has them again
        runs[run.info.run_name] = points, counts, run.data.params
        assert run.info.status == 'FINISHED', f'{run.info.run_name} is {run.info.status}'
    return runs


def check(tool, stored, run):
    name = run.name
    points, counts, configuration = stored[name]
    wanted = expected(run)
    differing = [key for key, value in wanted.items() if points.get(key) != value]
    assert not differing, f'{tool}: {name}: {len(differing)} numbers differ or are missing, such as {differing[:3]}'
    twice = [key for key, count in counts.items() if count > 1]
    assert not twice, f'{tool}: {name}: sent twice: {twice[:3]}'
    losses = ('loss/train', 'loss/validation', 'telemetry/grad_cosine')
    extra = [key for key in points if key[0] in losses and key not in wanted]
    assert not extra, f'{tool}: {name}: not in metrics.jsonl: {extra[:3]}'
    steps = configuration['train']['steps'] if tool == 'wandb' else int(configuration['train.steps'])
    assert steps == max(step for _, step in wanted), f'{tool}: {name}: train.steps is {steps}'
    print(f'ok      {tool}: {name}: {len(wanted)} numbers of {steps} steps are those of metrics.jsonl, none is there twice')


def main():
    for tool, stored in (('wandb', stored_by_wandb()), ('mlflow', stored_by_mlflow())):
        for run in sys.argv[1:]:
            check(tool, stored, pathlib.Path(run))


main()
