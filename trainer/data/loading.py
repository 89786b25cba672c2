"""Loads a source of ratings or events as a `Dataset`. Training and evaluation both load their data here.

The order is ratings → splits → vocabulary → features → lists. All have the same split of the ratings, because all of it
follows from the arguments. A prepared data set has been through this before, and is only opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from settings.errors import DataError
from trainer import schema
from trainer.data.dataset import Dataset, build_dataset, describe, digests_of
from trainer.data.features import encode_features
from trainer.data.lists import ListOrder, group_ratings
from trainer.data.prepared.manifest import data_fields, is_prepared
from trainer.data.prepared.opening import open_prepared
from trainer.data.ratings import Ratings, is_path, load_ratings
from trainer.data.ratings.merging import Duplicates
from trainer.data.splits import split_ratings, use_given_split
from trainer.data.vocabulary import build_vocabulary

GIVEN = "given"


def load_dataset(*, source: str, list_size: int, history_size: int = 0, **arguments: Any) -> Dataset:
    """Loads ratings and builds their lists. The arguments are the config fields with these names.

    Args:
      source: a source of `load_source`, or the folder of a prepared data set.
      list_size: the largest number of ratings in a list.
      history_size: the largest number of items in the history of a query; 0 for no history.
      arguments: the other arguments of `load_source`. A prepared data set must have been prepared with the same ones.

    Raises:
      ConfigError: the data was prepared with other arguments, or they cannot be used; see `load_source`.
      DataError: the ratings cannot be used.
      StorageError: the source cannot be read, or a file of the prepared data set is damaged.
    """
    if is_path(source) and is_prepared(source):
        return open_prepared(source, data_fields(arguments), list_size=list_size, history_size=history_size)
    return load_source(source=source, list_size=list_size, history_size=history_size, **arguments)


def load_source(
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
    list_order: ListOrder = "row",
    history_size: int = 0,
) -> Dataset:
    """Reads and splits ratings and builds their lists. The arguments are the config fields with these names.

    Args:
      source: a source of `load_ratings`.
      list_order: "row" cuts the ratings of a user into lists in row order, "time" in time order from the latest one
        backwards; see `cut_lists`.
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
    dataset = build_dataset(
        vocabulary,
        {
            name: group_ratings(
                users[part],
                items[part],
                stars[part],
                times[part],
                num_users=vocabulary.num_users,
                list_order=list_order,
                features={feature: values[part] for feature, values in encoded.example.items()},
            )
            for name, part in known.items()
        },
        list_size=list_size,
        list_order=list_order,
        has_ratings=loaded.has_ratings,
        has_timestamps=loaded.has_timestamps,
        query_features=encoded.query,
        item_features=encoded.item,
        history_size=history_size,
    )
    num_unknown = {name: len(rows[name]) - len(part) for name, part in known.items()}
    counts = _count(dataset, loaded, num_unknown, sources=sources, duplicates=duplicates)
    return replace(dataset, description=describe(dataset, counts, digests_of(dataset)))


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


def _count(
    dataset: Dataset, loaded: Ratings, num_unknown: Mapping[str, int], *, sources: Mapping[str, str], duplicates: str
) -> dict[str, Any]:
    """What data.json says of the ratings. `num_unknown` has the number of ratings of unknown users of each split."""
    counts = {
        "source": sources["train"],
        "rows": loaded.report,
        "has_ratings": loaded.has_ratings,
        "duplicates": duplicates,
        "num_users": dataset.vocabulary.num_users - 1,
        "num_items": dataset.vocabulary.num_items - 1,
        "num_ratings": {name: lists.num_entries for name, lists in dataset.lists.items()},
        "num_ratings_of_unknown_users": dict(num_unknown),
    }
    if len(sources) > 1:
        counts["sources"] = dict(sources)
        counts["rows_by_source"] = dict(zip(sources, loaded.reports, strict=True))
        counts["num_test_pairs_in_train"] = _num_test_pairs_in_train(dataset)
    return counts


def _num_test_pairs_in_train(dataset: Dataset) -> int:
    """The number of test ratings whose user has rated the item in the training or validation split too."""
    num_items = dataset.vocabulary.num_items
    pairs = {split: users.astype(np.int64) * num_items + items for split, (users, items, _) in dataset.ratings.items()}
    # Sorted, because NumPy's `isin` is several times slower for large arrays.
    earlier = np.sort(np.concatenate([part for split, part in pairs.items() if split != "test"]))
    test = pairs.get("test", np.empty(0, np.int64))
    test = test[test % num_items != schema.UNKNOWN_INDEX]
    return int((earlier[np.searchsorted(earlier[:-1], test)] == test).sum())
