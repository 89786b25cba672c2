"""The lists of one epoch and the initial tables, as all sides read them."""

import pathlib
from dataclasses import dataclass, fields

import numpy as np

LEARNING_RATE = 0.5
INITIAL_SLOT = 0.1
EPSILON = 1e-7
"""Adagrad as in Keras: slot += gradient²; value −= LEARNING_RATE · gradient / sqrt(slot + EPSILON)."""


@dataclass(frozen=True)
class Job:
    """One epoch of training.

    Attributes:
      queries: int32 [num_steps, batch_size].
      items: int32 [num_steps, batch_size, list_size], 0 where padded.
      labels: float32 [num_steps, batch_size, list_size], −1 where padded. Padding is at the end of a list.
      num_lists: float32 [num_steps], the real lists of a batch. They are its first rows.
      query_table: float32 [num_queries, size].
      item_table: float32 [num_items, size].
    """

    queries: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    num_lists: np.ndarray
    query_table: np.ndarray
    item_table: np.ndarray

    @property
    def num_steps(self) -> int:
        """The number of batches."""
        return len(self.queries)

    def save(self, folder: str) -> None:
        """Writes each array to a .npy file of its name."""
        for field in fields(self):
            np.save(pathlib.Path(folder) / f"{field.name}.npy", getattr(self, field.name))


def load_job(folder: str) -> Job:
    """Reads what `Job.save` wrote."""
    return Job(**{field.name: np.load(pathlib.Path(folder) / f"{field.name}.npy") for field in fields(Job)})
