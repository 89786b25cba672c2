"""The training loop: calls of several steps, and what is due between them.

Each line of the log, each evaluation and each checkpoint falls on the end of a call. The state of the loop is
in every checkpoint, so that a resumed run logs, evaluates, keeps and stops as the uninterrupted one does.
"""

import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from settings.errors import DivergedError, Stopped
from trainer.compat import keras, tf
from trainer.evaluation.statistics import Figures
from trainer.modeling.two_tower import Features
from trainer.training.metric_writer import MetricWriter
from trainer.training.steps import TrainCall

Clock = Callable[[], float]
"""Seconds, from any origin."""


@dataclass
class RunState:
    """What a checkpoint holds beside the tensors.

    Attributes:
      step: optimizer steps taken.
      sums: [num_figures, 2], of the training figures since the last line of the log: sums and weights.
      train_figures: the newest line of the log.
      best_step: of the best evaluation; None before the first.
      best_value: of the metric that chooses.
      evaluations_since_best: what early stopping counts.
    """

    step: int = 0
    sums: list[list[float]] = field(default_factory=list)
    train_figures: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None
    best_value: float | None = None
    evaluations_since_best: int = 0

    def is_finished(self, total_steps: int, patience: int) -> bool:
        """Whether no step is left, or `patience` evaluations (0 for any number) have brought none that is better."""
        return self.step >= total_steps or (bool(patience) and self.evaluations_since_best >= patience)


class Cadence:
    """Due every so many steps, and always after the last one."""

    def __init__(self, every_steps: int, *, epoch_steps: int, total_steps: int):
        """`every_steps` of 0 means once an epoch."""
        self.every_steps = every_steps or epoch_steps
        self.total_steps = total_steps

    def __call__(self, step: int) -> bool:
        return step % self.every_steps == 0 or step == self.total_steps


def plan_calls(
    first_step: int, total_steps: int, *, steps_per_execution: int, cadences: Sequence[Cadence]
) -> np.ndarray:
    """After which steps calls begin and end: as long as can be without passing a step where something is due.

    Returns:
      int64 [num_calls + 1], ascending from first_step to total_steps; just [first_step] where they are equal.
    """
    due = [np.arange(0, total_steps, cadence.every_steps) for cadence in cadences]
    stops = np.unique(np.concatenate([*due, [first_step, total_steps]]))
    stops = stops[stops >= first_step]
    calls = [np.arange(begin, end, steps_per_execution) for begin, end in itertools.pairwise(stops)]
    return np.concatenate([*calls, stops[-1:]]).astype(np.int64)


class StopSignal:
    """Remembers SIGTERM or Ctrl-C, so that the loop can save and leave between two calls.

    Attributes:
      requested: the signal that came; None before.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None

    def listen(self) -> None:
        """Takes the place of the signals' defaults, which would end the process at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def ignore(self) -> None:
        """Gives the signals their defaults back."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _remember(self, number: int, frame: Any) -> None:
        self.requested = signal.Signals(number)
        self.ignore()  # A second one ends it at once.


@dataclass
class TrainingLoop:
    """Trains from `state.step` on; see `run`.

    Attributes:
      state: is updated in place.
      train_call, batches: what steps.build_train_call and input_pipeline.build_train_dataset made, the latter
        for the calls of `plan_calls`.
      schedule: step → learning rate.
      names: of the figures that `train_call` sums.
      validate: evaluates the validation lists; None where there are none.
      after_validation: is told of each evaluation's step.
      save: writes a checkpoint of the state.
      best_metric, best_direction: which evaluation is the best, by `max` or `min`.
      patience: evaluations without a better one before it stops; 0 for never.
      clock: seconds.
    """

    state: RunState
    train_call: TrainCall
    batches: Iterator[Features]
    calls: np.ndarray
    epoch_steps: int
    global_batch_size: int
    schedule: keras.optimizers.schedules.LearningRateSchedule
    names: Sequence[str]
    log_due: Cadence
    eval_due: Cadence
    checkpoint_due: Cadence
    validate: Callable[[], Figures] | None
    after_validation: Callable[[int], None]
    save: Callable[[RunState], None]
    writer: MetricWriter
    best_metric: str
    best_direction: str
    patience: int
    stop: StopSignal
    clock: Clock = time.perf_counter
    # Of steady training: without the first call, which compiles, and without evaluations and checkpoints.
    train_seconds: float = 0.0
    timed_steps: int = 0

    def run(self) -> None:
        """Takes all steps, or fewer where early stopping ends it.

        Raises:
          DivergedError: the loss is no longer finite; nothing is saved from then on.
          Stopped: SIGTERM or Ctrl-C arrived; the state is saved.
        """
        for begin, end in itertools.pairwise(self.calls.tolist()):
            if self._is_finished:
                break
            self._train(begin, end)
            if self.log_due(end):
                self._log()
            improved = self._evaluate() if self.validate and self.eval_due(end) else False
            # Before the checkpoint: what it makes final has then been written, and the rest is cut off on resume.
            self.writer.flush()
            # Read once: a signal that arrives from here on waits for the end of the next call.
            stopping = self.stop.requested
            if improved or self.checkpoint_due(end) or stopping is not None or self._is_finished:
                self.save(self.state)
            if stopping is not None:
                raise Stopped(
                    f"Stopped by {stopping.name} after step {end}; it is saved. The same command goes on from there.",
                    exit_code=128 + stopping,
                )

    @property
    def train_figures(self) -> dict[str, float]:
        """The newest line of the log, be it of this run or of the one that it goes on with."""
        return self.state.train_figures

    @property
    def steps_per_second(self) -> float:
        """Of steady training; NaN where there was only one call."""
        return self.timed_steps / self.train_seconds if self.train_seconds else math.nan

    def _train(self, begin: int, end: int) -> None:
        started = self.clock()
        first_step, num_steps = tf.constant(begin, tf.int64), tf.constant(end - begin, tf.int32)
        sums = self.train_call(next(self.batches), first_step, num_steps).numpy().astype(np.float64)
        if begin != self.calls[0]:
            self.train_seconds += self.clock() - started
            self.timed_steps += end - begin
        if not np.isfinite(sums).all():
            raise DivergedError(
                f"Training diverged: between step {begin} and step {end} the loss or a metric became "
                f"{sums[~np.isfinite(sums)][0]}. Nothing was saved since the last checkpoint. Lower "
                "config.optimizer.learning_rate or set config.optimizer.clip_norm, and use a new --workdir."
            )
        self.state.step = end
        self.state.sums = (np.asarray(self.state.sums or np.zeros_like(sums)) + sums).tolist()
        self.writer.advance(end, self.steps_per_second)

    def _log(self) -> None:
        self.state.train_figures = {
            name: total / weight if weight else math.nan
            for name, (total, weight) in zip(self.names, self.state.sums, strict=True)
        }
        pace = {"learning_rate": float(self.schedule(self.state.step))}
        if self.timed_steps:
            pace["lists_per_second"] = self.steps_per_second * self.global_batch_size
        self.writer.write_scalars(self.state.step, self._epoch, "train", self.train_figures | pace)
        self.state.sums = []

    def _evaluate(self) -> bool:
        """Whether this evaluation is the best so far."""
        assert self.validate is not None
        figures = self.validate()
        self.writer.write_scalars(
            self.state.step, self._epoch, "validation", {name: f.value for name, f in figures.items()}
        )
        self.after_validation(self.state.step)
        value, best = figures[self.best_metric].value, self.state.best_value
        # One that is not finite is no better than none, also where there is none yet.
        is_better = math.isfinite(value) and (
            best is None or (value > best if self.best_direction == "max" else value < best)
        )
        if is_better:
            self.state.best_step, self.state.best_value = self.state.step, value
            self.state.evaluations_since_best = 0
        else:
            self.state.evaluations_since_best += 1
        return is_better

    @property
    def _is_finished(self) -> bool:
        return self.state.is_finished(int(self.calls[-1]), self.patience)

    @property
    def _epoch(self) -> float:
        return self.state.step / self.epoch_steps
