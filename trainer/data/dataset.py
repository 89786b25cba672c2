"""Loads a source of ratings as query lists of each split, a vocabulary, and the items that each user has seen.

The order is ratings → splits → vocabulary → lists. Training and evaluation both load their data here, so they always
agree about the split of each rating.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from settings.errors import DataError
from trainer import schema
from trainer.data.lists import QueryLists, build_lists, group_by_user
from trainer.data.ratings import load_ratings
from trainer.data.splits import split_ratings
from trainer.data.vocabulary import Vocabulary, build_vocabulary


@dataclass(frozen=True)
class Dataset:
    """The ratings of all splits.

    Attributes:
      vocabulary: the users and items of the training split.
      lists: the lists of each split, by the name of the split. A split without ratings is absent.
      ratings: (user indices, item indices, ratings) of each split, as int32, int32 and float32 [num_ratings].
      description: counts of used and dropped rows, and fingerprints, as plain values for data.json.
    """

    vocabulary: Vocabulary
    lists: dict[str, QueryLists]
    ratings: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    description: dict[str, Any]

    @property
    def held_out_split(self) -> str | None:
        """The split for the final metrics: test if it has ratings, otherwise validation, otherwise None."""
        return next((split for split in ("test", "validation") if split in self.lists), None)

    def items_by_user(self, *splits: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the items that each user rated in the splits: offsets int64 [num_users + 1] and items int32.

        Items that are not in the training split have the index UNKNOWN_INDEX.
        """
        present = [self.ratings[split] for split in splits if split in self.ratings]
        users = np.concatenate([users for users, _, _ in present])
        items = np.concatenate([items for _, items, _ in present])
        return group_by_user(users, items, num_users=self.vocabulary.num_users)

    def seen_items(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the items that each user rated in any split: offsets int64 [num_users + 1] and items int32.

        These must not be recommended as new. Items that are not in the vocabulary are left out, since they are never
        recommended.
        """
        users = np.concatenate([users for users, _, _ in self.ratings.values()])
        items = np.concatenate([items for _, items, _ in self.ratings.values()])
        is_known = items != schema.UNKNOWN_INDEX
        return group_by_user(users[is_known], items[is_known], num_users=self.vocabulary.num_users)


def load_dataset(
    *,
    source: str,
    data_dir: str,
    columns: Mapping[str, str],
    rating_range: tuple[float, float],
    max_bad_fraction: float,
    item_identity: str,
    split_method: str,
    validation_fraction: float,
    test_fraction: float,
    list_size: int,
    seed: int,
) -> Dataset:
    """Loads ratings and builds their lists. The arguments are the config fields with these names.

    Raises:
      ConfigError: the source or a column does not exist.
      DataError: the ratings cannot be used.
      StorageError: the source cannot be read.
    """
    loaded = load_ratings(
        source,
        data_dir=data_dir,
        columns=columns,
        rating_range=rating_range,
        max_bad_fraction=max_bad_fraction,
        item_identity=item_identity,
        seed=seed,
    )
    split = split_ratings(
        loaded.ratings,
        method=split_method,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    vocabulary = build_vocabulary(loaded.ratings.take(split.train), loaded.items)
    users = vocabulary.user_indices(loaded.ratings[schema.USER_ID])
    items = vocabulary.item_indices(loaded.ratings[schema.ITEM_ID])
    stars = loaded.ratings[schema.RATING].to_numpy()
    rows = dict(zip(schema.SPLITS, (split.train, split.validation, split.test), strict=True))
    # The model cannot rank for users without training ratings, so their held-out ratings are dropped.
    known = {name: part[users[part] != schema.UNKNOWN_INDEX] for name, part in rows.items()}
    for name, part in rows.items():
        if len(part) and not len(known[name]):
            raise DataError(
                f"All {len(part):,} ratings of the {name} split are from users without training ratings, so there is "
                f"nothing to measure: config.split.method is {split_method!r}. Set it to 'random' or 'last', which "
                "hold out some ratings of each user."
            )
    ratings = {name: (users[part], items[part], stars[part]) for name, part in known.items() if len(part)}
    lists = {name: build_lists(*columns_, list_size=list_size) for name, columns_ in ratings.items()}
    return Dataset(
        vocabulary=vocabulary,
        lists=lists,
        ratings=ratings,
        description={
            "source": source,
            "rows": loaded.report,
            "num_users": vocabulary.num_users - 1,
            "num_items": vocabulary.num_items - 1,
            "num_ratings": {name: len(columns_[0]) for name, columns_ in ratings.items()},
            "num_ratings_of_unknown_users": {name: len(rows[name]) - len(known[name]) for name in ratings},
            "num_lists": {name: part.num_lists for name, part in lists.items()},
            "fingerprints": {"vocabulary": vocabulary.fingerprint()}
            | {f"{name} lists": _fingerprint(part) for name, part in lists.items()},
        },
    )


def _fingerprint(lists: QueryLists) -> str:
    """The SHA-256 digest of every entry of every list, in hexadecimal."""
    sha = hashlib.sha256()
    for array in (lists.queries, lists.offsets, lists.items, lists.labels):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
