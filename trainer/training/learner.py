"""The model, its optimizer and loss, and the metrics, built from the config under a strategy."""

from dataclasses import dataclass
from typing import Any

from settings.errors import ConfigError, DivergedError
from settings.trainer_config import TrainerConfig
from trainer.compat import keras, tf
from trainer.data.vocabulary import Vocabulary
from trainer.evaluation import metrics as metrics_lib
from trainer.evaluation.evaluator import LossFn
from trainer.modeling.two_tower import TwoTowerModel
from trainer.training import losses, optimizers

_ROWS_PER_CHECK = 1 << 20


@dataclass(frozen=True)
class Learner:
    """What a training step needs.

    Attributes:
      model_sizes: the arguments of the model except the seed, to build it again.
      schedule: step → learning rate.
    """

    model: TwoTowerModel
    model_sizes: dict[str, Any]
    optimizer: keras.optimizers.Optimizer
    schedule: keras.optimizers.schedules.LearningRateSchedule
    loss_fn: LossFn
    metrics: list[metrics_lib.RankingMetric]

    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        """The variables of the model and the optimizer."""
        return tf.train.Checkpoint(model=self.model, optimizer=self.optimizer)

    def check_finite(self, step: int) -> None:
        """Checks all variables, some rows at a time, before they are saved.

        Raises:
          DivergedError: a variable holds a number that is not finite.
        """
        unusable = [] if self.model.is_finite() else ["the model"]
        unusable += [variable.name for variable in self.optimizer.variables if not _is_finite(variable)]
        if unusable:
            raise DivergedError(
                f"Training diverged: after step {step} {unusable[0]} holds numbers that are not finite. This step was "
                "not saved. Lower config.optimizer.learning_rate or set config.optimizer.clip_norm, and use a new "
                "--workdir."
            )


def build_learner(
    config: TrainerConfig, vocabulary: Vocabulary, strategy: tf.distribute.Strategy, *, total_steps: int
) -> Learner:
    """Builds everything that a training step needs, with the variables on the devices of the strategy.

    Raises:
      ConfigError: a metric needs genres and the items have none, or the warm-up is longer than the run.
    """
    schedule = optimizers.build_schedule(
        config.optimizer.schedule,
        learning_rate=config.optimizer.learning_rate,
        warmup_steps=config.optimizer.warmup_steps,
        total_steps=total_steps,
    )
    loss_fn = losses.build_loss(
        config.loss.key,
        temperature=config.loss.temperature,
        lambda_weight=config.loss.lambda_weight,
        lambda_weight_cutoff=config.loss.lambda_weight_cutoff,
        global_batch_size=config.train.global_batch_size,
        seed=config.seed,
    )
    metrics = metrics_lib.build_metrics(
        config.eval.metrics,
        relevance_threshold=config.eval.relevance_threshold,
        item_subtopics=vocabulary.item_genres(),
    )
    model_sizes: dict[str, Any] = {
        "num_queries": vocabulary.num_users,
        "num_items": vocabulary.num_items,
        "embedding_size": config.model.embedding_size,
        "hidden_sizes": config.model.hidden_sizes,
    }
    with strategy.scope():
        model = TwoTowerModel(**model_sizes, seed=config.seed)
        optimizer = optimizers.build_optimizer(
            config.optimizer.name,
            schedule,
            clip_norm=config.optimizer.clip_norm,
            weight_decay=config.optimizer.weight_decay,
            momentum=config.optimizer.momentum,
        )
        optimizer.build(model.trainable_variables)
    return Learner(model, model_sizes, optimizer, schedule, loss_fn, metrics)


def check_batch_size(global_batch_size: int, num_replicas: int) -> None:
    """Raises ConfigError if the replicas cannot share a batch equally."""
    if global_batch_size % num_replicas:
        next_size = -(-global_batch_size // num_replicas) * num_replicas
        raise ConfigError(
            f"config.train.global_batch_size={global_batch_size} cannot be divided among {num_replicas} "
            f"replicas: use a multiple of {num_replicas}, such as {next_size}."
        )


def _is_finite(variable: tf.Variable) -> bool:
    if not variable.dtype.is_floating:
        return True
    if not variable.shape.rank:
        return bool(tf.math.is_finite(variable))
    num_rows = variable.shape[0]
    return all(
        bool(tf.reduce_all(tf.math.is_finite(variable[begin : begin + _ROWS_PER_CHECK])))
        for begin in range(0, num_rows, _ROWS_PER_CHECK)
    )
