"""Lists of items in compressed form, and how many of them are padded at a time. Imports no TensorFlow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_MAX_CHUNK_ENTRIES = 1 << 22
"""Limits a padded matrix [rows of a chunk, widest row], such as one of int32, to 16 MiB.

A single row with more entries is a chunk.
"""


@dataclass(frozen=True, eq=False)
class ItemLists:
    """The items of each query, end to end (compressed sparse rows).

    Attributes:
      offsets: int64 [num_queries + 1]; query i has items[offsets[i]:offsets[i + 1]].
      items: int32 [num_entries].
    """

    offsets: np.ndarray
    items: np.ndarray

    @classmethod
    def empty(cls, num_queries: int) -> "ItemLists":
        """No item for any of `num_queries` queries."""
        return cls(np.zeros(num_queries + 1, np.int64), np.zeros(0, np.int32))

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray]) -> "ItemLists":
        """From one array of items per query."""
        offsets: np.ndarray = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        return cls(offsets, np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int32))

    @property
    def num_queries(self) -> int:
        return len(self.offsets) - 1

    def entries(self, rows: np.ndarray) -> np.ndarray:
        """Positions in `items` of the items of the queries `rows`, query by query: int64 [num_selected_entries]."""
        begins, sizes = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        ends = np.cumsum(sizes)
        return np.repeat(begins - ends + sizes, sizes) + np.arange(ends[-1] if len(ends) else 0)

    def take(self, rows: np.ndarray) -> "ItemLists":
        """The lists of the queries `rows`, int [num_rows], in their order."""
        offsets: np.ndarray = np.append(0, np.cumsum(self.offsets[rows + 1] - self.offsets[rows]))
        return ItemLists(offsets, self.items[self.entries(rows)])

    def padded(self) -> np.ndarray:
        """int32 [num_queries, longest list], at least one column wide; 0 after the end of a list."""
        sizes = np.diff(self.offsets)
        dense: np.ndarray = np.zeros([len(sizes), max(1, sizes.max(initial=0))], np.int32)
        dense[np.arange(dense.shape[1]) < sizes[:, None]] = self.items[self.offsets[0] : self.offsets[-1]]
        return dense

    def pairs(self) -> np.ndarray:
        """The query and the item of each entry: int32 [num_entries, 2]."""
        rows = np.repeat(np.arange(self.num_queries), np.diff(self.offsets))
        return np.stack([rows, self.items[self.offsets[0] : self.offsets[-1]]], axis=1).astype(np.int32)


def chunks(widths: np.ndarray, *, max_rows: int) -> Iterator[np.ndarray]:
    """Splits rows into chunks that bound the memory of a matrix [rows of a chunk, widest row].

    Args:
      widths: int [num_rows], the number of entries of each row.
      max_rows: The largest number of rows of a chunk.

    Yields:
      The positions of the rows of a chunk, int32 [n], in ascending order.
    """
    first = 0
    while first < len(widths):
        widest = np.maximum.accumulate(widths[first : first + max_rows])
        num_entries = widest * np.arange(1, len(widest) + 1)
        size = max(int((num_entries <= _MAX_CHUNK_ENTRIES).sum()), 1)
        yield np.arange(first, first + size, dtype=np.int32)
        first += size
