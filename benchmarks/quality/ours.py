"""The models of this project, with their hyperparameters: config fields, see configs/default.py."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.quality.data import TrainingData
from benchmarks.quality.method import Fitted, Method
from benchmarks.quality.trained import INPUT, train
from configs import default, tutorial


def _tutorial_space(data: TrainingData) -> dict[str, BaseDistribution]:
    return {
        "model.embedding_size": IntDistribution(8, data.vector_size or 256, log=True),
        "optimizer.learning_rate": FloatDistribution(0.01, 1.0, log=True),
        "train.global_batch_size": CategoricalDistribution([16, 32, 64]),
    }


_POOLED: dict[str, Any] = {
    "candidates.method": "catalogue",
    "model.query_embedding": False,
    "model.similarity": "cosine",
    "model.item_bias": True,
    "history.encoder": "pooled",
    "history.leave_out_targets": False,
    "optimizer.name": "adam",
}

_ORDER_AWARE: dict[str, Any] = {
    "candidates.method": "catalogue",
    "model.query_embedding": False,
    "model.item_bias": True,
    "history.encoder": "transformer",
    "history.size": 200,
    "optimizer.name": "adam",
}

_POOLED_RATED: dict[str, Any] = {
    "candidates.method": "rated",
    "model.query_embedding": True,
    "model.item_bias": True,
    "history.encoder": "pooled",
    "optimizer.name": "adam",
}


def _sizes(data: TrainingData) -> CategoricalDistribution:
    sizes = [size for size in (32, 64, 128, 256, 512) if size <= (data.vector_size or 512)]
    return CategoricalDistribution(sizes)


def _with_input(space: dict[str, BaseDistribution], data: TrainingData) -> dict[str, BaseDistribution]:
    inputs = CategoricalDistribution(["ratings", "all", "positives"])
    return space | ({INPUT: inputs} if data.has_ratings and not data.rated else {})


def _pooled_space(data: TrainingData) -> dict[str, BaseDistribution]:
    return _with_input(
        {
            "model.embedding_size": _sizes(data),
            "model.scale": FloatDistribution(2.0, 20.0, log=True),
            "history.power": FloatDistribution(0.0, 1.0),
            "history.dropout": FloatDistribution(0.1, 0.7),
            "loss.normalization_power": FloatDistribution(0.0, 1.0),
            "optimizer.learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
            "train.global_batch_size": CategoricalDistribution([64, 128, 256, 512]),
        },
        data,
    )


def _order_aware_space(data: TrainingData) -> dict[str, BaseDistribution]:
    return _with_input(
        {
            "model.embedding_size": _sizes(data),
            "transformer.num_layers": IntDistribution(1, 3),
            "transformer.dropout": FloatDistribution(0.1, 0.6),
            "optimizer.learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
            "train.global_batch_size": CategoricalDistribution([64, 128, 256]),
        },
        data,
    )


def _rated_space(data: TrainingData) -> dict[str, BaseDistribution]:
    return {
        "model.embedding_size": _sizes(data),
        "history.power": FloatDistribution(0.0, 1.0),
        "history.dropout": FloatDistribution(0.1, 0.7),
        "loss.normalization_power": FloatDistribution(0.0, 1.0),
        "optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "optimizer.weight_decay": FloatDistribution(1e-4, 1.0, log=True),
        "train.global_batch_size": CategoricalDistribution([32, 64, 128]),
    }


def _with(config: ConfigDict, fields: Mapping[str, Any]) -> Callable[[TrainingData, Mapping[str, Any]], Fitted]:
    """The training of a config with other values of some fields."""
    config.update_from_flattened_dict(dict(fields))
    return functools.partial(train, config=config)


TUTORIAL = Method(
    "tutorial",
    _with(tutorial.get_config(), {}),
    _tutorial_space,
    {"model.embedding_size": 64, "optimizer.learning_rate": 0.5, "train.global_batch_size": 32},
)
POOLED = Method(
    "pooled",
    _with(default.get_config(), _POOLED),
    _pooled_space,
    {
        "model.embedding_size": 256,
        "model.scale": 6.0,
        "history.power": 1.0,
        "history.dropout": 0.3,
        "loss.normalization_power": 0.5,
        "optimizer.learning_rate": 1e-3,
        "train.global_batch_size": 128,
        INPUT: "all",
    },
)
ORDER_AWARE = Method(
    "order_aware",
    _with(default.get_config(), _ORDER_AWARE),
    _order_aware_space,
    {
        "model.embedding_size": 64,
        "transformer.num_layers": 2,
        "transformer.dropout": 0.2,
        "optimizer.learning_rate": 1e-3,
        "train.global_batch_size": 128,
        INPUT: "all",
    },
)
POOLED_RATED = Method(
    "pooled_rated",
    _with(default.get_config(), _POOLED_RATED),
    _rated_space,
    {
        "model.embedding_size": 64,
        "history.power": 0.5,
        "history.dropout": 0.5,
        "loss.normalization_power": 0.0,
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 1e-2,
        "train.global_batch_size": 32,
    },
    needs_ratings=True,
)
