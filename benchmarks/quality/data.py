"""Ratings as arrays, and their splits. Methods get `TrainingData`, which has no ratings that they are measured on."""

import hashlib
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import load_ratings
from trainer.data.splits import split_ratings

VALIDATION_FRACTION_OF_TRAIN = 0.1
"""The share of each user's training ratings that is held out for trials if a split has no validation ratings."""

_COLUMNS = {name: name for name in ("user_id", "item_id", "rating", "timestamp")} | {"title": "", "genres": ""}


@dataclass(frozen=True, eq=False)
class Interactions:
    """Ratings or events.

    Attributes:
      users: int32 [num_interactions], from 0.
      items: int32 [num_interactions], from 0.
      ratings: float32 [num_interactions]; 1 for events.
      timestamps: int64 [num_interactions]; all 0 if there are no times.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray) -> "Interactions":
        """The interactions `rows`, numbers or bool."""
        return Interactions(self.users[rows], self.items[rows], self.ratings[rows], self.timestamps[rows])

    def concatenate(self, other: "Interactions") -> "Interactions":
        """The interactions of both."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("users", "items", "ratings", "timestamps")]
        return Interactions(*(np.concatenate(pair) for pair in pairs))

    def matrix(self, num_users: int, num_items: int) -> scipy.sparse.csr_matrix:
        """1 for each pair of a user and an item, float32 [num_users, num_items]."""
        ones: np.ndarray = np.ones(len(self), np.float32)
        matrix = scipy.sparse.csr_matrix((ones, (self.users, self.items)), shape=(num_users, num_items))
        matrix.data[:] = 1  # Repeated pairs were added up.
        return matrix


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a method may know.

    Attributes:
      num_users, num_items: including those without interactions.
      has_ratings: False for events.
      relevance_threshold: Ratings at or above this value are relevant.
      vector_size: The largest allowed size of an embedding, None for any.
      rated: Whether the rated items of each user are ranked, and not the catalogue.
      interactions: To fit: the training ratings in a trial, and also the validation ratings in the final fit.
      seed: Of everything random in the fit.
    """

    num_users: int
    num_items: int
    has_ratings: bool
    relevance_threshold: float
    vector_size: int | None
    rated: bool
    interactions: Interactions
    seed: int

    @property
    def has_irrelevant(self) -> bool:
        """Whether some of the interactions are not relevant, so that using only the others makes a difference."""
        return bool(np.any(self.interactions.ratings < self.relevance_threshold))

    def matrix(self, *, positives_only: bool = False) -> scipy.sparse.csr_matrix:
        """1 for each pair in `interactions`, or only for the relevant ones, float32 [num_users, num_items]."""
        chosen = self.interactions
        if positives_only:
            chosen = chosen.take(chosen.ratings >= self.relevance_threshold)
        return chosen.matrix(self.num_users, self.num_items)


@dataclass(frozen=True, eq=False)
class Split:
    """The interactions of one seed.

    Attributes:
      num_users, num_items, has_ratings: See `TrainingData`.
      train, validation, test: Disjoint.
    """

    num_users: int
    num_items: int
    has_ratings: bool
    train: Interactions
    validation: Interactions
    test: Interactions

    def fingerprint(self) -> str:
        """A digest of all interactions, to tell whether earlier results are of the same split."""
        sha = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            for column in (part.users, part.items, part.ratings, part.timestamps):
                sha.update(np.ascontiguousarray(column).data)
        return sha.hexdigest()[:16]


LoadSplit = Callable[[pathlib.Path, int], Split]
"""Loads the split of a seed from the data folder."""


def movielens_100k(data_dir: pathlib.Path, seed: int, *, validation_fraction: float, test_fraction: float) -> Split:
    """Random ratings of each user of MovieLens 100K are held out."""
    return _split(str(data_dir / "ml-100k"), "random", seed, validation_fraction, test_fraction)


def movielens_100k_last(data_dir: pathlib.Path, seed: int) -> Split:
    """The latest ratings of each user of MovieLens 100K are held out: 10% for the test, and the 10% before them."""
    return _split(str(data_dir / "ml-100k"), "last", seed, 0.1, 0.1)


def synthetic(data_dir: pathlib.Path, seed: int, *, validation_fraction: float, test_fraction: float) -> Split:
    """Random ratings of each user of the embedded ratings are held out. The ratings are those of the default config."""
    del data_dir
    return _split("synthetic", "random", seed, validation_fraction, test_fraction)


def published(data_dir: pathlib.Path, seed: int, *, name: str) -> Split:
    """A published split: the files train.txt and test.txt, a line `user item item ...` per user.

    Raises:
      DataError: A line is not numbers, or an item is in both files.
    """
    train, test = (_read_lines(data_dir / "published" / name / f"{part}.txt") for part in ("train", "test"))
    num_users = 1 + int(max(train.users.max(), test.users.max()))
    num_items = 1 + int(max(train.items.max(), test.items.max()))
    pairs = [part.users.astype(np.int64) * num_items + part.items for part in (train, test)]
    if len(np.intersect1d(*pairs)):
        raise DataError(f"{data_dir}/published/{name} has items of a user in train.txt and in test.txt.")
    return _with_validation(Split(num_users, num_items, False, train, train.take(np.arange(0)), test), seed)


def numbered(ids: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The different ids in ascending order, and the number of each of `ids`, int32 [n]."""
    different, numbers = np.unique(ids.to_numpy(), return_inverse=True)
    return different, numbers.astype(np.int32)


def _split(source: str, method: str, seed: int, validation_fraction: float, test_fraction: float) -> Split:
    loaded = load_ratings(source, columns=_COLUMNS, rating_range=(0.0, 5.0), max_bad_fraction=0.0)
    table = loaded.ratings
    users, items = (numbered(table[name])[1] for name in (schema.USER_ID, schema.ITEM_ID))
    rows = split_ratings(
        table, method=method, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
    )
    everything = Interactions(
        users, items, table[schema.RATING].to_numpy(), table[schema.TIMESTAMP].to_numpy().astype(np.int64)
    )
    parts = (everything.take(part) for part in (rows.train, rows.validation, rows.test))
    split = Split(int(users.max()) + 1, int(items.max()) + 1, True, *parts)
    return split if validation_fraction else _with_validation(split, seed)


def _with_validation(split: Split, seed: int) -> Split:
    """Holds out validation ratings of each user's training ratings."""
    table = pa.table({schema.USER_ID: pa.array(split.train.users).cast(pa.string())})
    rows = split_ratings(
        table, method="random", validation_fraction=VALIDATION_FRACTION_OF_TRAIN, test_fraction=0.0, seed=seed
    )
    parts: dict[str, Any] = {"train": split.train.take(rows.train), "validation": split.train.take(rows.validation)}
    return Split(split.num_users, split.num_items, split.has_ratings, **parts, test=split.test)


def _read_lines(path: pathlib.Path) -> Interactions:
    lines = path.read_text().splitlines()
    try:
        rows = [np.array(line.split(), np.int32) for line in lines if line.strip()]
    except ValueError as error:
        raise DataError(f"{path} is not a published split: {error}. A line is `user item item ...`.") from error
    sizes = np.array([len(row) - 1 for row in rows])
    users = np.repeat(np.array([row[0] for row in rows], np.int32), sizes)
    items = np.concatenate([row[1:] for row in rows])
    return Interactions(users, items, np.ones(len(items), np.float32), np.zeros(len(items), np.int64))
