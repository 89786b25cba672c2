"""The same search for every method: trials on the validation ratings, and the choice of the best one."""

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from benchmarks.quality.data import TrainingData
from benchmarks.quality.method import Fitted, Hyperparameters, Method
from settings.errors import DivergedError, UserError

NUM_RANDOM_TRIALS = 10
"""The trials before the sampler starts to learn from earlier ones. The first of them has the usual values."""

_FAILURES = (np.linalg.LinAlgError, FloatingPointError, DivergedError)


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
      hyperparameters: As the sampler proposed them.
      value: The metric to maximize on the validation ratings; None if the fit failed.
    """

    hyperparameters: Hyperparameters
    value: float | None


def search_digest(method: Method, data: TrainingData, metrics: Sequence[str]) -> str:
    """Tells whether earlier results are of the same search space and the same metrics."""
    space = sorted(method.space(data).items())
    description = repr((space, _start(method, data), tuple(metrics), data.relevance_threshold, data.rated))
    return hashlib.sha256(description.encode()).hexdigest()[:16]


def num_trials_of(method: Method, data: TrainingData, num_trials: int) -> int:
    """The number of trials; 1 if there is nothing to tune."""
    return num_trials if method.space(data) else 1


def propose(method: Method, data: TrainingData, earlier: Sequence[Trial]) -> Hyperparameters:
    """The hyperparameters of the next trial. They depend only on the earlier trials, so a search can be resumed."""
    space = method.space(data)
    if not earlier:
        return _start(method, data)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=len(earlier), n_startup_trials=NUM_RANDOM_TRIALS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in earlier:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.hyperparameters,
                distributions=space,
                value=trial.value,
                state=optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE,
            )
        )
    return study.ask(space).params


def best_of(trials: Sequence[Trial], method: Method) -> Trial:
    """The trial with the highest value, the first of equal ones.

    Raises:
      UserError: Every trial failed.
    """
    finished = [trial for trial in trials if trial.value is not None]
    if not finished:
        raise UserError(
            f"All {len(trials)} trials of {method.name} failed. Its lines in results.jsonl have the reasons."
        )
    return max(finished, key=lambda trial: trial.value or 0.0)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fit with its cost. `fitted` is None if it failed, for the reason `error`."""

    fitted: Fitted | None
    seconds: float
    error: str | None


def timed_fit(
    method: Method,
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    clock: Callable[[], float] = time.perf_counter,
) -> Fit:
    """Fits a method. Numerical failures are a result, all other errors are raised."""
    start = clock()
    try:
        fitted, error = method.fit(data, hyperparameters), None
    except _FAILURES as failure:
        fitted, error = None, f"{type(failure).__name__}: {failure}"
    return Fit(fitted, clock() - start, error)


def peak_memory_bytes() -> int:
    """The peak of this process and of those that it has waited for."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _start(method: Method, data: TrainingData) -> Hyperparameters:
    """The usual hyperparameters, as far as this data has them and allows them."""
    start, usual = {}, method.start(data)
    for name, distribution in method.space(data).items():
        value = usual[name]
        high = getattr(distribution, "high", None)
        start[name] = value if high is None else min(value, high)
        if isinstance(distribution, optuna.distributions.CategoricalDistribution) and value not in distribution.choices:
            start[name] = distribution.choices[-1]
    return start
