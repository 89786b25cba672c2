"""The sections `optimizer` and `train`: the optimizer, the batches, and what happens every so many steps."""

from typing import Literal

from pydantic import Field, model_validator

from settings.errors import ConfigError
from settings.sections import Section, cannot_be_used
from settings.trainer_config.numbers import Count, NonNegativeFloat, PositiveCount, PositiveFloat, PositiveSize, Size

OptimizerName = Literal[
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "auto",
    "ftrl",
    "lazy_adam",
    "lion",
    "nadam",
    "rmsprop",
    "rowwise_adagrad",
    "sgd",
]

_OPTIMIZERS_WITH_MOMENTUM = ("rmsprop", "sgd")


class OptimizerConfig(Section):
    """The optimizer, by its name in Keras, with its options and the schedule of its learning rate."""

    name: OptimizerName
    learning_rate: PositiveFloat
    schedule: Literal["constant", "warmup_cosine"]
    warmup_steps: Count
    clip_norm: NonNegativeFloat
    weight_decay: NonNegativeFloat
    momentum: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _check_options(self) -> "OptimizerConfig":
        if self.warmup_steps and self.schedule == "constant":
            raise ConfigError(
                f"config.optimizer.warmup_steps={self.warmup_steps!r} cannot be used: the schedule constant has no "
                "warm-up. Set it to 0, or set config.optimizer.schedule to warmup_cosine."
            )
        if self.name in ("adamw", "auto") and not self.weight_decay:
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

    global_batch_size: PositiveSize
    num_epochs: Count
    steps_per_execution: PositiveSize
    deterministic_reduction: Size
    log_every_steps: Count
    eval_every_steps: Count
    checkpoint_every_steps: Count
    keep_checkpoints: PositiveCount
    early_stopping_patience: Count
    stall_timeout_seconds: float = Field(ge=0)

    @model_validator(mode="after")
    def _check_virtual_replicas(self) -> "TrainConfig":
        if self.deterministic_reduction and self.global_batch_size % self.deterministic_reduction:
            divisors = (
                number for number in range(1, self.global_batch_size + 1) if not self.global_batch_size % number
            )
            nearest = min(divisors, key=lambda number: abs(number - self.deterministic_reduction))
            raise cannot_be_used(
                "config.train.deterministic_reduction",
                self.deterministic_reduction,
                f"0 or a divisor of config.train.global_batch_size={self.global_batch_size}, such as {nearest}",
            )
        return self
