"""Query lists in compressed sparse row (CSR) form, and the ListSource that batches are gathered from.

In CSR form all lists are stored one after the other, in one array of items and one of labels. An array of
offsets stores where each list starts.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from trainer import schema, storage
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
          schema.QUERY: int32 [n], user indices.
          schema.ITEMS: int32 [n, list_size], item indices, UNKNOWN_INDEX where padded.
          schema.LABELS: float32 [n, list_size], relevance, PADDING_LABEL where padded.

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
    """

    queries: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    list_size: int

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
        if not sizes.any():
            shape = (len(rows), self.list_size)
            padded: np.ndarray = np.full(shape, schema.UNKNOWN_INDEX, np.int32)
            return _features(queries, padded, np.full(shape, schema.PADDING_LABEL, np.float32))
        column = np.arange(self.list_size)
        # Entries of a row after the end of its list are other lists' entries, and are overwritten below. "clip" also
        # keeps the last row inside the array.
        entries = starts[:, np.newaxis] + column
        items: np.ndarray = np.take(self.items, entries, mode="clip")
        labels: np.ndarray = np.take(self.labels, entries, mode="clip")
        padding = column >= sizes[:, np.newaxis]
        np.copyto(items, schema.UNKNOWN_INDEX, where=padding)
        np.copyto(labels, schema.PADDING_LABEL, where=padding)
        return _features(queries, items, labels)


def _features(queries: np.ndarray, items: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    return {schema.QUERY: queries, schema.ITEMS: items, schema.LABELS: labels}


def build_lists(
    user_indices: np.ndarray, item_indices: np.ndarray, ratings: np.ndarray, *, list_size: int
) -> QueryLists:
    """Cuts the ratings of each user, in row order, into lists of `list_size` entries; the last may be shorter.

    Args:
      user_indices: int32 [num_ratings].
      item_indices: int32 [num_ratings].
      ratings: float32 [num_ratings], used as labels without a change.
      list_size: at least 1.

    Returns:
      The lists, sorted by user index and then by row. A user with n ratings has ⌈n / list_size⌉ lists.
    """
    num_users = int(user_indices.max(initial=-1)) + 1
    user_offsets, rows = rows_by_user(user_indices, num_users)

    num_lists = -(-np.diff(user_offsets) // list_size)
    queries: np.ndarray = np.repeat(np.arange(num_users, dtype=np.int32), num_lists)
    first_list = np.cumsum(num_lists) - num_lists
    list_of_user = np.arange(len(queries)) - first_list[queries]
    begins = user_offsets[queries] + list_of_user * list_size

    return QueryLists(
        queries=queries,
        offsets=np.append(begins, len(rows)),
        items=item_indices[rows].astype(np.int32, copy=False),
        labels=ratings[rows].astype(np.float32, copy=False),
        list_size=list_size,
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
