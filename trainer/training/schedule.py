"""When a run logs, validates and saves, and which steps one call takes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from settings.trainer_config.training import TrainConfig


class Cadence:
    """Due every given number of steps, and always after the last step."""

    def __init__(self, every_steps: int, *, epoch_steps: int, total_steps: int):
        """`every_steps` of 0 means once an epoch."""
        self.every_steps = every_steps or epoch_steps
        self.total_steps = total_steps

    def __call__(self, step: int) -> bool:
        return step % self.every_steps == 0 or step == self.total_steps


def plan_calls(
    first_step: int, total_steps: int, *, steps_per_execution: int, cadences: Sequence[Cadence]
) -> np.ndarray:
    """Plans after which steps calls begin and end. They are as long as possible, and pass no step where work is due.

    So log lines, validations and checkpoints fall on the end of a call.

    Returns:
      int64 [num_calls + 1], ascending from first_step to total_steps. Only [first_step] where they are equal.
    """
    due = [np.arange(0, total_steps, cadence.every_steps) for cadence in cadences]
    stops = np.unique(np.concatenate([*due, [first_step, total_steps]]))
    stops = stops[stops >= first_step]
    calls = [np.arange(begin, end, steps_per_execution) for begin, end in itertools.pairwise(stops)]
    return np.concatenate([*calls, stops[-1:]]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The plan of a run.

    Attributes:
      calls: int64 [num_calls + 1], the steps after which calls begin and end.
      steps_per_execution: the longest call.
      total_steps: steps of the whole run.
    """

    log_due: Cadence
    eval_due: Cadence
    checkpoint_due: Cadence
    calls: np.ndarray
    steps_per_execution: int
    total_steps: int


def plan(config: TrainConfig, *, first_step: int, epoch_steps: int, total_steps: int) -> Schedule:
    """Plans a run that starts or resumes after `first_step` steps."""
    log_due, eval_due, checkpoint_due = cadences = [
        Cadence(every_steps, epoch_steps=epoch_steps, total_steps=total_steps)
        for every_steps in (config.log_every_steps, config.eval_every_steps, config.checkpoint_every_steps)
    ]
    # No call is longer than from one due step to the next. Longer superbatches would be gathered for nothing.
    steps_per_execution = min(config.steps_per_execution, *(cadence.every_steps for cadence in cadences))
    calls = plan_calls(first_step, total_steps, steps_per_execution=steps_per_execution, cadences=cadences)
    return Schedule(log_due, eval_due, checkpoint_due, calls, steps_per_execution, total_steps)
