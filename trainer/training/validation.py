"""What a validation during training measures."""

import dataclasses
from collections.abc import Callable

from settings.errors import ConfigError, DataError
from settings.progress import Progress, silent
from settings.trainer_config import TrainerConfig
from settings.trainer_config.evaluation import CATALOGUE
from trainer import config as config_lib
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.evaluation.catalogue_ranking import catalogue_evaluator
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.statistics import Metrics
from trainer.training.learner import Learner


def check_best_metric(config: TrainerConfig, dataset: Dataset) -> None:
    """Checks that the validation split can measure the metric that selects the best checkpoint.

    Raises:
      ConfigError: the metric is one of rated lists, and the data has none.
      DataError: no user has a relevant validation item.
    """
    if "validation" not in dataset.lists:
        return
    name = config.eval.best_metric
    if not dataset.has_ratings and name in config.eval.metrics:
        raise ConfigError(
            f"config.eval.best_metric={name!r} cannot be used: the data has no ratings, so there are no rated lists to "
            f"measure it on. Set it to {CATALOGUE}{name}."
        )
    _, _, ratings = dataset.ratings["validation"]
    if name.startswith(CATALOGUE) and dataset.has_ratings and ratings.max() < config.eval.relevance_threshold:
        raise DataError(
            f"config.eval.best_metric={name!r} cannot be measured: no validation rating reaches "
            f"config.eval.relevance_threshold={config.eval.relevance_threshold!r}. Lower the threshold, or raise "
            "config.split.validation_fraction."
        )


def build_validation(
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    dataset: Dataset,
    learner: Learner,
    *,
    progress: Progress = silent,
) -> Callable[[], Metrics] | None:
    """What evaluates the validation split: the loss, the rated lists and the catalogue. None if there is no split."""
    if "validation" not in dataset.lists:
        return None
    evaluator = Evaluator(
        strategy,
        learner.ranker,
        dataset.lists["validation"],
        learner.metrics if dataset.has_ratings else [],
        global_batch_size=config.train.global_batch_size,
        losses_fn=learner.objective.evaluate,
    )
    if not config.eval.num_validation_users:
        return evaluator.evaluate
    catalogue_fn = catalogue_evaluator(
        learner.ranker,
        dataset,
        "validation",
        learner.metrics,
        num_users=config.eval.num_validation_users,
        relevance_threshold=config.eval.relevance_threshold,
        seed=config_lib.data_seed(config),
        progress=progress,
    )

    def validate() -> Metrics:
        return evaluator.evaluate() | {f"{CATALOGUE}{name}": mean for name, mean in catalogue_fn().items()}

    def validate_as_chief() -> Metrics:
        """The chief's metrics. Another machine may round differently, and all workers have to decide alike."""
        metrics = validate()
        values = strategy_lib.value_of_chief(strategy, {name: mean.value for name, mean in metrics.items()})
        return {name: dataclasses.replace(mean, value=values[name]) for name, mean in metrics.items()}

    return validate_as_chief
