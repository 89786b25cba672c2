"""Loads a source of ratings or events as query lists of each split, a vocabulary, and what each user has seen.

The order is ratings → splits → vocabulary → features → lists. Training and evaluation both load their data here, so
they always agree about the split of each rating.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from settings.errors import DataError
from trainer import schema
from trainer.data.features import encode_features
from trainer.data.lists import QueryLists, build_lists, group_by_user
from trainer.data.queries import Queries, QuerySource, build_queries
from trainer.data.ratings import Ratings, load_ratings
from trainer.data.ratings.merging import Duplicates
from trainer.data.splits import split_ratings, use_given_split
from trainer.data.vocabulary import Vocabulary, build_vocabulary
from trainer.features import FeatureSpec

GIVEN = "given"


@dataclass(frozen=True)
class Dataset:
    """The ratings of all splits.

    Attributes:
      vocabulary: the users and items of the training split.
      lists: the lists of each split, by the name of the split. A split without ratings is absent.
      ratings: (user indices, item indices, ratings) of each split, as int32, int32 and float32 [num_ratings].
      description: counts of used and dropped rows, and fingerprints, as plain values for data.json.
      timestamps: the time of each of these ratings, int64 [num_ratings], in seconds since 1970; a row number if
        has_timestamps is False.
      has_ratings: False if the rows are events. Then each rating is 1, or the number of rows of the event.
      has_timestamps: whether the source has times.
      query_features: the values of the features of users, by name: [num_users, *shape].
      item_features: the values of the features of items, by name: [num_items, *shape].
      history_size: the largest number of items in the history of a query; 0 for no history.
    """

    vocabulary: Vocabulary
    lists: dict[str, QueryLists]
    ratings: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    description: dict[str, Any]
    timestamps: dict[str, np.ndarray] = field(default_factory=dict)
    has_ratings: bool = True
    has_timestamps: bool = True
    query_features: dict[str, np.ndarray] = field(default_factory=dict)
    item_features: dict[str, np.ndarray] = field(default_factory=dict)
    history_size: int = 0

    @property
    def features(self) -> list[FeatureSpec]:
        """The features that the config names: first those of queries, then of items, then of examples."""
        return [encoder.spec for encoder in self.vocabulary.features]

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

    def query_source(self, *splits: str) -> Queries:
        """Returns the features of the queries, with the ratings of `splits` as their histories.

        A history is in time order; ratings of the same time are in the order of `splits` and then of their rows. Items
        that are not in the vocabulary are left out.
        """
        present = [split for split in splits if split in self.ratings]
        users, items, ratings = (
            np.concatenate(column) for column in zip(*(self.ratings[split] for split in present), strict=True)
        )
        return build_queries(
            users,
            items,
            ratings,
            np.concatenate([self.timestamps[split] for split in present]),
            num_users=self.vocabulary.num_users,
            history_size=self.history_size,
            features=self.query_features,
        )


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
    duplicates: Duplicates = "once",
    features: Mapping[str, Sequence[str]] | None = None,
    validation_source: str = "",
    test_source: str = "",
    list_order: Literal["row", "time"] = "row",
    history_size: int = 0,
) -> Dataset:
    """Loads ratings and builds their lists. The arguments are the config fields with these names.

    Args:
      list_order: "row" cuts the ratings of a user into lists in row order, "time" in time order from the latest one
        backwards; see `build_lists`.
      history_size: the largest number of items in the history of a query; 0 for no history. The history of training
        and validation lists has the training ratings, and that of test lists has the validation ratings too.

    Raises:
      ConfigError: a source, a column or a feature does not exist, or a feature has a name that cannot be used.
      DataError: the ratings cannot be used.
      StorageError: the source cannot be read.
    """
    features = features or {}
    sources = {"train": source}
    if split_method == GIVEN:
        sources |= {"validation": validation_source, "test": test_source}
        sources = {split: path for split, path in sources.items() if path}
    loaded = load_ratings(
        *sources.values(),
        data_dir=data_dir,
        columns=columns,
        rating_range=rating_range,
        max_bad_fraction=max_bad_fraction,
        duplicates=duplicates,
        item_identity=item_identity,
        features=features,
        seed=seed,
    )
    if split_method == GIVEN:
        split_of_source = np.array([schema.SPLITS.index(name) for name in sources], np.int8)
        split = use_given_split(
            loaded.ratings,
            split_of_source[loaded.source_of_row],
            validation_fraction=validation_fraction,
            seed=seed,
        )
    else:
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
    times = loaded.ratings[schema.TIMESTAMP].to_numpy()
    encoded = encode_features(
        features,
        loaded.ratings,
        loaded.items,
        train=split.train,
        user_indices=users,
        item_indices=items,
        item_ids=vocabulary.items[schema.ITEM_ID],
        num_users=vocabulary.num_users,
    )
    vocabulary = replace(vocabulary, features=encoded.encoders)
    rows = dict(zip(schema.SPLITS, (split.train, split.validation, split.test), strict=True))
    known = _rows_of_known_users(rows, users, split_method=split_method)
    dataset = Dataset(
        vocabulary=vocabulary,
        lists={},
        ratings={name: (users[part], items[part], stars[part]) for name, part in known.items()},
        description={},
        timestamps={name: times[part] for name, part in known.items()},
        has_ratings=loaded.has_ratings,
        has_timestamps=loaded.has_timestamps,
        query_features=encoded.query,
        item_features=encoded.item,
        history_size=history_size,
    )
    examples = {
        name: {feature: values[part] for feature, values in encoded.example.items()} for name, part in known.items()
    }
    dataset = replace(dataset, lists=_build_lists(dataset, examples, list_size=list_size, list_order=list_order))
    num_unknown = {name: len(rows[name]) - len(part) for name, part in known.items()}
    return replace(dataset, description=_describe(dataset, loaded, num_unknown, sources=sources, duplicates=duplicates))


def _build_lists(
    dataset: Dataset, examples: Mapping[str, Mapping[str, np.ndarray]], *, list_size: int, list_order: str
) -> dict[str, QueryLists]:
    """The lists of each split of a data set without lists. `examples` has the example features of each split."""
    query_sources: dict[str, QuerySource] = {}
    if dataset.history_size or dataset.query_features:
        of_training, of_both = dataset.query_source("train"), dataset.query_source("train", "validation")
        query_sources = {"train": of_training, "validation": of_training, "test": of_both}
    return {
        name: build_lists(
            *columns,
            list_size=list_size,
            timestamps=dataset.timestamps[name] if list_order == "time" else None,
            features=examples[name],
            query_source=query_sources.get(name),
        )
        for name, columns in dataset.ratings.items()
    }


def _rows_of_known_users(
    rows: Mapping[str, np.ndarray], users: np.ndarray, *, split_method: str
) -> dict[str, np.ndarray]:
    """The rows of each split that has any, without those of users who have no training ratings.

    The model cannot rank for these users, so their held-out ratings are dropped.
    """
    known = {name: part[users[part] != schema.UNKNOWN_INDEX] for name, part in rows.items()}
    for name, part in rows.items():
        if len(part) and not len(known[name]):
            way_out = (
                "Check that its ids are those of config.data.source."
                if split_method == GIVEN
                else "Set it to 'random' or 'last', which hold out some ratings of each user."
            )
            raise DataError(
                f"All {len(part):,} ratings of the {name} split are from users without training ratings, so there is "
                f"nothing to measure: config.split.method is {split_method!r}. {way_out}"
            )
    return {name: part for name, part in known.items() if len(part)}


def _describe(
    dataset: Dataset, loaded: Ratings, num_unknown: Mapping[str, int], *, sources: Mapping[str, str], duplicates: str
) -> dict[str, Any]:
    """The content of data.json. `num_unknown` has the number of ratings of unknown users of each split."""
    vocabulary = dataset.vocabulary
    fingerprints = {"vocabulary": vocabulary.fingerprint()}
    fingerprints |= {f"{name} lists": _fingerprint(part) for name, part in dataset.lists.items()}
    queries = dataset.lists["train"].query_source
    if isinstance(queries, Queries):
        fingerprints["queries"] = _sha256([queries.offsets, queries.items, queries.ratings, *queries.features.values()])
    if dataset.item_features:
        fingerprints["items"] = _sha256(dataset.item_features.values())
    description = {
        "source": sources["train"],
        "rows": loaded.report,
        "has_ratings": loaded.has_ratings,
        "duplicates": duplicates,
        "num_users": vocabulary.num_users - 1,
        "num_items": vocabulary.num_items - 1,
        "num_ratings": {name: len(users) for name, (users, _, _) in dataset.ratings.items()},
        "num_ratings_of_unknown_users": dict(num_unknown),
        "num_lists": {name: part.num_lists for name, part in dataset.lists.items()},
        "fingerprints": fingerprints,
    }
    if len(sources) > 1:
        description["sources"] = dict(sources)
        description["rows_by_source"] = dict(zip(sources, loaded.reports, strict=True))
        description["num_test_pairs_in_train"] = _num_test_pairs_in_train(dataset)
    return description


def _num_test_pairs_in_train(dataset: Dataset) -> int:
    """The number of test ratings whose user has rated the item in the training or validation split too."""
    num_items = dataset.vocabulary.num_items
    pairs = {split: users.astype(np.int64) * num_items + items for split, (users, items, _) in dataset.ratings.items()}
    # Sorted, because NumPy's `isin` is several times slower for large arrays.
    earlier = np.sort(np.concatenate([part for split, part in pairs.items() if split != "test"]))
    test = pairs.get("test", np.empty(0, np.int64))
    test = test[test % num_items != schema.UNKNOWN_INDEX]
    return int((earlier[np.searchsorted(earlier[:-1], test)] == test).sum())


def _fingerprint(lists: QueryLists) -> str:
    """The SHA-256 digest of every entry of every list, with its features, in hexadecimal."""
    return _sha256([lists.queries, lists.offsets, lists.items, lists.labels, *lists.features.values()])


def _sha256(arrays: Iterable[np.ndarray]) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
