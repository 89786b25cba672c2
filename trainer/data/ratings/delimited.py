"""Reads CSV and TSV files so that no row is lost or made up.

Arrow parses the text. Every file is also scanned for its lines, and the numbers of lines and records must agree. They
differ only if a quoted value has a line break. Then the quotes are checked one by one, because a missing quote looks
the same: it turns many rows into one long value.
"""

import codecs
import contextlib
import csv
import dataclasses
import io
import re
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import files
from trainer.data.ratings.cleaning import Malformed, Part, row_number
from trainer.data.ratings.columns import OPTIONAL, columns_of_table, recognize, unique

BLOCK_BYTES = 8 << 20
"""A file is parsed in blocks of this size, on all cores. No line and no record may be longer."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
QUOTE = b'"'

_PARSE_ERRORS = (pa.ArrowInvalid, pa.ArrowKeyError)


@dataclasses.dataclass(frozen=True)
class Format:
    """How the values of a text file are separated.

    Attributes:
      delimiter: the character between values.
      quote: the character around values that contain a delimiter or a line break; '"', or "" for none.
      names: the names of all columns of a file without a header.
    """

    delimiter: str
    quote: str = '"'
    names: tuple[str, ...] = ()


def read(
    path: str,
    file: pa.NativeFile,
    format: Format,
    *,
    columns: Mapping[str, str],
    optional: Collection[str] = OPTIONAL,
    way_out: str = "",
) -> Part:
    """Reads a delimited text file.

    Args:
      path: the name for the file in messages.
      file: the open file, which is closed afterwards.
      format: how values are separated.
      columns, optional, way_out: see `columns.recognize`.

    Raises:
      ConfigError: the file lacks the column of a feature.
      DataError: the file cannot be parsed, lacks another column, or a quote in it is missing or misplaced.
    """
    with files.reading(path), file:
        lines = _scan(file)
        if lines.longest > BLOCK_BYTES:
            raise DataError(
                f"{path} has {lines.longest:,} bytes in line {_line_number(file, lines.start_of_longest)}. At most "
                f"{BLOCK_BYTES:,} bytes are read per line. Check that this is a text file with one rating per line."
            )
        found = format.names or _header(path, file, format)
        columns = recognize(path, columns, found=found, optional=optional, way_out=way_out)
        part = _parse_strictly(path, file, format, columns, line_breaks=lines.has_quote)
        if part is None:
            part = _parse_again(path, file, format, columns, has_quote=lines.has_quote)
        _check_num_records(path, file, format, part, columns, num_lines=lines.num_lines)
    table = columns_of_table(path, columns, found=found)
    return dataclasses.replace(part, rows=renamed(part.rows, columns), columns=table)


@dataclasses.dataclass(frozen=True)
class _Lines:
    """The lines of a file that are not blank."""

    num_lines: int
    longest: int  # bytes
    start_of_longest: int  # position in the file
    has_quote: bool


def _scan(file: pa.NativeFile) -> _Lines:
    num_lines = longest = start_of_longest = 0
    has_quote = False
    position = line_start = _skip_byte_order_mark(file)
    while chunk := file.read(BLOCK_BYTES):
        has_quote = has_quote or QUOTE in chunk
        codes = np.frombuffer(chunk, np.uint8)
        is_end = codes == ord("\n")
        if b"\r" in chunk:
            is_end |= codes == ord("\r")
        starts: np.ndarray = np.append(line_start, np.flatnonzero(is_end) + (position + 1))
        sizes = np.diff(starts) - 1
        num_lines += int(np.count_nonzero(sizes))
        position += len(chunk)
        line_start = int(starts[-1])
        if len(sizes) and sizes.max() > longest:
            longest, start_of_longest = int(sizes.max()), int(starts[sizes.argmax()])
    if position - line_start > longest:
        longest, start_of_longest = position - line_start, line_start
    return _Lines(num_lines + (position > line_start), longest, start_of_longest, has_quote)


def _skip_byte_order_mark(file: pa.NativeFile) -> int:
    """Moves to the first character of the text and returns its position."""
    file.seek(0)
    if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
        file.seek(0)
    return file.tell()


def _line_number(file: pa.NativeFile, position: int) -> int:
    file.seek(0)
    text = file.read(position)
    return 1 + text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


def _header(path: str, file: pa.NativeFile, format: Format) -> list[str]:
    _skip_byte_order_mark(file)
    text = io.TextIOWrapper(file, "utf-8", newline="")
    reader = csv.reader(text, delimiter=format.delimiter, quoting=csv.QUOTE_MINIMAL if format.quote else csv.QUOTE_NONE)
    try:
        for values in reader:
            if values:
                return values
    except csv.Error as error:
        raise DataError(
            f"{path} does not start with a line of column names ({error}). Check that it is a text file with one "
            "rating per line and the names of the columns in the first line."
        ) from error
    finally:
        text.detach()
    raise DataError(f"{path} is empty. Set config.data.source to a file with ratings.")


def _parse_strictly(
    path: str, file: pa.NativeFile, format: Format, columns: Mapping[str, str], *, line_breaks: bool
) -> Part | None:
    """The rows of a file without bad rows; None if it has some. Times are numbers, or text in all rows."""
    for time in (pa.int64(), pa.string()):
        types = {schema.RATING: pa.float64(), schema.TIMESTAMP: time}
        # Arrow's faster search for the end of a block does not understand quotes.
        with contextlib.suppress(*_PARSE_ERRORS):
            return _parse(path, file, format, columns, types, strict=True, line_breaks=line_breaks)
    return None


def _parse(
    path: str,
    file: pa.NativeFile,
    format: Format,
    columns: Mapping[str, str],
    types: Mapping[str, pa.DataType],
    *,
    strict: bool,
    line_breaks: bool,
) -> Part:
    """The rows under the names that the columns have in the file.

    Args:
      types: the types of some of our columns. The others are dictionaries of text.
      strict: whether to fail on a row with too few or too many values. If not, such rows are listed as malformed.
      line_breaks: whether quoted values may contain line breaks.
    """
    malformed: list[Malformed] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        malformed.append(Malformed(row.number, row.text))
        return "skip"

    text = pa.dictionary(pa.int32(), pa.string())
    file.seek(0)
    table = pyarrow.csv.read_csv(
        file,
        # Arrow numbers malformed rows only if it parses them one after the other.
        read_options=pyarrow.csv.ReadOptions(
            use_threads=strict, block_size=BLOCK_BYTES, column_names=list(format.names)
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=format.delimiter,
            quote_char=format.quote or False,
            newlines_in_values=line_breaks and bool(format.quote),
            invalid_row_handler=None if strict else skip,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=unique(columns),
            column_types={file_name: types.get(ours, text) for ours, file_name in columns.items()},
            # Any other text that is not a number, such as NA, is reported as it stands in the file.
            null_values=[""],
        ),
    )
    return Part(path, table, 1 if format.names else 2, tuple(malformed))


def _parse_again(
    path: str, file: pa.NativeFile, format: Format, columns: Mapping[str, str], *, has_quote: bool
) -> Part:
    """Parses a file with bad rows. They are malformed, or `cleaning` counts their values that are not numbers."""
    _check_utf8(file)  # Arrow passes the text of a malformed row to Python, and cannot raise the error of other bytes.
    try:
        types = {schema.RATING: pa.string(), schema.TIMESTAMP: pa.string()}
        return _parse(path, file, format, columns, types, strict=False, line_breaks=True)
    except _PARSE_ERRORS as error:
        if format.quote and has_quote:
            _check_quotes(path, file, format)
        if "UTF8" in str(error):
            raise
        raise DataError(
            f"{path} cannot be parsed ({error}). Check that it is a text file with one rating per line, and with the "
            "same number of values in each line."
        ) from error


def _check_utf8(file: pa.NativeFile) -> None:
    """Raises UnicodeDecodeError unless the whole file is UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    file.seek(0)
    while chunk := file.read(BLOCK_BYTES):
        decoder.decode(chunk)
    decoder.decode(b"", final=True)


def _check_num_records(
    path: str, file: pa.NativeFile, format: Format, part: Part, columns: Mapping[str, str], *, num_lines: int
) -> None:
    """Raises DataError unless the rows that were read are all the records of the file."""
    num_records = part.rows.num_rows + len(part.malformed) + (0 if format.names else 1)
    if num_records == num_lines:
        return
    expected = num_lines
    if format.quote:
        expected -= _check_quotes(path, file, format)
        _check_line_breaks(path, part, columns)
    if num_records != expected:
        raise DataError(
            f"{path} has {expected:,} records in {num_lines:,} lines, but {num_records:,} records were read. Write "
            "the file again with one record per line, or convert it to Parquet."
        )


def _check_quotes(path: str, file: pa.NativeFile, format: Format) -> int:
    """Checks that every quoted value with a line break ends where a value may end.

    Returns:
      The number of lines that start inside a quoted value, without blank lines.

    Raises:
      DataError: a quote is not closed, or a value with a line break goes on after its closing quote.
    """
    start = _skip_byte_order_mark(file)
    text = file.read()
    ends = re.escape(format.delimiter.encode()) + rb"\r\n"
    # A quote counts only at the start of a value. The groups: the value, its closing quote, and what follows it.
    quoted = re.compile(rb'(?<![^%b])"([^"]*(?:""[^"]*)*)("?)([^%b]*)' % (ends, ends))
    # A line that starts in a value starts with a character of the value or with its closing quote.
    line_start = re.compile(rb"[\r\n](?![\r\n])")
    num_inside = 0
    for match in quoted.finditer(text):
        value, closing_quote, rest = match.groups()
        has_line_break = b"\n" in value or b"\r" in value
        if not closing_quote:
            problem = "The quote that opens a value there is never closed"
        elif has_line_break and rest:
            problem = "A quoted value there has a line break, and text follows its closing quote"
        elif len(value) > BLOCK_BYTES:
            problem = f"A quoted value there has {len(value):,} bytes, more than the {BLOCK_BYTES:,} that are read"
        else:
            num_inside += len(line_start.findall(value)) if has_line_break else 0
            continue
        raise DataError(
            f"{path} has a quote too many or too few in line {_line_number(file, start + match.start())}. {problem}, "
            "so rows would be lost. Correct the quotes of this line."
        )
    return num_inside


def _check_line_breaks(path: str, part: Part, columns: Mapping[str, str]) -> None:
    """Raises DataError if an id, a rating or a timestamp has a line break: it is several rows in one value."""
    for ours in (schema.USER_ID, schema.ITEM_ID, schema.RATING, schema.TIMESTAMP):
        if ours not in columns or pa.types.is_primitive(part.rows[columns[ours]].type):
            continue
        has_line_break = pc.match_substring_regex(part.rows[columns[ours]].cast(pa.string()), r"[\r\n]")
        index = pc.index(has_line_break, True).as_py()
        if index >= 0:
            raise DataError(
                f"{path} has a line break in the {ours} of row {row_number(part, index)}. A quote is probably missing "
                "there, so rows would be lost. Correct the quotes of this row."
            )


def renamed(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """The table with our column names."""
    return pa.table({ours: table[file_name] for ours, file_name in columns.items()})
