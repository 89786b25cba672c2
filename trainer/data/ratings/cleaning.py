"""Which rows of a source can be used, whatever it is: every other one is counted, under one reason."""

import contextlib
import dataclasses
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
"""Why a row that could be split into values is bad → the column to blame. The first that applies counts."""

BAD = (MALFORMED, *REASONS)

MAX_TIMESTAMP = 4_102_444_800
"""The year 2100 in seconds since 1970. Times from there on are taken for milliseconds, and refused."""

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
WHOLE_FLOAT = r"^(?:(-?\d+)\.0)?$"

ROWS_A_CHUNK = 1 << 22
"""An Arrow string array holds 2 GiB at most, so the ids are in several."""


@dataclasses.dataclass(frozen=True)
class Malformed:
    """A row that does not have as many values as there are columns, and its number in the file."""

    row: int
    text: str


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of one file, as they are there.

    Attributes:
      path: what messages call it.
      rows: columns by our names, of any type; without one for the timestamp, the row number is the time.
      first_row: the number in the file of the first row, counted from 1: 2 where there is a header.
      malformed: rows of the file that are not among `rows`.
    """

    path: str
    rows: pa.Table
    first_row: int = 1
    malformed: tuple[Malformed, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """What is left, and how many rows went which way.

    Attributes:
      ratings: schema.RATINGS_SCHEMA.
      items: schema.ITEMS_SCHEMA, as far as the rows of the ratings say.
      report: see `ratings.Ratings`.
    """

    ratings: pa.Table
    items: pa.Table
    report: dict[str, int]


def clean(parts: Iterable[Part], *, source: str, rating_range: tuple[float, float], max_bad_fraction: float) -> Cleaned:
    """Drops the bad rows, and all but the last of a user's ratings of an item.

    Args:
      parts: the rows, in their order.
      source: what messages call all of them together.
      rating_range: the least and the greatest rating, inclusive.
      max_bad_fraction: how many bad rows are borne, of all that are read; duplicates are not bad.

    Raises:
      DataError: there are more, or no usable row is left.
    """
    report = dict.fromkeys((READ, USED, DUPLICATE, *BAD), 0)
    ratings, named_items = [], []
    first_bad = ""
    for part in parts:
        with _naming_types(part):
            columns = _Columns.of(part, first_row_number=report[READ])
            bad = columns.bad(rating_range)
            is_bad = np.logical_or.reduce(list(bad.values()))
            named_items.append(items.from_rows(part.rows, columns.item_id, ~is_bad))
        report[READ] += len(is_bad) + len(part.malformed)
        report[MALFORMED] += len(part.malformed)
        for reason, rows in bad.items():
            report[reason] += int(rows.sum())
        first_bad = first_bad or _describe_first_bad(part, bad, is_bad)
        table = columns.ratings()
        ratings.append(table.filter(pa.array(~is_bad)) if is_bad.any() else table)
        del part, columns, bad, table  # With 25 million rows, these are gigabytes.

    num_bad = sum(report[reason] for reason in BAD)
    reasons = ", ".join(f"{report[reason]:,} {reason}" for reason in BAD if report[reason])
    if num_bad > max_bad_fraction * report[READ]:
        least, greatest = rating_range
        raise DataError(
            f"{source}: {num_bad:,} of {report[READ]:,} rows are bad ({reasons}), more than "
            f"config.data.max_bad_fraction={max_bad_fraction:g} allows. The first is {first_bad}. Ratings go "
            f"from {least:g} to {greatest:g} (config.data.rating_range), and times are seconds since 1970. "
            "Mend the file, or raise config.data.max_bad_fraction to go on without these rows."
        )
    if num_bad == report[READ]:
        raise DataError(f"{source} has no ratings ({reasons or 'no rows at all'}): set config.data.source to others.")
    table = pa.concat_tables(ratings).combine_chunks()
    kept = _last_of_each_pair(table)
    if kept is not None:
        report[DUPLICATE] = table.num_rows - int(kept.sum())
        table = table.filter(pa.array(kept))
    report[USED] = table.num_rows
    table = pa.Table.from_batches(table.to_batches(max_chunksize=ROWS_A_CHUNK), table.schema)
    all_items = pa.concat_tables(named_items)
    return Cleaned(
        table.cast(schema.RATINGS_SCHEMA),
        items.build(*(all_items[name].to_pylist() for name in schema.ITEMS_SCHEMA.names)),
        report,
    )


@contextlib.contextmanager
def _naming_types(part: Part) -> Iterator[None]:
    """Says which types the columns have where one cannot be converted."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        types = ", ".join(f"{field.name}: {field.type}" for field in part.rows.schema)
        raise DataError(
            f"{part.path} has a column of a type that cannot be used ({types}; {error}): ids and titles are "
            "text or numbers, ratings are numbers, times numbers or dates, genres text or lists of text. Name "
            "other columns in config.data.columns."
        ) from error


@dataclasses.dataclass(frozen=True)
class _Columns:
    """The columns of a part in the types to judge them by; a number that is none is NaN. All [num_rows]."""

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
        """Reason → the rows that are bad for it and for none before it, bool [num_rows]."""
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
        """RATINGS_SCHEMA, but with dictionaries for ids. Bad rows hold any numbers."""
        with np.errstate(invalid="ignore", over="ignore"):
            columns = [
                self.user_id,
                self.item_id,
                self.rating.astype(np.float32),
                self.timestamp.astype(np.int64),
            ]
        return pa.table(columns, names=schema.RATINGS_SCHEMA.names)


def _ids(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Ids as text; whole numbers without a decimal point, as 42.0 is what 42 becomes where one is missing."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        if pc.all(pc.equal(pc.floor(column), column)).as_py():
            column = column.cast(pa.int64())
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    ids = column.combine_chunks()
    values = ids.dictionary.cast(pa.string())
    if pc.all(pc.match_substring_regex(values, WHOLE_FLOAT)).as_py():
        values = pc.replace_substring_regex(values, WHOLE_FLOAT, r"\1")
    return pa.DictionaryArray.from_arrays(ids.indices.cast(pa.int32()), values)


def _is_missing(ids: pa.DictionaryArray) -> np.ndarray:
    codes = ids.indices.fill_null(-1).to_numpy()
    return (codes == -1) | (codes == pc.index(ids.dictionary, "").as_py())  # the index is -1 where there is none


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers, or seconds since 1970 from dates and times; NaN for what is neither. float64"""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    elif not pa.types.is_primitive(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        column = pc.if_else(pc.match_substring_regex(text, NUMBER), text, None)
    return column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()


def _last_of_each_pair(table: pa.Table) -> np.ndarray | None:
    """Which rows stay where a user rated an item more than once: the last by time, or else in the table.

    Returns:
      bool [num_rows], or None where every pair is there once, which a sort of one column tells.
    """
    user, item = (table[name].combine_chunks() for name in (schema.USER_ID, schema.ITEM_ID))
    pair = user.indices.to_numpy().astype(np.int64) * len(item.dictionary) + item.indices.to_numpy()
    in_order = np.sort(pair)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    if not len(repeated):
        return None
    # Where to look for a pair in `repeated`; the last place, for one that is greater than all, is as good.
    rows = np.flatnonzero(repeated[np.searchsorted(repeated[:-1], pair)] == pair)
    rows = rows[np.lexsort((rows, table[schema.TIMESTAMP].to_numpy()[rows], pair[rows]))]
    kept: np.ndarray = np.ones(len(pair), bool)
    kept[rows[:-1][pair[rows[:-1]] == pair[rows[1:]]]] = False
    return kept


def row_number(part: Part, index: int) -> int:
    """The number in the file of the row at `index` of `part.rows`, malformed rows counted."""
    number = part.first_row + index
    for malformed in part.malformed:  # in the order of the file
        number += malformed.row <= number
    return number


def _describe_first_bad(part: Part, bad: dict[str, np.ndarray], is_bad: np.ndarray) -> str:
    """Where the first bad row of a part is and why; "" where there is none."""
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
