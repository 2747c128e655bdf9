#!/usr/bin/env python3
"""Sends a run of nibble to Weights & Biases: configuration, training and validation losses, speed and telemetry, over
tokens. With --follow it does so while the run trains. Started again, it goes on where it ended."""
import os
import sys

import run_metrics


class WeightsAndBiases:
    def __init__(self, wandb, project, entity):
        self._wandb, self._project, self._entity = wandb, project, entity
        self._offline = os.environ.get('WANDB_MODE') in ('offline', 'dryrun')
        place = 'files of this machine' if self._offline else os.environ.get('WANDB_BASE_URL', 'the server')
        self.destination = f'{place}, {entity + "/" if entity else ""}{project}'

    def open(self, log, name, run):
        again = {'id': run} if run else {}
        if run and not self._offline:
            again['resume'] = 'must'
        try:
            self._run = self._wandb.init(project=self._project, entity=self._entity, name=name, job_type='pretraining',
                                         group=log.directory.resolve().name, **again)
        except self._wandb.errors.Error as error:
            raise run_metrics.Failure(78, f'wandb: {error}', 'wandb login, or WANDB_MODE=offline') from error
        # A line of W&B's history is an event; its curves are drawn over tokens, or over steps by choice.
        self._run.define_metric('tokens')
        self._run.define_metric('step')
        self._run.define_metric('*', step_metric='tokens')
        self._log = log
        self._describe()
        return self._run.id

    def _describe(self):
        self._run.config.update({**self._log.configuration(), 'journal': self._log.journal()}, allow_val_change=True)

    def send(self, points, first):
        for number, point in enumerate(points, start=first):
            self._run.log({'step': point.step, 'tokens': point.tokens, '_timestamp': point.time, **point.scalars},
                          step=number)

    def where(self):
        return f'{self._run.dir} (later: wandb sync)' if self._run.offline else self._run.url

    def close(self, complete):
        self._describe()  # a resume may have changed it
        self._run.summary['complete'] = complete
        self._run.finish()


def main():
    parser = run_metrics.parser_of(__doc__)
    parser.add_argument('--project', default=os.environ.get('WANDB_PROJECT', 'nibble'), help='(%(default)s)')
    parser.add_argument('--entity', default=os.environ.get('WANDB_ENTITY'), help='user or team')
    arguments = parser.parse_args()
    return run_metrics.main(arguments, 'wandb',
                            lambda wandb: WeightsAndBiases(wandb, arguments.project, arguments.entity))


if __name__ == '__main__':
    sys.exit(main())
