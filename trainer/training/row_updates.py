"""Optimizers that read and write only those rows of a table that a step used.

The gradient of a table that was only looked up is sparse: the looked-up rows and a gradient for each, with repetitions
(`tf.IndexedSlices`). The optimizers of Keras pass it through tf.unique, whose result has a dynamic shape, which XLA
compiles badly. Here the gradients of a repeated row are added up in a static shape.

With SGD and Adagrad the result is that of the dense update. Row-wise Adagrad and lazy Adam are algorithms of their own,
also for dense gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

from trainer.compat import keras, tf
from trainer.modeling.embedding import Gradient

GradientsAndVariables = Sequence[tuple[Gradient, tf.Variable]]


class RowUpdates:
    """What an optimizer inherits, before its Keras class, to take sparse gradients of tables."""

    def __init__(self, *arguments: Any, tables: Sequence[tf.Variable], **options: Any):
        """Builds an optimizer.

        Args:
          *arguments: Of the Keras optimizer.
          tables: The variables of the tables, [num_rows, embedding_size].
          **options: Of the Keras optimizer.
        """
        super().__init__(*arguments, **options)
        self._row_sums = _RowSums(tables, self._var_key)  # type: ignore[attr-defined]

    def aggregate_gradients(self, grads_and_vars: GradientsAndVariables) -> GradientsAndVariables:
        """Adds up gradients over the replicas, and then those of repeated rows."""
        return self.add_repeated_rows(super().aggregate_gradients(grads_and_vars))  # type: ignore[misc]

    def add_repeated_rows(self, grads_and_vars: GradientsAndVariables) -> GradientsAndVariables:
        """Adds up the gradients of repeated rows, in the order in which they stand in a sparse gradient."""
        return [
            (self._row_sums(gradient, variable) if isinstance(gradient, tf.IndexedSlices) else gradient, variable)
            for gradient, variable in grads_and_vars
        ]

    def is_table(self, variable: tf.Variable) -> bool:
        """Whether a variable is one of the tables."""
        return self._row_sums.is_table(variable)

    def _deduplicate_sparse_grad(self, grads: Sequence[Any]) -> Sequence[Any]:
        """What Keras would do by tf.unique. `aggregate_gradients` has done it."""
        return grads


class SGD(RowUpdates, keras.optimizers.SGD):  # type: ignore[misc]
    """SGD. Sparse and dense updates are the same. Momentum moves all rows in each step."""

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the momentums, which Keras would create also for a momentum of 0."""
        if self.momentum:
            super().build(var_list)
        elif not getattr(self, "_built", False):
            keras.optimizers.Optimizer.build(self, var_list)
            self._built = True

    def update_step(self, gradient: Gradient, variable: tf.Variable) -> None:
        """Updates a variable."""
        if self.momentum:
            super().update_step(gradient, variable)
        else:
            rows = _Rows(gradient)
            rows.add(variable, -self.learning_rate * rows.gradient)


class Adagrad(RowUpdates, keras.optimizers.Adagrad):  # type: ignore[misc]
    """Adagrad: s += g², w −= η · g / √(s + ε). Sparse and dense updates are the same."""

    def update_step(self, grad: Gradient, variable: tf.Variable) -> None:
        """Updates a variable. On several replicas, Keras would copy all of s for a sparse gradient."""
        rows = _Rows(grad)
        accumulator = self._accumulators[self._index_dict[self._var_key(variable)]]
        rows.add(accumulator, self._squares(rows.gradient, variable))
        rows.add(variable, -self.learning_rate * rows.gradient / tf.sqrt(rows.read(accumulator) + self.epsilon))

    def _squares(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        return tf.square(gradient)


class RowwiseAdagrad(Adagrad):
    """Adagrad with one number for each row of a table: s += mean(g²). So a table needs little more memory than itself.

    Other variables are updated by Adagrad.
    """

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the accumulators."""
        if getattr(self, "_built", False):
            return
        keras.optimizers.Optimizer.build(self, var_list)
        self._built = True
        self._accumulators = []
        for variable in var_list:
            shape = [variable.shape[0], 1] if self.is_table(variable) else variable.shape
            initial_value = tf.fill(shape, tf.constant(self.initial_accumulator_value, variable.dtype))
            self._accumulators.append(
                self.add_variable_from_reference(variable, "accumulator", initial_value=initial_value)
            )

    def _squares(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        squares = tf.square(gradient)
        return tf.reduce_mean(squares, axis=-1, keepdims=True) if self.is_table(variable) else squares


class LazyAdam(RowUpdates, keras.optimizers.Adam):  # type: ignore[misc]
    """Adam whose moments of a table row change only in the steps in which the gradient of the row is not 0.

    Weights of other rows do not move either, and do not decay. In Adam they move on with the moments of earlier steps.
    The correction for the bias of the moments counts all steps. Other variables are updated by Adam.
    """

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the moments."""
        if not getattr(self, "_built", False):
            self.exclude_from_weight_decay(var_list=[variable for variable in var_list if self.is_table(variable)])
        super().build(var_list)

    def update_step(self, gradient: Gradient, variable: tf.Variable) -> None:
        """Updates a variable."""
        if not self.is_table(variable):
            super().update_step(gradient, variable)
            return
        rows = _Rows(gradient)
        index = self._index_dict[self._var_key(variable)]
        first, second = self._momentums[index], self._velocities[index]
        is_used = tf.reduce_any(rows.gradient != 0, axis=-1, keepdims=True)
        rows.add(first, tf.where(is_used, (1 - self.beta_1) * (rows.gradient - rows.read(first)), 0.0))
        rows.add(second, tf.where(is_used, (1 - self.beta_2) * (tf.square(rows.gradient) - rows.read(second)), 0.0))
        step = tf.cast(self.iterations + 1, variable.dtype)
        correction = tf.sqrt(1 - tf.pow(self.beta_2, step)) / (1 - tf.pow(self.beta_1, step))
        change = correction * rows.read(first) / (tf.sqrt(rows.read(second)) + self.epsilon)
        if self.weight_decay:
            change += self.weight_decay * rows.read(variable)
        rows.add(variable, tf.where(is_used, -self.learning_rate * change, 0.0))


class _Rows:
    """The rows of a table that a gradient is for: some of them, or all.

    Attributes:
      gradient: float32 [num_rows, embedding_size].
    """

    def __init__(self, gradient: Gradient):
        is_sparse = isinstance(gradient, tf.IndexedSlices)
        self._indices = gradient.indices if is_sparse else None
        self.gradient = gradient.values if is_sparse else gradient

    def read(self, variable: tf.Variable) -> tf.Tensor:
        """The values of these rows, [num_rows, ...]."""
        if self._indices is None:
            return tf.convert_to_tensor(variable)
        # tf.gather would copy the whole variable where it has several replicas.
        return tf.raw_ops.ResourceGather(resource=variable.handle, indices=self._indices, dtype=variable.dtype)

    def add(self, variable: tf.Variable, change: tf.Tensor) -> None:
        """Adds `change` [num_rows, ...] to these rows. That of a repeated row is 0 but once."""
        if self._indices is None:
            variable.assign_add(change)
        else:
            variable.scatter_add(tf.IndexedSlices(change, self._indices))


class _RowSums:
    """Adds up the gradients of repeated rows, in a static shape and without sorting.

    Each table has an int32 variable with a number for each row. A step writes the position of each of its gradients
    to the row of the gradient. Of equal rows one position stays, which then stands for the row. No other step reads
    what was written, so no checkpoint holds it, and no row has to be cleared.
    """

    def __init__(self, tables: Sequence[tf.Variable], key_fn: Callable[[tf.Variable], Any]):
        self._key_fn = key_fn
        # Each replica has numbers of its own, which it may write at any time.
        self._positions = {
            key_fn(table): tf.Variable(
                tf.zeros([table.shape[0]], tf.int32),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                name="positions",
            )
            for table in tables
        }

    def is_table(self, variable: tf.Variable) -> bool:
        return self._key_fn(variable) in self._positions

    def __call__(self, gradient: tf.IndexedSlices, table: tf.Variable) -> tf.IndexedSlices:
        """[n] rows, some of them repeated → the same rows; one of equal ones has the sum, and the others have 0."""
        handle = self._positions[self._key_fn(table)].handle
        places = tf.range(tf.shape(gradient.indices)[0])
        tf.raw_ops.ResourceScatterUpdate(resource=handle, indices=gradient.indices, updates=places)
        chosen = tf.raw_ops.ResourceGather(resource=handle, indices=gradient.indices, dtype=tf.int32)
        sums = tf.math.unsorted_segment_sum(gradient.values, chosen, tf.size(places))
        return tf.IndexedSlices(sums, gradient.indices, gradient.dense_shape)
