"""Selects the rows of a source that can be used. Every other row is counted under one reason."""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import feature_columns, iso_times, items
from trainer.data.ratings.accounts import DUPLICATE, MALFORMED, READ, REASONS, USED, Account, join_accounts, limits
from trainer.data.ratings.columns import ColumnsOfTable

MAX_TIMESTAMP = 4_102_444_800
"""The year 2100 in seconds since 1970. Later times are probably milliseconds, so they are refused."""

EVENT_RATING = 1.0

_UNITS = {"milliseconds": "1000", "microseconds": "1000000", "nanoseconds": "1000000000"}
"""Smaller units of time → how many of them a second has."""

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"


@dataclasses.dataclass(frozen=True)
class Malformed:
    """A row with too few or too many values, and its number in the file."""

    row: int
    text: str

    @property
    def num_lines(self) -> int:
        """The number of lines of the row, without blank lines. A quote that is not closed makes one row of many."""
        return sum(1 for line in re.split("[\r\n]+", self.text) if line)


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of one file, without any change.

    Attributes:
      path: the name of the file in messages.
      rows: the columns under our names, of any type. Without a rating column each row is an event, with the rating 1.
        Without a timestamp column the row number is the time.
      first_row: the number of the first row in the file, starting from 1; 2 if the file has a header.
      malformed: the rows of the file that are not in `rows`.
      columns: what became of the columns of a table; None for another file.
    """

    path: str
    rows: pa.Table
    first_row: int = 1
    malformed: tuple[Malformed, ...] = ()
    columns: ColumnsOfTable | None = None


@dataclasses.dataclass(frozen=True)
class CleanedPart:
    """The usable rows of one file: schema.RATINGS_SCHEMA with dictionaries for ids, and schema.ITEMS_SCHEMA."""

    ratings: pa.Table
    items: pa.Table
    account: Account


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """The usable rows of a source, and the number of rows of each kind.

    Attributes:
      ratings: schema.RATINGS_SCHEMA with dictionaries for ids, followed by the columns of the features; one table per
        part.
      items: schema.ITEMS_SCHEMA, from the columns of the ratings.
      account: what became of the rows.
    """

    ratings: list[pa.Table]
    items: pa.Table
    account: Account


def clean(
    parts: Iterable[Part],
    *,
    source: str,
    rating_range: tuple[float, float],
    max_bad_fraction: float,
    first_row_number: int = 0,
) -> Cleaned:
    """Drops the bad rows.

    Args:
      parts: the rows, in their order. All have the same columns.
      source: the name of all parts together in messages.
      rating_range: the least and the greatest rating, inclusive. Not used for events.
      max_bad_fraction: the largest allowed fraction of bad rows among all rows. A malformed row of several lines
        counts as that many rows.
      first_row_number: the time of the first row, where there are no times.

    Raises:
      DataError: more rows are bad, or no row can be used.
    """
    ratings, named_items, accounts = [], [], []
    for part in parts:
        cleaned = clean_part(part, rating_range=rating_range, first_row_number=first_row_number)
        first_row_number += cleaned.account.report[READ]
        ratings.append(cleaned.ratings)
        named_items.append(cleaned.items)
        accounts.append(cleaned.account)
        del part, cleaned  # With 25 million rows, these are gigabytes.
    account = join_accounts(accounts, source=source, rating_range=rating_range, max_bad_fraction=max_bad_fraction)
    return Cleaned(ratings, pa.concat_tables(named_items), account)


def clean_part(part: Part, *, rating_range: tuple[float, float], first_row_number: int = 0) -> CleanedPart:
    """Drops the bad rows of one file. The arguments are those of `clean`.

    Raises:
      DataError: a column has a type that cannot be used.
    """
    has_ratings, has_timestamps = (name in part.rows.column_names for name in (schema.RATING, schema.TIMESTAMP))
    with _naming_types(part):
        columns = _Columns.of(part, first_row_number=first_row_number)
        bad = columns.bad(rating_range if has_ratings else (EVENT_RATING, EVENT_RATING))
        is_bad = np.logical_or.reduce(list(bad.values()))
        named_items = items.from_rows(part.rows, columns.item_id, ~is_bad)
        found_ratings = limits(columns.rating[np.isfinite(columns.rating)]) if has_ratings else None
        used_ratings = limits(columns.rating[~is_bad]) if has_ratings else None
    num_malformed = len(part.malformed)
    report = {
        READ: len(is_bad) + num_malformed,
        USED: int(np.count_nonzero(~is_bad)),
        DUPLICATE: 0,
        MALFORMED: num_malformed,
        **{reason: int(np.count_nonzero(rows)) for reason, rows in bad.items()},
    }
    num_lost_lines = sum(row.num_lines - 1 for row in part.malformed)
    first_bad = _describe_first_bad(part, bad, is_bad)
    table = columns.ratings()
    return CleanedPart(
        table.filter(pa.array(~is_bad)) if is_bad.any() else table,
        named_items,
        Account(
            report,
            num_lost_lines,
            first_bad,
            has_ratings,
            has_timestamps,
            found_ratings,
            used_ratings,
            part.columns,
        ),
    )


@contextlib.contextmanager
def _naming_types(part: Part) -> Iterator[None]:
    """Turns a failed conversion of a column into a message with the types of all columns."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        types = ", ".join(f"{field.name}: {field.type}" for field in part.rows.schema)
        raise DataError(
            f"{part.path} has a column of a type that cannot be used ({types}; {error}). Ids and titles must be text "
            "or numbers, ratings numbers, times numbers or dates, and genres and features text, numbers or lists of "
            "text. Set config.data.columns and config.data.features to other columns."
        ) from error


@dataclasses.dataclass(frozen=True)
class _Columns:
    """The columns of a part, converted. A value that is not a number is NaN. Each column is [num_rows]."""

    user_id: pa.DictionaryArray
    item_id: pa.DictionaryArray
    rating: np.ndarray  # float64
    timestamp: np.ndarray  # float64: exact up to 2^53
    features: dict[str, pa.Array]

    @classmethod
    def of(cls, part: Part, *, first_row_number: int) -> "_Columns":
        rows = part.rows
        if schema.TIMESTAMP in rows.column_names:
            timestamp = _times(rows[schema.TIMESTAMP])
        else:
            timestamp = np.arange(first_row_number, first_row_number + rows.num_rows, dtype=np.float64)
        if schema.RATING in rows.column_names:
            rating = _numbers(rows[schema.RATING])
        else:
            rating = np.full(rows.num_rows, EVENT_RATING)
        features = {
            name: feature_columns.normalized(rows[name])
            for name in rows.column_names
            if name.startswith(feature_columns.PREFIX)
        }
        return cls(ids_as_text(rows[schema.USER_ID]), ids_as_text(rows[schema.ITEM_ID]), rating, timestamp, features)

    def bad(self, rating_range: tuple[float, float]) -> dict[str, np.ndarray]:
        """Returns for each reason the rows that are bad for it and for no earlier reason, bool [num_rows]."""
        least, greatest = rating_range
        suspects = (
            _is_missing(self.user_id),
            _is_missing(self.item_id),
            ~np.isfinite(self.rating),
            ~((self.rating >= least) & (self.rating <= greatest)),
            ~((self.timestamp >= 0) & (self.timestamp < MAX_TIMESTAMP)),
        )
        bad: dict[str, np.ndarray] = {}
        judged: np.ndarray = np.zeros(len(self.rating), bool)
        for reason, suspect in zip(REASONS, suspects, strict=True):
            bad[reason] = suspect & ~judged
            judged |= suspect
        return bad

    def ratings(self) -> pa.Table:
        """Returns the columns of `Cleaned.ratings`. Bad rows have arbitrary numbers."""
        with np.errstate(invalid="ignore", over="ignore"):
            columns = [
                self.user_id,
                self.item_id,
                self.rating.astype(np.float32),
                self.timestamp.astype(np.int64),
                *self.features.values(),
            ]
        return pa.table(columns, names=[*schema.RATINGS_SCHEMA.names, *self.features])


def ids_as_text(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Ids as text. A column of whole floats is read as integers, because large floats have an exponent in text."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        if pc.all(pc.equal(pc.floor(column), column)).as_py():
            column = column.cast(pa.int64())
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    ids = column.combine_chunks()
    return pa.DictionaryArray.from_arrays(ids.indices.cast(pa.int32()), ids.dictionary.cast(pa.string()))


def _is_missing(ids: pa.DictionaryArray) -> np.ndarray:
    codes = ids.indices.fill_null(-1).to_numpy()
    return (codes == -1) | (
        codes == pc.index(ids.dictionary, "").as_py()
    )  # The index of a value that is not found is -1.


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers as float64. Any other value becomes NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pa.types.is_primitive(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        column = pc.if_else(pc.match_substring_regex(text, NUMBER), text, None)
    return column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()


def _times(column: pa.ChunkedArray) -> np.ndarray:
    """Seconds since 1970 as float64: numbers, dates and times, or text of either. Any other value becomes NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    numbers = _numbers(column)
    if pa.types.is_primitive(column.type) or not np.isnan(numbers).any():
        return numbers
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return np.where(np.isnan(numbers), iso_times.seconds_since_1970(text), numbers)


def row_number(part: Part, index: int) -> int:
    """Returns the number in the file of the row at `index` of `part.rows`. Malformed rows are counted too."""
    number = part.first_row + index
    for malformed in part.malformed:  # In the order of the file.
        number += malformed.row <= number
    return number


def _describe_first_bad(part: Part, bad: dict[str, np.ndarray], is_bad: np.ndarray) -> str:
    """Describes where the first bad row of a part is and why it is bad. Returns "" if no row is bad."""
    descriptions = [
        (row.row, f"row {row.row} of {part.path}: {MALFORMED}, {row.text[:100]!r}") for row in part.malformed[:1]
    ]
    if is_bad.any():
        index = int(np.argmax(is_bad))
        number = row_number(part, index)
        reason = next(reason for reason, rows in bad.items() if rows[index])
        column = REASONS[reason]
        value = part.rows[column][index].as_py()
        shown = "is missing" if value is None else repr(value)
        hint = _hint_on_unit(value) if column == schema.TIMESTAMP else ""
        descriptions.append((number, f"row {number} of {part.path}: {reason}, {column} {shown}{hint}"))
    return min(descriptions, default=(0, ""))[1]


def _hint_on_unit(value: Any) -> str:
    """What to do about a time that is a number of a smaller unit; "" for any other value."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return ""
    for unit, per_second in _UNITS.items():
        if MAX_TIMESTAMP <= number < MAX_TIMESTAMP * int(per_second):
            return f", which looks like {unit}: divide by {per_second}"
    return ""
