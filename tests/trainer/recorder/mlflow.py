"""Stands in for mlflow in loggers_test.sh: writes the calls, one JSON object a line, to $RECORD, and refuses what MLflow
refuses."""
import collections
import json
import os
import re
import types

entities = types.SimpleNamespace(Metric=collections.namedtuple('Metric', 'key value timestamp step'),
                                 Param=collections.namedtuple('Param', 'key value'))
exceptions = types.SimpleNamespace(MlflowException=type('MlflowException', (Exception,), {}))


def record(**call):
    with open(os.environ['RECORD'], 'a') as file:
        file.write(json.dumps(call) + '\n')


def recorded():
    return [json.loads(line) for line in open(os.environ['RECORD'])] if os.path.exists(os.environ['RECORD']) else []


def get_tracking_uri():
    return os.environ['MLFLOW_TRACKING_URI']


class MlflowClient:
    def __init__(self):
        if not get_tracking_uri().startswith('sqlite:'):
            raise exceptions.MlflowException('no such store')

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return 'experiment ' + name

    def create_run(self, experiment, run_name, start_time):
        record(call='open', name=run_name, experiment=experiment)
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id='id-of-' + run_name))

    def update_run(self, run, status):
        record(call='again', run=run, status=status)

    def get_run(self, run):
        parameters = dict(parameter for call in recorded() if call['call'] == 'batch' and call['run'] == run
                          for parameter in call['params'])
        return types.SimpleNamespace(data=types.SimpleNamespace(params=parameters))

    def log_batch(self, run, metrics=(), params=()):
        known = self.get_run(run).data.params
        for name in [each.key for each in [*metrics, *params]]:
            if not re.fullmatch(r'[\w./: -]+', name) or name in known:
                raise exceptions.MlflowException(f'{name}: refused')
        if len(metrics) > 1000 or len(params) > 100:
            raise exceptions.MlflowException('too many')
        record(call='batch', run=run, metrics=metrics, params=params)

    def set_tag(self, run, key, value):
        record(call='tag', run=run, key=key, value=value)

    def log_artifact(self, run, path):
        record(call='artifact', run=run, path=path)

    def set_terminated(self, run, status):
        record(call='close', run=run, status=status)
