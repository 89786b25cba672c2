"""Selects the rows that can be used. Every other row is counted under one reason."""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import items

READ, USED, DUPLICATE = "read", "used", "duplicate"
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

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
WHOLE_FLOAT = r"^(-?\d+)\.0$"

ROWS_PER_CHUNK = 1 << 22
"""An Arrow string array has at most 2 GiB, so the ids are stored in several arrays."""


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
      rows: the columns under our names, of any type. Without a timestamp column the row number is the time.
      first_row: the number of the first row in the file, starting from 1; 2 if the file has a header.
      malformed: the rows of the file that are not in `rows`.
    """

    path: str
    rows: pa.Table
    first_row: int = 1
    malformed: tuple[Malformed, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """The usable rows, and the number of rows of each kind.

    Attributes:
      ratings: schema.RATINGS_SCHEMA.
      items: schema.ITEMS_SCHEMA, from the columns of the ratings.
      report: see `ratings.Ratings`.
    """

    ratings: pa.Table
    items: pa.Table
    report: dict[str, int]


def clean(parts: Iterable[Part], *, source: str, rating_range: tuple[float, float], max_bad_fraction: float) -> Cleaned:
    """Drops the bad rows, and all but the last of a user's ratings of the same item.

    Args:
      parts: the rows, in their order.
      source: the name of all parts together in messages.
      rating_range: the least and the greatest rating, inclusive.
      max_bad_fraction: the largest allowed fraction of bad rows among all rows. A malformed row of several lines
        counts as that many rows. Duplicates are not bad.

    Raises:
      DataError: more rows are bad, or no row can be used.
    """
    report = dict.fromkeys((READ, USED, DUPLICATE, *BAD), 0)
    ratings, named_items = [], []
    first_bad = ""
    num_lost_lines = 0  # Beyond the one line of each bad row.
    for part in parts:
        with _naming_types(part):
            columns = _Columns.of(part, first_row_number=report[READ])
            bad = columns.bad(rating_range)
            is_bad = np.logical_or.reduce(list(bad.values()))
            named_items.append(items.from_rows(part.rows, columns.item_id, ~is_bad))
        report[READ] += len(is_bad) + len(part.malformed)
        report[MALFORMED] += len(part.malformed)
        num_lost_lines += sum(row.num_lines - 1 for row in part.malformed)
        for reason, rows in bad.items():
            report[reason] += int(rows.sum())
        first_bad = first_bad or _describe_first_bad(part, bad, is_bad)
        table = columns.ratings()
        ratings.append(table.filter(pa.array(~is_bad)) if is_bad.any() else table)
        del part, columns, bad, table  # With 25 million rows, these are gigabytes.

    num_bad = sum(report[reason] for reason in BAD)
    reasons = ", ".join(f"{report[reason]:,} {reason}" for reason in BAD if report[reason])
    if num_bad + num_lost_lines > max_bad_fraction * (report[READ] + num_lost_lines):
        least, greatest = rating_range
        lines = f" in {num_bad + num_lost_lines:,} lines" if num_lost_lines else ""
        raise DataError(
            f"{source}: {num_bad:,} of {report[READ]:,} rows{lines} are bad ({reasons}), more than "
            f"config.data.max_bad_fraction={max_bad_fraction:g} allows. The first is {first_bad}. Ratings must be "
            f"from {least:g} to {greatest:g} (config.data.rating_range), and times must be seconds since 1970. "
            "Correct the file, or raise config.data.max_bad_fraction to continue without these rows."
        )
    if num_bad == report[READ]:
        raise DataError(
            f"{source} has no ratings ({reasons or 'no rows at all'}). Set config.data.source to a file with ratings."
        )
    table, all_items = _unify_ids(ratings, pa.concat_tables(named_items))
    kept = _last_of_each_pair(table)
    if kept is not None:
        report[DUPLICATE] = table.num_rows - int(kept.sum())
        table = table.filter(pa.array(kept))
    report[USED] = table.num_rows
    table = pa.Table.from_batches(table.to_batches(max_chunksize=ROWS_PER_CHUNK), table.schema)
    return Cleaned(
        table.cast(schema.RATINGS_SCHEMA),
        items.build(*(all_items[name].to_pylist() for name in schema.ITEMS_SCHEMA.names)),
        report,
    )


def _unify_ids(ratings: list[pa.Table], all_items: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Joins the ratings of all parts and writes equal ids in one way.

    An integer column with a missing value is often stored as floats, so 42 in one file can be 42.0 in another. Ids
    lose a final ".0" if every id of the source that contains a point is such a whole number. Otherwise the point is
    part of the ids, as in 1.0 and 1.5, and all ids are kept.
    """
    for name in (schema.USER_ID, schema.ITEM_ID):
        columns = [table[name].combine_chunks() for table in ratings]
        has_point = pa.chunked_array([column.dictionary for column in columns])
        has_point = has_point.filter(pc.match_substring(has_point, "."))
        if not len(has_point) or not pc.all(pc.match_substring_regex(has_point, WHOLE_FLOAT)).as_py():
            continue
        position = schema.RATINGS_SCHEMA.get_field_index(name)
        ratings = [
            table.set_column(position, name, _without_points(column))
            for table, column in zip(ratings, columns, strict=True)
        ]
        if name == schema.ITEM_ID:
            item_ids = pc.replace_substring_regex(all_items[name], WHOLE_FLOAT, r"\1")
            all_items = all_items.set_column(all_items.schema.get_field_index(name), name, item_ids)
    return pa.concat_tables(ratings).unify_dictionaries().combine_chunks(), all_items


def _without_points(ids: pa.DictionaryArray) -> pa.DictionaryArray:
    # Encoded again, because 42 and 42.0 may both be in the dictionary.
    values = pc.replace_substring_regex(ids.dictionary, WHOLE_FLOAT, r"\1").dictionary_encode()
    return pa.DictionaryArray.from_arrays(values.indices.take(ids.indices), values.dictionary)


@contextlib.contextmanager
def _naming_types(part: Part) -> Iterator[None]:
    """Turns a failed conversion of a column into a message with the types of all columns."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        types = ", ".join(f"{field.name}: {field.type}" for field in part.rows.schema)
        raise DataError(
            f"{part.path} has a column of a type that cannot be used ({types}; {error}). Ids and titles must be text "
            "or numbers, ratings numbers, times numbers or dates, and genres text or lists of text. Set "
            "config.data.columns to other columns."
        ) from error


@dataclasses.dataclass(frozen=True)
class _Columns:
    """The columns of a part, converted. A value that is not a number is NaN. Each column is [num_rows]."""

    user_id: pa.DictionaryArray
    item_id: pa.DictionaryArray
    rating: np.ndarray  # float64
    timestamp: np.ndarray  # float64: exact up to 2^53

    @classmethod
    def of(cls, part: Part, *, first_row_number: int) -> "_Columns":
        rows = part.rows
        if schema.TIMESTAMP in rows.column_names:
            timestamp = _numbers(rows[schema.TIMESTAMP])
        else:
            timestamp = np.arange(first_row_number, first_row_number + rows.num_rows, dtype=np.float64)
        return cls(_ids(rows[schema.USER_ID]), _ids(rows[schema.ITEM_ID]), _numbers(rows[schema.RATING]), timestamp)

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
        """Returns RATINGS_SCHEMA, but with dictionaries for ids. Bad rows have arbitrary numbers."""
        with np.errstate(invalid="ignore", over="ignore"):
            columns = [
                self.user_id,
                self.item_id,
                self.rating.astype(np.float32),
                self.timestamp.astype(np.int64),
            ]
        return pa.table(columns, names=schema.RATINGS_SCHEMA.names)


def _ids(column: pa.ChunkedArray) -> pa.DictionaryArray:
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


def _last_of_each_pair(table: pa.Table) -> np.ndarray | None:
    """Selects the last rating of each pair of a user and an item: by time, then by row.

    Returns:
      bool [num_rows], true for the rows to keep; None if no pair occurs twice.
    """
    user, item = (table[name].combine_chunks() for name in (schema.USER_ID, schema.ITEM_ID))
    pair = user.indices.to_numpy().astype(np.int64) * len(item.dictionary) + item.indices.to_numpy()
    in_order = np.sort(pair)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    if not len(repeated):
        return None
    # The last element is left out, so that the position of a pair greater than all is still valid.
    rows = np.flatnonzero(repeated[np.searchsorted(repeated[:-1], pair)] == pair)
    rows = rows[np.lexsort((rows, table[schema.TIMESTAMP].to_numpy()[rows], pair[rows]))]
    kept: np.ndarray = np.ones(len(pair), bool)
    kept[rows[:-1][pair[rows[:-1]] == pair[rows[1:]]]] = False
    return kept


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
