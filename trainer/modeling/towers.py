"""A tower turns the features of a query or of an item into a vector."""

from collections.abc import Sequence

import numpy as np

from trainer.compat import keras, tf
from trainer.features import FeatureSpec
from trainer.modeling.embedding import EmbeddingTable

Features = dict[str, tf.Tensor]
"""Features by name."""

# Added to the seed of a tower for the encoder of each further feature. Hidden layers use the numbers from 1.
_FEATURE_SEEDS = 200


class CategoricalEncoder(keras.layers.Layer):
    """Encodes indices by an embedding. Several indices are encoded by their mean; index 0 is then padding."""

    def __init__(self, spec: FeatureSpec, embedding_size: int, *, seed: int, initial_values: np.ndarray | None = None):
        super().__init__(name=spec.name)
        assert spec.num_values is not None
        self._num_axes = len(spec.shape)
        self.table = EmbeddingTable(spec.num_values, embedding_size, seed=seed, initial_values=initial_values)

    def call(self, values: tf.Tensor) -> tf.Tensor:
        """int32 [..., *shape] → float32 [..., embedding_size]."""
        vectors = self.table.lookup(values)
        if not self._num_axes:
            return vectors
        axes = list(range(-1 - self._num_axes, -1))
        mask = tf.cast(values != 0, vectors.dtype)[..., tf.newaxis]
        return tf.math.divide_no_nan(tf.reduce_sum(vectors * mask, axes), tf.reduce_sum(mask, axes))


class NumericEncoder(keras.layers.Layer):
    """Encodes numbers by a linear map without a bias."""

    def __init__(self, spec: FeatureSpec, embedding_size: int, *, seed: int):
        super().__init__(name=spec.name)
        self._num_axes = len(spec.shape)
        self._num_numbers = int(tf.TensorShape(spec.shape).num_elements() or 0)
        self.dense = keras.layers.Dense(
            embedding_size, use_bias=False, kernel_initializer=keras.initializers.GlorotUniform(seed=seed)
        )

    def call(self, values: tf.Tensor) -> tf.Tensor:
        """[..., *shape] → float32 [..., embedding_size]."""
        lead = tf.shape(values)[: values.shape.rank - self._num_axes]
        flat = tf.reshape(tf.cast(values, tf.float32), tf.concat([lead, [self._num_numbers]], 0))
        static_lead = values.shape[: values.shape.rank - self._num_axes]
        return self.dense(tf.ensure_shape(flat, [*static_lead, self._num_numbers]))


class Tower(keras.layers.Layer):
    """Features → a vector: the sum of their encodings, then optional hidden layers.

    With an index as the only feature and no hidden layer, the vector is the embedding of the index, as in the
    TF-Ranking tutorial.

    Attributes:
      specs: The features.
      encoders: The encoder of each feature, in the order of the specs.
      hidden: Dense layers; the last one is linear and has `embedding_size` outputs.
    """

    def __init__(
        self,
        specs: Sequence[FeatureSpec],
        *,
        embedding_size: int,
        hidden_sizes: Sequence[int],
        seed: int,
        name: str,
        initial_values: np.ndarray | None = None,
    ):
        """Builds a tower.

        Args:
          specs: Features of one owner.
          embedding_size: The size of every encoding and of the resulting vector.
          hidden_sizes: Sizes of the hidden layers, which use ReLU.
          seed: Determines the initial weights.
          name: Name of the layer.
          initial_values: The initial embeddings of the first feature, an index: float32 [num_values, embedding_size].
        """
        super().__init__(name=name)
        self.specs = tuple(specs)
        self.encoders = [
            CategoricalEncoder(
                spec,
                embedding_size,
                seed=_encoder_seed(seed, position),
                initial_values=None if position else initial_values,
            )
            if spec.is_categorical
            else NumericEncoder(spec, embedding_size, seed=_encoder_seed(seed, position))
            for position, spec in enumerate(specs)
        ]
        sizes = [*hidden_sizes, embedding_size] if hidden_sizes else []
        self.hidden = [
            keras.layers.Dense(
                size,
                activation="relu" if depth < len(hidden_sizes) else None,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 1 + depth),
                name=f"dense_{depth}",
            )
            for depth, size in enumerate(sizes)
        ]

    @property
    def tables(self) -> dict[str, EmbeddingTable]:
        """The tables of the categorical features, by the name of the feature."""
        return {
            spec.name: encoder.table
            for spec, encoder in zip(self.specs, self.encoders, strict=True)
            if spec.is_categorical
        }

    def call(self, features: Features, *others: tf.Tensor) -> tf.Tensor:
        """Encodes features.

        Args:
          features: Every feature of `specs`, [..., *shape].
          others: Encodings that are added to those of the features, float32 [..., embedding_size].

        Returns:
          float32 [..., embedding_size].
        """
        encoders = zip(self.specs, self.encoders, strict=True)
        return self._hidden([*(encoder(features[spec.name]) for spec, encoder in encoders), *others])

    def of_all(self, features: Features) -> tf.Tensor:
        """Encodes all values of the first feature, an index, without looking each up.

        Args:
          features: Every other feature, [num_values, *shape].

        Returns:
          float32 [num_values, embedding_size].
        """
        index, *others = zip(self.specs, self.encoders, strict=True)
        encodings = [encoder(features[spec.name]) for spec, encoder in others]
        return self._hidden([index[1].table.all(), *encodings])

    def _hidden(self, encodings: Sequence[tf.Tensor]) -> tf.Tensor:
        vectors = tf.add_n(encodings)
        for layer in self.hidden:
            vectors = layer(vectors)
        return vectors


def _encoder_seed(seed: int, position: int) -> int:
    return seed + _FEATURE_SEEDS + position - 1 if position else seed
