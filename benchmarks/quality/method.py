"""What a method is. Every peer and every model of ours has this form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from benchmarks.quality.data import TrainingData
from benchmarks.quality.metrics import Scores

Hyperparameters = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted method, which gives the scores of all items."""

    scores: Scores


@dataclass(frozen=True, eq=False)
class Method:
    """A method with the hyperparameters to search.

    Attributes:
      name: As in --methods and in the tables.
      fit: Fits it to the data with hyperparameters.
      space: The distribution of each hyperparameter. Empty: there is nothing to tune.
      start: The hyperparameters of the first trial, the usual ones of this method for such data.
    """

    name: str
    fit: Callable[[TrainingData, Mapping[str, Any]], Fitted]
    space: Callable[[TrainingData], dict[str, BaseDistribution]] = lambda data: {}
    start: Callable[[TrainingData], Mapping[str, Any]] = lambda data: {}


def same_for_all(scores: np.ndarray) -> Scores:
    """The scores [num_items] for every user."""
    return lambda users: np.broadcast_to(scores, (len(users), len(scores)))
