"""Random numbers that are a function of (seed, step, global row, index), for dropout and noise in a training step.

The generators of TensorFlow draw the numbers of a whole tensor. A replica that holds some rows of the global batch
would have to draw them all. Here each number is the hash of its own coordinates. So a row has the same numbers on any
number of replicas, in any batch, after any resume, and with or without XLA.
"""

from dataclasses import dataclass

from trainer.compat import tf

_GOLDEN_RATIO = 0x9E3779B9


@dataclass(frozen=True)
class Draws:
    """What the random numbers of a training step depend on.

    Attributes:
      seed: of the run.
      step: of the run, an integer [].
      rows: int32 [batch_size], the row of each query in the global batch.
    """

    seed: int
    step: tf.Tensor | int
    rows: tf.Tensor


def uniform(seed: int, step: tf.Tensor | int, rows: tf.Tensor, indices: tf.Tensor, *, stream: int) -> tf.Tensor:
    """Random numbers that are uniform in [0, 1), multiples of 2⁻²⁴.

    Args:
      seed: of the run.
      step: of the run, an integer [].
      rows: int32 [batch_size], the row of each list in the global batch.
      indices: int32 [batch_size, n], or [1, n] if all rows have the same: what the numbers of a row belong to, such as
        items or positions. A row has equal numbers where it has equal indices.
      stream: tells apart the uses of random numbers in a step. Two uses need two streams.

    Returns:
      float32 [batch_size, n].
    """
    key = _mix(_uint32(seed))
    step = tf.cast(step, tf.int64)
    # A cast of an int64 keeps its low 32 bits.
    step_words = tf.cast(step // 2**32, tf.uint32), tf.cast(step, tf.uint32)
    for word in (_uint32(seed >> 32), _uint32(stream), *step_words):
        key = _mix(key * _uint32(_GOLDEN_RATIO) + word)
    # Two keys for each row, 64 bits together. With one, the rows of a long run would meet keys of earlier rows.
    rows = tf.cast(rows, tf.uint32)[:, tf.newaxis] * _uint32(_GOLDEN_RATIO)
    keys, more_keys = _mix(rows + key), _mix(rows + _mix(key + _uint32(_GOLDEN_RATIO)))
    bits = _mix(tf.cast(indices, tf.uint32) * _uint32(_GOLDEN_RATIO) + keys)
    bits = _mix(tf.bitwise.bitwise_xor(bits, more_keys))
    # A float32 holds 24 bits. More would round up to 1.
    return tf.cast(tf.cast(_shift(bits, 8), tf.int32), tf.float32) * 2.0**-24


def _uint32(number: int) -> tf.Tensor:
    return tf.constant(number & 0xFFFFFFFF, tf.uint32)


def _shift(bits: tf.Tensor, num_bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(bits, _uint32(num_bits))


def _mix(bits: tf.Tensor) -> tf.Tensor:
    """A bijection of uint32 [...] in which each bit depends on all bits: `lowbias32` of C. Wellons' hash-prospector."""
    bits = tf.bitwise.bitwise_xor(bits, _shift(bits, 16)) * _uint32(0x7FEB352D)
    bits = tf.bitwise.bitwise_xor(bits, _shift(bits, 15)) * _uint32(0x846CA68B)
    return tf.bitwise.bitwise_xor(bits, _shift(bits, 16))
