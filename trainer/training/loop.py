"""What the training loop in `run.py` uses: the state of a run, its calls, log lines and validations, and signals.

The state is in every checkpoint. So a resumed run logs, validates, keeps and stops as the uninterrupted one does.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from settings.errors import DivergedError
from settings.signals import HANDLED, Listener
from trainer.compat import keras, tf
from trainer.evaluation.statistics import Metrics
from trainer.modeling.two_tower import Features
from trainer.training import divergence
from trainer.training.metric_writer import MetricWriter
from trainer.training.steps import TrainCall

Clock = Callable[[], float]
"""Seconds, from any origin."""


AFTER_TRAINING = "Stopped by {} after training. All steps are saved. The same command finishes the run."
"""What the run says when it is stopped after the last step."""


@dataclass
class RunState:
    """What a checkpoint holds beside the tensors.

    Attributes:
      step: optimizer steps taken.
      accumulators: [2 + num_metrics, 2], sums and weights of the training loss, the metrics and the relative loss since
        the last log line.
      train_metrics: the values of the newest log line.
      best_step: the step of the best validation; None before the first.
      best_value: the value of the metric that selects the best checkpoint.
      best_relative_loss: the relative loss of the validation lists at best_step; None if it was not measured.
      evaluations_since_best: what early stopping counts.
    """

    step: int = 0
    accumulators: list[list[float]] = field(default_factory=list)
    train_metrics: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None
    best_value: float | None = None
    best_relative_loss: float | None = None
    evaluations_since_best: int = 0

    def is_finished(self, total_steps: int, patience: int) -> bool:
        """Whether all steps are taken, or `patience` validations (0: any number) in a row brought no improvement."""
        return self.step >= total_steps or (bool(patience) and self.evaluations_since_best >= patience)

    def note_validation(self, value: float, direction: str) -> bool:
        """Records a validation. Returns whether it is the best so far, by `max` or `min`.

        A value that is not finite never counts as an improvement.
        """
        best = self.best_value
        is_better = math.isfinite(value) and (best is None or (value > best if direction == "max" else value < best))
        if is_better:
            self.best_step, self.best_value = self.step, value
        self.evaluations_since_best = 0 if is_better else self.evaluations_since_best + 1
        return is_better


class StopSignal(Listener):
    """Remembers SIGTERM and Ctrl-C while steps are taken, so that all workers save the same step before they end."""

    def __init__(self, any_worker: Callable[[Sequence[bool]], list[bool]] = list):
        """`any_worker` tells which of some statements is true on a worker; see `strategy.build_any_worker`."""
        super().__init__(AFTER_TRAINING, holds=True)
        self._any_worker = any_worker

    def of_any_worker(self) -> signal.Signals | None:
        """The signal that has arrived at any worker. All workers call it after the same step, and get the same answer.

        So a signal to one worker stops all of them after one step, which they save together.
        """
        arrived = self._any_worker([self.arrived == each for each in HANDLED])
        return next((each for each, has_arrived in zip(HANDLED, arrived, strict=True) if has_arrived), None)


@dataclass
class Trainer:
    """Takes training calls, logs and validates. The loop in `run.py` decides when.

    Attributes:
      state: is updated in place.
      train_call: from `steps.build_train_call`.
      batches: superbatches from `input_pipeline.build_train_dataset`, one for each call.
      learning_rate_fn: step → learning rate.
      metric_names: the names of what `train_call` sums.
      validate_fn: evaluates the validation lists; None where there are no validation lists.
      best_metric: selects the best checkpoint, by the `max` or `min` of best_direction.
      clock: seconds.
      train_seconds: of steady training, without the first call, which compiles, and without validations and saves.
      timed_steps: the steps taken in train_seconds.
      validation_value: the value of best_metric at the current step; None if it was not measured.
    """

    state: RunState
    train_call: TrainCall
    batches: Iterator[Features]
    learning_rate_fn: keras.optimizers.schedules.LearningRateSchedule
    metric_names: Sequence[str]
    epoch_steps: int
    global_batch_size: int
    validate_fn: Callable[[], Metrics] | None
    best_metric: str
    best_direction: str
    writer: MetricWriter
    clock: Clock = time.perf_counter
    train_seconds: float = 0.0
    timed_steps: int = 0
    validation_value: float | None = None
    _is_compiled: bool = False

    def train(self, begin: int, end: int) -> None:
        """Takes the steps from `begin` to `end` in one call.

        Raises:
          DivergedError: the loss, the gradients or a metric are no longer finite.
        """
        started = self.clock()
        first_step, num_steps = tf.constant(begin, tf.int64), tf.constant(end - begin, tf.int32)
        taken = self.train_call(next(self.batches), first_step, num_steps)
        sums = taken.sums.numpy().astype(np.float64)
        if self._is_compiled:
            self.train_seconds += self.clock() - started
            self.timed_steps += end - begin
        self._is_compiled = True
        divergence.check_step(int(taken.failed_step), taken.health.numpy())
        if not np.isfinite(sums).all():
            raise DivergedError(
                f"Training diverged: between step {begin:,} and step {end:,} a metric became "
                f"{sums[~np.isfinite(sums)][0]}. Nothing was saved since the last checkpoint. Lower "
                "config.optimizer.learning_rate or set config.optimizer.clip_norm, and use a new --workdir."
            )
        self.state.step, self.validation_value = end, None
        # Empty after a log line.
        sums[: len(self.state.accumulators)] += np.reshape(self.state.accumulators, [-1, 2])
        self.state.accumulators = sums.tolist()
        self.writer.advance(end, self.steps_per_second)

    def log(self) -> None:
        """Writes the training loss and metrics since the last log line.

        Raises:
          DivergedError: the loss is beyond all bounds.
        """
        self.state.train_metrics = {
            name: total / weight if weight else math.nan
            for name, (total, weight) in zip(self.metric_names, self.state.accumulators, strict=True)
        }
        pace = {"learning_rate": float(self.learning_rate_fn(self.state.step))}
        if self.timed_steps:
            pace["lists_per_second"] = self.steps_per_second * self.global_batch_size
        self.writer.write_scalars(self.state.step, self.epoch, "train", self.state.train_metrics | pace)
        self.state.accumulators = []
        divergence.check_relative_loss(self.state.step, self.state.train_metrics.get("relative_loss", math.nan))

    def validate(self) -> bool:
        """Writes the validation metrics. Returns whether this validation is the best so far."""
        assert self.validate_fn is not None
        metrics = self.validate_fn()
        self.writer.write_scalars(
            self.state.step, self.epoch, "validation", {name: metric.value for name, metric in metrics.items()}
        )
        self.validation_value = metrics[self.best_metric].value
        is_best = self.state.note_validation(self.validation_value, self.best_direction)
        if is_best and (relative_loss := metrics.get("relative_loss")):
            self.state.best_relative_loss = relative_loss.value
        return is_best

    @property
    def epoch(self) -> float:
        """How often each list has been seen."""
        return self.state.step / self.epoch_steps

    @property
    def steps_per_second(self) -> float:
        """Of steady training; NaN before the second call."""
        return self.timed_steps / self.train_seconds if self.train_seconds else math.nan
