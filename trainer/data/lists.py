"""Query lists in compressed sparse row (CSR) form, and the ListSource that batches are gathered from.

In CSR form all lists are stored one after the other, in one array of items and one of labels. An array of
offsets stores where each list starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pyarrow as pa

from trainer import schema, storage
from trainer.data.arrays import EntryArray
from trainer.data.queries import QuerySource, padded
from trainer.data.splits import rows_by_user

ListOrder: TypeAlias = Literal["row", "time"]
"""The order of the ratings of a user. Ratings of the same time are in row order."""

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
    items: EntryArray
    labels: EntryArray
    list_size: int
    features: dict[str, EntryArray] = field(default_factory=dict)
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

    def user_offsets(self, num_users: int) -> np.ndarray:
        """Returns the offsets int64 [num_users + 1] of the entries of each user. `queries` has to be sorted."""
        return self.offsets[np.searchsorted(self.queries, np.arange(num_users + 1))]

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


@dataclass(frozen=True, eq=False)
class RatingsByUser:
    """The ratings of a split in CSR form, user after user. This is their order everywhere: in lists and on disk.

    Attributes:
      offsets: int64 [num_users + 1]; user u has the ratings offsets[u] to offsets[u + 1].
      items: int32 [num_ratings], item indices.
      ratings: float32 [num_ratings].
      timestamps: int64 [num_ratings].
      features: the example features: name → [num_ratings, *shape].
    """

    offsets: np.ndarray
    items: EntryArray
    ratings: EntryArray
    timestamps: EntryArray
    features: dict[str, EntryArray] = field(default_factory=dict)

    def of_users(self, begin: int, end: int) -> "RatingsByUser":
        """Returns the ratings of the users from `begin` to `end` − 1, who are then numbered from 0."""
        offsets = self.offsets[begin : end + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        return RatingsByUser(
            offsets - offsets[0],
            self.items[entries],
            self.ratings[entries],
            self.timestamps[entries],
            {name: values[entries] for name, values in self.features.items()},
        )


def cut_lists(
    ratings: RatingsByUser, *, list_size: int, list_order: ListOrder, query_source: QuerySource | None = None
) -> QueryLists:
    """Cuts the ratings of each user into lists of `list_size` entries, and one list with the entries that are left.

    Args:
      ratings: they become the labels without a change.
      list_size: at least 1.
      list_order: the order of each user's ratings. In time order the first, oldest list of a user is the shorter one.
        In row order the last list is.
      query_source: the features of the queries.

    Returns:
      The lists, sorted by user index and then by time or row. A user with n ratings has ⌈n / list_size⌉ lists. They
      share the arrays of `ratings`, and are padded only to the size of the longest list.
    """
    num_ratings = np.diff(ratings.offsets)
    num_lists = -(-num_ratings // list_size)
    queries: np.ndarray = np.repeat(np.arange(len(num_ratings), dtype=np.int32), num_lists)
    first_list = np.cumsum(num_lists) - num_lists
    list_of_user = np.arange(len(queries)) - first_list[queries]
    begins = list_of_user * list_size
    if list_order == "time":
        num_missing = num_lists * list_size - num_ratings  # The entries that the first list has less than a full one.
        begins = np.maximum(begins - num_missing[queries], 0)
    begins += ratings.offsets[queries]

    return QueryLists(
        queries=queries,
        offsets=np.append(begins, ratings.offsets[-1]),
        items=ratings.items,
        labels=ratings.ratings,
        list_size=min(list_size, int(num_ratings.max(initial=1))),
        features=ratings.features,
        query_source=query_source,
    )


def group_ratings(
    user_indices: np.ndarray,
    item_indices: np.ndarray,
    ratings: np.ndarray,
    timestamps: np.ndarray,
    *,
    num_users: int,
    list_order: ListOrder = "row",
    features: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> RatingsByUser:
    """Groups ratings by user, each user's in the order `list_order`.

    Args:
      user_indices: int32 [num_ratings], in [0, num_users).
      item_indices: int32 [num_ratings].
      ratings: float32 [num_ratings].
      timestamps: int64 [num_ratings].
      num_users: the number of users, including those without a rating.
      list_order: the order of the ratings of a user.
      features: the example features: name → [num_ratings, *shape].
    """
    if list_order == "row":
        offsets, rows = rows_by_user(user_indices, num_users)
    else:
        order = np.argsort(timestamps, kind="stable")
        offsets, positions = rows_by_user(user_indices[order], num_users)
        rows = order[positions]
    return RatingsByUser(
        offsets,
        item_indices[rows].astype(np.int32, copy=False),
        ratings[rows].astype(np.float32, copy=False),
        timestamps[rows],
        {name: values[rows] for name, values in features.items()},
    )


def join_by_user(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Joins the items of the same users, each user's in the order of the parts.

    Args:
      parts: at least one pair of offsets int64 [num_users + 1] and items [n].

    Returns:
      Offsets int64 [num_users + 1] and items [num_items]. They are the arrays of the part if there is only one.
    """
    if len(parts) == 1:
        return parts[0]
    offsets = np.sum([of_part for of_part, _ in parts], axis=0)
    joined: np.ndarray = np.empty(offsets[-1], parts[0][1].dtype)
    begins = offsets[:-1].copy()
    for of_part, items in parts:
        joined[np.arange(len(items)) + np.repeat(begins - of_part[:-1], np.diff(of_part))] = items
        begins += np.diff(of_part)
    return offsets, joined


def save_item_lists(path: str, offsets: np.ndarray, items: np.ndarray) -> None:
    """Writes the result of `join_by_user` as Parquet, local or gs://. Row u has the item indices of user u.

    Raises:
      StorageError: the file cannot be written.
    """
    storage.write_table(pa.table([pa.LargeListArray.from_arrays(offsets, items)], schema=_ITEM_LISTS_SCHEMA), path)


def load_item_lists(path: str, *, way_out: str = storage.RESTORE) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file written by `save_item_lists`: offsets int64 [num_users + 1] and items int32 [num_ratings].

    `way_out` is as in `storage.read_table`.

    Raises:
      StorageError: the file is missing or damaged.
    """
    lists = storage.read_table(path, _ITEM_LISTS_SCHEMA, way_out=way_out).column("items").combine_chunks()
    return lists.offsets.to_numpy(), lists.values.to_numpy()
