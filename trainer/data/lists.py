"""Query lists in compressed sparse row (CSR) form, and the ListSource that batches are gathered from.

In CSR form all lists are stored one after the other, in one array of items and one of labels. An array of
offsets stores where each list starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from trainer import schema, storage
from trainer.data.queries import QuerySource, padded
from trainer.data.splits import rows_by_user

_ITEM_LISTS_SCHEMA = pa.schema([("items", pa.large_list(pa.int32()))])


@runtime_checkable
class ListSource(Protocol):
    """Query lists that can be read in any order. They may be in memory or memory-mapped.

    Attributes:
      num_lists: the number of lists.
      list_size: the number of entries that each list is padded or cut to.
    """

    @property
    def num_lists(self) -> int: ...

    @property
    def list_size(self) -> int: ...

    def gather(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the lists `rows` as dense features.

        Args:
          rows: int64 [n], list numbers in [0, num_lists), in any order, repeats allowed.

        Returns:
          schema.QUERY: int32 [n], user indices, and the other features of these queries; see `QuerySource.gather`.
          schema.ITEMS: int32 [n, list_size], item indices, UNKNOWN_INDEX where padded.
          schema.LABELS: float32 [n, list_size], relevance, PADDING_LABEL where padded.
          Each example feature by its name: [n, list_size, *shape], 0 where padded.

        Raises:
          IndexError: a list number is out of range.
        """
        ...


@dataclass(frozen=True, eq=False)
class QueryLists:
    """A ListSource of lists in CSR form, each with the rated items of one query.

    The arrays may be memory-mapped: no method copies a whole array.

    Attributes:
      queries: int32 [num_lists], the user index of each list.
      offsets: int64 [num_lists + 1]; list i has the entries offsets[i] to offsets[i + 1].
      items: int32 [num_entries], item indices.
      labels: float32 [num_entries].
      list_size: the number of entries that `gather` pads or cuts each list to.
      features: the example features: name → [num_entries, *shape].
      query_source: the features of the queries; None if there are none but the user index.
    """

    queries: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    list_size: int
    features: dict[str, np.ndarray] = field(default_factory=dict)
    query_source: QuerySource | None = None

    @property
    def num_lists(self) -> int:
        """The number of lists."""
        return len(self.queries)

    @property
    def num_entries(self) -> int:
        """The number of entries in all lists together."""
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Returns the query, the items int32 [n] and the labels float32 [n] of list i in [0, num_lists)."""
        entries = slice(self.offsets[i], self.offsets[i + 1])
        return int(self.queries[i]), self.items[entries], self.labels[entries]

    def gather(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the lists `rows` int64 [n] as dense features; see `ListSource.gather`."""
        if len(rows) and rows.min() < 0:
            raise IndexError(f"row {rows.min()} is out of range: lists are numbered from 0")
        queries: np.ndarray = np.take(self.queries, rows)
        starts: np.ndarray = np.take(self.offsets, rows)
        sizes = np.minimum(np.take(self.offsets, rows + 1) - starts, self.list_size)
        column = np.arange(self.list_size)
        entries = starts[:, np.newaxis] + column
        padding = column >= sizes[:, np.newaxis]
        features = self.query_source.gather(queries) if self.query_source else {schema.QUERY: queries}
        features[schema.ITEMS] = padded(self.items, entries, padding, schema.UNKNOWN_INDEX)
        features[schema.LABELS] = padded(self.labels, entries, padding, schema.PADDING_LABEL)
        for name, values in self.features.items():
            features[name] = padded(values, entries, padding, 0)
        return features


def build_lists(
    user_indices: np.ndarray,
    item_indices: np.ndarray,
    ratings: np.ndarray,
    *,
    list_size: int,
    timestamps: np.ndarray | None = None,
    features: Mapping[str, np.ndarray] = MappingProxyType({}),
    query_source: QuerySource | None = None,
) -> QueryLists:
    """Cuts the ratings of each user into lists of `list_size` entries, and one list with the entries that are left.

    Args:
      user_indices: int32 [num_ratings].
      item_indices: int32 [num_ratings].
      ratings: float32 [num_ratings], used as labels without a change.
      list_size: at least 1.
      timestamps: int64 [num_ratings], to cut the ratings in time order, those of the same time in row order. The first,
        oldest list of a user is then the shorter one. Without it, ratings are cut in row order, and the last list is
        the shorter one.
      features: the example features: name → [num_ratings, *shape].
      query_source: the features of the queries.

    Returns:
      The lists, sorted by user index and then by time or row. A user with n ratings has ⌈n / list_size⌉ lists.
    """
    num_users = int(user_indices.max(initial=-1)) + 1
    if timestamps is None:
        user_offsets, rows = rows_by_user(user_indices, num_users)
    else:
        order = np.argsort(timestamps, kind="stable")
        user_offsets, positions = rows_by_user(user_indices[order], num_users)
        rows = order[positions]

    num_ratings = np.diff(user_offsets)
    num_lists = -(-num_ratings // list_size)
    queries: np.ndarray = np.repeat(np.arange(num_users, dtype=np.int32), num_lists)
    first_list = np.cumsum(num_lists) - num_lists
    list_of_user = np.arange(len(queries)) - first_list[queries]
    begins = list_of_user * list_size
    if timestamps is not None:
        num_missing = num_lists * list_size - num_ratings  # The entries that the first list has less than a full one.
        begins = np.maximum(begins - num_missing[queries], 0)
    begins += user_offsets[queries]

    return QueryLists(
        queries=queries,
        offsets=np.append(begins, len(rows)),
        items=item_indices[rows].astype(np.int32, copy=False),
        labels=ratings[rows].astype(np.float32, copy=False),
        list_size=list_size,
        features={name: values[rows] for name, values in features.items()},
        query_source=query_source,
    )


def group_by_user(
    user_indices: np.ndarray, item_indices: np.ndarray, *, num_users: int
) -> tuple[np.ndarray, np.ndarray]:
    """Groups the items by user, each user's in row order.

    Args:
      user_indices: int32 [num_ratings], in [0, num_users).
      item_indices: int32 [num_ratings].
      num_users: the number of users, including those without a rating.

    Returns:
      Offsets int64 [num_users + 1] and items int32 [num_ratings]. User u rated
      items[offsets[u]:offsets[u + 1]].
    """
    offsets, rows = rows_by_user(user_indices, num_users)
    return offsets, item_indices[rows].astype(np.int32, copy=False)


def save_item_lists(path: str, offsets: np.ndarray, items: np.ndarray) -> None:
    """Writes the result of `group_by_user` as Parquet, local or gs://. Row u has the item indices of user u.

    Raises:
      StorageError: the file cannot be written.
    """
    storage.write_table(pa.table([pa.LargeListArray.from_arrays(offsets, items)], schema=_ITEM_LISTS_SCHEMA), path)


def load_item_lists(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file written by `save_item_lists`: offsets int64 [num_users + 1] and items int32 [num_ratings].

    Raises:
      StorageError: the file is missing or damaged.
    """
    lists = storage.read_table(path, _ITEM_LISTS_SCHEMA).column("items").combine_chunks()
    return lists.offsets.to_numpy(), lists.values.to_numpy()
