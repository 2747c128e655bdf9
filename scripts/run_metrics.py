"""What log_to_wandb.py and log_to_mlflow.py share: reads a run directory, as it grows if wanted, and sends each of its
points once (docs/operations.md, "Loggers")."""
import argparse
import dataclasses
import fcntl
import hashlib
import importlib
import json
import os
import pathlib
import re
import signal
import sys
import threading

APPEARS_WITHIN = 60  # seconds that --follow waits for a run that has not begun


class Failure(Exception):
    """What went wrong and what helps, with the exit code that nibble has for it."""

    def __init__(self, code, what, remedy):
        super().__init__(what)
        self.code, self.remedy = code, remedy


def require(package):
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = {'yaml': 'pyyaml'}.get(package, package)
        raise Failure(78, f'the Python package {name} cannot be imported: {error}',
                      f'{sys.executable} -m pip install {name}') from error


@dataclasses.dataclass
class Point:
    """An event of metrics.jsonl as a set of numbers."""
    step: int
    tokens: int
    time: float   # Unix seconds
    scalars: dict  # name, as in TensorBoard -> number
    digest: str   # of this point and of all before it; times and speeds do not count


def mean_of(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def telemetry_scalars(event):
    scalars = {f'telemetry/{name}': event.get(name) for name in ('grad_cosine', 'grad_relative_error')}
    layers = event['layers']
    scalars['telemetry/grad_zero_share'] = mean_of(layer.get('grad_zero_share') for layer in layers)
    operands = {operand: figures for layer in layers for operand, figures in layer.get('operands', {}).items()}
    for operand, figures in operands.items():
        for figure in figures:
            scalars[f'telemetry/{figure}/{operand}'] = mean_of(
                layer['operands'][operand].get(figure) for layer in layers if operand in layer.get('operands', {}))
    for layer in layers:
        scalars[f'telemetry_layers/grad_cosine/{layer["name"]}'] = layer.get('grad_cosine')
        forward_x = layer.get('operands', {}).get('forward.x', {})
        scalars[f'telemetry_layers/forward.x_relative_error/{layer["name"]}'] = forward_x.get('relative_error')
    return scalars


def scalars_of(event):
    """The numbers of an event under the names that they have in TensorBoard; a number that is not finite is left out."""
    scalars = {}
    if event['event'] == 'step':
        scalars = {'loss/train': event['loss'], 'grad_norm': event['grad_norm'], 'learning_rate': event['lr'],
                   'tokens_per_second': event['tokens_per_second'], 'mfu': event['mfu']}
        for name, part in event.get('parts', {}).items():
            scalars[f'epochs/{name}'] = part['epochs']
        scalars['skipped_steps'] = event.get('skipped_total')
    elif event['event'] == 'validation':
        for suffix, figures in [('', event), *((f'/{name}', each) for name, each in event.get('sets', {}).items())]:
            scalars[f'loss/validation{suffix}'] = figures['loss']
            scalars[f'bits_per_byte/validation{suffix}'] = figures.get('bits_per_byte')
    elif event['event'] == 'telemetry':
        scalars = telemetry_scalars(event)
    return {name: value for name, value in scalars.items() if value is not None}


class RunLog:
    """The points of a run directory. Those that a resumed run has computed again count once, as in nibble's own reports."""

    def __init__(self, directory):
        self.directory = directory
        self.metrics = directory / 'metrics.jsonl'
        self.points = []
        self.run = {}        # the last event `run`
        self._tokens = {}    # of each step
        self._saved = 0      # step of the last checkpoint
        self._offset = 0     # bytes that have been read
        self._line = 0

    def read(self):
        """Reads the lines that have been completed since the last call."""
        with open(self.metrics, 'rb') as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b'\n'):
                    break  # the run is writing it, or was killed
                self._offset += len(line)
                self._line += 1
                try:
                    self._add(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise Failure(65, f'{self.metrics}:{self._line}: not a line of metrics: {error!r}',
                                  'repair or remove this line') from error

    def _add(self, event):
        kind = event['event']
        if kind == 'run':
            self.run = event
        elif kind == 'resume':
            self.points = [point for point in self.points if point.step <= event['step']]
        elif kind == 'checkpoint':
            self._saved = event['step']
        elif kind in ('step', 'validation', 'telemetry'):
            tokens = event['tokens'] if 'tokens' in event else self._tokens[event['step']]
            self._tokens[event['step']] = tokens
            bits = [event.get('loss_hex'), event.get('grad_cosine'), *(
                [name, each['loss_hex']] for name, each in sorted(event.get('sets', {}).items()))]
            before = self.points[-1].digest if self.points else ''
            digest = hashlib.blake2b(json.dumps([before, kind, event['step'], tokens, bits]).encode(), digest_size=16)
            self.points.append(Point(event['step'], tokens, event['time'], scalars_of(event), digest.hexdigest()))

    def complete(self):
        """Whether the run has reached its last step, saved it, and validated it if it validates at all."""
        last = self.run.get('steps')
        validated = [point.step for point in self.points if 'loss/validation' in point.scalars]
        return bool(self.points) and self.points[-1].step == last == self._saved and (not validated or validated[-1] == last)

    def configuration(self):
        """config.yaml, and as `nibble` what the start of the run says of the program and the machine."""
        yaml = require('yaml')

        class Loader(yaml.SafeLoader):
            """YAML 1.2's numbers: version 1.1 takes 1e-05 for a text."""
        Loader.add_implicit_resolver('tag:yaml.org,2002:float', re.compile(r'[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$'),
                                     list('-+0123456789'))
        path = self.directory / 'config.yaml'
        try:
            configuration = yaml.load(path.read_text(encoding='utf-8'), Loader)
        except OSError as error:
            raise Failure(66, f'cannot read {path}: {error.strerror}', 'name a run directory of nibble train') from error
        except yaml.YAMLError as error:
            raise Failure(65, f'{path}: {error}', 'restore it from a checkpoint of the run') from error
        facts = ('parameters', 'ranks', 'threads_per_rank', 'data_fingerprint')
        return {**configuration, 'nibble': {'version': self.run.get('nibble'), **{name: self.run.get(name) for name in facts}}}

    def journal(self):
        """What happened to the run, a sentence an event of journal.jsonl."""
        path = self.directory / 'journal.jsonl'
        lines = []
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if not line.endswith(b'\n'):
                break
            event = json.loads(line)
            facts = {key: value for key, value in event.items() if key in (
                'ranks', 'device', 'run', 'checkpoint', 'abandoned', 'key', 'from', 'to')}
            lines.append(f'step {event.get("step", 0)}: {event.get("kind", "")} ' + json.dumps(facts))
        return lines


def flatten(value, prefix=''):
    """Nested settings as a flat dictionary: {'train.steps': 200}. A list is JSON text."""
    if not isinstance(value, dict):
        return {prefix: json.dumps(value) if isinstance(value, list) else value}
    flat = {}
    for key, each in value.items():
        flat.update(flatten(each, f'{prefix}.{key}' if prefix else str(key)))
    return flat


class Position:
    """How far a run has been sent and whereto: a small file in its directory, which one process at a time may hold."""

    def __init__(self, path):
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Failure(73, f'cannot write {path}: {error.strerror}',
                          'the script keeps there what it has sent; copy the run to where you may write') from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Failure(69, f'{path}: another process sends this run', 'wait for it, or stop it') from error
        text = os.pread(self._descriptor, 1 << 20, 0)
        self.destination, self.run, self.count, self.digest, self.futures = None, None, 0, '', 0
        try:
            if text:
                kept = json.loads(text)
                self.destination, self.run, self.count, self.digest, self.futures = (
                    kept['destination'], kept['run'], kept['points'], kept['digest'], kept['futures'])
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(65, f'{path}: damaged', 'remove it: the whole run is then sent again, as a new one') from error
        self._digests = []  # of all points that are known to have been sent

    def advance(self, points):
        self.count, self.digest = len(points), points[-1].digest if points else ''
        self._digests = [point.digest for point in points]
        text = json.dumps({'destination': self.destination, 'run': self.run, 'points': self.count, 'digest': self.digest,
                           'futures': self.futures}) + '\n'
        os.pwrite(self._descriptor, text.encode(), 0)
        os.ftruncate(self._descriptor, len(text.encode()))

    def is_of(self, points):
        """False if what has been sent is not the beginning of these points: the run took another way after a resume."""
        if self.count == 0:
            return True
        if len(points) >= self.count:
            return points[self.count - 1].digest == self.digest
        return not points or not self._digests or points[-1].digest == self._digests[len(points) - 1]

    def forget(self):
        self.run, self.count, self.digest, self._digests = None, 0, '', []


def parser_of(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('run_dir', metavar='RUN_DIR', type=pathlib.Path, help='run directory of nibble train')
    parser.add_argument('--follow', action='store_true',
                        help='go on until the run is complete, also through stops and resumes; Ctrl-C ends it')
    parser.add_argument('--interval', type=float, default=2, metavar='SECONDS', help='how often --follow looks (%(default)s)')
    parser.add_argument('--name', help="name of the run (the directory's)")
    return parser


def wait_for(log, follow, stopped, say):
    if log.metrics.is_file():
        return
    if not follow:
        raise Failure(66, f'{log.metrics} does not exist', 'name a run directory of nibble train')
    say(f'waiting for {log.metrics} ({APPEARS_WITHIN} s)')
    for _ in range(5 * APPEARS_WITHIN):
        if log.metrics.is_file() or stopped.wait(0.2):
            return
    raise Failure(66, f'{log.metrics} has not appeared in {APPEARS_WITHIN} s', 'name the run.dir of the run')


def send(arguments, package, connect):
    """Sends a run. connect(module) returns an object with
    destination -- a text; a run is continued only where it was begun,
    open(log, name, run) -- begins a run of this name, or goes on with `run`; returns the run's identifier,
    send(points, first) -- `first` points were sent before, close(complete), and where(), a text."""
    tool = pathlib.Path(sys.argv[0]).stem
    stopped = threading.Event()

    def say(text):
        print(f'{tool}: {text}', file=sys.stderr, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    module = require(package)
    log = RunLog(arguments.run_dir)
    wait_for(log, arguments.follow, stopped, say)
    if stopped.is_set():
        return
    name = arguments.name or arguments.run_dir.resolve().name
    position = Position(arguments.run_dir / f'{tool}.json')
    sink = connect(module)
    is_open = False
    sent = 0
    if position.run and position.destination != sink.destination:
        say(f'a new run: the one that was begun is at {position.destination}, not at {sink.destination}')
        position.forget()
        position.futures = 0
    position.destination = sink.destination
    while True:
        log.read()
        if not position.is_of(log.points):
            say(f'a new run: after a resume {arguments.run_dir} differs from what was sent')
            if is_open:
                sink.close(False)
                is_open = False
            position.forget()
        points = log.points[position.count:]
        if points:
            if not is_open:
                position.futures += position.run is None
                suffix = f'-{position.futures}' if position.futures > 1 else ''
                position.run = sink.open(log, name + suffix, position.run)
                is_open = True
                say(f'sending to {sink.where()}')
            sink.send(points, position.count)
            position.advance(log.points)
            sent += len(points)
        elif len(log.points) < position.count and not arguments.follow:
            say(f'the run stands before what was sent ({position.count} points, now {len(log.points)}); nothing is sent')
        if not arguments.follow or log.complete() or stopped.wait(arguments.interval):
            break
    if is_open:
        sink.close(log.complete())
    say(f'sent {sent} points, up to step {log.points[-1].step if log.points else 0}' if sent else 'nothing new to send')


def main(arguments, package, connect):
    """Runs send() and says errors as nibble does. Returns the exit code."""
    try:
        send(arguments, package, connect)
    except Failure as failure:
        print(f'error[E{failure.code}]: {failure}\n  fix: {failure.remedy}', file=sys.stderr)
        return failure.code
    return 0
