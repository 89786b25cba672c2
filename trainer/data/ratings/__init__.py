"""Loads any source of ratings or events as an Arrow table of ratings and one of items. Every row is checked."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from settings.errors import ConfigError, DataError
from trainer import schema
from trainer.data.ratings import (
    cleaning,
    feature_columns,
    files,
    items,
    merging,
    movielens,
    tables,
    tensorflow_datasets,
)
from trainer.data.ratings.accounts import READ, Account
from trainer.data.synthetic import generate_ratings

SYNTHETIC = "synthetic"
MOVIELENS = "movielens/"

OPTIONAL = (schema.RATING, schema.TIMESTAMP)
"""The columns that any source is read without if their name in the config is empty."""


@dataclasses.dataclass(frozen=True)
class Ratings:
    """The ratings and items of a source, or of the sources of a given split.

    Attributes:
      ratings: schema.RATINGS_SCHEMA, in the order of the source, followed by the columns of the features that are in
        the rows. An event has the rating 1.
      items: schema.ITEMS_SCHEMA, one row per item, including items without ratings, followed by the columns of the
        features that the source has in a table of items.
      report: the number of rows "read" and "used", of "duplicate" rows, and of bad rows for each reason in
        `accounts.BAD`. With duplicates="count" also of "counted" rows. "read" is the sum of all others.
      has_ratings: False if the rows are events.
      has_timestamps: False if the times are row numbers.
      source_of_row: int8 [num_ratings], the number of the source of each row.
      reports: the report of each source.
      accounts: what became of the rows of each source, before duplicates were looked for.
    """

    ratings: pa.Table
    items: pa.Table
    report: dict[str, int]
    has_ratings: bool
    has_timestamps: bool
    source_of_row: np.ndarray
    reports: list[dict[str, int]]
    accounts: list[Account]


@dataclasses.dataclass(frozen=True)
class Source:
    """A source whose files are known and not yet read.

    Attributes:
      parts: one function per file, in their order, that reads its rows without any change. Without the columns of
        OPTIONAL that have no name in the config.
      items: schema.ITEMS_SCHEMA, with the columns of features; None if the items are in the rows.
    """

    parts: Sequence[Callable[[], cleaning.Part]]
    items: pa.Table | None


def is_path(source: str) -> bool:
    """Returns whether a source is a path, and not the name of ratings that are found without one."""
    return source != SYNTHETIC and not source.startswith(MOVIELENS)


def load_ratings(
    *sources: str,
    data_dir: str = "",
    columns: Mapping[str, str],
    rating_range: tuple[float, float],
    max_bad_fraction: float,
    duplicates: merging.Duplicates = "once",
    item_identity: str = schema.ITEM_ID,
    features: Mapping[str, Sequence[str]] | None = None,
    needs_times: bool = False,
    seed: int = 0,
) -> Ratings:
    """Loads ratings or events. Bad rows are dropped and counted. A user's rows of the same item become one row.

    Args:
      sources: each is "synthetic"; "movielens/100k" or another version that TensorFlow Datasets has; or a path, local
        or gs://, to a MovieLens folder or zip, to a CSV, TSV or Parquet file, to a folder of such files, or to a text
        file with lines "user item item ...". Duplicates are only found within a source.
      data_dir: the folder of TensorFlow Datasets; "" for its default.
      columns: for CSV, TSV and Parquet: our column names (user_id, item_id, rating, timestamp, title, genres) → the
        file's, or AUTO; see `columns.recognize`. "" if there is no title or genres: then the item id is the title. For
        any source, "" for the rating makes events of the rows, and "" for the timestamp makes the row number the time.
      rating_range: the least and the greatest rating, inclusive.
      max_bad_fraction: the largest allowed fraction of bad rows in each source.
      duplicates: of a user's rows of the same item the last is kept: by time, then by row. "count", for events, sets
        its rating to the number of these rows.
      item_identity: "item_id"; or "title" to treat items with the same title as one item. With "title" a user can
        have several ratings of an item, and all are kept.
      features: owner ("query", "item" or "example") → the names of the columns to keep as features.
      needs_times: whether tables must have times if `columns` does not say that they have none. If not, the row
        number is the time where none are recognized.
      seed: the seed of the synthetic ratings.

    Raises:
      ConfigError: a source is unknown, there is nothing at a path, or a feature is not in a source.
      DataError: a file has the wrong format or content, too many rows are bad, or some sources have ratings and
        others do not.
      StorageError: a file cannot be read, or the data cannot be downloaded.
    """
    features = features or {}
    cleaned: list[cleaning.Cleaned] = []
    item_tables: list[pa.Table] = []
    for source in sources:
        opened = open_source(
            source,
            "A source of config.split" if cleaned else "config.data.source",
            data_dir=data_dir,
            columns=columns,
            features=features,
            needs_times=needs_times,
            seed=seed,
        )
        cleaned.append(
            cleaning.clean(
                (read() for read in opened.parts),
                source=source,
                rating_range=rating_range,
                max_bad_fraction=max_bad_fraction,
                first_row_number=sum(of_source.account.report[READ] for of_source in cleaned),
            )
        )
        if opened.items is not None:
            item_tables.append(opened.items)
        del opened  # It may hold the rows.
    accounts = [of_source.account for of_source in cleaned]
    has_ratings, has_timestamps = check_sources(sources, accounts, duplicates=duplicates)
    merged = merging.merge(cleaned, duplicates=duplicates)
    ratings = merged.ratings
    if len(item_tables) < len(sources):
        item_tables.append(merged.items)
    item_table = items.complete(items.first_of_each(item_tables), rated=ratings[schema.ITEM_ID])
    if item_identity == schema.TITLE:
        titles = items.titles_of(ratings[schema.ITEM_ID], item_table)
        ratings, item_table = merging.replace_column(ratings, schema.ITEM_ID, titles), items.by_title(item_table)
    in_rows = set(ratings.column_names)
    of_items = [name for name in features.get("item", ()) if feature_columns.column_name(name) not in in_rows]
    item_table = feature_columns.of_items(item_table, of_items)
    return Ratings(
        ratings,
        item_table,
        {kind: sum(report[kind] for report in merged.reports) for kind in merged.reports[0]},
        has_ratings,
        has_timestamps,
        merged.source_of_row,
        merged.reports,
        accounts,
    )


def open_source(
    source: str,
    field: str,
    *,
    data_dir: str,
    columns: Mapping[str, str],
    features: Mapping[str, Sequence[str]],
    needs_times: bool,
    seed: int,
) -> Source:
    """Finds the files of a source. Only the items are read, if they are in a file of their own.

    Args:
      source: one of the sources of `load_ratings`.
      field: the name of its field in messages.
      data_dir, columns, features, needs_times, seed: as in `load_ratings`.

    Raises:
      ConfigError: the source is unknown, there is nothing at a path, or it lacks a feature.
      DataError: its items have the wrong format.
      StorageError: its items cannot be read.
    """
    parts, items = _parts_and_items(source, field, data_dir, columns, features, needs_times, seed)
    unwanted = [name for name in OPTIONAL if not columns.get(name)]
    return Source([functools.partial(_read_without, unwanted, read) for read in parts], items)


def check_sources(
    sources: Sequence[str], accounts: Sequence[Account], *, duplicates: merging.Duplicates
) -> tuple[bool, bool]:
    """Returns whether the sources have ratings, and whether they have times.

    Args:
      sources: the names of the sources.
      accounts: what is known of each.
      duplicates: as in `load_ratings`.

    Raises:
      ConfigError: the ratings would be counted.
      DataError: some sources have ratings or times, and others do not.
    """
    has_ratings = {source: account.has_ratings for source, account in zip(sources, accounts, strict=True)}
    has_timestamps = {source: account.has_timestamps for source, account in zip(sources, accounts, strict=True)}
    _require_agreement("ratings", schema.RATING, has_ratings)
    _require_agreement("times", schema.TIMESTAMP, has_timestamps)
    if has_ratings[sources[0]] and duplicates == "count":
        raise ConfigError(
            f"config.data.duplicates='count' cannot be used: {sources[0]} has ratings, and only events are counted. "
            "Set config.data.columns.rating to an empty string to use its rows as events, or set "
            "config.data.duplicates to 'once'."
        )
    return has_ratings[sources[0]], has_timestamps[sources[0]]


def _parts_and_items(
    source: str,
    field: str,
    data_dir: str,
    columns: Mapping[str, str],
    features: Mapping[str, Sequence[str]],
    needs_times: bool,
    seed: int,
) -> tuple[Sequence[Callable[[], cleaning.Part]], pa.Table | None]:
    if source == SYNTHETIC:
        feature_columns.require(features, {"item": feature_columns.ITEM_FEATURES}, source=source)
        synthetic = generate_ratings(seed=seed)
        return [lambda: cleaning.Part(source, synthetic.ratings)], synthetic.items
    if source.startswith(MOVIELENS):
        return tensorflow_datasets.read(source, data_dir=data_dir, features=features)
    if not source or not files.exists(source):
        raise ConfigError(
            f"{field} is {source!r}, and there is no such file or folder. Set it to {SYNTHETIC!r}, to one "
            f"of {', '.join(tensorflow_datasets.NAMES)}, or to the path, local or gs://, of a MovieLens folder or zip, "
            'of a CSV, TSV or Parquet file, of a folder of such files, or of a text file with lines "user item item '
            '...".'
        )
    container = files.open_container(source)
    if container is not None:
        layout = movielens.find_layout(container)
        if layout is not None:
            return layout.read(container, features)
    return tables.read(source, container, columns=columns, features=features, needs_times=needs_times), None


def _read_without(columns: Sequence[str], read: Callable[[], cleaning.Part]) -> cleaning.Part:
    part = read()
    kept = [name for name in part.rows.column_names if name not in columns]
    return dataclasses.replace(part, rows=part.rows.select(kept))


def _require_agreement(what: str, column: str, has_column: Mapping[str, bool]) -> None:
    """Raises DataError if some sources have a column and others do not."""
    having = [source for source, has in has_column.items() if has]
    lacking = [source for source, has in has_column.items() if not has]
    if having and lacking:
        raise DataError(
            f"{having[0]} has {what}, and {lacking[0]} has none. Set config.data.columns.{column} to an empty string "
            f"to read all sources without {what}, or use sources with {what} for all splits."
        )
