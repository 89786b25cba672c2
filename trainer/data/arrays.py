"""Arrays of entries that lie in one file, in several files, or in memory."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np


class ShardedArray:
    """Several arrays, one after the other, that are read as one. They are usually memory-mapped.

    Only the parts that are asked for are read. `np.asarray` reads all of them.
    """

    def __init__(self, parts: Sequence[np.ndarray]):
        """`parts` are arrays [n, *shape] of one type, each with at least one entry."""
        self._parts = list(parts)
        self._starts = np.append(0, np.cumsum([len(part) for part in parts]))

    @property
    def parts(self) -> list[np.ndarray]:
        """The arrays, in their order."""
        return self._parts

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, entries: slice) -> np.ndarray:
        """Returns the entries of a slice without a step."""
        begin, end, _ = entries.indices(len(self))
        pairs = zip(self._starts, self._parts, strict=False)
        return np.concatenate([part[max(begin - start, 0) : max(end - start, 0)] for start, part in pairs])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self._parts).astype(dtype or self.dtype, copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the joined array."""
        return (len(self), *self._parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The type of the entries."""
        return self._parts[0].dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._parts[0].ndim

    def take(self, entries: np.ndarray, *, axis: int = 0, mode: str = "clip") -> np.ndarray:
        """Returns the entries at the positions `entries` int64 [n, size]: [n, size, *shape].

        A row is read from the part that has its first position. Later positions are clipped to this part.
        """
        assert axis == 0 and mode == "clip"
        part_of_row = np.searchsorted(self._starts[1:-1], entries[:, 0], side="right")
        gathered: np.ndarray = np.empty((*entries.shape, *self.shape[1:]), self.dtype)
        for number in np.unique(part_of_row):
            rows = np.flatnonzero(part_of_row == number)
            gathered[rows] = self._parts[number].take(entries[rows] - self._starts[number], axis=0, mode="clip")
        return gathered


EntryArray: TypeAlias = np.ndarray | ShardedArray
"""An array with one value per entry."""


def join_parts(parts: Sequence[np.ndarray]) -> EntryArray:
    """Joins arrays [n, *shape] without copying them. There is at least one, and they may be empty."""
    filled = [part for part in parts if len(part)]
    return ShardedArray(filled) if len(filled) > 1 else (filled or list(parts))[0]
