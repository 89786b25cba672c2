"""The features of queries: their history and the features that the config names."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from trainer import schema
from trainer.data.arrays import EntryArray
from trainer.data.splits import rows_by_user


@runtime_checkable
class QuerySource(Protocol):
    """The features of all queries, which can be read in any order. They may be in memory or memory-mapped.

    Attributes:
      history_size: the number of items that each history is padded or cut to; 0 for no history.
    """

    @property
    def history_size(self) -> int: ...

    @property
    def history_sizes(self) -> np.ndarray:
        """The number of items in the history of each query: int64 [num_users], at most history_size."""
        ...

    def gather(self, users: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the features of the queries `users`.

        Args:
          users: int32 [n], user indices in [0, num_users), in any order, repeats allowed.

        Returns:
          schema.QUERY: int32 [n], `users`.
          schema.HISTORY: int32 [n, history_size], the items of the user, oldest first, then UNKNOWN_INDEX as padding.
            Of a longer history the latest items. Only if history_size is not 0.
          schema.HISTORY_RATINGS: float32 [n, history_size], their ratings, 0 where padded. Only with HISTORY.
          Each query feature by its name: [n, *shape].

        Raises:
          IndexError: a user index is out of range.
        """
        ...


@dataclass(frozen=True, eq=False)
class Queries:
    """A QuerySource of histories in CSR form.

    The arrays may be memory-mapped: no method copies a whole array.

    Attributes:
      offsets: int64 [num_users + 1]; user u has the history offsets[u] to offsets[u + 1].
      items: int32 [num_entries], the items of each user, oldest first.
      ratings: float32 [num_entries].
      history_size: the number of items that `gather` pads or cuts each history to; 0 for no history.
      features: name → [num_users, *shape].
    """

    offsets: np.ndarray
    items: EntryArray
    ratings: EntryArray
    history_size: int
    features: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def history_sizes(self) -> np.ndarray:
        """The number of items in the history of each query; see `QuerySource.history_sizes`."""
        return np.minimum(np.diff(self.offsets), self.history_size)

    def gather(self, users: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the features of the queries `users` int32 [n]; see `QuerySource.gather`."""
        if len(users) and users.min() < 0:
            raise IndexError(f"user {users.min()} is out of range: users are numbered from 0")
        features: dict[str, np.ndarray] = {schema.QUERY: users}
        if self.history_size:
            starts: np.ndarray = np.take(self.offsets, users)
            ends: np.ndarray = np.take(self.offsets, users.astype(np.int64) + 1)
            starts = np.maximum(starts, ends - self.history_size)
            column = np.arange(self.history_size)
            padding = column >= (ends - starts)[:, np.newaxis]
            entries = starts[:, np.newaxis] + column
            features[schema.HISTORY] = padded(self.items, entries, padding, schema.UNKNOWN_INDEX)
            features[schema.HISTORY_RATINGS] = padded(self.ratings, entries, padding, 0.0)
        for name, values in self.features.items():
            features[name] = np.take(values, users, axis=0)
        return features


def padded(values: EntryArray, entries: np.ndarray, padding: np.ndarray, padding_value: float) -> np.ndarray:
    """Gathers entries of lists in CSR form.

    Args:
      values: [num_entries, *shape].
      entries: int64 [n, size], the positions in `values`. They may be out of range where `padding` is true.
      padding: bool [n, size], where to put the padding value instead.
      padding_value: a value of the type of `values`.

    Returns:
      [n, size, *shape].
    """
    if not len(values):
        return np.full((*entries.shape, *values.shape[1:]), padding_value, values.dtype)
    # A padded entry is an entry of another list, and is overwritten. "clip" keeps the last ones inside the array.
    gathered: np.ndarray = values.take(entries, axis=0, mode="clip")
    np.copyto(gathered, padding_value, where=padding.reshape(*padding.shape, *[1] * (values.ndim - 1)))
    return gathered


def build_queries(
    user_indices: np.ndarray,
    item_indices: np.ndarray,
    ratings: np.ndarray,
    timestamps: np.ndarray,
    *,
    num_users: int,
    history_size: int,
    features: dict[str, np.ndarray],
) -> Queries:
    """Builds the history of each user from their ratings, in time order; ratings of the same time in row order.

    Args:
      user_indices: int32 [num_ratings], in [0, num_users).
      item_indices: int32 [num_ratings]. Ratings of the unknown item are left out.
      ratings: float32 [num_ratings].
      timestamps: int64 [num_ratings].
      num_users: the number of users, including those without a rating.
      history_size: the largest number of items of a history; 0 for no history.
      features: name → [num_users, *shape].
    """
    order = np.argsort(timestamps, kind="stable")
    order = order[item_indices[order] != schema.UNKNOWN_INDEX]
    offsets, rows = rows_by_user(user_indices[order], num_users)
    rows = order[rows]
    return Queries(
        offsets=offsets,
        items=item_indices[rows].astype(np.int32, copy=False),
        ratings=ratings[rows].astype(np.float32, copy=False),
        history_size=history_size,
        features=features,
    )
