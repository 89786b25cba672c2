"""The columns that the config names as features: which ones there are, and their values in a few types.

In our tables the column of the feature NAME has the name "feature:NAME", so it never has the name of another column.
Its values are text (a dictionary of strings), numbers (float64) or lists of text. A missing value is null.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import ConfigError, DataError
from trainer import schema

PREFIX = "feature:"

TEXT = pa.dictionary(pa.int32(), pa.string())
NUMBERS = pa.float64()
LISTS = pa.list_(pa.string())

YEAR = "year"
ITEM_FEATURES = (schema.GENRES, YEAR)
"""The item features of the sources that have a table of items."""

_YEAR_IN_TITLE = r"\((?P<year>\d{4})\)\s*$"


def column_name(feature: str) -> str:
    """Returns the name that the column of a feature has in our tables."""
    return PREFIX + feature


def names(features: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the names of the features of all owners."""
    return [name for of_owner in features.values() for name in of_owner]


def require(features: Mapping[str, Sequence[str]], available: Mapping[str, Collection[str]], *, source: str) -> None:
    """Raises ConfigError unless the source has all features.

    Args:
      features: owner → the features that the config names.
      available: owner → the features that the source has. An owner that is missing has none.
      source: the name of the source in the message.
    """
    for owner, wanted in features.items():
        there_are = available.get(owner, ())
        for name in wanted:
            if name not in there_are:
                raise ConfigError(
                    f"config.data.features.{owner} contains {name!r}, which {source} does not have. The features of "
                    f"this kind that it has: {', '.join(there_are) or 'none'}. Take {name!r} out."
                )


def normalized(column: pa.ChunkedArray) -> pa.Array:
    """Converts the values of a feature to TEXT, NUMBERS or LISTS. Empty text and NaN become null.

    Floats and decimals become numbers. Whole numbers, booleans and dates become text.

    Raises:
      pa.ArrowInvalid, pa.ArrowNotImplementedError: the column has another type.
    """
    values = column.combine_chunks()
    kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = values.cast(NUMBERS)
        return pc.if_else(pc.is_finite(numbers), numbers, None)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return values.cast(LISTS)
    if not pa.types.is_dictionary(kind):
        values = values.cast(pa.string()).dictionary_encode()
    texts = pc.utf8_trim_whitespace(values.dictionary.cast(pa.string()))
    # An entry of a dictionary may be null. Its codes then become null.
    is_present = pc.fill_null(pc.not_equal(texts, ""), False)
    codes = values.indices.cast(pa.int32())
    codes = pc.if_else(is_present.take(codes), codes, None)
    return pa.DictionaryArray.from_arrays(codes, texts.fill_null(""))


def with_one_type(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Gives each feature the same type in all tables: text, if it is numbers in one table and text in another.

    Raises:
      DataError: the tables do not have the same features, or lists in one table and single values in another.
    """
    tables = list(tables)
    for name in dict.fromkeys(name for table in tables for name in table.column_names if name.startswith(PREFIX)):
        feature = name.removeprefix(PREFIX)
        if not all(name in table.column_names for table in tables):
            raise DataError(
                f"The feature {feature!r} is a column of some sources and not of others. Use sources of one kind for "
                f"all splits, or take {feature!r} out of config.data.features."
            )
        kinds = {table[name].type for table in tables}
        if len(kinds) == 1:
            continue
        if LISTS in kinds:
            raise DataError(
                f"The column {feature!r} has lists in one file and single values in another. Write it in one way in "
                "all files, or take it out of config.data.features."
            )
        tables = [
            table.set_column(table.column_names.index(name), name, as_text(table[name].combine_chunks()))
            for table in tables
        ]
    return tables


def as_text(values: pa.Array) -> pa.DictionaryArray:
    """Converts the values of a feature from NUMBERS to TEXT."""
    # The text of a whole float has no point: pandas writes whole numbers as floats if one is missing.
    return values if pa.types.is_dictionary(values.type) else values.cast(pa.string()).dictionary_encode()


def of_items(items: pa.Table, features: Iterable[str]) -> pa.Table:
    """Appends the columns of ITEM_FEATURES that are named in `features` to a table of schema.ITEMS_SCHEMA."""
    years = pc.struct_field(pc.extract_regex(items[schema.TITLE], _YEAR_IN_TITLE), YEAR)
    columns = {schema.GENRES: items[schema.GENRES], YEAR: years}
    for name in features:
        items = items.append_column(column_name(name), normalized(columns[name]))
    return items
