"""The features of the known queries inside of the exported model."""

from collections.abc import Sequence

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.queries import QuerySource

_ENTRIES_PER_CHUNK = 1 << 22
"""Limits the histories that are read at a time to 32 MiB."""


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
        size = max(1, _ENTRIES_PER_CHUNK // max(1, query_source.history_size))
        chunks = [
            query_source.gather(np.arange(begin, min(begin + size, num_queries), dtype=np.int32))
            for begin in range(0, num_queries, size)
        ]
        if schema.HISTORY in names:
            chunks = [_without_padding(chunk) for chunk in chunks]
            sizes = np.concatenate([chunk["sizes"] for chunk in chunks])
            self._offsets = _variable(np.append(0, np.cumsum(sizes, dtype=np.int64)))
            # One more entry, which is never used, because a lookup needs at least one.
            self._items = _variable(np.append(_joined(chunks, schema.HISTORY), np.int32(schema.UNKNOWN_INDEX)))
            self._ratings = _variable(np.append(_joined(chunks, schema.HISTORY_RATINGS), np.float32(0)))
        self._values = {
            name: _variable(_joined(chunks, name))
            for name in names
            if name not in (schema.QUERY, schema.HISTORY, schema.HISTORY_RATINGS)
        }

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
            features[schema.HISTORY] = tf.where(is_real, tf.gather(self._items, entries), schema.UNKNOWN_INDEX)
            features[schema.HISTORY_RATINGS] = tf.where(is_real, tf.gather(self._ratings, entries), 0.0)
        return features | {name: tf.gather(values, queries) for name, values in self._values.items()}


def _without_padding(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Histories end to end, and their `sizes`."""
    is_real = features[schema.HISTORY] != schema.UNKNOWN_INDEX
    return features | {
        schema.HISTORY: features[schema.HISTORY][is_real],
        schema.HISTORY_RATINGS: features[schema.HISTORY_RATINGS][is_real],
        "sizes": is_real.sum(axis=1),
    }


def _joined(chunks: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.concatenate([chunk[name] for chunk in chunks])


def _variable(values: np.ndarray) -> tf.Variable:
    return tf.Variable(values, trainable=False)
