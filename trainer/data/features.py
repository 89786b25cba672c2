"""Turns the columns of features into arrays: how each feature is encoded is learned from the training split.

A feature of text is categorical. Its categories are numbered from 1, sorted by their UTF-8 bytes; index 0 is a missing
or unknown value. Text with "|" in any value, and lists, have several categories per value. The array then has as many
columns as the longest training value, with 0 at the end of shorter ones. Numbers are numeric, and so is text where all
values are numbers and some have a decimal point. A number is standardised: (value − mean) / standard deviation, and a
missing one is 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import ConfigError
from trainer import schema, storage
from trainer.data.ratings import cleaning, feature_columns
from trainer.features import OWNERS, FeatureSpec, Owner

SEPARATOR = "|"

WHOLE_NUMBER = r"^[+-]?\d+$"

RESERVED_NAMES = (
    *(schema.QUERY, schema.ITEMS, schema.LABELS, schema.WEIGHTS, schema.NUM_LISTS, schema.ROWS),
    *(schema.HISTORY, schema.HISTORY_RATINGS, schema.NEGATIVES),
)
"""The names of the features of a batch that are not columns."""

_FILE_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("owner", pa.string()),
        ("shape", pa.list_(pa.int32())),
        ("categories", pa.list_(pa.string())),
        ("mean", pa.float64()),
        ("standard_deviation", pa.float64()),
    ]
)


@dataclass(frozen=True)
class FeatureEncoder:
    """How the values of one feature become the numbers of a batch.

    Attributes:
      spec: the feature, as it enters the model.
      categories: of a categorical feature: categories[i] has the index i + 1.
      mean, standard_deviation: of a numeric feature, over the training values.
    """

    spec: FeatureSpec
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    standard_deviation: float = 1.0

    def encode(self, values: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """Returns the encoded values [n, *spec.shape], with the type of the spec.

        Args:
          values: text, numbers or lists of text [n]; null where missing.

        Raises:
          pa.ArrowInvalid: the values have another type.
        """
        column = feature_columns.normalized(pa.chunked_array([values]) if isinstance(values, pa.Array) else values)
        if not pa.types.is_dictionary(column.type):
            return self._encode(column)
        # Each text is encoded once. The last row is for missing values, whose code is -1.
        encoded = self._encode(pa.concat_arrays([column.dictionary, pa.array([None], pa.string())]))
        return encoded[column.indices.fill_null(-1).to_numpy()]

    def _encode(self, values: pa.Array) -> np.ndarray:
        if not self.spec.is_categorical:
            numbers = (_numbers(values) - self.mean) / self.standard_deviation
            return np.nan_to_num(numbers).astype(np.float32)
        if not self.spec.shape:
            return self._indices(values.cast(pa.string()))
        row, position, words = _words(values)
        encoded: np.ndarray = np.zeros((len(values), *self.spec.shape), np.int32)
        fits = position < self.spec.shape[0]
        encoded[row[fits], position[fits]] = self._indices(words)[fits]
        return encoded

    def _indices(self, words: pa.Array) -> np.ndarray:
        categories = pa.array(self.categories, pa.string())
        return pc.index_in(words, value_set=categories).fill_null(-1).to_numpy().astype(np.int32) + np.int32(1)


def build_encoder(name: str, owner: Owner, values: pa.ChunkedArray) -> FeatureEncoder:
    """Learns how a feature is encoded.

    Args:
      name: the name of the feature.
      owner: what it describes.
      values: its training values, with one of the types of `feature_columns`.
    """
    column = values.combine_chunks()
    used = column.unique().cast(pa.string()).drop_null().unique() if pa.types.is_dictionary(column.type) else column
    if _are_numbers(used):
        numbers = _numbers(column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column)
        numbers = numbers[np.isfinite(numbers)]
        # The computed deviation of equal numbers can be slightly above 0.
        differ = len(numbers) > 0 and numbers.min() < numbers.max()
        return FeatureEncoder(
            FeatureSpec(name, owner, "float32"),
            mean=float(numbers.mean()) if len(numbers) else 0.0,
            standard_deviation=float(numbers.std()) if differ else 1.0,
        )
    has_many = pa.types.is_list(used.type) or bool(pc.any(pc.match_substring(used, SEPARATOR)).as_py())
    if not has_many:
        categories = used.sort()
        return FeatureEncoder(FeatureSpec(name, owner, num_values=len(categories) + 1), tuple(categories.to_pylist()))
    _, position, words = _words(used)
    categories = words.unique().sort()
    size = int(position.max(initial=0)) + 1
    spec = FeatureSpec(name, owner, shape=(size,), num_values=len(categories) + 1)
    return FeatureEncoder(spec, tuple(categories.to_pylist()))


def _are_numbers(values: pa.Array) -> bool:
    """Whether a feature with these values is numeric."""
    if not pa.types.is_string(values.type):
        return pa.types.is_floating(values.type)
    return bool(
        pc.all(pc.match_substring_regex(values, cleaning.NUMBER)).as_py()
        and not pc.all(pc.match_substring_regex(values, WHOLE_NUMBER)).as_py()
    )


def _numbers(values: pa.Array) -> np.ndarray:
    """float64 [n]; NaN where missing or not a number."""
    if pa.types.is_string(values.type):
        values = pc.if_else(pc.match_substring_regex(values, cleaning.NUMBER), values, None).cast(pa.float64())
    return values.fill_null(np.nan).to_numpy()


def _words(values: pa.Array) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Splits values of several categories: lists, or text joined by SEPARATOR.

    Returns:
      The row of each category and its position in its row, int64 [num_words] each, and the categories.
    """
    lists = values if pa.types.is_list(values.type) else pc.split_pattern(values, SEPARATOR)
    words = pc.utf8_trim_whitespace(lists.flatten())
    is_word = pc.fill_null(pc.not_equal(words, ""), False)
    row = pc.list_parent_indices(lists).filter(is_word).to_numpy()
    position = np.arange(len(row)) - np.searchsorted(row, row)
    return row, position, words.filter(is_word)


@dataclass(frozen=True)
class EncodedFeatures:
    """The encoded values of all features.

    Attributes:
      encoders: how each feature is encoded: first those of queries, then of items, then of examples.
      query: name → [num_users, *shape]. Row 0 is the unknown user.
      item: name → [num_items, *shape]. Row 0 is the unknown item.
      example: name → [num_ratings, *shape].
    """

    encoders: tuple[FeatureEncoder, ...]
    query: dict[str, np.ndarray]
    item: dict[str, np.ndarray]
    example: dict[str, np.ndarray]


def encode_features(
    features: Mapping[str, Sequence[str]],
    ratings: pa.Table,
    items: pa.Table,
    *,
    train: np.ndarray,
    user_indices: np.ndarray,
    item_indices: np.ndarray,
    item_ids: pa.ChunkedArray,
    num_users: int,
) -> EncodedFeatures:
    """Encodes the features that the config names.

    The value of a query or an item is that of its last row in the training split, or, for an item, that of the table of
    items if the source has one.

    Args:
      features: owner → the names of its features.
      ratings: all ratings, with the columns of features that are in the rows.
      items: the table of items, with the columns of features that are there.
      train: int64 [num_train], the rows of the training split.
      user_indices, item_indices: int32 [num_ratings].
      item_ids: the ids of the vocabulary [num_items]; the first is the unknown item.
      num_users: the number of users of the vocabulary, including the unknown user.

    Raises:
      ConfigError: a feature has a name that is used for something else in a batch.
    """
    check_names(features)
    columns = {owner: {name: feature_columns.column_name(name) for name in features.get(owner, ())} for owner in OWNERS}
    of_users = ratings.select(list(columns["query"].values())).take(last_rows(user_indices, train, num_users))
    query_encoders, query = encode_each("query", {name: of_users[column] for name, column in columns["query"].items()})
    in_rows = [column for column in columns["item"].values() if column not in items.column_names]
    of_items = ratings.select(in_rows).take(last_rows(item_indices, train, len(item_ids)))
    row_of_item = pc.index_in(item_ids.combine_chunks(), value_set=items[schema.ITEM_ID].combine_chunks())
    item_encoders, item = encode_each(
        "item",
        {
            name: of_items[column] if column in in_rows else items[column].take(row_of_item)
            for name, column in columns["item"].items()
        },
    )
    example_encoders, example = [], {}
    for name, column in columns["example"].items():
        example_encoders.append(build_encoder(name, "example", ratings[column].take(pa.array(train))))
        example[name] = example_encoders[-1].encode(ratings[column])
    return EncodedFeatures((*query_encoders, *item_encoders, *example_encoders), query, item, example)


def encode_each(
    owner: Owner, values: Mapping[str, pa.ChunkedArray]
) -> tuple[list[FeatureEncoder], dict[str, np.ndarray]]:
    """Learns how the features of users or items are encoded, and encodes them.

    Args:
      owner: "query" or "item".
      values: name → the value of each user or item in the order of the vocabulary. The unknown user and the unknown
        item have none, so they add nothing to the training values.

    Returns:
      The encoders, and name → the encoded values [num_users or num_items, *shape].
    """
    encoders = [build_encoder(name, owner, of_feature) for name, of_feature in values.items()]
    return encoders, {encoder.spec.name: encoder.encode(values[encoder.spec.name]) for encoder in encoders}


def last_rows(indices: np.ndarray, train: np.ndarray, num_indices: int) -> pa.Array:
    """Returns the last training row of each index, int64 [num_indices]; null for an index without one.

    Args:
      indices: integers [num_rows], in [0, num_indices).
      train: int64 [num_train], the training rows, ascending.
      num_indices: the number of indices.
    """
    rows: np.ndarray = np.full(num_indices, -1, np.int64)
    rows[indices[train]] = train  # Of repeated indices NumPy keeps the last value.
    return pa.array(rows, mask=rows < 0)


def check_names(features: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError if a feature, of any owner, has a name that is used for something else in a batch."""
    for owner, names in features.items():
        for name in names:
            if name in RESERVED_NAMES:
                raise ConfigError(
                    f"config.data.features.{owner} contains {name!r}, which is the name of something else in a batch "
                    f"(as are {', '.join(RESERVED_NAMES)}). Give the column another name."
                )


def save_encoders(encoders: Sequence[FeatureEncoder], path: str) -> None:
    """Writes encoders as Parquet, local or gs://.

    Raises:
      StorageError: the file cannot be written.
    """
    rows = [
        {
            "name": encoder.spec.name,
            "owner": encoder.spec.owner,
            "shape": encoder.spec.shape,
            "categories": encoder.categories if encoder.spec.is_categorical else None,
            "mean": encoder.mean,
            "standard_deviation": encoder.standard_deviation,
        }
        for encoder in encoders
    ]
    storage.write_table(pa.Table.from_pylist(rows, _FILE_SCHEMA), path)


def load_encoders(path: str, *, way_out: str = storage.RESTORE) -> tuple[FeatureEncoder, ...]:
    """Reads a file written by `save_encoders`. `way_out` is as in `storage.read_table`.

    Raises:
      StorageError: the file is missing or damaged.
    """
    encoders = []
    for row in storage.read_table(path, _FILE_SCHEMA, way_out=way_out).to_pylist():
        name, owner, shape, categories = row["name"], row["owner"], tuple(row["shape"]), row["categories"]
        if categories is None:
            spec = FeatureSpec(name, owner, "float32", shape)
        else:
            spec = FeatureSpec(name, owner, shape=shape, num_values=len(categories) + 1)
        encoders.append(FeatureEncoder(spec, tuple(categories or ()), row["mean"], row["standard_deviation"]))
    return tuple(encoders)
