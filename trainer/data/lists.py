"""Ratings → query lists, in compressed sparse row (CSR) form.

All lists lie end to end in one array of items and one of labels; an array of offsets says where each begins.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trainer.data.splits import rows_by_user

_ITEM_LISTS_SCHEMA = pa.schema([("items", pa.large_list(pa.int32()))])


@dataclass(frozen=True, eq=False)
class QueryLists:
    """Lists of rated items, each of one query.

    Attributes:
      queries: int32 [num_lists], the user index of each list.
      offsets: int64 [num_lists + 1]; the entries of list i are offsets[i] to offsets[i + 1].
      items: int32 [num_entries], item indices.
      labels: float32 [num_entries].
    """

    queries: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    labels: np.ndarray

    @property
    def num_lists(self) -> int:
        return len(self.queries)

    @property
    def num_entries(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[int, np.ndarray, np.ndarray]:
        """List i in [0, num_lists): its query, items int32 [n] and labels float32 [n]."""
        entries = slice(self.offsets[i], self.offsets[i + 1])
        return int(self.queries[i]), self.items[entries], self.labels[entries]


def build_lists(
    user_indices: np.ndarray, item_indices: np.ndarray, ratings: np.ndarray, *, list_size: int
) -> QueryLists:
    """Cuts the ratings of each user, in row order, into lists of `list_size`, the last maybe shorter.

    Args:
      user_indices: int32 [num_ratings].
      item_indices: int32 [num_ratings].
      ratings: float32 [num_ratings], which become the labels as they are.
      list_size: at least 1.

    Returns:
      The lists, by user index and then in row order. A user with n ratings has ⌈n / list_size⌉ of them.
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
    )


def group_by_user(
    user_indices: np.ndarray, item_indices: np.ndarray, *, num_users: int
) -> tuple[np.ndarray, np.ndarray]:
    """The items of each user, in row order.

    Args:
      user_indices: int32 [num_ratings], in [0, num_users).
      item_indices: int32 [num_ratings].
      num_users: number of users, those without a rating included.

    Returns:
      Offsets int64 [num_users + 1] and items int32 [num_ratings]: user u rated
      items[offsets[u]:offsets[u + 1]].
    """
    offsets, rows = rows_by_user(user_indices, num_users)
    return offsets, item_indices[rows].astype(np.int32, copy=False)


def save_item_lists(path: str, offsets: np.ndarray, items: np.ndarray) -> None:
    """Writes what `group_by_user` returns as Parquet, local or gs://: row u has the item indices of user u.

    Raises:
      StorageError: it cannot be written.
    """
    from trainer import storage

    storage.write_table(pa.table([pa.LargeListArray.from_arrays(offsets, items)], schema=_ITEM_LISTS_SCHEMA), path)


def load_item_lists(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads what `save_item_lists` wrote: offsets int64 [num_users + 1] and items int32 [num_ratings].

    Raises:
      StorageError: it is missing or broken.
    """
    from trainer import storage

    lists = storage.read_table(path, _ITEM_LISTS_SCHEMA).column("items").combine_chunks()
    return lists.offsets.to_numpy(), lists.values.to_numpy()
