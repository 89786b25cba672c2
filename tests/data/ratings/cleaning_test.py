"""Every row is either used or counted as bad."""

import ast
import contextlib

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import DataError
from tests.data.ratings.common import COLUMNS, WITH_ITEMS, delimited, items_of, load, rows_of
from trainer.data.ratings import cleaning, merging

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

ids = st.sampled_from(["", "1", "2", "3", None])
numbers = st.sampled_from(["", "1", "5", "9", "x", "NaN", "-3", "1e3", "4102444800", "1e400", ".", None])


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
    ratings = load(path, max_bad_fraction=1.0)
    assert rows_of(ratings) == [("1", "10", 4.0, 100), ("1", "23", 5.0, 101)]
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
    assert list(items_of(ratings)) == ["10", "23"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["1,2,3,4", ",2,3,4"], "row 3 of .*a.csv: user_id_missing, user_id ''"),
        (["1,2,3,4", "1,5,9,4"], "row 3 of .*a.csv: rating_out_of_range, rating 9.0"),
        (["1,2,3,4", "1,5,ten,4"], "row 3 of .*a.csv: rating_not_a_number, rating 'ten'"),
        (["1,5,4,881250949000"], "row 2 of .*: timestamp_not_seconds, timestamp 881250949000"),
        (["1,5,4,4", "1,5,inf,4"], "row 3 of .*: rating_not_a_number, rating inf"),
        (["1,5,4,4", "1,5,nan,4"], "row 3 of .*: rating_not_a_number, rating nan. Ratings must be numbers from 0.5 to"),
        (["1,5,4,4", "1,5,NA,4"], "row 3 of .*: rating_not_a_number, rating 'NA'"),
        (["1,5,4,4", "1,5,,4"], "row 3 of .*: rating_not_a_number, rating is missing"),
        (["1,5,4,4", "1,2", "1,5,ten,4"], "row 3 of .*: malformed_row, '1,2'"),
        (["1,5,ten,4", "1,2"], "row 2 of .*: rating_not_a_number"),
    ],
)
def test_too_many_bad_rows_are_refused_and_the_first_is_reported(tmp_path, lines, complaint):
    (tmp_path / "a.csv").write_text("\n".join(["user,item,stars,time", *lines]) + "\n")
    with pytest.raises(DataError, match=complaint) as raised:
        load(tmp_path / "a.csv")
    assert "config.data.max_bad_fraction=0 " in str(raised.value)
    assert f"of {len(lines)} rows are bad" in str(raised.value)


def test_row_numbers_count_malformed_rows_and_are_those_of_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n1,2,3,4\n")
    (tmp_path / "b.csv").write_text("user,item,stars,time\n1\n1,2,3,4\n2\n1,2,x,4\n")
    (tmp_path / "c.csv").write_text("user,item,stars,time\n1,2,3,4\n1,2,x,4\n")
    with pytest.raises(DataError, match=r"row 2 of .*/b\.csv: malformed_row"):
        load(tmp_path)
    part = cleaning.Part("b", pa.table({}), 2, (cleaning.Malformed(2, "1"), cleaning.Malformed(4, "2")))
    assert [cleaning.row_number(part, index) for index in range(3)] == [3, 5, 6]


def test_max_bad_fraction_is_the_largest_allowed_fraction(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n1,2,3,4\n1,3,3,4\n1,4,3,4\n1,5,9,4\n")
    assert load(tmp_path / "a.csv", max_bad_fraction=0.25).report["used"] == 3
    with pytest.raises(DataError, match=r"1 of 4 rows are bad \(1 rating_out_of_range\)"):
        load(tmp_path / "a.csv", max_bad_fraction=0.24)


def test_rating_range_is_inclusive(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n1,2,0.1,4\n1,3,0.7,4\n")
    assert len(rows_of(load(tmp_path / "a.csv", rating_range=(0.1, 0.7)))) == 2
    with pytest.raises(DataError, match="rating_out_of_range"):
        load(tmp_path / "a.csv", rating_range=(0.2, 0.7))


def test_the_last_of_a_users_ratings_of_an_item_is_kept(tmp_path):
    (tmp_path / "a.csv").write_text(
        "user,item,stars,time\n"
        "1,10,1,300\n1,10,2,100\n"  # The first one is later.
        "1,11,1,100\n2,11,5,100\n1,11,3,100\n"  # The same time: the lower row is the last.
        "2,10,4,50\n"
    )
    ratings = load(tmp_path / "a.csv")
    assert rows_of(ratings) == [
        ("1", "10", 1.0, 300),
        ("2", "11", 5.0, 100),
        ("1", "11", 3.0, 100),
        ("2", "10", 4.0, 50),
    ]
    assert ratings.report["duplicate"] == 2


def test_duplicates_are_found_across_files(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n5,10,1,100\n")
    (tmp_path / "b.csv").write_text("user,item,stars,time\n4,9,1,100\n5,10,2,200\n")
    assert rows_of(load(tmp_path)) == [("4", "9", 1.0, 100), ("5", "10", 2.0, 200)]


def test_items_with_the_same_title_become_one_and_no_rating_is_lost(tmp_path):
    rows = [("1", "a", 4, 1, "Same", "War"), ("1", "b", 2, 2, "Same", ""), ("1", "c", 3, 3, "Other", "")]
    (tmp_path / "a.csv").write_bytes(delimited(",", rows))
    ratings = load(tmp_path / "a.csv", columns=WITH_ITEMS, item_identity="title")
    assert [row[1] for row in rows_of(ratings)] == ["Same", "Same", "Other"]
    assert items_of(ratings) == {"Same": ("Same", ["War"]), "Other": ("Other", [])}


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

    good = {}  # Pair → its ratings, sorted by time and then by row.
    for position, (user, item, stars, time) in enumerate(rows):
        if user and item and 1 <= number(stars) <= 5 and 0 <= number(time) < 4102444800:
            good.setdefault((user, item), []).append((int(number(time)), position, number(stars)))
    parts = [part(rows[:split]), part(rows[split:])]
    if not good:
        with pytest.raises(DataError, match="has no ratings"):
            cleaning.clean(parts, source="rows", rating_range=(1, 5), max_bad_fraction=1.0)
        return
    cleaned = cleaning.clean(parts, source="rows", rating_range=(1, 5), max_bad_fraction=1.0)
    merged = merging.merge([cleaned], duplicates="once")
    (report,) = merged.reports
    assert report["read"] == len(rows) + 2 * malformed
    assert report["read"] == sum(count for name, count in report.items() if name != "read")
    assert report["used"] == merged.ratings.num_rows == len(good)
    assert report["duplicate"] == sum(map(len, good.values())) - len(good)
    assert {(row["user_id"], row["item_id"]): row["rating"] for row in merged.ratings.to_pylist()} == {
        pair: max(of_pair)[2] for pair, of_pair in good.items()
    }


@pytest.mark.parametrize(
    ("stars", "says", "silent"),
    [
        (
            [1, 10, 4],
            ["from 1 to 10", '--config.data.rating_range="(1.0, 10.0)"', "relevance_threshold", "for example 8."],
            ["2^rating", "Times must"],
        ),
        ([2, 6.5], ['--config.data.rating_range="(2.0, 6.5)"', "for example 5.2."], []),
        ([7, 7], ["from 0.5 to 5 (config.data.rating_range)"], ["were found"]),
        ([-10, 10], ["from -10 to 10", "to another scale", "--config.data.columns.rating= "], ["rating_range="]),
        ([1, 250], ["from 1 to 250", "to another scale"], ["rating_range="]),
    ],
)
def test_ratings_on_another_scale_are_refused_with_the_range_that_fits(tmp_path, stars, says, silent):
    """In two files, so that the range is that of all files."""
    for number, rating in enumerate(stars):
        (tmp_path / f"{number}.csv").write_text(f"user,item,stars,time\n1,{number},{rating},4\n")
    with pytest.raises(DataError) as refused:
        load(tmp_path)
    message = str(refused.value)
    assert [part for part in says if part not in message] == [] == [part for part in silent if part in message]
    (range_field,) = [part for part in says if "rating_range=" in part] or [""]
    if range_field:
        low, high = ast.literal_eval(range_field.split('"')[1])
        assert load(tmp_path, rating_range=(low, high)).report["used"] == len(stars)


def test_the_account_has_the_limits_of_all_and_of_usable_ratings(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n1,2,3,4\n1,3,x,4\n1,4,9,4\n")
    (tmp_path / "b.csv").write_text("user,item,stars,time\n1,5,0.75,4\n,6,0.6,4\n")
    (account,) = load(tmp_path, max_bad_fraction=0.9).accounts
    assert account.found_ratings == (0.6, 9.0) and account.used_ratings == (0.75, 3.0)
    (account,) = load(tmp_path, columns=COLUMNS | {"rating": ""}, max_bad_fraction=0.9).accounts
    assert account.found_ratings is account.used_ratings is None
