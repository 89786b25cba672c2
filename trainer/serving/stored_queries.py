"""The features of the known queries inside of the exported model."""

from collections.abc import Sequence

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.queries import QuerySource

_ENTRIES_PER_CHUNK = 1 << 20
"""Limits the histories that are read at a time to 8 MiB."""

_HISTORIES = (schema.HISTORY, schema.HISTORY_RATINGS)


class StoredQueries(tf.Module):
    """The features of all known queries, as variables. Histories are in CSR form, so their padding takes no room."""

    def __init__(self, query_source: QuerySource, num_queries: int, names: Sequence[str]):
        """Reads the features, some queries at a time.

        Args:
          query_source: has the features.
          num_queries: the number of query indices, including index 0, the unknown query.
          names: the features that the model needs.
        """
        super().__init__(name="stored_queries")
        self._names = tuple(names)
        arrays = _read(query_source, num_queries, [name for name in names if name != schema.QUERY])
        # One at a time, because a variable is a copy.
        self._values = {name: _variable(arrays.pop(name)) for name in list(arrays)}
        if schema.HISTORY in names:
            self._offsets = _variable(_offsets_of(query_source))

    def gather(self, queries: tf.Tensor) -> dict[str, tf.Tensor]:
        """The features of queries int32 [batch_size], each [batch_size, ...].

        Histories are padded to the longest of the batch, and to at least one column.
        """
        features = {schema.QUERY: queries}
        if schema.HISTORY in self._names:
            begins = tf.gather(self._offsets, queries)
            sizes = tf.gather(self._offsets, queries + 1) - begins
            position = tf.range(tf.reduce_max(tf.concat([sizes, [1]], 0)))
            is_real = position < sizes[:, tf.newaxis]
            entries = tf.where(is_real, begins[:, tf.newaxis] + position, 0)
        for name, values in self._values.items():
            if name in _HISTORIES:
                features[name] = tf.where(is_real, tf.gather(values, entries), tf.zeros([], values.dtype))
            else:
                features[name] = tf.gather(values, queries)
        return features


def _read(query_source: QuerySource, num_queries: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The features of all queries, [num_queries, *shape]; histories end to end, [num_entries + 1]."""
    # One more entry of the histories, which is never used, because a lookup needs at least one.
    offsets = _offsets_of(query_source)
    kinds = query_source.gather(np.zeros(0, np.int32))
    shapes = {
        name: (offsets[-1] + 1,) if name in _HISTORIES else (num_queries, *kinds[name].shape[1:]) for name in names
    }
    arrays = {name: np.zeros(shape, kinds[name].dtype) for name, shape in shapes.items()}
    size = max(1, _ENTRIES_PER_CHUNK // max(1, query_source.history_size))
    for begin in range(0, num_queries, size):
        end = min(begin + size, num_queries)
        features = query_source.gather(np.arange(begin, end, dtype=np.int32))
        for name in names:
            if name in _HISTORIES:
                is_real = features[schema.HISTORY] != schema.UNKNOWN_INDEX
                arrays[name][offsets[begin] : offsets[end]] = features[name][is_real]
            else:
                arrays[name][begin:end] = features[name]
    return arrays


def _offsets_of(query_source: QuerySource) -> np.ndarray:
    """Where the history of each query begins: int64 [num_queries + 1]."""
    return np.append(0, np.cumsum(query_source.history_sizes, dtype=np.int64))


def _variable(values: np.ndarray) -> tf.Variable:
    return tf.Variable(values, trainable=False)
