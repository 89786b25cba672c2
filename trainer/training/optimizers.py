"""Builds the optimizers of Keras 2 and their learning-rate schedules by name.

settings/trainer_config/ checks the names and options. Only the warm-up is checked here, because the number of steps
is known only after the ratings were loaded.
"""

from collections.abc import Sequence

from settings.errors import ConfigError
from trainer.compat import keras, tf
from trainer.training import row_updates

_OPTIMIZERS = {
    "adadelta": keras.optimizers.Adadelta,
    "adafactor": keras.optimizers.Adafactor,
    "adagrad": row_updates.Adagrad,
    "adam": keras.optimizers.Adam,
    "adamax": keras.optimizers.Adamax,
    "adamw": keras.optimizers.AdamW,
    "ftrl": keras.optimizers.Ftrl,
    "lazy_adam": row_updates.LazyAdam,
    "lion": keras.optimizers.Lion,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "rowwise_adagrad": row_updates.RowwiseAdagrad,
    "sgd": row_updates.SGD,
}


def build_schedule(
    name: str, *, learning_rate: float, total_steps: int, warmup_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Builds a function that maps the step to the learning rate, a scalar float32.

    - constant: always `learning_rate`.
    - warmup_cosine: rises linearly from 0 at step 0 to `learning_rate` at `warmup_steps`, then falls along half a
      cosine to 0 at `total_steps`, and stays there ([Loshchilov and Hutter, 2017][sgdr], without restarts;
      [Goyal et al., 2017][warmup]).

    Args:
      name: "constant" or "warmup_cosine".
      learning_rate: The highest learning rate.
      total_steps: The number of steps of the whole run.
      warmup_steps: The number of steps of the warm-up.

    Raises:
      ConfigError: The warm-up is not shorter than the run.

    [sgdr]: https://arxiv.org/abs/1608.03983
    [warmup]: https://arxiv.org/abs/1706.02677
    """
    if name == "constant":
        # A cosine that ends where it began. Keras 2 has no constant schedule, and a plain number would be a second
        # way to read the current learning rate.
        return keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=1, alpha=1.0)
    if warmup_steps >= total_steps:
        raise ConfigError(
            f"config.optimizer.warmup_steps={warmup_steps!r} cannot be used: it has to be below the {total_steps} "
            "steps of the run. Lower it, or raise config.train.num_epochs."
        )
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else learning_rate,
        decay_steps=total_steps - warmup_steps,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def build_optimizer(
    name: str,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    *,
    tables: Sequence[tf.Variable],
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Builds the Keras optimizer with this name, or one of `row_updates`.

    Of a large table, sgd, adagrad, rowwise_adagrad and lazy_adam update only the rows that a step looked up. The others
    update every row of every table in each step. Momentum and weight decay move every row too, except with lazy_adam.

    ftrl computes each weight from all gradients so far. A weight without a gradient therefore becomes 0, whatever its
    initial value.

    Args:
      name: A key of this module's optimizers, such as "adagrad".
      schedule: The learning rate by step. Read the current learning rate as `schedule(optimizer.iterations)`, because
        `optimizer.learning_rate` lags one step behind.
      tables: The variables of the embedding tables.
      clip_norm: The gradients are scaled down when their global norm is above this. 0 turns clipping off.
      weight_decay: In each step, each weight loses this fraction times the learning rate, apart from its gradient
        ([Loshchilov and Hutter, 2019](https://arxiv.org/abs/1711.05101)). All rows of an embedding table decay, also
        those that are not in the batch, but with lazy_adam only those that are. 0 turns decay off.
      momentum: Only for rmsprop and sgd.
    """
    optimizer_class = _OPTIMIZERS[name]
    return optimizer_class(
        schedule,
        global_clipnorm=clip_norm or None,
        weight_decay=weight_decay or None,
        # Keras would compile the update of each variable on its own. The training step decides what is compiled.
        jit_compile=False,
        **({"momentum": momentum} if momentum else {}),
        **({"tables": tables} if issubclass(optimizer_class, row_updates.RowUpdates) else {}),
    )
