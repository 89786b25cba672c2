"""Small sources of ratings in every format, and the ratings and items that they must be read as."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from trainer import schema
from trainer.data.ratings import Ratings, load_ratings

COLUMNS = {"user_id": "user", "item_id": "item", "rating": "stars", "timestamp": "time"}
WITH_ITEMS = {**COLUMNS, "title": "name", "genres": "kinds"}

THREE_RATINGS = [("1", "10", 4.0, 881250949), ("2", "30", 1.0, 881250950), ("1", "20", 5.0, 881250951)]
THREE_ITEMS = {
    "10": ("Amélie: le destin (2001)", ["Comedy", "Romance"]),
    "20": ("Plain, Jane (1990)", []),
    "40": ("Unrated (1991)", ["Drama"]),
    "30": ("30", []),  # Rated, but missing in the file of items.
}

AUTHORS_FILES = {
    "u.data": {
        "u.data": "1\t10\t4\t881250949\n2\t30\t1\t881250950\n1\t20\t5\t881250951\n",
        "u.item": "10|Amélie: le destin (2001)|25-Apr-2001||http://x|0|1|0|1\n"
        "20|Plain, Jane (1990)|||http://x|1|0|0|0\n40|Unrated (1991)|||http://x|0|0|1|0\n",
        "u.genre": "unknown|0\nComedy|1\nDrama|2\nRomance|3\n\n",
    },
    "ratings.dat": {
        "ratings.dat": "1::10::4::881250949\n2::30::1::881250950\n1::20::5::881250951\n",
        "movies.dat": "10::Amélie: le destin (2001)::Comedy|Romance\n20::Plain, Jane (1990)::\n"
        "40::Unrated (1991)::Drama\n",
    },
    "ratings.csv": {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,881250949\n2,30,1.0,881250950\n1,20,5.0,881250951\n",
        "movies.csv": "movieId,title,genres\n10,Amélie: le destin (2001),Comedy|Romance\n"
        '20,"Plain, Jane (1990)",(no genres listed)\n40,Unrated (1991),Drama\n',
    },
}

TABLE_ROWS = [
    ("u1", "b", 4.0, 100, "Title B", "Drama|Comedy"),
    ("u2", "a", 3.5, 90, "", ""),
    ("u1", "a", 5.0, 110, "Later title", "War"),
]
TABLE_RATINGS = [row[:4] for row in TABLE_ROWS]
TABLE_ITEMS = {"b": ("Title B", ["Drama", "Comedy"]), "a": ("a", [])}


def load(*sources: object, **changes: Any) -> Ratings:
    """Loads ratings with the columns of these tests. No bad row is allowed unless `changes` allows it."""
    arguments = {"columns": COLUMNS, "rating_range": (0.5, 5.0), "max_bad_fraction": 0.0, **changes}
    return load_ratings(*map(str, sources), **arguments)


def rows_of(ratings: Ratings) -> list[tuple]:
    """(user_id, item_id, rating, timestamp) of each rating."""
    assert ratings.ratings.schema == schema.RATINGS_SCHEMA
    assert ratings.items.schema == schema.ITEMS_SCHEMA
    return list(zip(*(column.to_pylist() for column in ratings.ratings.columns), strict=True))


def items_of(ratings: Ratings) -> dict[str, tuple[str, list[str]]]:
    """(title, genres) of each item, by its id."""
    rows = ratings.items.to_pylist()
    assert len({row["item_id"] for row in rows}) == len(rows)
    return {row["item_id"]: (row["title"], row["genres"]) for row in rows}


def authors_bytes(layout: str) -> dict[str, bytes]:
    """The files of a layout of AUTHORS_FILES."""
    encoding = "utf-8" if layout == "ratings.csv" else "latin-1"
    return {name: text.encode(encoding) for name, text in AUTHORS_FILES[layout].items()}


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    """Writes a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def delimited(delimiter: str, rows: list[tuple] = TABLE_ROWS) -> bytes:
    """A text file with a header and these rows."""
    header = ("user", "item", "stars", "time", "name", "kinds")
    return "".join(delimiter.join(map(str, row)) + "\n" for row in (header, *rows)).encode()


def parquet(rows: list[tuple] = TABLE_ROWS) -> bytes:
    """A Parquet file with these rows."""
    names = ["user", "item", "stars", "time", "name", "kinds"]
    table = pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=names)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()
