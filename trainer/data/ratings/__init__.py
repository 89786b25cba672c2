"""Any source of ratings → one Arrow table of ratings and one of items, checked row by row."""

import dataclasses
from collections.abc import Iterator, Mapping

import pyarrow as pa

from settings.errors import ConfigError
from trainer import schema
from trainer.data.ratings import cleaning, files, items, movielens, tables, tensorflow_datasets
from trainer.data.synthetic import generate_ratings

SYNTHETIC = "synthetic"
MOVIELENS = "movielens/"
ITEM_IDENTITIES = (schema.ITEM_ID, schema.TITLE)


@dataclasses.dataclass(frozen=True)
class Ratings:
    """What every source becomes.

    Attributes:
      ratings: schema.RATINGS_SCHEMA, in the source's own order of rows.
      items: schema.ITEMS_SCHEMA, one row an item, those without a rating too.
      report: rows "read" and "used", "duplicate" rows dropped, and rows dropped for each reason in
        `cleaning.BAD`; "read" is the sum of all others.
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
    """Loads ratings, drops the bad rows and counts them, and keeps the last of a user's ratings of an item.

    Args:
      source: "synthetic"; "movielens/100k" or another of TensorFlow Datasets' versions; or a path, local or
        gs://, of a MovieLens folder or zip as its authors distribute it, of a CSV, TSV or Parquet file, or of
        a folder of such files.
      data_dir: where TensorFlow Datasets keeps its data; "" for its own default.
      columns: for CSV, TSV and Parquet: our names (user_id, item_id, rating, timestamp, title, genres) → the
        file's. "" for none of timestamp, title or genres: the row number is the time, the item id the title.
      rating_range: the least and the greatest rating, inclusive.
      max_bad_fraction: how large a part of the rows may be bad.
      item_identity: "item_id", or "title" to let items of the same title be one, as a user's several ratings
        of it then are not.
      seed: of the synthetic ratings.

    Raises:
      ConfigError: an unknown source, or a path where nothing is.
      DataError: a file that is not what it should be, or too many bad rows.
      StorageError: a file that cannot be read, or data that cannot be downloaded.
    """
    if item_identity not in ITEM_IDENTITIES:
        raise ConfigError(f"config.data.item_identity is {item_identity!r}: it is one of {', '.join(ITEM_IDENTITIES)}.")
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
    """The rows as they are, and the items, or None where the rows themselves say what the items are."""
    if source == SYNTHETIC:
        synthetic = generate_ratings(seed=seed)
        return iter([cleaning.Part(source, synthetic.ratings)]), synthetic.items
    if source.startswith(MOVIELENS):
        return tensorflow_datasets.read(source, data_dir=data_dir)
    if not source or not files.exists(source):
        raise ConfigError(
            f"config.data.source is {source!r}, and nothing is there: it is {SYNTHETIC!r}, one of "
            f"{', '.join(tensorflow_datasets.NAMES)}, or the path, local or gs://, of a MovieLens folder or "
            "zip, or of a CSV, TSV or Parquet file or a folder of such."
        )
    container = files.open_container(source)
    if container is not None:
        layout = movielens.find_layout(container)
        if layout is not None:
            return layout.read(container)
    return tables.read(source, container, columns=columns), None
