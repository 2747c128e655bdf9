#!/usr/bin/env python3
"""Sends a run of nibble to MLflow: configuration, training and validation losses, speed and telemetry, over steps. With
--follow it does so while the run trains. Started again, it goes on where it ended. Where to: MLFLOW_TRACKING_URI."""
import sys

import run_metrics

BATCH = 1000  # metrics of one call, MLflow's limit; of parameters it is 100
LONGEST = {'parameter': 6000, 'tag': 5000}  # characters of a value


class MLflow:
    def __init__(self, mlflow, experiment):
        self._mlflow, self._experiment = mlflow, experiment
        self.destination = f'{mlflow.get_tracking_uri()}, {experiment}'
        self._client = self._call(mlflow.MlflowClient)

    def _call(self, function, *arguments, **options):
        try:
            return function(*arguments, **options)
        except self._mlflow.exceptions.MlflowException as error:
            raise run_metrics.Failure(74, f'mlflow, {self.destination}: {error}',
                                      'set MLFLOW_TRACKING_URI to a store or server that works') from error

    def open(self, log, name, run):
        self._log = log
        if run is None:
            experiment = self._call(self._client.get_experiment_by_name, self._experiment)
            identifier = experiment.experiment_id if experiment else self._call(self._client.create_experiment,
                                                                                self._experiment)
            self._run = self._call(self._client.create_run, identifier, run_name=name,
                                   start_time=int(1000 * log.points[0].time)).info.run_id
        else:
            self._run = run
            self._call(self._client.update_run, run, status='RUNNING')
        self._describe()
        return self._run

    def _describe(self):
        """Parameters cannot be changed in MLflow: what a resume has changed is in the tag `journal`, and config.yaml, an
        artifact, is the present one."""
        known = self._call(self._client.get_run, self._run).data.params
        parameters = [self._mlflow.entities.Param(key, str(value)[:LONGEST['parameter']])
                      for key, value in run_metrics.flatten(self._log.configuration()).items() if key not in known]
        for first in range(0, len(parameters), 100):
            self._call(self._client.log_batch, self._run, params=parameters[first:first + 100])
        self._call(self._client.set_tag, self._run, 'journal', '\n'.join(self._log.journal())[-LONGEST['tag']:])
        self._call(self._client.log_artifact, self._run, str(self._log.directory / 'config.yaml'))

    def send(self, points, first):
        metrics = [self._mlflow.entities.Metric(name, value, int(1000 * point.time), point.step)
                   for point in points for name, value in {'tokens': point.tokens, **point.scalars}.items()]
        for begin in range(0, len(metrics), BATCH):
            self._call(self._client.log_batch, self._run, metrics=metrics[begin:begin + BATCH])

    def where(self):
        return f'{self.destination}, run {self._run}'

    def close(self, complete):
        self._describe()
        if complete:
            self._call(self._client.set_terminated, self._run, 'FINISHED')


def main():
    parser = run_metrics.parser_of(__doc__)
    parser.add_argument('--experiment', default='nibble', help='(%(default)s)')
    arguments = parser.parse_args()
    return run_metrics.main(arguments, 'mlflow', lambda mlflow: MLflow(mlflow, arguments.experiment))


if __name__ == '__main__':
    sys.exit(main())
