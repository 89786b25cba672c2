"""The ratings in a file of the user's, as the histories of queries. This module does not import TensorFlow."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from settings.errors import DataError
from trainer import schema
from trainer.data.queries import Queries, build_queries
from trainer.data.ratings import feature_columns, files, load_ratings, tables
from trainer.data.ratings.columns import AUTO, OPTIONAL, recognize
from trainer.data.vocabulary import Vocabulary

_WAY_OUT = "Give each column of this file the name that it has in the training data."

ONE_USER = "-"
"""The id of the user of a file that has no column of users."""


@dataclass(frozen=True, eq=False)
class GivenRatings:
    """Users who are described by the rows of a file alone.

    Attributes:
      user_ids: string [num_users], in the order of their first row.
      queries: their histories and features. Query i is the user i. Items that training has not seen are left out.
      num_ratings: int64 [num_users], the number of ratings of each user in the file.
      missing_columns: the columns that the file could have and does not have.
    """

    user_ids: pa.Array
    queries: Queries
    num_ratings: np.ndarray
    missing_columns: tuple[str, ...]

    @property
    def num_known(self) -> np.ndarray:
        """int64 [num_users], the number of ratings of each user whose item training has seen."""
        return np.diff(self.queries.offsets)


def read_given_ratings(
    source: str,
    vocabulary: Vocabulary,
    *,
    columns: Mapping[str, str],
    has_ratings: bool,
    item_identity: str,
    history_size: int,
    **options: Any,
) -> GivenRatings:
    """Reads a file of ratings for a trained model, with the reading and the checks of the training data.

    A CSV, TSV or Parquet file may lack the column of the users, and is then of one user. It may lack that of the times,
    and is then in the order of time. A query feature that it lacks has no value.

    Args:
      source: what `load_ratings` reads, such as a file.
      vocabulary: of the trained model.
      columns: our column names → the file's, or AUTO.
      has_ratings: whether the model was trained on ratings. If not, the rows are events.
      item_identity: "item_id" or "title".
      history_size: the largest number of items of a history.
      options: further arguments of `load_ratings`.

    Raises:
      ConfigError, DataError, StorageError: see `load_ratings`.
    """
    encoders = [encoder for encoder in vocabulary.features if encoder.spec.owner == "query"]
    feature_names = [encoder.spec.name for encoder in encoders]
    # Titles and genres only describe items, which the vocabulary knows.
    used = [*schema.RATINGS_SCHEMA.names, *([schema.TITLE] if item_identity == schema.TITLE else [])]
    columns = {ours: name if ours in used else "" for ours, name in columns.items()}
    if not has_ratings:
        columns[schema.RATING] = ""
    columns, missing = _columns_of_file(source, columns, feature_names)
    has_users = bool(columns[schema.USER_ID])
    if not has_users:
        # Reading needs a column of users. Any column without a missing value does.
        columns[schema.USER_ID] = columns[schema.ITEM_ID]
    loaded = load_ratings(
        source,
        columns=columns,
        item_identity=item_identity,
        features={"query": [name for name in feature_names if name not in missing]},
        **options,
    )
    ratings = loaded.ratings
    if not has_users:
        ratings = ratings.set_column(0, schema.USER_ID, pa.array([ONE_USER] * ratings.num_rows))
    users = ratings[schema.USER_ID].combine_chunks().dictionary_encode()
    rows = users.indices.to_numpy()
    num_users = len(users.dictionary)
    features = {}
    for encoder in encoders:
        name = feature_columns.column_name(encoder.spec.name)
        values = ratings[name] if name in ratings.column_names else pa.nulls(ratings.num_rows, pa.string())
        features[encoder.spec.name] = encoder.encode(values.take(pa.array(_last_row_of_each(rows, num_users))))
    queries = build_queries(
        rows,
        vocabulary.item_indices(ratings[schema.ITEM_ID]),
        ratings[schema.RATING].to_numpy(),
        ratings[schema.TIMESTAMP].to_numpy(),
        num_users=num_users,
        history_size=history_size,
        features=features,
    )
    return GivenRatings(
        user_ids=users.dictionary,
        queries=queries,
        num_ratings=np.bincount(rows, minlength=num_users),
        missing_columns=tuple(missing),
    )


def _columns_of_file(
    source: str, columns: Mapping[str, str], feature_names: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Returns the columns to read, with "" for the users and the times if the file lacks them, and what it lacks.

    Raises:
      DataError: the file has no column of ratings, although `columns` has one, or a column cannot be recognized.
    """
    if source.endswith(tables.LINES):
        return dict(columns), list(feature_names)
    found = _column_names(source)
    if found is None:
        return dict(columns), []
    rating = columns[schema.RATING]
    if rating not in ("", AUTO) and rating not in found:
        raise DataError(
            f"{source} has no column {rating!r} with ratings, and the model was trained on ratings. Its columns are "
            f"{', '.join(map(repr, found))}. Add the column, with ratings like those of the training data."
        )
    may_lack = (schema.USER_ID, schema.TIMESTAMP)
    wanted = {
        ours: name for ours, name in columns.items() if name and not (ours in may_lack and name not in (*found, AUTO))
    }
    chosen = recognize(source, wanted, found=found, optional=(schema.USER_ID, *OPTIONAL), way_out=_WAY_OUT)
    missing = [
        ours if columns[ours] == AUTO else columns[ours] for ours in may_lack if columns[ours] and ours not in chosen
    ]
    missing += [name for name in feature_names if name not in found]
    return {ours: chosen.get(ours, "") for ours in columns}, missing


def _column_names(source: str) -> Sequence[str] | None:
    """The columns of a single table; None for any other source, and for a file that reading refuses."""
    ending = next((ending for ending in (*tables.DELIMITERS, tables.PARQUET) if source.endswith(ending)), None)
    if ending is None or not files.exists(source) or files.open_container(source) is not None:
        return None
    with files.reading(source), files.open_file(source) as file:
        if ending == tables.PARQUET:
            return pyarrow.parquet.read_schema(file).names
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        try:
            return next((names for names in csv.reader(text, delimiter=tables.DELIMITERS[ending]) if names), None)
        except csv.Error:
            return None
        finally:
            text.detach()


def _last_row_of_each(rows: np.ndarray, num_users: int) -> np.ndarray:
    last: np.ndarray = np.zeros(num_users, np.int64)
    np.maximum.at(last, rows, np.arange(len(rows)))
    return last
