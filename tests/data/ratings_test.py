"""Every source gives the same tables, every bad row is counted, and every bad file is named."""

import contextlib
import datetime
import decimal
import gzip
import hashlib
import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import ConfigError, DataError, StorageError
from trainer import schema
from trainer.data.ratings import Ratings, cleaning, files, load_ratings, tables
from trainer.data.synthetic import generate_ratings

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
needs_movielens = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason=f"MovieLens 100K may not be shipped, and is not at {SHARED_DATA}"
)

COLUMNS = {"user_id": "user", "item_id": "item", "rating": "stars", "timestamp": "time"}
WITH_ITEMS = {**COLUMNS, "title": "name", "genres": "kinds"}


def _load(source: object, **changes) -> Ratings:
    arguments = {"columns": COLUMNS, "rating_range": (0.5, 5.0), "max_bad_fraction": 0.0, **changes}
    return load_ratings(str(source), **arguments)


def _rows(ratings: Ratings) -> list[tuple]:
    assert ratings.ratings.schema == schema.RATINGS_SCHEMA
    assert ratings.items.schema == schema.ITEMS_SCHEMA
    return list(zip(*(column.to_pylist() for column in ratings.ratings.columns), strict=True))


def _items(ratings: Ratings) -> dict[str, tuple[str, list[str]]]:
    rows = ratings.items.to_pylist()
    assert len({row["item_id"] for row in rows}) == len(rows)
    return {row["item_id"]: (row["title"], row["genres"]) for row in rows}


# ---------------------------------------------------------------------------- MovieLens as distributed

THREE_RATINGS = [("1", "10", 4.0, 881250949), ("2", "30", 1.0, 881250950), ("1", "20", 5.0, 881250951)]
THREE_ITEMS = {
    "10": ("Amélie: le destin (2001)", ["Comedy", "Romance"]),
    "20": ("Plain, Jane (1990)", []),
    "40": ("Unrated (1991)", ["Drama"]),
    "30": ("30", []),  # Rated, but not among the items.
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


def _authors_bytes(layout: str) -> dict[str, bytes]:
    encoding = "utf-8" if layout == "ratings.csv" else "latin-1"
    return {name: text.encode(encoding) for name, text in AUTHORS_FILES[layout].items()}


def _write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("layout", AUTHORS_FILES)
@pytest.mark.parametrize("subfolder", ["", "ml-tiny/"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_reads_movielens_as_its_authors_distribute_it(tmp_path, layout, subfolder, kind):
    members = {subfolder + name: data for name, data in _authors_bytes(layout).items()}
    members["README.txt"] = b"Not a table."
    if kind == "zip":
        source = _write_zip(tmp_path / "ml.zip", members)
    else:
        source = tmp_path / "ml"
        for name, data in members.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
    ratings = _load(source)
    assert _rows(ratings) == THREE_RATINGS
    assert _items(ratings) == THREE_ITEMS
    assert list(_items(ratings)) == ["10", "20", "40", "30"]
    assert ratings.report == {"read": 3, "used": 3, "duplicate": 0, **dict.fromkeys(cleaning.BAD, 0)}


def test_colons_belong_to_a_title_and_a_line_of_latin_1_ends_at_newlines_only(tmp_path):
    (tmp_path / "ratings.dat").write_bytes(b"1::7::4::5\r\n")
    (tmp_path / "movies.dat").write_bytes(b"7::Alien :: Part\x85 2: x (1992)::Horror|Sci-Fi\r\n")
    assert _items(_load(tmp_path)) == {"7": ("Alien :: Part\x85 2: x (1992)", ["Horror", "Sci-Fi"])}


def test_a_folder_with_the_wrong_items_is_named(tmp_path):
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    (tmp_path / "u.item").write_text("only|two\n")
    with pytest.raises(DataError, match=r"u\.item does not have the rows.*config\.data\.columns"):
        _load(tmp_path)


def test_a_movielens_file_of_ratings_with_other_columns_is_named(tmp_path):
    (tmp_path / "ratings.csv").write_text("user,item,stars,time\n1,2,3,4\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n2,Two,Drama\n")
    with pytest.raises(DataError, match=r"ratings\.csv has no column 'userId'.*another dataset's"):
        _load(tmp_path)


@needs_movielens
def test_movielens_100k_is_the_same_from_its_authors_and_from_tensorflow_datasets(capfd):
    authors = _load(SHARED_DATA / "ml-100k")
    prepared = _load("movielens/100k", data_dir=str(SHARED_DATA / "tfds"))
    rows = _rows(authors)
    assert len(rows) == 100_000
    assert sorted(rows) == sorted(_rows(prepared))
    assert len({user for user, *_ in rows}) == 943
    assert rows[:2] == [("196", "242", 3.0, 881250949), ("186", "302", 3.0, 891717742)]

    items, prepared_items = _items(authors), _items(prepared)
    assert len(items) == 1682
    assert len({title for title, _ in items.values()}) == 1664
    assert {item: title for item, (title, _) in items.items()} == {
        item: title for item, (title, _) in prepared_items.items()
    }
    assert items["2"] == prepared_items["2"] == ("GoldenEye (1995)", ["Action", "Adventure", "Thriller"])
    assert items["267"] == prepared_items["267"] == ("unknown", [])
    assert "Dataset" not in "".join(capfd.readouterr())


@needs_movielens
def test_movielens_100k_by_title_in_the_order_of_the_prepared_file():
    by_id = _load("movielens/100k", data_dir=str(SHARED_DATA / "tfds"))
    by_title = _load("movielens/100k", data_dir=str(SHARED_DATA / "tfds"), item_identity="title")
    titles = {item: title for item, (title, _) in _items(by_id).items()}
    assert _rows(by_title) == [(user, titles[item], *rest) for user, item, *rest in _rows(by_id)]
    assert len(_items(by_title)) == 1664
    assert _rows(by_title)[0][:2] == ("138", "One Flew Over the Cuckoo's Nest (1975)")


# ---------------------------------------------------------------------------- TensorFlow Datasets


def test_an_unknown_movielens_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"config\.data\.source is 'movielens/2m'.*movielens/latest-small"):
        _load("movielens/2m")


def test_what_cannot_be_downloaded_says_which_file_goes_where(tmp_path, monkeypatch, capfd):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(StorageError) as raised:
        _load("movielens/1m", data_dir=tmp_path)
    message = str(raised.value)
    assert "https://files.grouplens.org/datasets/movielens/ml-1m.zip" in message
    assert f"{tmp_path}/downloads/manual/ml-1m.zip" in message
    assert "no network" in message
    assert "config.data.source to the path of ml-1m.zip" in message
    assert "".join(capfd.readouterr()) == ""


def test_an_archive_placed_where_the_message_says_is_prepared_without_network(tmp_path, monkeypatch, capfd):
    import tensorflow_datasets as tfds

    members = _authors_bytes("ratings.csv")
    # TensorFlow Datasets insists that every rated movie is among the movies.
    members["movies.csv"] += b"30,Thirty (1930),IMAX\n"
    archive = tmp_path / "downloads" / "manual" / "ml-latest-small.zip"
    archive.parent.mkdir(parents=True)
    _write_zip(archive, {f"ml-latest-small/{name}": data for name, data in members.items()})

    builder = tfds.builder("movielens/latest-small-ratings", data_dir=tmp_path)
    known = type(builder).url_infos[builder.builder_config.download_url]
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(
        type(builder).url_infos,
        builder.builder_config.download_url,
        type(known)(size=archive.stat().st_size, checksum=checksum, filename=known.filename),
    )
    ratings = _load("movielens/latest-small", data_dir=tmp_path)
    assert sorted(_rows(ratings)) == sorted(THREE_RATINGS)
    assert _items(ratings) == {**THREE_ITEMS, "30": ("Thirty (1930)", ["IMAX"])}
    assert "".join(capfd.readouterr()) == ""


# ---------------------------------------------------------------------------- tables

TABLE_ROWS = [
    ("u1", "b", 4.0, 100, "Title B", "Drama|Comedy"),
    ("u2", "a", 3.5, 90, "", ""),
    ("u1", "a", 5.0, 110, "Later title", "War"),
]
TABLE_RATINGS = [row[:4] for row in TABLE_ROWS]
TABLE_ITEMS = {"b": ("Title B", ["Drama", "Comedy"]), "a": ("a", [])}


def _delimited(delimiter: str, rows=TABLE_ROWS) -> bytes:
    header = ("user", "item", "stars", "time", "name", "kinds")
    return "".join(delimiter.join(map(str, row)) + "\n" for row in (header, *rows)).encode()


def _parquet(rows=TABLE_ROWS) -> bytes:
    names = ["user", "item", "stars", "time", "name", "kinds"]
    table = pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=names)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", _delimited(",")),
        ("t.tsv", _delimited("\t")),
        ("t.csv.gz", gzip.compress(_delimited(","))),
        ("t.tsv.gz", gzip.compress(_delimited("\t"))),
        ("t.csv", b"\xef\xbb\xbf" + _delimited(",").replace(b"\n", b"\r\n")),
        ("t.parquet", _parquet()),
    ],
)
def test_reads_a_table(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    for source in (tmp_path / name, tmp_path):  # The file, and the folder that it is in.
        ratings = _load(source, columns=WITH_ITEMS)
        assert _rows(ratings) == TABLE_RATINGS
        assert _items(ratings) == TABLE_ITEMS


def test_a_folder_is_read_in_the_order_of_names_and_its_row_numbers_go_on(tmp_path):
    (tmp_path / "part-1.csv").write_text("user,item,stars\n1,10,4\n1,11,5\n")
    (tmp_path / "part-0.tsv").write_text("user\titem\tstars\n2\t10\t3\n")
    (tmp_path / "_SUCCESS.csv").write_text("")
    (tmp_path / "notes.txt").write_text("")
    ratings = _load(tmp_path, columns={**COLUMNS, "timestamp": ""})
    assert _rows(ratings) == [("2", "10", 3.0, 0), ("1", "10", 4.0, 1), ("1", "11", 5.0, 2)]
    assert _items(ratings) == {"10": ("10", []), "11": ("11", [])}


def test_ids_are_text_as_it_stands_but_whole_floats_lose_their_point(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n007,NA,3,1\nnull,1.50,3,1\n")
    assert [row[:2] for row in _rows(_load(tmp_path / "a.csv"))] == [("007", "NA"), ("null", "1.50")]
    (tmp_path / "b.csv").write_text("user,item,stars,time\n42.0,1,3,1\n,2,3,1\n7.0,3.0,3,1\n")
    rows = _rows(_load(tmp_path / "b.csv", max_bad_fraction=0.5))
    assert [row[:2] for row in rows] == [("42", "1"), ("7", "3.0")]

    def parquet_ids(array: pa.Array) -> list[str]:
        table = pa.table({"user": array, "item": [1, 2], "stars": [1, 2], "time": [1, 2]})
        pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
        return [row[0] for row in _rows(_load(tmp_path / "c.parquet", max_bad_fraction=0.5))]

    assert parquet_ids(pa.array([123456789012, 7])) == ["123456789012", "7"]
    assert parquet_ids(pa.array([123456789012.0, None])) == ["123456789012"]
    assert parquet_ids(pa.array([5.0, float("nan")])) == ["5"]
    assert parquet_ids(pa.array(["x", "y"]).dictionary_encode()) == ["x", "y"]
    assert parquet_ids(pa.array(["x", "y"], pa.large_string())) == ["x", "y"]


def test_parquet_may_hold_times_decimals_and_lists_of_genres(tmp_path):
    when = datetime.datetime(1997, 12, 4, 15, 55, 49, tzinfo=datetime.timezone.utc)
    table = pa.table(
        {
            "user": [1],
            "item": [2],
            "stars": [decimal.Decimal("4.0")],
            "time": pa.array([when], pa.timestamp("us", "UTC")),
            "kinds": [["Drama", "(no genres listed)", "War"]],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    ratings = _load(tmp_path / "a.parquet", columns={**COLUMNS, "genres": "kinds"})
    assert _rows(ratings) == [("1", "2", 4.0, int(when.timestamp()))]
    assert _items(ratings) == {"2": ("2", ["Drama", "War"])}


def test_a_column_of_a_type_without_a_value_a_row_is_named(tmp_path):
    table = pa.table({"user": [1], "item": [2], "stars": [[3]], "time": [4]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has a column of a type.*rating: list"):
        _load(tmp_path / "a.parquet")


def test_quoted_values_may_hold_delimiters_and_newlines(tmp_path):
    (tmp_path / "a.csv").write_text('user,item,stars,time,name,kinds\n1,2,x,4,"One,\ntwo",A\n1,3,4,5,"a, b",A\n')
    ratings = _load(tmp_path / "a.csv", columns=WITH_ITEMS, max_bad_fraction=0.5)
    assert _items(ratings) == {"3": ("a, b", ["A"])}
    assert ratings.report["rating_not_a_number"] == 1


def test_a_quoted_newline_may_lie_where_two_blocks_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 100)
    rows = "".join(f'u,{item},3,{item},"Line\n{item} and more",A\n' for item in range(50))
    (tmp_path / "a.csv").write_text("user,item,stars,time,name,kinds\n" + rows)
    ratings = _load(tmp_path / "a.csv", columns=WITH_ITEMS)
    assert _items(ratings) == {str(item): (f"Line\n{item} and more", ["A"]) for item in range(50)}


# ---------------------------------------------------------------------------- bad rows

DIRTY = """user,item,stars,time
1,10,4,100
,10,4,100
1,,4,100
1,12,four,100
1,13,NaN,100
1,14,inf,100
1,15,,100
1,16,5.5,100
1,17,0.4,100
1,18,4,-1
1,19,4,881250949000
1,20,4,yesterday
1,21,4,
1,22,4
1,23, 5 , 101.0
"""


@pytest.mark.parametrize("make", ["text", "parquet"])
def test_each_bad_row_is_counted_under_its_reason(tmp_path, make):
    if make == "text":
        path = tmp_path / "a.csv"
        path.write_text(DIRTY)
    else:
        path = tmp_path / "a.parquet"
        lines = [line.split(",") for line in DIRTY.splitlines() if line.count(",") == 3]
        columns = [[value or None for value in column] for column in zip(*lines[1:], strict=True)]
        pyarrow.parquet.write_table(pa.table(columns, names=lines[0]), path)
    ratings = _load(path, max_bad_fraction=1.0)
    assert _rows(ratings) == [("1", "10", 4.0, 100), ("1", "23", 5.0, 101)]
    malformed = int(make == "text")
    assert ratings.report == {
        "read": 14 + malformed,
        "used": 2,
        "duplicate": 0,
        "malformed_row": malformed,
        "user_id_missing": 1,
        "item_id_missing": 1,
        "rating_not_a_number": 4,
        "rating_out_of_range": 2,
        "timestamp_not_seconds": 4,
    }
    assert list(_items(ratings)) == ["10", "23"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["1,2,3,4", ",2,3,4"], "row 3 of .*a.csv: user_id_missing, user_id ''"),
        (["1,2,3,4", "1,5,9,4"], "row 3 of .*a.csv: rating_out_of_range, rating 9.0"),
        (["1,2,3,4", "1,5,ten,4"], "row 3 of .*a.csv: rating_not_a_number, rating 'ten'"),
        (["1,5,4,881250949000"], "row 2 of .*: timestamp_not_seconds, timestamp 881250949000"),
        (["1,5,4,4", "1,5,inf,4"], "row 3 of .*: rating_not_a_number, rating inf"),
        (["1,5,4,4", "1,2", "1,5,ten,4"], "row 3 of .*: malformed_row, '1,2'"),
        (["1,5,ten,4", "1,2"], "row 2 of .*: rating_not_a_number"),
    ],
)
def test_too_many_bad_rows_are_refused_with_the_first_of_them(tmp_path, lines, complaint):
    (tmp_path / "a.csv").write_text("\n".join(["user,item,stars,time", *lines]) + "\n")
    with pytest.raises(DataError, match=complaint) as raised:
        _load(tmp_path / "a.csv")
    assert "config.data.max_bad_fraction=0 " in str(raised.value)
    assert f"of {len(lines)} rows are bad" in str(raised.value)


def test_the_row_number_counts_malformed_rows_and_the_file_is_the_right_one(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n1,2,3,4\n")
    (tmp_path / "b.csv").write_text("user,item,stars,time\n1\n1,2,3,4\n2\n1,2,x,4\n")
    (tmp_path / "c.csv").write_text("user,item,stars,time\n1,2,3,4\n1,2,x,4\n")
    with pytest.raises(DataError, match=r"row 2 of .*/b\.csv: malformed_row"):
        _load(tmp_path)
    part = cleaning.Part("b", pa.table({}), 2, (cleaning.Malformed(2, "1"), cleaning.Malformed(4, "2")))
    assert [cleaning.row_number(part, index) for index in range(3)] == [3, 5, 6]


def test_max_bad_fraction_is_the_most_that_is_borne(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n1,2,3,4\n1,3,3,4\n1,4,3,4\n1,5,9,4\n")
    assert _load(tmp_path / "a.csv", max_bad_fraction=0.25).report["used"] == 3
    with pytest.raises(DataError, match=r"1 of 4 rows are bad \(1 rating_out_of_range\)"):
        _load(tmp_path / "a.csv", max_bad_fraction=0.24)


def test_rating_range_is_inclusive(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n1,2,0.1,4\n1,3,0.7,4\n")
    assert len(_rows(_load(tmp_path / "a.csv", rating_range=(0.1, 0.7)))) == 2
    with pytest.raises(DataError, match="rating_out_of_range"):
        _load(tmp_path / "a.csv", rating_range=(0.2, 0.7))


def test_the_last_of_a_users_ratings_of_an_item_stays(tmp_path):
    (tmp_path / "a.csv").write_text(
        "user,item,stars,time\n"
        "1,10,1,300\n1,10,2,100\n"  # The first is the later.
        "1,11,1,100\n2,11,5,100\n1,11,3,100\n"  # As late as each other: the lower row.
        "2,10,4,50\n"
    )
    ratings = _load(tmp_path / "a.csv")
    assert _rows(ratings) == [
        ("1", "10", 1.0, 300),
        ("2", "11", 5.0, 100),
        ("1", "11", 3.0, 100),
        ("2", "10", 4.0, 50),
    ]
    assert ratings.report["duplicate"] == 2


def test_duplicates_are_found_across_files(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n5,10,1,100\n")
    (tmp_path / "b.csv").write_text("user,item,stars,time\n4,9,1,100\n5,10,2,200\n")
    assert _rows(_load(tmp_path)) == [("4", "9", 1.0, 100), ("5", "10", 2.0, 200)]


def test_items_of_one_title_become_one_and_no_rating_is_lost(tmp_path):
    rows = [("1", "a", 4, 1, "Same", "War"), ("1", "b", 2, 2, "Same", ""), ("1", "c", 3, 3, "Other", "")]
    (tmp_path / "a.csv").write_bytes(_delimited(",", rows))
    ratings = _load(tmp_path / "a.csv", columns=WITH_ITEMS, item_identity="title")
    assert [row[1] for row in _rows(ratings)] == ["Same", "Same", "Other"]
    assert _items(ratings) == {"Same": ("Same", ["War"]), "Other": ("Other", [])}
    with pytest.raises(ConfigError, match=r"config\.data\.item_identity is 'name'.*item_id, title"):
        _load(tmp_path / "a.csv", item_identity="name")


ids = st.sampled_from(["", "1", "2", "3", None])
numbers = st.sampled_from(["", "1", "5", "9", "x", "NaN", "-3", "1e3", "4102444800", "1e400", ".", None])


@given(
    rows=st.lists(st.tuples(ids, ids, numbers, numbers), min_size=1, max_size=30),
    malformed=st.integers(0, 3),
    split=st.integers(0, 30),
)
@settings(deadline=None, max_examples=150)
def test_no_row_is_lost(rows, malformed, split):
    names = ("user_id", "item_id", "rating", "timestamp")

    def part(some: list) -> cleaning.Part:
        table = pa.table({name: pa.array([row[i] for row in some], pa.string()) for i, name in enumerate(names)})
        return cleaning.Part("rows", table, 1, tuple(cleaning.Malformed(row + 1, "") for row in range(malformed)))

    def number(text: str | None) -> float:
        with contextlib.suppress(ValueError, TypeError):
            return float(text)
        return float("nan")

    good = {}  # The independent count: pair → its ratings, in time and then in the rows' order.
    for position, (user, item, stars, time) in enumerate(rows):
        if user and item and 1 <= number(stars) <= 5 and 0 <= number(time) < 4102444800:
            good.setdefault((user, item), []).append((int(number(time)), position, number(stars)))
    parts = [part(rows[:split]), part(rows[split:])]
    if not good:
        with pytest.raises(DataError, match="has no ratings"):
            cleaning.clean(parts, source="rows", rating_range=(1, 5), max_bad_fraction=1.0)
        return
    cleaned = cleaning.clean(parts, source="rows", rating_range=(1, 5), max_bad_fraction=1.0)
    report = cleaned.report
    assert report["read"] == len(rows) + 2 * malformed
    assert report["read"] == sum(count for name, count in report.items() if name != "read")
    assert report["used"] == cleaned.ratings.num_rows == len(good)
    assert report["duplicate"] == sum(map(len, good.values())) - len(good)
    assert {(row["user_id"], row["item_id"]): row["rating"] for row in cleaned.ratings.to_pylist()} == {
        pair: max(of_pair)[2] for pair, of_pair in good.items()
    }


# ---------------------------------------------------------------------------- bad files and bad config


@pytest.mark.parametrize("source", ["", "no/such/folder", "ratings.csv"])
def test_a_path_where_nothing_is_names_the_field(source):
    with pytest.raises(ConfigError, match=rf"config\.data\.source is '{source}', and nothing is there"):
        _load(source)


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("a.csv", b"", "a.csv cannot be read .*[Ee]mpty"),
        ("a.csv", b"user,item,stars,time\n", "has no ratings .no rows at all"),
        ("a.csv", b"user,item,stars,time\n1,\xff\xfe,3,4\n", "a.csv is not UTF-8 text"),
        ("a.csv", b"user,item,time\n1,2,3\n", r"no column 'stars' for rating.*'user', 'item', 'time'.*columns\.rating"),
        ("a.csv.gz", gzip.compress(_delimited(",") * 50)[:-20], "a.csv.gz is damaged or cut short"),
        ("a.csv.gz", b"user,item\n", "a.csv.gz is damaged or cut short"),
        ("a.parquet", _parquet()[:-9], "a.parquet cannot be read"),
        ("a.parquet", b"", "a.parquet cannot be read"),
        ("a.parquet", _parquet().replace(b"stars", b"strrs"), r"no column 'stars'.*columns\.rating"),
        ("a.zip", b"PK not a zip", "a.zip is damaged or cut short"),
        ("a.xlsx", b"x", r"a\.xlsx is of no format that is read here.*\.parquet"),
    ],
)
def test_a_bad_file_is_named_with_the_way_out(tmp_path, name, data, complaint):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=complaint) as raised:
        _load(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_tables_says_what_was_found(tmp_path):
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    with pytest.raises(DataError, match=r"u\.data with u\.item.*found: u\.data"):
        _load(tmp_path)


def test_a_required_column_without_a_name_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(_delimited(","))
    with pytest.raises(ConfigError, match=r"config\.data\.columns\.rating is empty"):
        _load(tmp_path / "a.csv", columns={**COLUMNS, "rating": ""})


def test_a_damaged_member_of_an_archive_is_named(tmp_path):
    members = _authors_bytes("ratings.csv")
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    path.write_bytes(path.read_bytes().replace(b"Unrated", b"Unfated"))
    with pytest.raises(DataError, match=r"movies\.csv is damaged or cut short"):
        _load(path)


def test_a_member_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = _write_zip(tmp_path / "ml.zip", _authors_bytes("ratings.csv"))
    monkeypatch.setattr(files, "MAX_MEMBER_BYTES", 20)
    with pytest.raises(DataError, match=r"movies\.csv in .*ml\.zip has \d+ bytes when unpacked"):
        _load(path)


def test_an_archive_is_never_unpacked_to_disk(tmp_path, monkeypatch):
    path = _write_zip(tmp_path / "ml.zip", {**_authors_bytes("u.data"), "../../evil.csv": b"x", "/abs/u.data": b"x"})
    monkeypatch.chdir(tmp_path)
    assert _rows(_load(path)) == THREE_RATINGS
    assert sorted(tmp_path.rglob("*")) == [path]


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    from trainer.compat import tf

    (tmp_path / "a.csv").write_bytes(_delimited(","))

    def refuse(*args, **kwargs):
        raise tf.errors.PermissionDeniedError(None, None, "permission denied")

    monkeypatch.setattr(tf.io.gfile, "GFile", refuse)
    with pytest.raises(StorageError, match=r"a\.csv cannot be read \(permission denied\)"):
        _load(tmp_path / "a.csv")


def test_synthetic_ratings_come_with_the_seed():
    ratings, planted = _load("synthetic", seed=3), generate_ratings(seed=3)
    assert ratings.ratings.equals(planted.ratings)
    assert ratings.items.equals(planted.items)
    assert ratings.report["used"] == 100_000
