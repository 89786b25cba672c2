"""Planted interactions."""

import numpy as np

from benchmarks.quality.data import Interactions


def interactions(pairs: list[tuple[int, int]], ratings: list[float] | None = None) -> Interactions:
    users, items = np.array(pairs, np.int32).reshape(-1, 2).T
    ones: np.ndarray = np.ones(len(pairs), np.float32)
    return Interactions(
        users, items, ones if ratings is None else np.array(ratings, np.float32), np.zeros(len(pairs), np.int64)
    )
