"""The columns of features come out of every kind of source, row by row."""

import io

import pyarrow as pa
import pyarrow.parquet
import pytest

from settings.errors import ConfigError, DataError
from tests.conftest import SHARED_DATA
from tests.data.ratings.common import authors_bytes, load
from trainer.data.ratings import feature_columns

FEATURES = {"query": ("age",), "item": ("colour", "kinds"), "example": ("place",)}
MOVIELENS_FEATURES = {"query": ("occupation", "age", "gender"), "item": ("genres", "year"), "example": ()}

ROWS = """user,item,stars,time,age,colour,kinds,place
1,10,4,100,24,red,A|B,top
1,11,9,100,25,blue,,bottom
2,10,5,100,,"dark red",B,
1,10,3,200,26,red,C,top
"""


def column(ratings, name):
    return ratings.ratings[feature_columns.column_name(name)].to_pylist()


def test_features_follow_their_rows_through_cleaning_and_duplicates(tmp_path):
    (tmp_path / "a.csv").write_text(ROWS)
    ratings = load(tmp_path / "a.csv", features=FEATURES, max_bad_fraction=0.5)
    # The second row is bad, and the first is an older rating of the pair of the fourth.
    names = ["feature:age", "feature:colour", "feature:kinds", "feature:place"]
    assert ratings.ratings.column_names == ["user_id", "item_id", "rating", "timestamp", *names]
    assert ratings.ratings["rating"].to_pylist() == [5.0, 3.0]
    assert column(ratings, "age") == [None, "26"]
    assert column(ratings, "colour") == ["dark red", "red"]
    assert column(ratings, "kinds") == ["B", "C"]
    assert column(ratings, "place") == [None, "top"]


def test_a_feature_may_be_a_column_that_is_used_otherwise_too(tmp_path):
    (tmp_path / "a.csv").write_text(ROWS)
    ratings = load(tmp_path / "a.csv", features={"example": ("time", "item")}, max_bad_fraction=0.5)
    assert column(ratings, "time") == ["100", "200"] == [str(row) for row in ratings.ratings["timestamp"].to_pylist()]
    assert column(ratings, "item") == ["10", "10"]


def parquet(path, **columns):
    rows = len(next(iter(columns.values())))
    table = pa.table({"user": [1] * rows, "item": list(range(rows)), "stars": [3] * rows, "time": [4] * rows} | columns)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    path.write_bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([7, None, 7]), ["7", None, "7"]),
        (pa.array([1.5, float("nan"), None]), [1.5, None, None]),
        (pa.array(["a", "", None]), ["a", None, None]),
        (pa.array([" a", "a ", "b"]).dictionary_encode(), ["a", "a", "b"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([["x", "y"], [], None]), [["x", "y"], [], None]),
        (pa.array([[1, 2], [], None], pa.large_list(pa.int8())), [["1", "2"], [], None]),
        (pa.nulls(3), [None, None, None]),
    ],
)
def test_parquet_columns_become_text_numbers_or_lists(tmp_path, values, expected):
    parquet(tmp_path / "a.parquet", f=values)
    assert column(load(tmp_path / "a.parquet", features={"example": ("f",)}), "f") == expected


def test_a_column_of_a_wrong_type_is_reported(tmp_path):
    parquet(tmp_path / "a.parquet", f=pa.array([{"x": 1}]))
    with pytest.raises(
        DataError, match=r"a\.parquet has a column of a type.*feature:f: struct.*config\.data\.features"
    ):
        load(tmp_path / "a.parquet", features={"item": ("f",)})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # pandas writes whole numbers as floats if one is missing.
        (pa.array([7, 8]), pa.array([7.0, None]), ["7", "8", "7", None]),
        (pa.array(["a", "b"]), pa.array([1.5, None]), ["a", "b", "1.5", None]),
    ],
)
def test_a_feature_has_one_type_in_all_files(tmp_path, first, second, expected):
    parquet(tmp_path / "a.parquet", f=first)
    parquet(tmp_path / "b.parquet", f=second)
    ratings = load(tmp_path / "a.parquet", tmp_path / "b.parquet", features={"example": ("f",)})
    assert column(ratings, "f") == expected


def test_lists_and_single_values_do_not_mix(tmp_path):
    parquet(tmp_path / "a.parquet", f=pa.array([["x"]]))
    parquet(tmp_path / "b.parquet", f=pa.array(["x"]))
    with pytest.raises(DataError, match="'f' has lists in one file and single values in another"):
        load(tmp_path / "a.parquet", tmp_path / "b.parquet", features={"example": ("f",)})


def test_sources_of_different_kinds_do_not_share_features(tmp_path):
    for name, data in authors_bytes("ratings.dat").items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "b.csv").write_text("user,item,stars,time,genres\n1,10,4,100,Drama\n")
    with pytest.raises(DataError, match="'genres' is a column of some sources and not of others"):
        load(tmp_path, tmp_path / "b.csv", features={"item": ("genres",)})


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_an_unknown_column_is_reported_with_the_columns_there_are(tmp_path, name):
    if name == "a.csv":
        (tmp_path / name).write_text(ROWS)
    else:
        parquet(tmp_path / name, age=pa.array([1]))
    with pytest.raises(ConfigError, match=r"contains 'color', and .*no such column; .*'user', 'item', .*'age'"):
        load(tmp_path / name, features={"item": ("color",)})


def movielens(folder, layout):
    folder.mkdir()
    for name, data in authors_bytes(layout).items():
        (folder / name).write_bytes(data)
    if layout == "u.data":
        (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n3|1|M|none|1\n")
    if layout == "ratings.dat":
        (folder / "users.dat").write_text("2::F::56::16::70072\n1::M::25::15::55117\n")
    return folder


@pytest.mark.parametrize(
    ("layout", "of_users"),
    [
        ("u.data", {"1": ("technician", "24", "M"), "2": ("other", "53", "F")}),
        ("ratings.dat", {"1": ("15", "25", "M"), "2": ("16", "56", "F")}),
    ],
)
def test_movielens_has_features_of_users_and_items(tmp_path, layout, of_users):
    ratings = load(movielens(tmp_path / "ml", layout), features=MOVIELENS_FEATURES)
    found = zip(*(column(ratings, name) for name in ("occupation", "age", "gender")), strict=True)
    assert list(found) == [of_users[user] for user in ratings.ratings["user_id"].to_pylist()]
    rows = {row["item_id"]: row for row in ratings.items.to_pylist()}
    assert rows["10"]["feature:genres"] == ["Comedy", "Romance"]
    assert {item: row["feature:year"] for item, row in rows.items()} == {
        "10": "2001",
        "20": "1990",
        "40": "1991",
        "30": None,
    }


@pytest.mark.parametrize(
    ("layout", "features", "complaint"),
    [
        ("u.data", {"query": ("zip",)}, r"query contains 'zip', .*that it has: age, gender, occupation\. "),
        ("u.data", {"item": ("year", "director")}, r"item contains 'director', .*that it has: genres, year\. "),
        ("u.data", {"example": ("time",)}, r"example contains 'time', .*that it has: none\. "),
        ("ratings.csv", {"query": ("age",)}, r"query contains 'age', .*that it has: none\. "),
    ],
)
def test_a_feature_that_movielens_does_not_have_is_reported(tmp_path, layout, features, complaint):
    with pytest.raises(ConfigError, match=r"config\.data\.features\." + complaint):
        load(movielens(tmp_path / "ml", layout), features=features)


def test_a_file_of_users_with_other_columns_is_reported(tmp_path):
    folder = movielens(tmp_path / "ml", "u.data")
    (folder / "u.user").write_text("1,24,M,technician,85711\n")
    with pytest.raises(DataError, match=r"u\.user does not have the rows of the file u\.user of MovieLens"):
        load(folder, features=MOVIELENS_FEATURES)


def test_synthetic_items_have_genres_and_years():
    ratings = load("synthetic", features={"item": ("year", "genres")})
    rows = ratings.items.to_pylist()
    assert all(row["title"].endswith(f"({row['feature:year']})") for row in rows)
    assert [row["feature:genres"] for row in rows] == ratings.items["genres"].to_pylist()
    with pytest.raises(ConfigError, match="query contains 'age', which synthetic does not have"):
        load("synthetic", features={"query": ("age",)})


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"MovieLens may not be redistributed, and is not at {SHARED_DATA}")
def test_users_of_movielens_100k_are_the_same_from_its_authors_and_from_tensorflow_datasets():
    def users(ratings):
        columns = [column(ratings, name) for name in MOVIELENS_FEATURES["query"]]
        return dict(zip(ratings.ratings["user_id"].to_pylist(), zip(*columns, strict=True), strict=True))

    authors = load(SHARED_DATA / "ml-100k", features=MOVIELENS_FEATURES)
    prepared = load("movielens/100k", data_dir=str(SHARED_DATA / "tfds"), features=MOVIELENS_FEATURES)
    assert users(authors) == users(prepared)
    assert len(users(authors)) == 943
    assert users(authors)["1"] == ("technician", "24", "M")
