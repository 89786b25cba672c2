"""Query lists → dense batches. A batch is a pure function of (seed, step).

Nothing is shuffled through a buffer and no iterator has a state: a seeded permutation of the list indices
says which lists a step sees, and a vectorised gather pads them to [batch_size, list_size]. Resuming at any
step therefore costs the same as starting, and every list is seen exactly once an epoch. The last batch of
an epoch is filled with rows of weight 0, never dropped.

Both data sets are made for `strategy.distribute_datasets_from_function`: each worker's pipeline yields one
element for each of its replicas in turn, so that replica r of R sees rows [r·B/R, (r+1)·B/R) of the same
global batch whatever the number of workers.
"""

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.lists import QueryLists


def steps_per_epoch(num_lists: int, global_batch_size: int) -> int:
    """The number of batches that hold every list once, the last one padded with filler rows."""
    return -(-num_lists // global_batch_size)


def build_train_dataset(
    lists: QueryLists,
    call_starts: np.ndarray,
    *,
    list_size: int,
    global_batch_size: int,
    steps_per_execution: int,
    seed: int,
    context: tf.distribute.InputContext,
) -> tf.data.Dataset:
    """Superbatches for a compiled loop over steps.

    Element c·R + r (R replicas of this worker) holds the batches of steps call_starts[c] to
    call_starts[c] + steps_per_execution - 1 for replica r, each feature with a leading axis [steps_per_execution]:
    `query` [K, b], `items` and `labels` [K, b, list_size], `weights` [K, b], `num_lists` [K], where b is
    the per-replica batch size. It never ends, so that no strategy has to ask for partial elements: the
    plan of calls is what ends an epoch.

    Args:
      lists: the training lists.
      call_starts: int64 [num_calls], the first step of each call.
      seed: with the epoch it determines the permutation.
      context: which of the input pipelines this is.
    """
    gather = _Gather(lists, list_size)
    num_lists = lists.num_lists
    epoch_steps = steps_per_epoch(num_lists, global_batch_size)
    replica_batch_size = global_batch_size // context.num_replicas_in_sync

    def superbatch(start: tf.Tensor, replica: tf.Tensor) -> dict[str, tf.Tensor]:
        steps = start + tf.range(steps_per_execution, dtype=tf.int64)
        first = (steps % epoch_steps) * global_batch_size
        row = replica * replica_batch_size + tf.range(replica_batch_size, dtype=tf.int64)
        position = tf.reshape(first[:, None] + row, [-1])
        epoch = tf.repeat(steps // epoch_steps, replica_batch_size)
        # tf.random.experimental.index_shuffle, whose Python wrapper cannot take one seed for each index.
        shuffled = tf.raw_ops.RandomIndexShuffle(
            index=tf.minimum(position, num_lists - 1),
            seed=tf.stack([tf.fill(tf.shape(epoch), tf.constant(seed, tf.int64)), epoch, epoch * 0], axis=1),
            max_index=tf.constant(num_lists - 1, tf.int64),
        )
        features = gather(shuffled, is_real=position < num_lists)
        features = {
            name: tf.reshape(value, [steps_per_execution, replica_batch_size, *value.shape[1:]])
            for name, value in features.items()
        }
        real = tf.minimum(num_lists - first, global_batch_size)
        return features | {schema.NUM_LISTS: tf.cast(real, tf.float32)}

    return _per_replica(np.asarray(call_starts, np.int64), superbatch, context).repeat().prefetch(2)


def build_eval_dataset(
    lists: QueryLists, *, list_size: int, global_batch_size: int, context: tf.distribute.InputContext
) -> tf.data.Dataset:
    """Every list once, in order: `steps_per_epoch` batches, the last one filled with rows of weight 0.

    Elements are dictionaries with `query` [b], `items` and `labels` [b, list_size], `weights` [b] and
    `num_lists` [], dealt to replicas as in `build_train_dataset`.
    """
    gather = _Gather(lists, list_size)
    num_lists = lists.num_lists
    replica_batch_size = global_batch_size // context.num_replicas_in_sync

    def batch(first: tf.Tensor, replica: tf.Tensor) -> dict[str, tf.Tensor]:
        position = first + replica * replica_batch_size + tf.range(replica_batch_size, dtype=tf.int64)
        features = gather(tf.minimum(position, num_lists - 1), is_real=position < num_lists)
        real = tf.minimum(num_lists - first, global_batch_size)
        return features | {schema.NUM_LISTS: tf.cast(real, tf.float32)}

    firsts: np.ndarray = np.arange(steps_per_epoch(num_lists, global_batch_size), dtype=np.int64) * global_batch_size
    return _per_replica(firsts, batch, context).repeat().prefetch(2)


def _per_replica(starts: np.ndarray, element_fn, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """`element_fn(start, replica)` for each start and, within it, each replica of this worker."""
    num_local = context.num_replicas_in_sync // context.num_input_pipelines
    replicas = context.input_pipeline_id * num_local + np.arange(num_local, dtype=np.int64)
    pairs: tuple[np.ndarray, np.ndarray] = (np.repeat(starts, num_local), np.tile(replicas, len(starts)))
    options = tf.data.Options()
    options.deterministic = True
    return (
        tf.data.Dataset.from_tensor_slices(pairs)
        .map(element_fn, num_parallel_calls=tf.data.AUTOTUNE)
        .with_options(options)
    )


class _Gather:
    """Rows of lists in CSR form, padded to `list_size`."""

    def __init__(self, lists: QueryLists, list_size: int):
        self._queries = tf.constant(lists.queries, tf.int32)
        self._offsets = tf.constant(lists.offsets, tf.int64)
        self._items = tf.constant(lists.items, tf.int32)
        self._labels = tf.constant(lists.labels, tf.float32)
        self._list_size = list_size

    def __call__(self, rows: tf.Tensor, *, is_real: tf.Tensor) -> dict[str, tf.Tensor]:
        """Features of the lists `rows` int64 [batch_size]; filler where `is_real` bool [batch_size] is not."""
        start, end = tf.gather(self._offsets, rows), tf.gather(self._offsets, rows + 1)
        entry = start[:, None] + tf.range(self._list_size, dtype=tf.int64)
        mask = (entry < end[:, None]) & is_real[:, None]
        entry = tf.where(mask, entry, 0)
        return {
            schema.QUERY: tf.where(is_real, tf.gather(self._queries, rows), schema.UNKNOWN_INDEX),
            schema.ITEMS: tf.where(mask, tf.gather(self._items, entry), schema.UNKNOWN_INDEX),
            schema.LABELS: tf.where(mask, tf.gather(self._labels, entry), schema.PADDING_LABEL),
            schema.WEIGHTS: tf.cast(is_real, tf.float32),
        }
