"""The training loop with fakes around it, and a diary of what it does."""

import json
from dataclasses import asdict

import numpy as np

from trainer.compat import tf
from trainer.evaluation.statistics import Mean
from trainer.training.divergence import NO_STEP
from trainer.training.loop import RunState, StopSignal, Trainer
from trainer.training.metric_writer import MetricWriter, Sink
from trainer.training.run import take_steps
from trainer.training.schedule import Cadence, Schedule, plan_calls
from trainer.training.steps import Taken


class Diary(Sink):
    """Records what is written, in order."""

    def __init__(self):
        self.lines = []

    def write_scalars(self, step, epoch, split, scalars):
        self.lines.append((split, step, epoch, dict(scalars)))

    def advance(self, step, steps_per_second):
        self.lines.append(("advance", step, steps_per_second))

    def flush(self):
        self.lines.append(("flush",))

    def of(self, *kinds):
        return [line for line in self.lines if line[0] in kinds]


class Time:
    """A clock that moves only when told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def step_sums(step):
    """Of one step: the sum and weight of the loss, then of a metric that weighs lists."""
    rng = np.random.default_rng(step)
    return np.float32([[rng.normal(), 4], [rng.normal(), rng.integers(0, 3)]])


TOTAL_STEPS, EPOCH_STEPS = 30, 10


class Loop:
    """The training loop with its arguments, ready to run."""

    def __init__(self, trainer, **arguments):
        self.trainer, self.state, self._arguments = trainer, trainer.state, arguments

    def run(self):
        take_steps(self.trainer, **self._arguments)


def build_loop(
    state=None,
    *,
    validation=None,
    sums=step_sums,
    every=(6, 10, 15),
    steps_per_execution=4,
    total_steps=TOTAL_STEPS,
    patience=0,
    direction="max",
    metric_names=("loss", "mrr"),
    stop=None,
    seconds=0.0,
    failure=None,
):
    """A training loop of fakes, and the diary of what it does.

    Args:
      validation: step → value of the metric `mrr`.
      sums: step → its sums.
      every: cadences of log, evaluation and checkpoint.
      failure: (step, health) of a step that is not usable.
      seconds: that each step takes; an evaluation takes 100 and a save 1000.
    """
    state, diary, clock = state or RunState(), Diary(), Time()
    log_due, eval_due, checkpoint_due = (
        Cadence(steps, epoch_steps=EPOCH_STEPS, total_steps=total_steps) for steps in every
    )
    calls = plan_calls(
        state.step, total_steps, steps_per_execution=steps_per_execution, cadences=[log_due, eval_due, checkpoint_due]
    )

    def train_call(batch, first_step, num_steps):
        first_step, num_steps = int(first_step), int(num_steps)
        assert batch == first_step, "the batches of another call"
        clock.now += seconds * num_steps
        total = tf.constant(sum(sums(step) for step in range(first_step, first_step + num_steps)))
        if failure and first_step <= failure[0] < first_step + num_steps:
            return Taken(total, tf.constant(failure[0], tf.int64), tf.constant(failure[1]))
        return Taken(total, tf.constant(NO_STEP, tf.int64), tf.zeros([2]))

    def validate():
        clock.now += 100
        return {
            "loss": Mean(0.25, 0.2, 0.3, 5),
            "relative_loss": Mean(validation(state.step) / 10, 0.0, 1.0, 5),
            "mrr": Mean(validation(state.step), 0.0, 1.0, 5),
        }

    def save():
        clock.now += 1000
        diary.lines.append(("save", state.step, json.dumps(asdict(state))))

    trainer = Trainer(
        state=state,
        train_call=train_call,
        batches=iter(calls[:-1].tolist()),
        learning_rate_fn=lambda step: 0.5 * step,
        metric_names=metric_names,
        epoch_steps=EPOCH_STEPS,
        global_batch_size=4,
        validate_fn=validate if validation else None,
        best_metric="mrr",
        best_direction=direction,
        writer=MetricWriter([diary]),
        clock=clock,
    )
    loop = Loop(
        trainer,
        schedule=Schedule(log_due, eval_due, checkpoint_due, calls, steps_per_execution, total_steps),
        patience=patience,
        after_validation=lambda: diary.lines.append(("after_validation", state.step)),
        save=save,
        wait_for_save=lambda: diary.lines.append(("wait_for_save", state.step)),
        stop=stop or StopSignal(),
    )
    return loop, diary


def without_pace(lines):
    """The lines of the log, without how fast it went."""
    return [
        (*line[:3], {name: value for name, value in line[3].items() if name != "lists_per_second"}) for line in lines
    ]


def metrics_of(diary, after=0):
    return without_pace(line for line in diary.of("train", "validation") if line[1] > after)
