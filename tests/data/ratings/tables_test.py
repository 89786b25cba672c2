"""Tables in every format are read as the same ratings."""

import datetime
import decimal
import gzip
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest

from settings.errors import DataError
from tests.conftest import REPOSITORY
from tests.data.ratings.common import (
    COLUMNS,
    TABLE_ITEMS,
    TABLE_RATINGS,
    WITH_ITEMS,
    delimited,
    items_of,
    load,
    parquet,
    rows_of,
)
from trainer.data.synthetic import generate_ratings


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", delimited(",")),
        ("t.tsv", delimited("\t")),
        ("t.csv.gz", gzip.compress(delimited(","))),
        ("t.tsv.gz", gzip.compress(delimited("\t"))),
        ("t.csv", b"\xef\xbb\xbf" + delimited(",").replace(b"\n", b"\r\n")),
        ("t.parquet", parquet()),
    ],
)
def test_reads_a_table(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    for source in (tmp_path / name, tmp_path):  # The file, and its folder.
        ratings = load(source, columns=WITH_ITEMS)
        assert rows_of(ratings) == TABLE_RATINGS
        assert items_of(ratings) == TABLE_ITEMS


def test_a_folder_is_read_in_the_order_of_names_with_continuous_row_numbers(tmp_path):
    (tmp_path / "part-1.csv").write_text("user,item,stars\n1,10,4\n1,11,5\n")
    (tmp_path / "part-0.tsv").write_text("user\titem\tstars\n2\t10\t3\n")
    (tmp_path / "_SUCCESS.csv").write_text("")
    (tmp_path / "notes.txt").write_text("")
    ratings = load(tmp_path, columns={**COLUMNS, "timestamp": ""})
    assert rows_of(ratings) == [("2", "10", 3.0, 0), ("1", "10", 4.0, 1), ("1", "11", 5.0, 2)]
    assert items_of(ratings) == {"10": ("10", []), "11": ("11", [])}


def test_ids_are_text_and_whole_floats_lose_their_point(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n007,NA,3,1\nnull,1.50,3,1\n")
    assert [row[:2] for row in rows_of(load(tmp_path / "a.csv"))] == [("007", "NA"), ("null", "1.50")]
    (tmp_path / "b.csv").write_text("user,item,stars,time\n42.0,1,3,1\n,2,3,1\n7.0,3.0,3,1\n")
    of_b = rows_of(load(tmp_path / "b.csv", max_bad_fraction=0.5))
    assert [row[:2] for row in of_b] == [("42", "1"), ("7", "3")]

    def parquet_ids(array: pa.Array) -> list[str]:
        table = pa.table({"user": array, "item": [1, 2], "stars": [1, 2], "time": [1, 2]})
        pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
        return [row[0] for row in rows_of(load(tmp_path / "c.parquet", max_bad_fraction=0.5))]

    assert parquet_ids(pa.array([123456789012, 7])) == ["123456789012", "7"]
    assert parquet_ids(pa.array([123456789012.0, None])) == ["123456789012"]
    assert parquet_ids(pa.array([5.0, float("nan")])) == ["5"]
    assert parquet_ids(pa.array(["x", "y"]).dictionary_encode()) == ["x", "y"]
    assert parquet_ids(pa.array(["x", "y"], pa.large_string())) == ["x", "y"]


def test_parquet_may_contain_times_decimals_and_lists_of_genres(tmp_path):
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
    ratings = load(tmp_path / "a.parquet", columns={**COLUMNS, "genres": "kinds"})
    assert rows_of(ratings) == [("1", "2", 4.0, int(when.timestamp()))]
    assert items_of(ratings) == {"2": ("2", ["Drama", "War"])}


def test_a_column_of_a_wrong_type_is_reported(tmp_path):
    table = pa.table({"user": [1], "item": [2], "stars": [[3]], "time": [4]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has a column of a type.*rating: list"):
        load(tmp_path / "a.parquet")


def test_synthetic_ratings_come_with_the_seed():
    ratings, planted = load("synthetic", seed=3), generate_ratings(seed=3)
    assert ratings.ratings.equals(planted.ratings)
    assert ratings.items.equals(planted.items)
    assert ratings.report["used"] == 100_000


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # pandas writes integers as floats if one is missing.
        (["42.0", "7.0"], ["42", "8"], ["42", "7", "42", "8"]),
        (["42.0", "abc"], ["42", "8"], ["42", "abc", "42", "8"]),
        (["42", "42.0"], ["42.0", "007"], ["42", "42", "42", "007"]),
        # Here the point is part of the ids.
        (["1.0", "2.0"], ["1", "1.5"], ["1.0", "2.0", "1", "1.5"]),
        (["1.0", "v2.0"], ["1", "2"], ["1.0", "v2.0", "1", "2"]),
    ],
)
@pytest.mark.parametrize("column", ["user", "item"])
def test_ids_are_written_in_one_way_in_all_files(tmp_path, column, first, second, expected):
    other = {"user": "item", "item": "user"}[column]
    for name, ids, start in (("a.csv", first, 0), ("b.csv", second, 10)):
        lines = [f"{column},{other},stars,time", *(f"{id_},{start + i},3,4" for i, id_ in enumerate(ids))]
        (tmp_path / name).write_text("\n".join(lines))
    ratings = load(tmp_path)
    assert [row[0 if column == "user" else 1] for row in rows_of(ratings)] == expected
    if column == "item":
        assert items_of(ratings) == {item: (item, []) for item in expected}


def test_a_rating_with_another_spelling_of_its_ids_is_a_duplicate(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n42.0,7.0,1,100\n")
    (tmp_path / "b.csv").write_text("user,item,stars,time\n42,7,5,200\n")
    ratings = load(tmp_path)
    assert rows_of(ratings) == [("42", "7", 5.0, 200)]
    assert ratings.report["duplicate"] == 1


def test_tables_and_synthetic_ratings_become_lists_without_tensorflow(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user,item,stars,time\n1,2,3,4\n1,3,4,5\n1,4,4,6\n")
    code = f"""
import sys
from trainer.data.loading import load_dataset
for source in ({str(path)!r}, "synthetic"):
    dataset = load_dataset(
        source=source, data_dir="", columns={COLUMNS!r}, rating_range=(1, 5), max_bad_fraction=0, seed=1,
        item_identity="item_id", split_method="last", validation_fraction=0, test_fraction=0.3, list_size=2,
    )
    dataset.lists["train"].gather(dataset.lists["train"].offsets[:1])
sys.exit("tensorflow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
