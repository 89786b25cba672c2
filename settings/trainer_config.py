"""The trainer's config as typed sections: the one place that knows its ranges, names and cross-field rules.

configs/default.py explains each field and holds its default. This module does not import TensorFlow, so errors
are found before its import, and the launcher can check the trainer's config too.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

from ml_collections import ConfigDict
from pydantic import Field, field_validator, model_validator

from configs import default
from settings.errors import ConfigError
from settings.sections import Section, build_section, cannot_be_used

DEFAULTS_FILE = "configs/default.py"

# The values of --strategy.
STRATEGIES = ("default", "mirrored", "multi_worker_mirrored", "tpu")

LossKey = Literal[
    "approx_mrr_loss",
    "approx_ndcg_loss",
    "coupled_rankdistil_loss",
    "gumbel_approx_ndcg_loss",
    "list_mle_loss",
    "mean_squared_loss",
    "ordinal_loss",
    "pairwise_hinge_loss",
    "pairwise_logistic_loss",
    "pairwise_mse_loss",
    "pairwise_soft_zero_one_loss",
    "sigmoid_cross_entropy_loss",
    "softmax_loss",
    "unique_softmax_loss",
    "yeti_logistic_loss",
]
LambdaWeight = Literal["", "label_diff", "dcg", "ndcg", "ndcg_v2", "yeti_dcg", "precision", "list_mle"]
OptimizerName = Literal[
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "nadam", "rmsprop", "sgd"
]

# yeti_logistic_loss has a temperature argument, but never reads it.
LOSSES_WITHOUT_TEMPERATURE = ("mean_squared_loss", "ordinal_loss", "sigmoid_cross_entropy_loss", "yeti_logistic_loss")
PAIRWISE_LOSSES = (
    "pairwise_hinge_loss",
    "pairwise_logistic_loss",
    "pairwise_mse_loss",
    "pairwise_soft_zero_one_loss",
)
_PAIR_WEIGHTS = ("label_diff", "dcg", "ndcg", "ndcg_v2", "yeti_dcg", "precision")
# The lambda weights that each loss reads. A loss silently ignores any other.
_LAMBDA_WEIGHTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(PAIRWISE_LOSSES, _PAIR_WEIGHTS),
    "yeti_logistic_loss": ("yeti_dcg",),
    "softmax_loss": ("dcg", "ndcg"),
    "list_mle_loss": ("list_mle",),
}
_WEIGHTS_WITH_CUTOFF = ("dcg", "ndcg", "ndcg_v2", "yeti_dcg", "precision")

_OPTIMIZERS_WITH_MOMENTUM = ("rmsprop", "sgd")

# Metric key → whether a cutoff can follow it, as in ndcg@10.
METRIC_KEYS = {
    "alpha_dcg": True,
    "arp": False,
    "dcg": True,
    "hits": True,
    "map": True,
    "mrr": True,
    "ndcg": True,
    "ordered_pair_accuracy": False,
    "precision": True,
    "precision_ia": True,
    "recall": True,
    "tfr_precision": True,
}


class Columns(Section):
    """Names of the columns of a table with ratings."""

    user_id: str
    item_id: str
    rating: str
    timestamp: str
    title: str
    genres: str


class DataConfig(Section):
    """Where the ratings come from."""

    source: str = Field(min_length=1, description="a source of ratings")
    data_dir: str
    columns: Columns
    rating_range: tuple[float, float] = Field(
        description="two numbers from 0 to 100, the lowest rating first (the gain of NDCG, 2^rating, overflows above)"
    )
    max_bad_fraction: float = Field(ge=0, lt=1)
    item_identity: Literal["item_id", "title"]

    @model_validator(mode="after")
    def _check_rating_range(self) -> "DataConfig":
        lowest, highest = self.rating_range
        if not 0 <= lowest < highest <= 100:
            raise cannot_be_used(
                "config.data.rating_range", self.rating_range, str(type(self).model_fields["rating_range"].description)
            )
        return self


class SplitConfig(Section):
    """Which ratings are used for training, validation and test."""

    method: Literal["none", "random", "last", "time"]
    validation_fraction: float = Field(ge=0, lt=1)
    test_fraction: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitConfig":
        # As decimals, the way they were written: 0.9 + 0.1 is 1.
        if Fraction(repr(self.validation_fraction)) + Fraction(repr(self.test_fraction)) >= 1:
            raise ConfigError(
                f"config.split.validation_fraction={self.validation_fraction!r} and "
                f"config.split.test_fraction={self.test_fraction!r} cannot be used: their sum has to be below 1, so "
                "that ratings are left for training."
            )
        return self


class ModelConfig(Section):
    """The two towers."""

    embedding_size: int = Field(ge=1)
    hidden_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        description="a tuple of whole numbers, each at least 1"
    )


class LossConfig(Section):
    """The loss, by its key in TF-Ranking, with its options."""

    key: LossKey
    temperature: float = Field(gt=0)
    lambda_weight: LambdaWeight = Field(description=f"empty, or one of {', '.join(get_args(LambdaWeight)[1:])}")
    lambda_weight_cutoff: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_options(self) -> "LossConfig":
        if self.temperature != 1.0 and self.key in LOSSES_WITHOUT_TEMPERATURE:
            takers = ", ".join(key for key in get_args(LossKey) if key not in LOSSES_WITHOUT_TEMPERATURE)
            raise ConfigError(
                f"config.loss.temperature={self.temperature!r} cannot be used: {self.key} has no temperature. Set it "
                f"to 1.0, or set config.loss.key to one of {takers}."
            )
        weights = _LAMBDA_WEIGHTS.get(self.key, ())
        if self.lambda_weight and self.lambda_weight not in weights:
            accepted = f"accepts only {', '.join(weights)}" if weights else "accepts no lambda weight"
            raise ConfigError(
                f"config.loss.lambda_weight={self.lambda_weight!r} cannot be used: {self.key} {accepted}. Change it, "
                "or leave it empty."
            )
        # yeti_logistic_loss always has the lambda weight yeti_dcg. The weights of softmax_loss have no cutoff.
        weight = self.lambda_weight or ("yeti_dcg" if self.key == "yeti_logistic_loss" else "")
        has_cutoff = weight in _WEIGHTS_WITH_CUTOFF and self.key != "softmax_loss"
        if self.lambda_weight_cutoff and not has_cutoff:
            raise ConfigError(
                f"config.loss.lambda_weight_cutoff={self.lambda_weight_cutoff!r} cannot be used: {self.key} with "
                f"config.loss.lambda_weight={self.lambda_weight!r} has no cutoff. Set it to 0, or use a pairwise loss "
                f"with one of the lambda weights {', '.join(_WEIGHTS_WITH_CUTOFF)}."
            )
        if weight == "precision" and not self.lambda_weight_cutoff:
            raise ConfigError(
                "config.loss.lambda_weight_cutoff=0 cannot be used: the lambda weight precision needs the cutoff of "
                "the precision. Set it to 10, for example."
            )
        return self


class OptimizerConfig(Section):
    """The optimizer, by its name in Keras, with its options and the schedule of its learning rate."""

    name: OptimizerName
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "warmup_cosine"]
    warmup_steps: int = Field(ge=0)
    clip_norm: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    momentum: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _check_options(self) -> "OptimizerConfig":
        if self.warmup_steps and self.schedule == "constant":
            raise ConfigError(
                f"config.optimizer.warmup_steps={self.warmup_steps!r} cannot be used: the schedule constant has no "
                "warm-up. Set it to 0, or set config.optimizer.schedule to warmup_cosine."
            )
        if self.name == "adamw" and not self.weight_decay:
            raise ConfigError(
                "config.optimizer.weight_decay=0 cannot be used: adamw is adam with weight decay. Set it to 0.004, for "
                "example, or set config.optimizer.name to adam."
            )
        if self.name == "ftrl" and self.weight_decay:
            raise ConfigError(
                f"config.optimizer.weight_decay={self.weight_decay!r} cannot be used: ftrl has no weight decay. Set it "
                "to 0, or choose another config.optimizer.name."
            )
        if self.name == "ftrl" and self.warmup_steps:
            raise ConfigError(
                f"config.optimizer.warmup_steps={self.warmup_steps!r} cannot be used: a warm-up starts at a learning "
                "rate of 0, and ftrl divides by the learning rate. Set it to 0, or choose another "
                "config.optimizer.name."
            )
        if self.momentum and self.name not in _OPTIMIZERS_WITH_MOMENTUM:
            raise ConfigError(
                f"config.optimizer.momentum={self.momentum!r} cannot be used: {self.name} has no momentum. Set it to "
                f"0, or set config.optimizer.name to one of {', '.join(_OPTIMIZERS_WITH_MOMENTUM)}."
            )
        return self


class TrainConfig(Section):
    """Batches, steps, and what happens every so many steps."""

    global_batch_size: int = Field(ge=1)
    num_epochs: int = Field(ge=1)
    steps_per_execution: int = Field(ge=1)
    log_every_steps: int = Field(ge=0)
    eval_every_steps: int = Field(ge=0)
    checkpoint_every_steps: int = Field(ge=0)
    keep_checkpoints: int = Field(ge=1)
    early_stopping_patience: int = Field(ge=0)


class EvalConfig(Section):
    """What is measured."""

    metrics: tuple[str, ...] = Field(description="a tuple of metric names")
    relevance_threshold: float = Field(gt=0)
    best_metric: str
    best_direction: Literal["max", "min"]
    num_catalogue_users: int = Field(ge=-1, description="a number of users, 0 for none, or -1 for all users")
    num_sample_users: int = Field(ge=0)

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for name in metrics:
            parse_metric_name(name)
        if len(set(metrics)) < len(metrics):
            raise ConfigError(f"config.eval.metrics={metrics!r} cannot be used: a metric is named twice.")
        return metrics

    @model_validator(mode="after")
    def _check_best_metric(self) -> "EvalConfig":
        measured = ("loss", *self.metrics)
        if self.best_metric not in measured:
            raise ConfigError(
                f"config.eval.best_metric={self.best_metric!r} is not measured. Set it to one of "
                f"{', '.join(measured)}, or add it to config.eval.metrics."
            )
        return self


class TrainerConfig(Section):
    """All fields of a training run."""

    seed: int = Field(ge=0, lt=2**31, description="from 0 to 2147483647")
    data: DataConfig
    split: SplitConfig
    list_size: int = Field(ge=2, description="at least 2: a single item has no order")
    model: ModelConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    eval: EvalConfig

    @model_validator(mode="after")
    def _check_relevance_threshold(self) -> "TrainerConfig":
        if self.eval.relevance_threshold > self.data.rating_range[1]:
            raise cannot_be_used(
                "config.eval.relevance_threshold",
                self.eval.relevance_threshold,
                f"at most the highest rating of config.data.rating_range={self.data.rating_range}",
            )
        return self


def load_trainer_config(config: ConfigDict | Mapping[str, Any]) -> TrainerConfig:
    """Checks all fields of the trainer's config.

    Raises:
      ConfigError: It names the field, its value and what is allowed.
    """
    return build_section(TrainerConfig, config, defaults=default.get_config(), defaults_file=DEFAULTS_FILE)


def from_saved(fields: Mapping[str, Any]) -> ConfigDict:
    """Reads the config that an earlier run saved, which an older version of this project may have written.

    A field that did not exist in that version gets its default. A field that no longer exists stays, and
    `load_trainer_config` refuses it.

    Args:
      fields: The sections and fields, as in the file.
    """
    return ConfigDict(_merged(default.get_config().to_dict(), fields))


def parse_metric_name(name: str) -> tuple[str, int | None]:
    """Splits "ndcg@10" into the metric's key and its cutoff, which is None for the whole list.

    Raises:
      ConfigError: The key is unknown, or the cutoff is not a rank, or the metric has no cutoff.
    """
    key, at, digits = name.partition("@")
    if key not in METRIC_KEYS:
        raise ConfigError(
            f"config.eval.metrics contains {name!r}, which is not a metric. Use one of {', '.join(METRIC_KEYS)}, with "
            "or without a cutoff, as in ndcg@10."
        )
    if not at:
        return key, None
    if not METRIC_KEYS[key]:
        raise ConfigError(f"config.eval.metrics contains {name!r}, but {key} has no cutoff. Write {key}.")
    # isdecimal alone accepts the digits of other scripts.
    if not (digits.isascii() and digits.isdecimal()) or int(digits) == 0:
        raise ConfigError(f"config.eval.metrics contains {name!r}. A cutoff is a rank from 1, as in {key}@10.")
    return key, int(digits)


def _merged(defaults: dict[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for name, value in saved.items():
        known = merged.get(name)
        if isinstance(known, dict) and isinstance(value, Mapping):
            merged[name] = _merged(known, value)
        else:
            merged[name] = tuple(value) if isinstance(value, list) else value
    return merged
