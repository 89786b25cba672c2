"""Bounds the memory of functions whose intermediate results are much larger than their results."""

from collections.abc import Callable, Iterator, Sequence

from trainer.compat import tf

CHUNK_BYTES = 64 * 2**20
"""The size in bytes of an intermediate result that exists for some rows at a time."""


def map_in_chunks(
    fn: Callable[..., tf.Tensor], tensors: Sequence[tf.Tensor], *, rows_per_chunk: "int | tf.Tensor"
) -> tf.Tensor:
    """Applies a function to some rows at a time.

    Args:
      fn: Tensors [n, ...] → a tensor [n, ...], in which each row depends only on the same row of the arguments.
      tensors: Its arguments, each [num_rows, ...]. The last chunk is filled up with zeros.
      rows_per_chunk: The number of rows at a time. 0 is the same as 1.

    Returns:
      float32 [num_rows, ...].
    """
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    num_rows = tf.shape(tensors[0])[0]
    size = tf.clip_by_value(rows_per_chunk, 1, tf.maximum(num_rows, 1))
    num_chunks = tf.maximum(-(-num_rows // size), 1)

    def in_chunks(tensor: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(tensor, [[0, num_chunks * size - num_rows], *[[0, 0]] * (tensor.shape.rank - 1)])
        chunks = tf.reshape(padded, tf.concat([[num_chunks, size], tf.shape(tensor)[1:]], 0))
        return tf.ensure_shape(chunks, [None, None, *tensor.shape[1:]])

    results = tf.map_fn(
        lambda chunk: fn(*chunk),
        tuple(in_chunks(tensor) for tensor in tensors),
        fn_output_signature=tf.float32,
        parallel_iterations=1,
    )
    return tf.reshape(results, tf.concat([[num_chunks * size], tf.shape(results)[2:]], 0))[:num_rows]


def rows_in_chunks(variable: tf.Variable) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Reads a variable of at least one axis, CHUNK_BYTES at a time, and never copies more of it.

    Yields:
      The numbers of some rows, int32 [n], and their values, [n, ...]. Together they are all rows in their order.
    """
    # After a sparse update TensorFlow copies a variable that is read as a whole, as tf.gather reads a replicated one.
    local = variable.values[0] if isinstance(variable, tf.distribute.DistributedValues) else variable
    num_rows = variable.shape[0]
    size = max(1, CHUNK_BYTES // max(1, variable.dtype.size * variable.shape[1:].num_elements()))
    for begin in range(0, num_rows, size):
        rows = tf.range(begin, min(begin + size, num_rows))
        yield rows, local.sparse_read(rows)
