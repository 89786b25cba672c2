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

Space = dict[str, BaseDistribution]


def _training_space(data: TrainingData) -> Space:
    return {
        "model.embedding_size": CategoricalDistribution(
            [size for size in (32, 64, 128, 256, 512) if size <= (data.vector_size or 512)]
        ),
        "optimizer.learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
        "optimizer.weight_decay": FloatDistribution(1e-2, 1.0, log=True),
        "train.global_batch_size": CategoricalDistribution([64, 128, 256, 512]),
        "train.num_epochs": IntDistribution(20, 200, log=True),
    }


_TRAINING_START: dict[str, Any] = {
    "model.embedding_size": 256,
    "optimizer.learning_rate": 3e-3,
    "optimizer.weight_decay": 0.5,
    "train.global_batch_size": 128,
    "train.num_epochs": 100,
}


def _input_space(data: TrainingData) -> Space:
    inputs = ["ratings", "all", *(["positives"] if data.has_irrelevant else [])]
    return {INPUT: CategoricalDistribution(inputs)} if data.has_ratings else {}


def _pooled_space(data: TrainingData) -> Space:
    return {
        **_training_space(data),
        **_input_space(data),
        "model.scale": FloatDistribution(3.0, 16.0, log=True),
        "history.targets": CategoricalDistribution(["dropped", "all"]),
        "history.power": FloatDistribution(0.0, 1.0),
        "history.dropout": FloatDistribution(0.1, 0.7),
        "loss.normalization_power": FloatDistribution(0.0, 1.0),
    }


_POOLED_START: dict[str, Any] = {
    **_TRAINING_START,
    INPUT: "ratings",
    "model.scale": 4.0,
    "history.targets": "dropped",
    "history.power": 1.0,
    "history.dropout": 0.5,
    "loss.normalization_power": 0.5,
}


def _blended_space(data: TrainingData) -> Space:
    return {
        **_pooled_space(data),
        "ease.weight": FloatDistribution(0.1, 30.0, log=True),
        "ease.regularization": FloatDistribution(30.0, 3000.0, log=True),
    }


def _order_aware_space(data: TrainingData) -> Space:
    return {
        **_training_space(data),
        **_input_space(data),
        "transformer.num_layers": IntDistribution(1, 3),
        "transformer.dropout": FloatDistribution(0.1, 0.6),
        "loss.normalization_power": FloatDistribution(0.0, 1.0),
    }


def _rated_space(data: TrainingData) -> Space:
    return {
        **_training_space(data),
        "history.power": FloatDistribution(0.0, 1.0),
        "history.dropout": FloatDistribution(0.1, 0.7),
        "loss.normalization_power": FloatDistribution(0.0, 1.0),
    }


def _tutorial_space(data: TrainingData) -> Space:
    return {
        "model.embedding_size": IntDistribution(8, data.vector_size or 256, log=True),
        "optimizer.learning_rate": FloatDistribution(0.01, 1.0, log=True),
        "train.num_epochs": IntDistribution(1, 50, log=True),
    }


def _with(config: ConfigDict, fields: Mapping[str, Any]) -> Callable[[TrainingData, Mapping[str, Any]], Fitted]:
    """The training of a config with other values of some fields."""
    config.update_from_flattened_dict(dict(fields))
    return functools.partial(train, config=config)


TUTORIAL = Method(
    "tutorial",
    _with(tutorial.get_config(), {}),
    _tutorial_space,
    {"model.embedding_size": 64, "optimizer.learning_rate": 0.5, "train.num_epochs": 3},
)
POOLED = Method("pooled", _with(default.get_config(), {}), _pooled_space, _POOLED_START)
BLENDED = Method(
    "blended",
    _with(default.get_config(), {}),
    _blended_space,
    {**_POOLED_START, "ease.weight": 5.0, "ease.regularization": 400.0},
)
ORDER_AWARE = Method(
    "order_aware",
    # A list is the sequence that the transformer learns from, so it is as long as a history.
    _with(default.get_config(), {"history.encoder": "transformer", "list_size": 200}),
    _order_aware_space,
    {
        **_TRAINING_START,
        INPUT: "ratings",
        "model.embedding_size": 64,
        "optimizer.learning_rate": 1e-3,
        "transformer.num_layers": 2,
        "transformer.dropout": 0.2,
        "loss.normalization_power": 0.5,
    },
)
POOLED_RATED = Method(
    "pooled_rated",
    _with(default.get_config(), {"candidates.method": "rated", "model.query_embedding": True}),
    _rated_space,
    {**_TRAINING_START, "history.power": 0.5, "history.dropout": 0.5, "loss.normalization_power": 0.5},
)
