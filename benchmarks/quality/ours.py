"""The models of this project, with their hyperparameters: config fields, see configs/default.py.

What is searched and where the search starts depends on the size of the data, as the rules of `size_rules` do.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.quality.data import TrainingData
from benchmarks.quality.method import Fitted, Method
from benchmarks.quality.trained import INPUT, train
from configs import default, movielens_100k_rated, tutorial
from trainer.training.size_rules import MIN_RATINGS_FOR_ALL_TARGETS

Space = dict[str, BaseDistribution]
Fields = dict[str, Any]

# Histories of large data are as long as those of nearly all users, but no longer than this.
_LONGEST_HISTORY = 1000
_USERS_WITH_WHOLE_HISTORY = 0.99


def _is_large(data: TrainingData) -> bool:
    return len(data.interactions) >= MIN_RATINGS_FOR_ALL_TARGETS


def _default_lists(data: TrainingData) -> Fields:
    """The lengths of lists and histories, which are not searched."""
    if not _is_large(data):
        return {}
    lengths = np.bincount(data.interactions.users)
    size = min(int(np.quantile(lengths, _USERS_WITH_WHOLE_HISTORY)), _LONGEST_HISTORY)
    return {"list_size": size, "history.size": size}


def _training_space(data: TrainingData) -> Space:
    largest = data.vector_size or 512
    space: Space = {
        "model.embedding_size": CategoricalDistribution(
            [size for size in (32, 64, 128, 256, 512) if size <= largest and (size > 32 or not _is_large(data))]
        ),
        "optimizer.learning_rate": FloatDistribution(1e-3, 1e-2, log=True),
        "optimizer.weight_decay": FloatDistribution(1e-2, 2.0, log=True),
        "loss.normalization_power": FloatDistribution(0.0, 1.0),
    }
    if _is_large(data):
        space["train.global_batch_size"] = CategoricalDistribution([128, 256, 512])
        space["train.num_epochs"] = IntDistribution(12, 30, log=True)
    else:
        space["train.global_batch_size"] = CategoricalDistribution([64, 128, 256, 512])
        space["train.num_epochs"] = IntDistribution(20, 150, log=True)
        space["model.item_prior"] = CategoricalDistribution([False, True])
    return space


def _training_start(data: TrainingData) -> Fields:
    return {
        INPUT: "ratings" if data.has_irrelevant else "all",
        "model.embedding_size": 256,
        "optimizer.learning_rate": 3e-3,
        "optimizer.weight_decay": 0.5,
        "train.global_batch_size": 128 if data.num_users < 10_000 else 512,
        "train.num_epochs": 20 if _is_large(data) else 100,
        "loss.normalization_power": 0.5,
        "model.item_prior": False,
    }


def _input_space(data: TrainingData) -> Space:
    inputs = ["ratings", "all", *(["positives"] if data.has_irrelevant else [])]
    return {INPUT: CategoricalDistribution(inputs)} if data.has_ratings else {}


def _pooled_space(data: TrainingData) -> Space:
    space: Space = {
        **_training_space(data),
        **_input_space(data),
        "model.scale": FloatDistribution(3.0, 12.0, log=True),
        "history.power": FloatDistribution(0.0, 1.0),
        "history.dropout": FloatDistribution(0.1, 0.7),
    }
    # Of large data all items of a list are targets, by the rule of `size_rules`.
    if _is_large(data):
        return {**space, "history.hidden_size": CategoricalDistribution([0, 256])}
    return {**space, "history.targets": CategoricalDistribution(["dropped", "all"])}


def _pooled_start(data: TrainingData) -> Fields:
    return {
        **_training_start(data),
        "model.scale": round(0.75 * math.log(data.num_items), 2) if _is_large(data) else 4.0,
        "history.targets": "dropped",
        "history.hidden_size": 0,
        "history.power": 0.5,
        "history.dropout": 0.5,
    }


def _blended_space(data: TrainingData) -> Space:
    return {
        **_pooled_space(data),
        "ease.weight": FloatDistribution(0.3, 10.0, log=True),
        "ease.regularization": FloatDistribution(100.0, 2000.0, log=True),
    }


def _blended_start(data: TrainingData) -> Fields:
    return {**_pooled_start(data), "ease.weight": 3.0, "ease.regularization": 400.0}


def _order_aware_space(data: TrainingData) -> Space:
    return {
        **_input_space(data),
        "model.embedding_size": CategoricalDistribution([32, 64, 128]),
        "model.scale": FloatDistribution(6.0, 24.0, log=True),
        "optimizer.learning_rate": FloatDistribution(3e-4, 3e-3, log=True),
        "optimizer.weight_decay": FloatDistribution(1e-2, 2.0, log=True),
        "train.global_batch_size": CategoricalDistribution([16, 32, 64]),
        "train.num_epochs": IntDistribution(3, 20, log=True),
        "transformer.num_layers": IntDistribution(1, 3),
        "transformer.dropout": FloatDistribution(0.1, 0.6),
    }


def _order_aware_start(data: TrainingData) -> Fields:
    return {
        INPUT: "ratings" if data.has_irrelevant else "all",
        "model.embedding_size": 64,
        # Each target has a softmax of its own, so the best items need scores far above the others.
        "model.scale": 12.0,
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 0.5,
        "train.global_batch_size": 32,
        "train.num_epochs": 6,
        "transformer.num_layers": 2,
        "transformer.dropout": 0.2,
    }


def _rated_space(data: TrainingData) -> Space:
    return {
        "model.embedding_size": CategoricalDistribution([8, 16, 32, 64]),
        "optimizer.learning_rate": FloatDistribution(1e-3, 1e-2, log=True),
        "optimizer.weight_decay": FloatDistribution(0.3, 10.0, log=True),
        "train.global_batch_size": CategoricalDistribution([128, 256]),
        "train.num_epochs": IntDistribution(20, 100, log=True),
        "history.power": FloatDistribution(0.0, 1.0),
        "history.dropout": FloatDistribution(0.2, 0.8),
        "loss.normalization_power": FloatDistribution(0.0, 1.0),
    }


def _rated_start(data: TrainingData) -> Fields:
    return {
        "model.embedding_size": 16,
        "optimizer.learning_rate": 0.005,
        "optimizer.weight_decay": 3.0,
        "train.global_batch_size": 256,
        "train.num_epochs": 60,
        "history.power": 0.5,
        "history.dropout": 0.5,
        "loss.normalization_power": 0.5,
    }


def _tutorial_space(data: TrainingData) -> Space:
    return {
        "model.embedding_size": IntDistribution(8, data.vector_size or 256, log=True),
        "optimizer.learning_rate": FloatDistribution(0.01, 1.0, log=True),
        "train.num_epochs": IntDistribution(1, 50, log=True),
    }


def _trained(
    config: ConfigDict, fixed: Callable[[TrainingData], Fields] = lambda data: {}
) -> Callable[[TrainingData, Mapping[str, Any]], Fitted]:
    """The training of a config with the hyperparameters and other values of the `fixed` fields."""
    return lambda data, hyperparameters: train(data, {**fixed(data), **hyperparameters}, config=config)


TUTORIAL = Method(
    "tutorial",
    _trained(tutorial.get_config()),
    _tutorial_space,
    lambda data: {"model.embedding_size": 64, "optimizer.learning_rate": 0.5, "train.num_epochs": 3},
)
DEFAULT = Method(
    "default",
    # Without a search. Where no rating is irrelevant, each is an event.
    _trained(default.get_config(), lambda data: {INPUT: "ratings" if data.has_irrelevant else "all"}),
)
POOLED = Method("pooled", _trained(default.get_config(), _default_lists), _pooled_space, _pooled_start)
BLENDED = Method("blended", _trained(default.get_config(), _default_lists), _blended_space, _blended_start)
ORDER_AWARE = Method(
    "order_aware",
    # A list is the sequence that the transformer learns from, so it is as long as a history.
    _trained(default.get_config(), lambda data: {"history.encoder": "transformer", "list_size": 200}),
    _order_aware_space,
    _order_aware_start,
)
POOLED_RATED = Method(
    "pooled_rated",
    # The file that a trial reads has no features.
    _trained(movielens_100k_rated.get_config(), lambda data: {"data.features.item": ()}),
    _rated_space,
    _rated_start,
)
