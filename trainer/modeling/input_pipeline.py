"""Query lists → dense batches. A batch depends only on the seed and the step.

There is no shuffle buffer and no iterator state. A seeded permutation of the list indices picks the lists of a step,
and `ListSource.gather` pads them to [batch_size, list_size]. Resuming at any step costs the same as starting, and
every list is seen once an epoch. The last batch of an epoch is filled up with padding rows of weight 0.

Both data sets are made for `distribute`. The pipeline of each worker yields one element for each of its replicas in
turn. Replica r of R gets rows [r·B/R, (r+1)·B/R) of the same global batch, whatever the number of workers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from trainer import schema
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.data.lists import ListSource
from trainer.modeling.two_tower import Features


def steps_per_epoch(num_lists: int, global_batch_size: int) -> int:
    """The number of batches that hold every list once. The last one may have padding rows."""
    return -(-num_lists // global_batch_size)


def build_train_dataset(
    lists: ListSource,
    call_starts: np.ndarray,
    *,
    global_batch_size: int,
    steps_per_execution: int,
    seed: int,
    context: tf.distribute.InputContext,
    negatives_fn: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tf.data.Dataset:
    """Builds superbatches for a compiled loop over steps.

    Element c·R + r (for R replicas of this worker) holds the batches of steps call_starts[c] to
    call_starts[c] + steps_per_execution - 1 for replica r. Each feature has a leading axis [steps_per_execution] = [K]:
    the features of the lists [K, b, ...], `weights` and `rows` [K, b], `num_lists` [K], and `negatives`
    [K, num_negatives] if there are any, where b is the per-replica batch size. The data set repeats forever, because
    some strategies ask for partial elements at the end of a finite one. The plan of calls decides when an epoch ends.

    Args:
      lists: the training lists.
      call_starts: int64 [num_calls], the first step of each call.
      seed: of the permutation, together with the epoch.
      context: which of the input pipelines this is.
      negatives_fn: steps int64 [K] → the sampled items of these steps, int32 [K, num_negatives].
    """
    num_lists = lists.num_lists
    epoch_steps = steps_per_epoch(num_lists, global_batch_size)
    replica_batch_size = global_batch_size // context.num_replicas_in_sync

    def superbatch(start: tf.Tensor, replica: tf.Tensor) -> Features:
        steps = start + tf.range(steps_per_execution, dtype=tf.int64)
        first = (steps % epoch_steps) * global_batch_size
        row = replica * replica_batch_size + tf.range(replica_batch_size, dtype=tf.int64)
        position = tf.reshape(first[:, None] + row, [-1])
        epoch = tf.repeat(steps // epoch_steps, replica_batch_size)
        index = tf.minimum(position, num_lists - 1)

        def shuffle(epoch: tf.Tensor) -> tf.Tensor:
            seeds = tf.stack([tf.fill(tf.shape(epoch), tf.constant(seed, tf.int64)), epoch, epoch * 0], axis=-1)
            # The Python wrapper of this op, tf.random.experimental.index_shuffle, cannot take a seed for each index.
            return tf.raw_ops.RandomIndexShuffle(
                index=index, seed=seeds, max_index=tf.constant(num_lists - 1, tf.int64)
            )

        # The result is the same. With one seed the op takes a quarter of the time.
        shuffled = tf.cond(epoch[0] == epoch[-1], lambda: shuffle(epoch[0]), lambda: shuffle(epoch))
        features = _gather(lists, shuffled, is_real=position < num_lists)
        features[schema.ROWS] = tf.tile(tf.cast(row, tf.int32), [steps_per_execution])
        features = {
            name: tf.reshape(value, [steps_per_execution, replica_batch_size, *value.shape[1:]])
            for name, value in features.items()
        }
        if negatives_fn is not None:
            features[schema.NEGATIVES] = _draw(negatives_fn, steps)
        real = tf.minimum(num_lists - first, global_batch_size)
        return features | {schema.NUM_LISTS: tf.cast(real, tf.float32)}

    return _per_replica(np.asarray(call_starts, np.int64), superbatch, context).repeat().prefetch(2)


def build_eval_dataset(
    lists: ListSource, *, global_batch_size: int, context: tf.distribute.InputContext
) -> tf.data.Dataset:
    """Builds batches that hold every list once, in order. There are `steps_per_epoch` of them; then it repeats.

    Elements are dictionaries with the features of the lists [b, ...], `weights` and `rows` [b] and `num_lists` []. They
    go to the replicas as in `build_train_dataset`.
    """
    num_lists = lists.num_lists
    replica_batch_size = global_batch_size // context.num_replicas_in_sync

    def batch(first: tf.Tensor, replica: tf.Tensor) -> Features:
        row = replica * replica_batch_size + tf.range(replica_batch_size, dtype=tf.int64)
        position = first + row
        features = _gather(lists, tf.minimum(position, num_lists - 1), is_real=position < num_lists)
        real = tf.minimum(num_lists - first, global_batch_size)
        return features | {schema.ROWS: tf.cast(row, tf.int32), schema.NUM_LISTS: tf.cast(real, tf.float32)}

    firsts: np.ndarray = np.arange(steps_per_epoch(num_lists, global_batch_size), dtype=np.int64) * global_batch_size
    return _per_replica(firsts, batch, context).repeat().prefetch(2)


def distribute(
    strategy: tf.distribute.Strategy, dataset_fn: Callable[[tf.distribute.InputContext], tf.data.Dataset]
) -> Iterable[Features]:
    """Deals the elements of a data set to the replicas of a strategy.

    Args:
      dataset_fn: builds the pipeline of a worker with one of the functions above.

    Returns:
      What yields one distributed batch at a time, and can be iterated again.
    """
    if not strategy_lib.is_remote(strategy):
        return strategy.distribute_datasets_from_function(dataset_fn)
    return _FedBatches(strategy, dataset_fn)


class _FedBatches:
    """Batches that this process gathers and sends to the replicas of another machine.

    TensorFlow would place the pipeline on that machine, which has neither the lists nor a Python that could gather.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy, dataset_fn: Callable[[tf.distribute.InputContext], tf.data.Dataset]
    ):
        self._strategy = strategy
        with tf.device("/job:localhost/device:CPU:0"):
            self._dataset = dataset_fn(tf.distribute.InputContext(1, 0, strategy.num_replicas_in_sync))

    def __iter__(self) -> Iterator[Features]:
        elements = iter(self._dataset)
        while True:
            of_replicas = [next(elements) for _ in range(self._strategy.num_replicas_in_sync)]
            yield {name: self._send([element[name] for element in of_replicas]) for name in of_replicas[0]}

    def _send(self, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """A distributed value from the value of each replica."""
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group]
        )


def _per_replica(
    starts: np.ndarray, element_fn: Callable[[tf.Tensor, tf.Tensor], Features], context: tf.distribute.InputContext
) -> tf.data.Dataset:
    """`element_fn(start, replica)` for each start and, within it, each replica of this worker."""
    num_local = context.num_replicas_in_sync // context.num_input_pipelines
    replicas = context.input_pipeline_id * num_local + np.arange(num_local, dtype=np.int64)
    pairs: tuple[np.ndarray, np.ndarray] = (np.repeat(starts, num_local), np.tile(replicas, len(starts)))
    options = tf.data.Options()
    options.deterministic = True
    return (
        tf.data.Dataset.from_tensor_slices(pairs)
        .map(tf.autograph.experimental.do_not_convert(element_fn), num_parallel_calls=tf.data.AUTOTUNE)
        .with_options(options)
    )


def _draw(negatives_fn: Callable[[np.ndarray], np.ndarray], steps: tf.Tensor) -> tf.Tensor:
    """The sampled items of `steps` int64 [K]: int32 [K, num_negatives]."""
    num_negatives = negatives_fn(np.zeros(1, np.int64)).shape[1]
    negatives = tf.numpy_function(negatives_fn, [steps], tf.int32)
    return tf.ensure_shape(negatives, [steps.shape[0], num_negatives])


def _gather(lists: ListSource, rows: tf.Tensor, *, is_real: tf.Tensor) -> Features:
    """Features of the lists `rows` int64 [batch_size]. Where `is_real` bool [batch_size] is false: a padding row."""

    def gather(rows: np.ndarray, is_real: np.ndarray) -> list[np.ndarray]:
        features = lists.gather(rows)
        if not is_real.all():  # Only in the last batch of an epoch.
            for name, array in features.items():
                features[name] = array = array.copy()
                array[~is_real] = schema.PADDING_LABEL if name == schema.LABELS else 0
        return list(features.values())

    # A source may read from a memory-mapped file, so NumPy gathers. An empty gather tells names, types and shapes.
    specs = lists.gather(np.zeros(0, np.int64))
    arrays = tf.numpy_function(gather, [rows, is_real], [array.dtype for array in specs.values()])
    features = {
        name: tf.reshape(tf.ensure_shape(array, [None, *spec.shape[1:]]), [rows.shape[0], *spec.shape[1:]])
        for (name, spec), array in zip(specs.items(), arrays, strict=True)
    }
    return features | {schema.WEIGHTS: tf.cast(is_real, tf.float32)}
