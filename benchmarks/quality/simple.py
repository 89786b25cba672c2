"""Methods that rank alike for all users: popularity and the damped mean rating."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution

from benchmarks.quality.data import TrainingData
from benchmarks.quality.method import Fitted, Method, same_for_all


def _popularity(data: TrainingData, hyperparameters: Mapping[str, Any]) -> Fitted:
    counts = np.bincount(data.interactions.items, minlength=data.num_items)
    return Fitted(same_for_all(counts.astype(np.float32)))


def _item_mean(data: TrainingData, hyperparameters: Mapping[str, Any]) -> Fitted:
    """(sum + d · global mean) / (n + d) with the damping d."""
    items, ratings = data.interactions.items, data.interactions.ratings.astype(np.float64)
    damping = hyperparameters["damping"]
    sums = np.bincount(items, weights=ratings, minlength=data.num_items)
    counts = np.bincount(items, minlength=data.num_items)
    return Fitted(same_for_all((sums + damping * ratings.mean()) / (counts + damping)))


POPULARITY = Method("popularity", _popularity)
ITEM_MEAN = Method(
    "item_mean",
    _item_mean,
    lambda data: {"damping": FloatDistribution(0.1, 1000, log=True)},
    # As in trainer.evaluation.baselines.
    lambda data: {"damping": 5.0},
)
