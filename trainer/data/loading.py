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
from trainer.data.dataset import Dataset, build_dataset, count_ratings, describe, digests_of, num_pairs_in
from trainer.data.features import encode_features
from trainer.data.lists import ListOrder, group_ratings
from trainer.data.prepared.manifest import data_fields, is_prepared
from trainer.data.prepared.opening import open_prepared
from trainer.data.ratings import is_path, load_ratings
from trainer.data.ratings.accounts import USED, Account
from trainer.data.ratings.merging import Duplicates
from trainer.data.splits import split_ratings, use_given_split
from trainer.data.vocabulary import build_vocabulary

GIVEN = "given"

MIN_RATINGS_TO_COMPARE = 10
"""Fewer ratings than this may all be equal: a file of a few rows is a first try."""


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
        return open_prepared(
            source,
            data_fields(arguments),
            list_size=list_size,
            history_size=history_size,
            cache=arguments["data_dir"],
        )
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
    sources = sources_of_splits(split_method, source, validation_source, test_source)
    needs_times = order_matters(split_method, list_order)
    loaded = load_ratings(
        *sources.values(),
        data_dir=data_dir,
        columns=columns,
        rating_range=rating_range,
        max_bad_fraction=max_bad_fraction,
        duplicates=duplicates,
        item_identity=item_identity,
        features=features,
        needs_times=needs_times,
        seed=seed,
    )
    check_ratings_differ(source, loaded.accounts[0])
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
    counts = count_ratings(
        vocabulary,
        _sizes(known),
        sources=sources,
        reports=loaded.reports,
        columns=[account.columns for account in loaded.accounts],
        has_ratings=loaded.has_ratings,
        duplicates=duplicates,
        num_unknown={name: len(rows[name]) - len(part) for name, part in known.items()},
        num_test_pairs_in_train=_num_test_pairs_in_train(dataset) if len(sources) > 1 else 0,
    )
    return replace(dataset, description=describe(dataset, counts, digests_of(dataset)))


def order_matters(split_method: str, list_order: ListOrder) -> bool:
    """Returns whether the split or the lists follow from the order of time, so that it must be known."""
    return split_method in ("last", "time") or list_order == "time"


def check_ratings_differ(source: str, account: Account) -> None:
    """Raises DataError if all ratings of the training source are equal.

    Args:
      source: its name.
      account: what became of its rows.
    """
    num_ratings = account.report[USED]
    if account.used_ratings is None or num_ratings < MIN_RATINGS_TO_COMPARE:
        return
    least, greatest = account.used_ratings
    if least == greatest:
        raise DataError(
            f"All {num_ratings:,} ratings of {source} are {least:g}, so they do not tell what a user likes better. If "
            "the rows are events, such as clicks or purchases, set config.data.columns.rating to an empty string: "
            "--config.data.columns.rating= . If another column has the ratings, set it to the name of that column."
        )


def check_known(num_ratings: Mapping[str, int], num_known: Mapping[str, int], *, split_method: str) -> None:
    """Raises DataError if a split has ratings and none of a user with training ratings.

    Args:
      num_ratings: the number of ratings of each split.
      num_known: the number of those of users with training ratings.
      split_method: for the message.
    """
    for name, number in num_ratings.items():
        if number and not num_known[name]:
            way_out = (
                "Check that its ids are those of config.data.source."
                if split_method == GIVEN
                else "Set it to 'random' or 'last', which hold out some ratings of each user."
            )
            raise DataError(
                f"All {number:,} ratings of the {name} split are from users without training ratings, so there is "
                f"nothing to measure: config.split.method is {split_method!r}. {way_out}"
            )


def sources_of_splits(split_method: str, source: str, validation_source: str, test_source: str) -> dict[str, str]:
    """Returns the source of each split that has one of its own. All other splits come from that of "train"."""
    if split_method != GIVEN:
        return {"train": source}
    sources = {"train": source, "validation": validation_source, "test": test_source}
    return {split: path for split, path in sources.items() if path}


def _rows_of_known_users(
    rows: Mapping[str, np.ndarray], users: np.ndarray, *, split_method: str
) -> dict[str, np.ndarray]:
    """The rows of each split that has any, without those of users who have no training ratings.

    The model cannot rank for these users, so their held-out ratings are dropped.
    """
    known = {name: part[users[part] != schema.UNKNOWN_INDEX] for name, part in rows.items()}
    check_known(_sizes(rows), _sizes(known), split_method=split_method)
    return {name: part for name, part in known.items() if len(part)}


def _sizes(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    return {name: len(array) for name, array in arrays.items()}


def _num_test_pairs_in_train(dataset: Dataset) -> int:
    """The number of test ratings whose user has rated the item in the training or validation split too."""
    num_items = dataset.vocabulary.num_items
    pairs = {split: users.astype(np.int64) * num_items + items for split, (users, items, _) in dataset.ratings.items()}
    test = pairs.pop("test", np.empty(0, np.int64))
    return num_pairs_in(test[test % num_items != schema.UNKNOWN_INDEX], np.concatenate(list(pairs.values())))
