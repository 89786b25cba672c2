"""How the gradients of a step are computed and summed over replicas.

`SumOverReplicas` is the usual way: each replica computes the gradients of its part of the batch, and the strategy adds
them up. Floats round in each addition. So another number of replicas, which adds up other parts in another order, gives
other last digits.

`FixedOrderSum` gives the same bits on any number of replicas. The batch has a fixed number of parts, the virtual
replicas. The gradients of each are computed on their own, by one compiled function of one shape. They are collected on
all replicas, and added up in the order of the parts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from settings.errors import ConfigError
from trainer import schema
from trainer.compat import keras, tf
from trainer.modeling.embedding import Gradient
from trainer.modeling.two_tower import Features
from trainer.training.row_updates import GradientsAndVariables, RowUpdates

_SHARED_FEATURES = (schema.NUM_LISTS, schema.NEGATIVES)
"""The features of a batch that are the same for all its lists."""


class Gradients(NamedTuple):
    """What the forward and backward pass of some lists gives.

    Attributes:
      sums: float32 [3], of `Objective`, over these lists.
      scores: float32 [num_lists, list_size] or [num_lists, 0], of `Objective`.
      health: float32 [2], of `divergence.health`.
      gradients: for each trainable variable, of `divergence.mark`.
    """

    sums: tf.Tensor
    scores: tf.Tensor
    health: tf.Tensor
    gradients: Sequence[Gradient]


class SummedGradients(NamedTuple):
    """As `Gradients` of the lists of this replica, but for the gradients, which are the sums over all replicas."""

    sums: tf.Tensor
    scores: tf.Tensor
    health: tf.Tensor
    gradients: GradientsAndVariables


GradientsFn = Callable[[Features, tf.Tensor], Gradients]
"""(batch, step) → the gradients of its lists. It has to be compiled as a function of its own for `FixedOrderSum`."""


class SumOverReplicas:
    """The gradients of the batch of each replica, added up by the strategy."""

    def __init__(
        self, gradients_fn: GradientsFn, variables: Sequence[tf.Variable], optimizer: keras.optimizers.Optimizer
    ):
        self._gradients_fn = gradients_fn
        self._variables = variables
        self._optimizer = optimizer

    def __call__(self, batch: Features, step: tf.Tensor) -> SummedGradients:
        """Computes the gradients of the batch of this replica, and sums those of all replicas."""
        found = self._gradients_fn(batch, step)
        gradients = self._optimizer.aggregate_gradients(list(zip(found.gradients, self._variables, strict=True)))
        return SummedGradients(found.sums, found.scores, found.health, gradients)


class FixedOrderSum:
    """The gradients of the virtual replicas, added up in their order on each replica."""

    def __init__(
        self,
        gradients_fn: GradientsFn,
        variables: Sequence[tf.Variable],
        optimizer: keras.optimizers.Optimizer,
        *,
        num_virtual: int,
        num_replicas: int,
    ):
        """`num_virtual` is a multiple of `num_replicas`, and divides the global batch."""
        self._gradients_fn = gradients_fn
        self._variables = variables
        self._optimizer = optimizer
        self._num_parts = num_virtual // num_replicas
        self._num_replicas = num_replicas

    def __call__(self, batch: Features, step: tf.Tensor) -> SummedGradients:
        """Computes the gradients of each virtual replica of this replica, and sums those of all in their order."""
        parts = [self._gradients_fn(part, step) for part in split(batch, self._num_parts)]
        sums = tf.add_n([part.sums for part in parts])
        scores = tf.concat([part.scores for part in parts], axis=0)
        health = tf.add_n([part.health for part in parts])
        summed: GradientsAndVariables = [
            (self._sum(gradients), variable)
            for variable, *gradients in zip(self._variables, *(part.gradients for part in parts), strict=True)
        ]
        if isinstance(self._optimizer, RowUpdates):
            summed = self._optimizer.add_repeated_rows(summed)
        return SummedGradients(sums, scores, health, summed)

    def _sum(self, of_parts: Sequence[Any]) -> Any:
        if isinstance(of_parts[0], tf.IndexedSlices):
            # Each row is a part of its own. Those that are repeated are added up later, in this order.
            values = self._gather(tf.concat([part.values for part in of_parts], axis=0))
            indices = self._gather(tf.concat([part.indices for part in of_parts], axis=0))
            return tf.IndexedSlices(values, indices, of_parts[0].dense_shape)
        return _add_in_order(self._gather(tf.stack(of_parts)))

    def _gather(self, values: tf.Tensor) -> tf.Tensor:
        """[n, ...] of each replica → [n · num_replicas, ...], in the order of the replicas."""
        if self._num_replicas == 1:
            return values
        context = tf.distribute.get_replica_context()
        assert context is not None
        gathered = context.all_gather(values, axis=0)
        return tf.ensure_shape(gathered, [values.shape[0] * self._num_replicas, *values.shape[1:]])


# Outside of XLA, TensorFlow may put a chain of additions in another order.
@tf.function(jit_compile=True, autograph=False)
def _add_in_order(values: tf.Tensor) -> tf.Tensor:
    """[n, ...] → [...], ((values[0] + values[1]) + values[2]) + ..."""
    total = values[0]
    for index in range(1, values.shape[0]):
        total += values[index]
    return total


def split(batch: Features, num_parts: int) -> list[Features]:
    """Splits a batch into parts of consecutive lists. A part has the features [batch_size / num_parts, ...]."""
    pieces = {
        name: [feature] * num_parts if name in _SHARED_FEATURES else tf.split(feature, num_parts)
        for name, feature in batch.items()
    }
    return [{name: of_parts[part] for name, of_parts in pieces.items()} for part in range(num_parts)]


def check_virtual_replicas(num_virtual: int, *, global_batch_size: int, strategy_name: str, num_replicas: int) -> None:
    """Checks that the replicas can share the virtual replicas equally.

    Args:
      num_virtual: config.train.deterministic_reduction, which divides global_batch_size; 0 for none.
      global_batch_size: a multiple of `num_replicas`.
      strategy_name: as in --strategy.
      num_replicas: of the strategy.

    Raises:
      ConfigError: they cannot, and the message names a number that works; or the strategy knows none.
    """
    if num_virtual and strategy_name == "tpu":
        raise ConfigError(
            f"config.train.deterministic_reduction={num_virtual} cannot be used with --strategy=tpu, which compiles "
            "another step for each number of replicas. Set it to 0, or use another strategy."
        )
    if num_virtual % num_replicas:
        fitting = range(num_replicas, global_batch_size + 1, num_replicas)
        nearest = min(
            (number for number in fitting if not global_batch_size % number),
            key=lambda number: (abs(number - num_virtual), number),
        )
        raise ConfigError(
            f"config.train.deterministic_reduction={num_virtual} cannot be used on {num_replicas} replicas: each of "
            f"them has to compute the gradients of the same number of virtual replicas. Use a number of replicas that "
            f"divides {num_virtual}, or start a new run with config.train.deterministic_reduction={nearest}."
        )
