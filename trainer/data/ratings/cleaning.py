"""Selects the rows of a source that can be used. Every other row is counted under one reason."""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import feature_columns, items

READ, USED, DUPLICATE = "read", "used", "duplicate"
COUNTED = "counted"
"""Rows that were added to the number of rows of their pair. Only with config.data.duplicates=count."""

MALFORMED = "malformed_row"
REASONS = {
    "user_id_missing": schema.USER_ID,
    "item_id_missing": schema.ITEM_ID,
    "rating_not_a_number": schema.RATING,
    "rating_out_of_range": schema.RATING,
    "timestamp_not_seconds": schema.TIMESTAMP,
}
"""Why a row is bad → the column with the bad value. If several reasons apply, the first one counts."""

BAD = (MALFORMED, *REASONS)

MAX_TIMESTAMP = 4_102_444_800
"""The year 2100 in seconds since 1970. Later times are probably milliseconds, so they are refused."""

EVENT_RATING = 1.0

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
    """

    path: str
    rows: pa.Table
    first_row: int = 1
    malformed: tuple[Malformed, ...] = ()


@dataclasses.dataclass(frozen=True)
class Account:
    """What became of the rows of one file or source.

    Attributes:
      report: see `ratings.Ratings`.
      num_lost_lines: the lines of malformed rows, beyond one line for each of them.
      first_bad: where the first bad row is and why it is bad; "" if no row is bad.
      has_ratings: whether the rows have ratings. If not, they are events.
      has_timestamps: whether the rows have times.
    """

    report: dict[str, int]
    num_lost_lines: int
    first_bad: str
    has_ratings: bool
    has_timestamps: bool


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
      has_ratings: whether the rows have ratings. If not, they are events.
      has_timestamps: whether the rows have times.
      report: see `ratings.Ratings`.
    """

    ratings: list[pa.Table]
    items: pa.Table
    has_ratings: bool
    has_timestamps: bool
    report: dict[str, int]


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
    return Cleaned(ratings, pa.concat_tables(named_items), account.has_ratings, account.has_timestamps, account.report)


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
        Account(report, num_lost_lines, first_bad, has_ratings, has_timestamps),
    )


def join_accounts(
    accounts: Sequence[Account], *, source: str, rating_range: tuple[float, float], max_bad_fraction: float
) -> Account:
    """Adds up the accounts of the files of a source, in their order. The other arguments are those of `clean`.

    Raises:
      DataError: more rows are bad, or no row can be used.
    """
    report = {kind: sum(account.report[kind] for account in accounts) for kind in accounts[0].report}
    num_lost_lines = sum(account.num_lost_lines for account in accounts)
    first_bad = next((account.first_bad for account in accounts if account.first_bad), "")
    has_ratings = accounts[-1].has_ratings
    num_bad = sum(report[reason] for reason in BAD)
    reasons = ", ".join(f"{report[reason]:,} {reason}" for reason in BAD if report[reason])
    if num_bad + num_lost_lines > max_bad_fraction * (report[READ] + num_lost_lines):
        least, greatest = rating_range
        allowed = f"Ratings must be from {least:g} to {greatest:g} (config.data.rating_range), and times" * has_ratings
        lines = f" in {num_bad + num_lost_lines:,} lines" if num_lost_lines else ""
        raise DataError(
            f"{source}: {num_bad:,} of {report[READ]:,} rows{lines} are bad ({reasons}), more than "
            f"config.data.max_bad_fraction={max_bad_fraction:g} allows. The first is {first_bad}. "
            f"{allowed or 'Times'} must be seconds since 1970. "
            "Correct the file, or raise config.data.max_bad_fraction to continue without these rows."
        )
    if num_bad == report[READ]:
        raise DataError(
            f"{source} has no ratings ({reasons or 'no rows at all'}). Set config.data.source to a file with ratings."
        )
    return Account(report, num_lost_lines, first_bad, has_ratings, accounts[-1].has_timestamps)


@contextlib.contextmanager
def _naming_types(part: Part) -> Iterator[None]:
    """Turns a failed conversion of a column into a message with the types of all columns."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
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
            timestamp = _numbers(rows[schema.TIMESTAMP])
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
    """Numbers as float64. Dates and times become seconds since 1970. Any other value becomes NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    elif not pa.types.is_primitive(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        column = pc.if_else(pc.match_substring_regex(text, NUMBER), text, None)
    return column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()


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
        descriptions.append((number, f"row {number} of {part.path}: {reason}, {column} {value!r}"))
    return min(descriptions, default=(0, ""))[1]
