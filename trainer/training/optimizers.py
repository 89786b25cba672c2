"""Optimizers and learning-rate schedules by name: those of Keras 2, with the options sound for each."""

import math

from settings.errors import ConfigError
from trainer.compat import keras

_SCHEDULES = ("constant", "warmup_cosine")

_OPTIMIZERS = {
    "adadelta": keras.optimizers.Adadelta,
    "adafactor": keras.optimizers.Adafactor,
    "adagrad": keras.optimizers.Adagrad,
    "adam": keras.optimizers.Adam,
    "adamax": keras.optimizers.Adamax,
    "adamw": keras.optimizers.AdamW,
    "ftrl": keras.optimizers.Ftrl,
    "lion": keras.optimizers.Lion,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}
_WITH_MOMENTUM = ("rmsprop", "sgd")


def check_names(optimizer: str, schedule: str) -> None:
    """Checks what can be checked before the number of steps is known.

    Raises:
      ConfigError: For an unknown name.
    """
    _check_optimizer(optimizer)
    _check_schedule(schedule)


def build_schedule(
    name: str,
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int,
    final_fraction: float = 0.0,
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Builds a function of the step to the learning rate, a scalar float32.

    - constant: `learning_rate` throughout.
    - warmup_cosine: a line from 0 at step 0 to `learning_rate` at `warmup_steps`, then half a cosine down to
      `final_fraction × learning_rate` at `total_steps`, where it stays ([Loshchilov and Hutter, 2017][sgdr],
      without restarts; [Goyal et al., 2017][warmup]).

    Args:
      name: "constant" or "warmup_cosine".
      learning_rate: The highest rate, above 0.
      total_steps: Steps of the whole run.
      warmup_steps: Steps of the warm-up, from 0 to below total_steps; 0 for constant.
      final_fraction: From 0 to 1; 0 for constant.

    Raises:
      ConfigError: For an unknown name, or a value out of range.

    [sgdr]: https://arxiv.org/abs/1608.03983
    [warmup]: https://arxiv.org/abs/1706.02677
    """
    _check_schedule(name)
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ConfigError(f"config.optimizer.learning_rate is {learning_rate}, but must be a positive number.")
    if name == "constant":
        for field, value in (("warmup_steps", warmup_steps), ("final_fraction", final_fraction)):
            if value != 0:
                raise ConfigError(
                    f"config.optimizer.{field} is {value}, but the schedule constant has none: set it to 0, "
                    "or set config.optimizer.schedule to warmup_cosine."
                )
        # A cosine that ends where it began: Keras has no constant schedule, and a bare number would be a
        # second way to ask for the current rate.
        return keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=1, alpha=1.0)
    if not 0 <= warmup_steps < total_steps:
        raise ConfigError(
            f"config.optimizer.warmup_steps is {warmup_steps}, but must be from 0 to below the {total_steps} "
            "steps of the run: lower it, or train for longer."
        )
    if not 0 <= final_fraction <= 1:
        raise ConfigError(f"config.optimizer.final_fraction is {final_fraction}, but must be from 0 to 1.")
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else learning_rate,
        decay_steps=total_steps - warmup_steps,
        alpha=final_fraction,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def build_optimizer(
    name: str,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    *,
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Builds the Keras optimizer with this name.

    Ftrl keeps no weights, but computes them anew from the gradients so far: an entry without any becomes 0,
    whatever it was initially, and decay would be undone.

    Args:
      name: One of adadelta, adafactor, adagrad, adam, adamax, adamw, ftrl, lion, nadam, rmsprop, sgd.
      schedule: The learning rate by step. The current one is `schedule(optimizer.iterations)`:
        `optimizer.learning_rate` lags one step behind.
      clip_norm: The norm of all gradients together, to which a longer one is shortened; 0 for no limit.
      weight_decay: The fraction of each weight, times the learning rate, taken off each step, apart from the
        gradient ([Loshchilov and Hutter, 2019](https://arxiv.org/abs/1711.05101)). Every row of every table
        decays, seen in the step or not. 0 for none; ftrl has none.
      momentum: From 0 to below 1, for rmsprop and sgd.

    Raises:
      ConfigError: For an unknown name, a value out of range, or an option that the optimizer does not have.
    """
    _check_optimizer(name)
    for field, value in (("clip_norm", clip_norm), ("weight_decay", weight_decay)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"config.optimizer.{field} is {value}, but must be 0 (none) or a positive number.")
    if name == "adamw" and weight_decay == 0:
        raise ConfigError(
            "config.optimizer.weight_decay is 0, but adamw is adam with weight decay: set it to 0.004, say, "
            "or set config.optimizer.name to adam."
        )
    if name == "ftrl" and weight_decay:
        raise ConfigError(
            f"config.optimizer.weight_decay is {weight_decay}, but ftrl has no such option: set it to 0, or "
            "choose another config.optimizer.name."
        )
    if name == "ftrl" and schedule(0) == 0:
        raise ConfigError(
            "config.optimizer.warmup_steps is above 0, but ftrl divides by the learning rate, with which a "
            "warm-up starts at 0: set it to 0, or choose another config.optimizer.name."
        )
    if not 0 <= momentum < 1:
        raise ConfigError(f"config.optimizer.momentum is {momentum}, but must be from 0 to below 1.")
    if momentum and name not in _WITH_MOMENTUM:
        raise ConfigError(
            f"config.optimizer.momentum is {momentum}, but {name} has no such option: set it to 0, or set "
            f"config.optimizer.name to one of {', '.join(_WITH_MOMENTUM)}."
        )
    return _OPTIMIZERS[name](
        schedule,
        global_clipnorm=clip_norm or None,
        weight_decay=weight_decay or None,
        # Keras would compile each variable's update apart; the step decides what is compiled.
        jit_compile=False,
        **({"momentum": momentum} if momentum else {}),
    )


def _check_optimizer(name: str) -> None:
    if name not in _OPTIMIZERS:
        raise ConfigError(f"config.optimizer.name is {name!r}, but must be one of {', '.join(_OPTIMIZERS)}.")


def _check_schedule(name: str) -> None:
    if name not in _SCHEDULES:
        raise ConfigError(f"config.optimizer.schedule is {name!r}, but must be one of {', '.join(_SCHEDULES)}.")
