"""Each row of each kind of source is used or counted, and `max_bad_fraction` is the largest fraction of bad rows."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet
import pytest

from settings.errors import DataError
from trainer.data.ratings import load_ratings
from trainer.data.ratings.accounts import BAD, DUPLICATE, READ, USED

ROWS = [(user, item, (user + item) % 5 + 1, 1000 + user) for user in range(4) for item in range(4)]
ROWS = [*ROWS, (0, 0, 5, 2000), (9, 9, 99, 1), (9, 8, "x", 1), (9, 7, 3, -1), (9, 6, "nan", 1)]
"""Sixteen pairs, one of them twice, and four bad rows of 21."""


def text(delimiter: str, header: str = "") -> bytes:
    lines = [delimiter.join(map(str, row)) for row in ROWS]
    return "".join(f"{line}\n" for line in ([header] if header else []) + lines).encode()


def as_parquet() -> bytes:
    content = io.BytesIO()
    columns = [pa.array(map(str, column)) for column in zip(*ROWS, strict=True)]
    pyarrow.parquet.write_table(pa.table(columns, ["user_id", "item_id", "rating", "timestamp"]), content)
    return content.getvalue()


MOVIES = "".join(f"{item}::Film::Drama\n" for item in range(10)).encode()
SOURCES = {
    "ratings.csv": {"ratings.csv": text(",", "user_id,item_id,rating,timestamp")},
    "ratings.tsv": {"ratings.tsv": text("\t", "user_id\titem_id\trating\ttimestamp")},
    "ratings.csv.gz": {"ratings.csv.gz": gzip.compress(text(",", "user_id,item_id,rating,timestamp"))},
    "ratings.parquet": {"ratings.parquet": as_parquet()},
    "ml-csv": {
        "ml-csv/ratings.csv": text(",", "userId,movieId,rating,timestamp"),
        "ml-csv/movies.csv": b"movieId,title,genres\n1,Film,Drama\n",
    },
    "ml-100k": {"ml-100k/u.data": text("\t"), "ml-100k/u.item": b"1|Film|1995||http://a|1\n"},
    "ml-1m": {"ml-1m/ratings.dat": text("::"), "ml-1m/movies.dat": MOVIES},
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_row_is_used_or_counted_and_the_largest_bad_fraction_is_kept(tmp_path, source):
    for name, content in SOURCES[source].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    columns = {**dict.fromkeys(("user_id", "item_id", "rating", "timestamp"), "auto"), "title": "", "genres": ""}
    reading = {"columns": columns, "rating_range": (0.0, 5.0)}
    found = load_ratings(str(tmp_path / source), max_bad_fraction=4 / len(ROWS), **reading)
    bad = {reason: number for reason in BAD if (number := found.report[reason])}
    assert bad == {"rating_out_of_range": 1, "rating_not_a_number": 2, "timestamp_not_seconds": 1}
    assert (found.report[READ], found.report[USED], found.report[DUPLICATE]) == (len(ROWS), 16, 1)
    assert found.report[READ] == found.report[USED] + found.report[DUPLICATE] + sum(bad.values())
    assert found.ratings.num_rows == 16 and max(found.ratings["timestamp"].to_pylist()) == 2000
    with pytest.raises(DataError, match=rf"4 of {len(ROWS)} rows are bad .* more than config.data.max_bad_fraction"):
        load_ratings(str(tmp_path / source), max_bad_fraction=3.99 / len(ROWS), **reading)
