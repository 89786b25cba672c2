"""The model, its optimizer and loss, and the metrics, built from the config under a strategy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from settings.errors import ConfigError
from settings.trainer_config import TrainerConfig
from settings.trainer_config.training import TrainConfig
from trainer import config as config_lib
from trainer.compat import keras, tf
from trainer.data.dataset import Dataset
from trainer.data.vocabulary import NUM_RATINGS
from trainer.evaluation import metrics as metrics_lib
from trainer.evaluation.baselines import ITEM_MEAN_DAMPING
from trainer.modeling.ease import EaseBlend, item_item_weights
from trainer.modeling.prior import log_label_means, log_label_sums
from trainer.modeling.spectral import item_embeddings
from trainer.modeling.two_tower import TwoTowerModel
from trainer.training import losses, objectives, optimizers
from trainer.training.candidates import NegativeSampler
from trainer.training.objectives import Objective
from trainer.training.reduction import check_virtual_replicas

MAX_EASE_ITEMS = 10_000
"""EASE needs memory for a few matrices of this number squared, 0.4 GB each, in evaluation and export."""

# The number of events that the prior of an item over the catalogue is damped with.
_SUM_DAMPING = 1.0


@dataclass(frozen=True)
class Learner:
    """What a training step needs.

    Attributes:
      model_sizes: the arguments of the model except those for its initial values, to build it again.
      ranker: what is evaluated: the model itself, or its blend with EASE.
      ranker_fn: builds what is exported from a copy of the model, like `ranker`.
      schedule: step → learning rate.
      objective: what a step minimizes.
      metrics: of rated lists.
      train_metrics: those of `metrics` that are measured on the training lists.
      negatives_fn: steps int64 [K] → the sampled items of these steps, int32 [K, num_negatives]; None if none are.
    """

    model: TwoTowerModel
    model_sizes: dict[str, Any]
    ranker: TwoTowerModel | EaseBlend
    ranker_fn: Callable[[TwoTowerModel], TwoTowerModel | EaseBlend]
    optimizer: keras.optimizers.Optimizer
    schedule: keras.optimizers.schedules.LearningRateSchedule
    objective: Objective
    metrics: list[metrics_lib.RankingMetric]
    train_metrics: list[metrics_lib.RankingMetric]
    negatives_fn: Callable[[np.ndarray], np.ndarray] | None


def build_learner(
    config: TrainerConfig,
    dataset: Dataset,
    strategy: tf.distribute.Strategy,
    *,
    total_steps: int,
    is_restored: bool = False,
) -> Learner:
    """Builds everything that a training step needs, with the variables on the devices of the strategy.

    Args:
      total_steps: the number of steps of the whole run.
      is_restored: whether the variables will be restored. Then their initial values are not computed.

    Raises:
      ConfigError: a metric needs genres and the items have none, the warm-up is longer than the run, or lists of events
        are to be ranked among themselves.
    """
    schedule = optimizers.build_schedule(
        config.optimizer.schedule,
        learning_rate=config.optimizer.learning_rate,
        warmup_steps=config.optimizer.warmup_steps,
        total_steps=total_steps,
    )
    metrics = metrics_lib.build_metrics(
        config.eval.metrics,
        relevance_threshold=config.eval.relevance_threshold,
        item_subtopics=dataset.vocabulary.item_genres(),
    )
    model_sizes = _model_sizes(config, dataset)
    sampler = _build_sampler(config, dataset)
    # Outside of the strategy, which would place a copy of each intermediate result on each device.
    initial_items = None if is_restored else _initial_items(config, dataset)
    ranker_fn = _ranker_fn(config, dataset)
    with strategy.scope():
        model = TwoTowerModel(**model_sizes, initial_items=initial_items, seed=config.seed)
        optimizer = optimizers.build_optimizer(
            config.optimizer.name,
            schedule,
            clip_norm=config.optimizer.clip_norm,
            weight_decay=config.optimizer.weight_decay,
            momentum=config.optimizer.momentum,
            tables=model.table_variables,
        )
        optimizer.build(model.trainable_variables)
        ranker = ranker_fn(model)
    return Learner(
        model=model,
        model_sizes=model_sizes,
        ranker=ranker,
        ranker_fn=ranker_fn,
        optimizer=optimizer,
        schedule=schedule,
        objective=_build_objective(config, dataset, model, sampler),
        metrics=metrics,
        train_metrics=metrics if config.candidates.method == "rated" else [],
        negatives_fn=sampler.draw if sampler else None,
    )


def _model_sizes(config: TrainerConfig, dataset: Dataset) -> dict[str, Any]:
    """The arguments of `TwoTowerModel` except those for its initial values."""
    history = config.history
    if history.weights == "centered_ratings" and not dataset.has_ratings:
        raise ConfigError(
            "config.history.weights='centered_ratings' cannot be used: the data has no ratings, so all weights would "
            "be 0. Set it to equal."
        )
    pooled = {
        "power": history.power,
        "weights": history.weights,
        "recency_half_life": history.recency_half_life,
        "highest_rating": config.data.rating_range[1] if dataset.has_ratings else 1.0,
        "mean_rating": float(np.mean(dataset.ratings["train"][2], dtype=np.float64)),
        "dropout": history.dropout,
        "hidden_size": history.hidden_size,
        "leave_out_targets": history.targets == "dropped",
    }
    return {
        "num_queries": dataset.vocabulary.num_users,
        "num_items": dataset.vocabulary.num_items,
        **config.model.model_dump(exclude={"initial_items", "item_prior"}),
        "item_prior": _item_prior(config, dataset),
        "history": pooled if history.encoder == "pooled" else None,
        "transformer": (
            {"size": config_lib.history_size(config), **config.transformer.model_dump()}
            if history.encoder == "transformer"
            else None
        ),
        "features": dataset.features,
        "item_features": dataset.item_features,
    }


def _item_prior(config: TrainerConfig, dataset: Dataset) -> np.ndarray | None:
    if not config.model.item_prior:
        return None
    _, items, ratings = dataset.ratings["train"]
    labels = _labels_fn(config, dataset)(tf.constant(ratings)).numpy()
    num_items = dataset.vocabulary.num_items
    if config.candidates.method == "rated":
        return log_label_means(items, labels, num_items=num_items, damping=ITEM_MEAN_DAMPING)
    return log_label_sums(items, labels, num_items=num_items, damping=_SUM_DAMPING)


def _initial_items(config: TrainerConfig, dataset: Dataset) -> np.ndarray | None:
    if config.model.initial_items == "random":
        return None
    users, items, _ = dataset.ratings["train"]
    return item_embeddings(
        users,
        items,
        num_users=dataset.vocabulary.num_users,
        num_items=dataset.vocabulary.num_items,
        embedding_size=config.model.embedding_size,
        seed=config.seed,
    )


def _ranker_fn(config: TrainerConfig, dataset: Dataset) -> Callable[[TwoTowerModel], TwoTowerModel | EaseBlend]:
    if not config.ease.weight:
        return lambda model: model
    num_items = dataset.vocabulary.num_items
    if num_items > MAX_EASE_ITEMS:
        raise ConfigError(
            f"config.ease.weight={config.ease.weight!r} cannot be used: EASE has a weight for each pair of "
            f"items, and {num_items - 1:,} items are more than the {MAX_EASE_ITEMS:,} it is made for. Set it to 0.0."
        )
    users, items, ratings = dataset.ratings["train"]
    highest, threshold = (
        (config.data.rating_range[1], config.eval.relevance_threshold) if dataset.has_ratings else (1, 1)
    )
    weights = item_item_weights(
        users,
        items,
        inputs=ratings / highest,
        targets=(ratings >= threshold).astype(np.float32),
        num_items=num_items,
        regularization=config.ease.regularization,
    )
    return lambda model: EaseBlend(model, weights, weight=config.ease.weight / highest)


def _build_sampler(config: TrainerConfig, dataset: Dataset) -> NegativeSampler | None:
    if config.candidates.method != "sampled":
        return None
    return NegativeSampler(
        dataset.vocabulary.items[NUM_RATINGS].to_numpy(),
        num_negatives=config.candidates.num_negatives,
        popularity_power=config.candidates.popularity_power,
        uniform_fraction=config.candidates.uniform_fraction,
        seed=config.seed,
    )


def _build_objective(
    config: TrainerConfig, dataset: Dataset, model: TwoTowerModel, sampler: NegativeSampler | None
) -> Objective:
    loss_fn = losses.build_loss(
        config.loss.key,
        temperature=config.loss.temperature,
        lambda_weight=config.loss.lambda_weight,
        lambda_weight_cutoff=config.loss.lambda_weight_cutoff,
        global_batch_size=config.train.global_batch_size,
        seed=config.seed,
        num_negatives=config.candidates.num_negatives,
        num_items=dataset.vocabulary.num_items,
        calibration=config.loss.calibration,
        margin=config.loss.margin,
        negative_weight=config.loss.negative_weight,
    )
    options: dict[str, Any] = {
        "labels_fn": _labels_fn(config, dataset),
        "normalization_power": config.loss.normalization_power,
        "lowest_loss": losses.lowest_loss(config.loss.key),
        "seed": config.seed,
    }
    if config.candidates.method == "rated":
        if not dataset.has_ratings:
            raise ConfigError(
                "config.candidates.method='rated' cannot be used: the data has no ratings, so all items of a list are "
                "equally good. Set it to catalogue or sampled."
            )
        return Objective(model, objectives.rank_rated(model, loss_fn), **options)
    if sampler is None:
        return Objective(model, objectives.rank_catalogue(model, temperature=config.loss.temperature), **options)
    rank_fn = objectives.rank_sampled(model, loss_fn, sampler, logq_correction=config.candidates.logq_correction)
    return Objective(model, rank_fn, **options)


def _labels_fn(config: TrainerConfig, dataset: Dataset) -> objectives.LabelsFn:
    kind = config.loss.labels
    if kind == "auto":
        kind = "ratings" if config.candidates.method == "rated" else "binary"
    if kind == "binary":
        return objectives.binary_labels(config.eval.relevance_threshold if dataset.has_ratings else 1.0)
    return objectives.gains if kind == "gains" else tf.identity


_MAX_STEPS = 100_000_000
_MAX_ENTRIES = 2**31 - 1


def check_size_of_run(config: TrainerConfig, *, list_size: int, epoch_steps: int) -> None:
    """Checks what a config asks for on this data, before memory is taken for it.

    Args:
      config: A config without open fields; see `size_rules.adapt`.
      list_size: The size of the longest list.
      epoch_steps: The steps of an epoch.

    Raises:
      ConfigError: The run has too many steps, or the lists of a call have too many entries for one tensor.
    """
    num_epochs, batch_size = config.train.num_epochs, config.train.global_batch_size
    if num_epochs * epoch_steps > _MAX_STEPS:
        raise ConfigError(
            f"config.train.num_epochs={num_epochs} cannot be used: with {epoch_steps:,} steps per epoch, the run has "
            f"{num_epochs * epoch_steps:,} steps, and can have {_MAX_STEPS:,}. Lower it to at most "
            f"{_MAX_STEPS // epoch_steps}."
        )
    steps_per_execution = config.train.steps_per_execution
    if batch_size * list_size * steps_per_execution > _MAX_ENTRIES:
        raise ConfigError(
            f"config.train.global_batch_size={batch_size}, with lists of {list_size:,} items and "
            f"config.train.steps_per_execution={steps_per_execution}, cannot be used: a call would have "
            f"{batch_size * list_size * steps_per_execution:,} entries, and can have {_MAX_ENTRIES:,}. Lower "
            "config.train.global_batch_size, config.train.steps_per_execution or config.list_size."
        )


def check_replicas(config: TrainConfig, strategy_name: str, num_replicas: int) -> None:
    """Raises ConfigError if the replicas cannot share a batch, or the virtual replicas, equally."""
    if config.global_batch_size % num_replicas:
        next_size = -(-config.global_batch_size // num_replicas) * num_replicas
        raise ConfigError(
            f"config.train.global_batch_size={config.global_batch_size} cannot be divided among {num_replicas} "
            f"replicas: use a multiple of {num_replicas}, such as {next_size}."
        )
    check_virtual_replicas(
        config.deterministic_reduction,
        global_batch_size=config.global_batch_size,
        strategy_name=strategy_name,
        num_replicas=num_replicas,
    )
