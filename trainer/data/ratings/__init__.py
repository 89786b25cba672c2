"""Loads any source of ratings as an Arrow table of ratings and one of items. Every row is checked."""

import dataclasses
from collections.abc import Iterator, Mapping

import pyarrow as pa

from settings.errors import ConfigError
from trainer import schema
from trainer.data.ratings import cleaning, files, items, movielens, tables, tensorflow_datasets
from trainer.data.synthetic import generate_ratings

SYNTHETIC = "synthetic"
MOVIELENS = "movielens/"


@dataclasses.dataclass(frozen=True)
class Ratings:
    """The ratings and items of a source.

    Attributes:
      ratings: schema.RATINGS_SCHEMA, in the order of the source.
      items: schema.ITEMS_SCHEMA, one row per item, including items without ratings.
      report: the number of rows "read" and "used", of "duplicate" rows, and of bad rows for each reason in
        `cleaning.BAD`. "read" is the sum of all others.
    """

    ratings: pa.Table
    items: pa.Table
    report: dict[str, int]


def load_ratings(
    source: str,
    *,
    data_dir: str = "",
    columns: Mapping[str, str],
    rating_range: tuple[float, float],
    max_bad_fraction: float,
    item_identity: str = schema.ITEM_ID,
    seed: int = 0,
) -> Ratings:
    """Loads ratings. Bad rows are dropped and counted. Of a user's ratings of the same item the last is kept.

    Args:
      source: "synthetic"; "movielens/100k" or another version that TensorFlow Datasets has; or a path, local or
        gs://, to a MovieLens folder or zip, to a CSV, TSV or Parquet file, or to a folder of such files.
      data_dir: the folder of TensorFlow Datasets; "" for its default.
      columns: for CSV, TSV and Parquet: our column names (user_id, item_id, rating, timestamp, title, genres) → the
        file's. "" if there is no timestamp, title or genres: then the row number is the time, and the item id is
        the title.
      rating_range: the least and the greatest rating, inclusive.
      max_bad_fraction: the largest allowed fraction of bad rows.
      item_identity: "item_id"; or "title" to treat items with the same title as one item. With "title" a user can
        have several ratings of an item, and all are kept.
      seed: the seed of the synthetic ratings.

    Raises:
      ConfigError: the source is unknown, or there is nothing at the path.
      DataError: a file has the wrong format or content, or too many rows are bad.
      StorageError: a file cannot be read, or the data cannot be downloaded.
    """
    parts, item_table = _read(source, data_dir=data_dir, columns=columns, seed=seed)
    cleaned = cleaning.clean(parts, source=source, rating_range=rating_range, max_bad_fraction=max_bad_fraction)
    ratings = cleaned.ratings
    if item_table is None:
        item_table = cleaned.items
    item_table = items.complete(item_table, rated=ratings[schema.ITEM_ID])
    if item_identity == schema.TITLE:
        ratings, item_table = items.identify_by_title(ratings, item_table)
    return Ratings(ratings, item_table, cleaned.report)


def _read(
    source: str, *, data_dir: str, columns: Mapping[str, str], seed: int
) -> tuple[Iterator[cleaning.Part], pa.Table | None]:
    """The rows without any change, and the items; None if the items are in the rows."""
    if source == SYNTHETIC:
        synthetic = generate_ratings(seed=seed)
        return iter([cleaning.Part(source, synthetic.ratings)]), synthetic.items
    if source.startswith(MOVIELENS):
        return tensorflow_datasets.read(source, data_dir=data_dir)
    if not source or not files.exists(source):
        raise ConfigError(
            f"config.data.source is {source!r}, and there is no such file or folder. Set it to {SYNTHETIC!r}, to one "
            f"of {', '.join(tensorflow_datasets.NAMES)}, or to the path, local or gs://, of a MovieLens folder or zip, "
            "of a CSV, TSV or Parquet file, or of a folder of such files."
        )
    container = files.open_container(source)
    if container is not None:
        layout = movielens.find_layout(container)
        if layout is not None:
            return layout.read(container)
    return tables.read(source, container, columns=columns), None
