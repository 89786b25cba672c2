"""The columns of a stranger's table are found by their names, or refused with the way out."""

import pyarrow as pa
import pyarrow.parquet
import pytest

from settings.errors import ConfigError, DataError
from tests.conftest import REPOSITORY
from tests.data.ratings.common import items_of, load, rows_of
from trainer.data.ratings.columns import AUTO, NAMES, USUAL_NAMES, recognize

AUTOMATIC = dict.fromkeys(NAMES, AUTO)


def table(*names):
    """A CSV file with a row of 7s under these names."""
    return f"{','.join(names)}\n{','.join('7' * len(names))}\n"


def chosen(*found, **columns):
    return recognize("a.csv", {**AUTOMATIC, **columns}, found=found)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # MovieLens, Amazon, Yelp, RetailRocket, Last.fm, Goodreads, a web shop, and our own names.
        (("userId", "movieId", "rating", "timestamp"), ("userId", "movieId", "rating", "timestamp")),
        (
            ("reviewerID", "asin", "overall", "unixReviewTime", "helpful"),
            ("reviewerID", "asin", "overall", "unixReviewTime"),
        ),
        (("review_id", "user_id", "business_id", "stars", "date"), ("user_id", "business_id", "stars", "date")),
        (("Customer ID", "StockCode", "Score", "event-time"), ("Customer ID", "StockCode", "Score", "event-time")),
        (("USER_ID", "artist id", "Rating", "ts"), ("USER_ID", "artist id", "Rating", "ts")),
        (("user", "book_id", "rating", "date"), ("user", "book_id", "rating", "date")),
        (("user_id", "item_id", "rating", "timestamp"), ("user_id", "item_id", "rating", "timestamp")),
    ],
)
def test_usual_names_are_recognized(header, expected):
    assert tuple(chosen(*header).values()) == expected
    assert list(chosen(*header)) == ["user_id", "item_id", "rating", "timestamp"]


@pytest.mark.parametrize("ours", NAMES)
def test_every_listed_name_is_recognized_in_any_spelling(ours):
    others = [name for name in ("user_id", "item_id", "rating") if name != ours]
    for name in USUAL_NAMES[ours]:
        for spelling in (name, name.upper(), name.replace("_", "-"), name.replace("_", " "), name.title()):
            assert chosen(*others, spelling)[ours] == spelling


def test_no_name_stands_for_two_columns():
    names = [name.replace("_", "") for names in USUAL_NAMES.values() for name in names]
    assert len(names) == len(set(names)) and all(name == name.lower() for name in names)


def test_of_several_names_ours_counts_and_others_are_refused():
    assert chosen("user", "uid", "user_id", "item", "rating")["user_id"] == "user_id"
    says = r"several columns that could be user_id: 'user', 'uid'\. Set config\.data\.columns\.user_id to the right"
    with pytest.raises(DataError, match=says):
        chosen("user", "uid", "item", "rating")
    # An optional column can be left out too. The spelling of our name has to be exact.
    with pytest.raises(DataError, match=r"'Timestamp', 'date'\. Set config\.data\.columns\.timestamp.*or to an empty"):
        chosen("user", "item", "rating", "Timestamp", "date")
    assert chosen("user", "item", "rating", "Timestamp", "date", timestamp="date")["timestamp"] == "date"


def test_a_column_that_the_config_names_has_one_meaning():
    assert chosen("uid", "name", "score", "title", item_id="title")["title"] == "name"
    assert chosen("a", "user", "rating", "score", user_id="a", item_id="user", rating="score") == {
        "user_id": "a",
        "item_id": "user",
        "rating": "score",
    }
    # The time may be a feature beside.
    wanted = {**AUTOMATIC, "feature:time": "time"}
    assert recognize("a", wanted, found=["user", "item", "rating", "time"])["timestamp"] == "time"


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (
            ("who", "item", "rating"),
            ["the ids of the users;", "'who', 'item', 'rating'", "columns.user_id to the name"],
        ),
        (("who", "what", "rating"), ["columns.user_id and config.data.columns.item_id to the names of these columns"]),
        (("user", "item"), ["the ratings;", "--config.data.columns.rating="]),
        (("user;item;rating",), ["separated by commas"]),
    ],
)
def test_a_required_column_that_is_not_recognized_is_refused(tmp_path, header, says):
    path = tmp_path / "a.csv"
    path.write_text(table(*header))
    with pytest.raises(DataError) as refused:
        load(path, columns=AUTOMATIC)
    message = str(refused.value)
    assert message.startswith(f"{path} has no column with a usual name for ") and "\n" not in message
    assert [part for part in says if part not in message] == []


def test_times_may_be_missing_unless_the_order_matters(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user,item,rating\nu,a,4\nu,b,3\n")
    ratings = load(path, columns=AUTOMATIC)
    assert rows_of(ratings) == [("u", "a", 4.0, 0), ("u", "b", 3.0, 1)] and not ratings.has_timestamps
    with pytest.raises(DataError, match=r"the times; .*--config\.data\.columns\.timestamp="):
        load(path, columns=AUTOMATIC, needs_times=True)
    assert rows_of(load(path, columns=AUTOMATIC | {"timestamp": ""}, needs_times=True)) == rows_of(ratings)
    path.write_text("user,item,rating,when\nu,a,4,1\n")
    with pytest.raises(DataError, match="the times;"):
        load(path, columns=AUTOMATIC, needs_times=True)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_file_with_other_names_is_read(tmp_path, kind):
    names = ["note", "Movie_Title", "userId", "movieId", "stars", "ts", "genre"]
    values = ["x", "Film", "u", "i", 3, 5, "War|Drama"]
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table({name: [value] for name, value in zip(names, values, strict=True)}), path)
    else:
        delimiter = {"csv": ",", "tsv": "\t"}[kind]
        path.write_text("".join(delimiter.join(map(str, line)) + "\n" for line in (names, values)))
    ratings = load(path, columns=AUTOMATIC)
    assert rows_of(ratings) == [("u", "i", 3.0, 5)]
    assert items_of(ratings) == {"i": ("Film", ["War", "Drama"])}
    (account,) = ratings.accounts
    assert account.columns.used == {
        "user_id": "userId",
        "item_id": "movieId",
        "rating": "stars",
        "timestamp": "ts",
        "title": "Movie_Title",
        "genres": "genre",
    }
    assert account.columns.unused == ("note",)


def test_an_empty_name_leaves_a_column_out(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating,time,title\nu,a,4,9,Film\n")
    ratings = load(tmp_path / "a.csv", columns=AUTOMATIC | {"rating": "", "timestamp": "", "title": ""})
    assert rows_of(ratings) == [("u", "a", 1.0, 0)] and items_of(ratings) == {"a": ("a", [])}
    assert ratings.accounts[0].columns.unused == ("rating", "time", "title")
    with pytest.raises(ConfigError, match=r"config\.data\.columns\.user_id is empty"):
        load(tmp_path / "a.csv", columns=AUTOMATIC | {"user_id": ""})


def test_a_feature_is_used_and_the_files_of_a_folder_agree(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating,age,b\nu,a,4,9,1\n")
    (tmp_path / "b.csv").write_text("c,user,item,rating,age\n1,u,b,3,9\n")
    ratings = load(tmp_path, columns=AUTOMATIC, features={"query": ("age",)})
    assert ratings.ratings["user_id"].to_pylist() == ["u", "u"]
    assert ratings.accounts[0].columns.unused == ("b", "c")
    (tmp_path / "b.csv").write_text("uid,item,rating,age\nu,b,3,9\n")
    with pytest.raises(DataError, match=r"user_id is in the column 'user' of .*a\.csv, and in the column 'uid' of .*b"):
        load(tmp_path, columns=AUTOMATIC)
    (tmp_path / "b.csv").write_text("user,item,rating,time\nu,b,3,9\n")
    with pytest.raises(DataError, match=r"timestamp is in no column of .*a\.csv, and in the column 'time' of .*b\.csv"):
        load(tmp_path, columns=AUTOMATIC)
    assert len(rows_of(load(tmp_path, columns=AUTOMATIC | {"timestamp": ""}))) == 2


def test_a_name_that_is_there_twice_is_refused_only_where_it_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating,x,x\nu,a,4,1,2\n")
    assert load(tmp_path / "a.csv", columns=AUTOMATIC).accounts[0].columns.unused == ("x",)
    (tmp_path / "a.csv").write_text("user,item,rating,user\nu,a,4,1\n")
    with pytest.raises(
        DataError, match=r"has 2 columns with the name 'user', and config\.data\.columns\.user_id needs"
    ):
        load(tmp_path / "a.csv", columns=AUTOMATIC)


def test_the_columns_of_movielens_are_nothing_to_speak_of(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp,note\n1,10,4.0,5,x\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,Film,War\n")
    assert load(tmp_path, columns=AUTOMATIC).accounts[0].columns is None


def test_the_names_in_the_documentation_are_those_of_the_code():
    text = (REPOSITORY / "docs/data.md").read_text()
    for ours, names in USUAL_NAMES.items():
        assert f"| `{ours}` | {', '.join(f'`{name}`' for name in names)} |" in text
