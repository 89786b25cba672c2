"""Tables that cannot be used: CSV, TSV, Parquet and lines of items."""

import datetime
import gzip
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.reliability.corpus import DATA, Case, Place

HEADER = "user_id,item_id,rating,timestamp,title\n"


def rows(number: int = 40, **changed: str) -> str:
    """Ratings as CSV, in which `changed` replaces values of the first row."""
    lines = []
    for row in range(number):
        values = {"user_id": f"u{row % 8}", "item_id": f"i{row % 10}", "rating": str(1 + row % 5)}
        values |= {"timestamp": str(1000 + row), "title": f"Film {row % 10}"}
        lines.append(",".join((values | (changed if row == 0 else {})).values()))
    return "".join(f"{line}\n" for line in lines)


def csv(name: str, content: bytes | str, says: str, *flags: str, file: str = "ratings.csv") -> Case:
    return Case(name, lambda place: place.train_on(place.file(file, content), *flags), DATA, says)


def bad_value(name: str, says: str, **changed: str) -> Case:
    return csv(name, HEADER + rows(**changed), says)


def table(**changed: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "user_id": [f"u{row % 8}" for row in range(40)],
        "item_id": [f"i{row % 10}" for row in range(40)],
        "rating": [1.0 + row % 5 for row in range(40)],
        "timestamp": list(range(40)),
        "title": [f"Film {row % 10}" for row in range(40)],
    }
    return pa.table({name: values for name, values in (columns | changed).items() if values is not None})


def parquet(name: str, says: str, found: pa.Table | None = None, *flags: str, **changed: Any) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        path = place.path("ratings.parquet")
        pq.write_table(found if found is not None else table(**changed), path)
        return place.train_on(str(path), *flags)

    return Case(name, make, DATA, says)


def parquet_bytes(place: Place) -> bytes:
    path = place.folder / "made.parquet"
    pq.write_table(table(), path)
    content = path.read_bytes()
    path.unlink()
    return content


def damaged_parquet(name: str, damage: Any, says: str) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        return place.train_on(place.file("ratings.parquet", damage(parquet_bytes(place))))

    return Case(name, make, DATA, says)


DUPLICATED = pa.Table.from_arrays([*table().columns, table()["rating"]], names=[*table().column_names, "rating"])

GOOD = HEADER + rows()

CASES = [
    csv("an empty file", b"", "ratings.csv is empty"),
    csv("a file of blank lines", b"\n\r\n\n", "ratings.csv is empty"),
    csv("a byte order mark alone", b"\xef\xbb\xbf", "ratings.csv is empty"),
    csv("a header alone", HEADER, "ratings.csv has no ratings (no rows at all)"),
    csv("no header", rows(), "has no column with a usual name for"),
    csv("semicolons", GOOD.replace(",", ";"), "has no column with a usual name for"),
    csv("tabs in a CSV file", GOOD.replace(",", "\t"), "has no column with a usual name for"),
    csv("UTF-16", GOOD.encode("utf-16"), "is not UTF-8 text"),
    csv("Latin-1", GOOD.replace("Film", "Café").encode("latin-1"), "is not UTF-8 text"),
    csv("bytes that are no text", bytes(range(256)) * 20, "ratings.csv"),
    csv("NUL bytes alone", b"\0" * 1000, "has no column with a usual name for"),
    csv("a NUL byte in a rating", HEADER + rows(rating="4\0"), "rating_not_a_number, rating '4\\x00'"),
    csv("an HTML page", b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "has no column with a usual name for"),
    csv("one line of nine million bytes", HEADER + "x" * 9_000_000 + "\n", "9,000,000 bytes in line 2"),
    csv(
        "a header of a million columns",
        ",".join(f"c{i}" for i in range(100_000)) + "\n1\n",
        "has no column with a usual name for",
    ),
    csv("a quote that is never closed", HEADER + rows(title='"Film'), "has a quote too many or too few in line 2"),
    csv("a line break in an id", HEADER + rows(user_id='"u\n1"'), "has a line break in the user_id of row 2"),
    csv("too few values", HEADER + "u1,i1\n" + rows(), "malformed_row, 'u1,i1'"),
    csv("too many values", HEADER + "u1,i1,3,1,A,B,C\n" + rows(), "malformed_row, 'u1,i1,3,1,A,B,C'"),
    csv("a column twice", HEADER.replace("title", "title,rating") + rows(title="A,5"), "2 columns with the name"),
    csv("a column that is missing", GOOD.replace("item_id", "thing"), "has no column with a usual name for the ids of"),
    csv(
        "two columns of users",
        GOOD.replace("user_id", "uid").replace("title", "user"),
        "several columns that could be user_id",
        "--config.data.columns.title=",
    ),
    csv("no users", HEADER + rows(1, user_id="") * 20, "20 user_id_missing"),
    csv("no items", HEADER + rows(1, item_id="") * 20, "20 item_id_missing"),
    csv("users of one item each", HEADER + "".join(f"u{i},i1,{i % 5},1,A\n" for i in range(20)), "config.split"),
    csv("a single row", HEADER + rows(1), "config.split"),
    csv("equal ratings", HEADER + rows(1, rating="4") * 1 + "".join(f"u{i},i{i},4,1,A\n" for i in range(20)), "are 4"),
    bad_value("a rating that is not a number", "rating_not_a_number, rating nan", rating="nan"),
    bad_value("an infinite rating", "rating_not_a_number, rating inf", rating="inf"),
    bad_value("a rating of minus infinity", "rating_not_a_number, rating -inf", rating="-inf"),
    bad_value("a rating that is too large for a float", "rating_out_of_range, rating", rating="1e300"),
    bad_value("a rating with an enormous exponent", "rating_not_a_number", rating="1e99999"),
    bad_value("a word as a rating", "rating_not_a_number, rating 'five'", rating="five"),
    bad_value("no rating", "rating_not_a_number, rating is missing", rating=""),
    bad_value("a rating below the range", "rating_out_of_range, rating -1.0", rating="-1"),
    bad_value("a rating above the range", "rating_out_of_range, rating 5.5", rating="5.5"),
    bad_value("a rating with a decimal comma", "rating_not_a_number, rating '4,5'", rating='"4,5"'),
    bad_value("a negative time", "timestamp_not_seconds, timestamp -1", timestamp="-1"),
    bad_value("milliseconds", "looks like milliseconds: divide by 1000", timestamp="1700000000000"),
    bad_value("a time in the far future", "timestamp_not_seconds, timestamp 4102444800", timestamp="4102444800"),
    bad_value("a time of 30 digits", "timestamp_not_seconds", timestamp="9" * 30),
    bad_value("a word as a time", "timestamp_not_seconds, timestamp 'yesterday'", timestamp="yesterday"),
    csv("a TSV file of commas", GOOD, "has no column with a usual name for", file="ratings.tsv"),
    csv("lines without items", b"u1\nu2\n", "has no line with a user and an item", file="lines.txt"),
    csv("an empty file of lines", b"", "has no line with a user and an item", file="lines.txt"),
    csv("lines that are not UTF-8", b"u1 i1\nu2 \xff\n", "bytes in line 2 that are not UTF-8", file="lines.txt"),
    csv("a truncated gzip file", gzip.compress(GOOD.encode())[:-20], "is damaged or incomplete", file="r.csv.gz"),
    csv("a gzip file of text", GOOD, "is damaged or incomplete", file="ratings.csv.gz"),
    csv("a gzip file with a wrong checksum", gzip.compress(GOOD.encode())[:-8] + b"\0" * 8, "damaged", file="r.csv.gz"),
    csv("another format", GOOD, "none of the formats that can be read", file="ratings.xlsx"),
    csv("a CSV file as Parquet", GOOD, "ratings.parquet cannot be read", file="ratings.parquet"),
    csv("an empty Parquet file", b"", "ratings.parquet cannot be read", file="ratings.parquet"),
    damaged_parquet("half a Parquet file", lambda content: content[: len(content) // 2], "cannot be read"),
    damaged_parquet("a Parquet file without its first bytes", lambda content: content[100:], "cannot be read"),
    damaged_parquet(
        "Parquet with zeros in its footer", lambda content: content[:-200] + b"\0" * 192 + content[-8:], "c"
    ),
    parquet("Parquet of another schema", "has no column with a usual name for", pa.table({"a": [1], "b": [2]})),
    parquet("Parquet without rows", "has no ratings (no rows at all)", table().slice(0, 0)),
    parquet("two Parquet columns of one name", "2 columns with the name 'rating'", DUPLICATED),
    parquet("Parquet ratings that are text", "rating_not_a_number, rating 'good'", rating=["good"] * 40),
    parquet("Parquet ratings that are lists", "column of a type that cannot be used", rating=[[1.0]] * 40),
    parquet("Parquet ratings that are structs", "column of a type that cannot be used", rating=[{"stars": 1.0}] * 40),
    parquet("Parquet ratings that are dates", "ratings.parquet", rating=[datetime.date(2020, 1, 1)] * 40),
    parquet("Parquet ratings that are missing", "rating_not_a_number", rating=pa.nulls(40)),
    parquet("Parquet ids that are missing", "40 user_id_missing", user_id=pa.nulls(40)),
    parquet("Parquet ids that are structs", "column of a type that cannot be used", item_id=[{"id": "i1"}] * 40),
    parquet("Parquet ids that are no UTF-8", "ratings.parquet", user_id=pa.array([b"\xff\xfe"] * 40, pa.binary())),
    parquet("Parquet titles that are numbers in lists", "column of a type", title=[[1, 2]] * 40),
    parquet(
        "Parquet times that are in the year 9999",
        "timestamp_not_seconds",
        timestamp=pa.array([datetime.datetime(9999, 1, 1)] * 40, pa.timestamp("us")),
    ),
    parquet(
        "Parquet ids with line breaks, and no usable row",
        "40 rating_out_of_range",
        user_id=["u\n1\x1b[31m"] * 40,
        rating=[9.0] * 40,
    ),
]
