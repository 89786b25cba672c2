"""The causal transformer of SASRec: the vectors of a history in order → a vector for each prefix of it."""

from trainer.compat import keras, tf
from trainer.modeling.randomness import Draws, uniform

# Streams of random numbers (see `randomness.uniform`): one for the input, and two for each layer.
_FIRST_STREAM = 1000

# Far below any attention logit.
_MASKED = -1e9


class CausalTransformer(keras.layers.Layer):
    """The body of SASRec (Kang & McAuley, ICDM 2018), as gSASRec (Petrov & Macdonald, RecSys 2023) uses it too.

    The input is scaled by √embedding_size, and learned vectors of the positions are added. Each layer is causal
    self-attention and a feed-forward network of one hidden layer of the same size with ReLU, each with layer
    normalization before it, dropout after it, and a residual connection. A last layer normalization follows. Dropout is
    applied to the outputs of the blocks and not to the attention weights, which would need num_heads · length² random
    numbers for each history.

    Positions are counted from the oldest item. So a prefix of a history has the same output whether more items follow
    or not.

    Attributes:
      positions: The vectors of the positions, float32 [max_length, embedding_size].
    """

    def __init__(
        self,
        embedding_size: int,
        *,
        num_layers: int,
        num_heads: int,
        max_length: int,
        dropout: float,
        seed: int,
        name: str = "transformer",
    ):
        """Builds the layers with all their variables.

        Args:
          embedding_size: The size of the vectors; a multiple of `num_heads`.
          num_layers: The number of layers, at least 1.
          num_heads: The number of attention heads.
          max_length: The largest number of items in a history.
          dropout: The probability with which a number is dropped in training, in [0, 1).
          seed: Initial values depend only on the seed and the sizes.

        Raises:
          ValueError: `embedding_size` is not a multiple of `num_heads`.
        """
        super().__init__(name=name)
        if embedding_size % num_heads:
            raise ValueError(
                f"A transformer of embedding_size={embedding_size} cannot have num_heads={num_heads}: the size must be "
                "a multiple of the number of heads."
            )
        self._embedding_size = embedding_size
        self._max_length = max_length
        self._dropout = dropout
        # Keras names the variables of a layer by its parents only if it is built in their calls.
        with tf.name_scope(name):
            self.positions = self.add_weight(
                name="positions",
                shape=[max_length, embedding_size],
                initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
            )
            self._blocks = [
                _TransformerLayer(
                    embedding_size,
                    num_heads,
                    dropout,
                    seed=seed + 1 + 4 * index,
                    stream=_FIRST_STREAM + 1 + 2 * index,
                    name=f"layer_{index}",
                )
                for index in range(num_layers)
            ]
            self._norm = build_norm(embedding_size, "norm")
        self.built = True

    def call(self, vectors: tf.Tensor, mask: tf.Tensor, draws: Draws | None = None) -> tf.Tensor:
        """Encodes each prefix of a history.

        Args:
          vectors: float32 [batch_size, length, embedding_size], the items of the histories, oldest first.
          mask: bool [batch_size, length], true = real. The real items come first.
          draws: what dropout depends on in a training step. None: no dropout.

        Returns:
          float32 [batch_size, length, embedding_size]. Position t depends on the items 0 to t. 0 where padded.

        Raises:
          ValueError: the length is static and above `max_length`. If it is dynamic, TensorFlow raises
            InvalidArgumentError.
        """
        length = vectors.shape[1]
        if length is not None and length > self._max_length:
            raise ValueError(
                f"A history of {length} items is longer than the max_length={self._max_length} it may have."
            )
        dynamic_length = tf.shape(vectors)[1]
        positions = tf.slice(self.positions, [0, 0], [length or dynamic_length, self._embedding_size])
        hidden = vectors * self._embedding_size**0.5 + positions
        # Padding may hold anything, also NaN, which a product with 0 would not remove.
        hidden = tf.where(mask[..., tf.newaxis], hidden, 0.0)
        hidden = _drop(hidden, self._dropout, draws, _FIRST_STREAM)

        order = tf.range(dynamic_length)
        # Padding comes after all real items, so they cannot see it.
        is_visible = order[:, tf.newaxis] >= order
        for layer in self._blocks:
            hidden = layer(hidden, is_visible, draws)
        return tf.where(mask[..., tf.newaxis], self._norm(hidden), 0.0)


class _TransformerLayer(keras.layers.Layer):
    """Self-attention and a feed-forward network, both with normalization before and a residual connection."""

    def __init__(self, size: int, num_heads: int, dropout: float, *, seed: int, stream: int, name: str):
        super().__init__(name=name)
        self._num_heads = num_heads
        self._dropout = dropout
        self._stream = stream
        with tf.name_scope(name):
            self._attention_norm = build_norm(size, "attention_norm")
            self._query_key_value = build_dense(size, 3 * size, "query_key_value", seed=seed)
            self._attention_output = build_dense(size, size, "attention_output", seed=seed + 1)
            self._feed_forward_norm = build_norm(size, "feed_forward_norm")
            self._feed_forward = build_dense(size, size, "feed_forward", seed=seed + 2, activation="relu")
            self._feed_forward_output = build_dense(size, size, "feed_forward_output", seed=seed + 3)
        self.built = True

    def call(self, hidden: tf.Tensor, is_visible: tf.Tensor, draws: Draws | None) -> tf.Tensor:
        """hidden [batch_size, length, size], is_visible bool [length, length] → the shape of hidden."""
        attended = self._attention_output(self._attend(self._attention_norm(hidden), is_visible))
        hidden += _drop(attended, self._dropout, draws, self._stream)
        transformed = self._feed_forward_output(self._feed_forward(self._feed_forward_norm(hidden)))
        return hidden + _drop(transformed, self._dropout, draws, self._stream + 1)

    def _attend(self, hidden: tf.Tensor, is_visible: tf.Tensor) -> tf.Tensor:
        batch_size, length, size = (
            static or dynamic for static, dynamic in zip(hidden.shape, tf.unstack(tf.shape(hidden)), strict=True)
        )
        head_size = hidden.shape[-1] // self._num_heads
        heads = tf.reshape(self._query_key_value(hidden), [batch_size, length, 3, self._num_heads, head_size])
        queries, keys, values = tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]))
        logits = tf.matmul(queries, keys, transpose_b=True) * head_size**-0.5
        weights = tf.nn.softmax(tf.where(is_visible, logits, _MASKED))
        return tf.reshape(tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3]), [batch_size, length, size])


def _drop(hidden: tf.Tensor, dropout: float, draws: Draws | None, stream: int) -> tf.Tensor:
    """Sets numbers of hidden [batch_size, length, size] to 0, and scales the others to keep the expectation."""
    if draws is None or not dropout:
        return hidden
    # The index of a number does not depend on the length, so a prefix has the same numbers in a longer history.
    indices = tf.range(tf.shape(hidden)[1] * hidden.shape[2])[tf.newaxis]
    numbers = uniform(draws.seed, draws.step, draws.rows, indices, stream=stream)
    return tf.where(tf.reshape(numbers, tf.shape(hidden)) >= dropout, hidden / (1.0 - dropout), 0.0)


def build_dense(
    input_size: int, size: int, name: str, *, seed: int | None, activation: str | None = None
) -> keras.layers.Dense:
    """A dense layer whose variables exist. Without a seed its weights start at 0."""
    initializer = keras.initializers.Zeros() if seed is None else keras.initializers.GlorotUniform(seed=seed)
    dense = keras.layers.Dense(size, activation, kernel_initializer=initializer, name=name)
    with tf.name_scope(name):
        dense.build([None, None, input_size])
    return dense


def build_norm(size: int, name: str, *, num_axes: int = 3) -> keras.layers.LayerNormalization:
    """A layer normalization whose variables exist, for inputs with this number of axes, the last one of `size`."""
    norm = keras.layers.LayerNormalization(epsilon=1e-6, name=name)
    with tf.name_scope(name):
        norm.build([*[None] * (num_axes - 1), size])
    return norm
