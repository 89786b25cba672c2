"""Reading a file of ratings for a trained model."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from settings.errors import DataError, UserError
from tests.serving.planted import VOCABULARY
from trainer.data.features import build_encoder
from trainer.data.ratings.columns import AUTO
from trainer.schema import HISTORY, HISTORY_RATINGS
from trainer.serving.given_ratings import read_given_ratings

COLUMNS = {
    "user_id": "user_id",
    "item_id": "item_id",
    "rating": "rating",
    "timestamp": "timestamp",
    "title": "title",
    "genres": "",
}
ROWS = {
    "user_id": ["w", "u", "w", "w", "w"],
    "item_id": ["c", "b", "nope", "a", "e"],
    "rating": [3.0, 4.0, 5.0, 2.5, 1.0],
    "timestamp": [30, 10, 5, 20, 20],
}
OPTIONS = {"rating_range": (0.0, 5.0), "max_bad_fraction": 0.0}


def read(source, vocabulary=VOCABULARY, **options):
    return read_given_ratings(
        str(source),
        vocabulary,
        **{
            "columns": COLUMNS,
            "has_ratings": True,
            "item_identity": "item_id",
            "history_size": 3,
            **OPTIONS,
            **options,
        },
    )


def write(path, rows):
    table = pa.table(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter=delimiter))
    return path


def without(*names):
    return {name: values for name, values in ROWS.items() if name not in names}


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.parquet"])
def test_the_known_items_of_each_user_are_their_history_in_the_order_of_time(tmp_path, name):
    given = read(write(tmp_path / name, ROWS))
    assert given.user_ids.to_pylist() == ["w", "u"]
    features = given.queries.gather(np.array([0, 1], np.int32))
    # a and e have the same time, and so the order of the rows.
    np.testing.assert_array_equal(features[HISTORY], [[1, 5, 3], [2, 0, 0]])
    np.testing.assert_array_equal(features[HISTORY_RATINGS], [[2.5, 1, 3], [4, 0, 0]])
    assert (given.num_ratings.tolist(), given.num_known.tolist()) == ([4, 1], [3, 1])
    assert given.missing_columns == ()


def test_a_header_may_start_with_a_byte_order_mark_and_have_quotes(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b'\xef\xbb\xbf"item_id","a, b",rating\na,1,3\n')
    assert read(path).missing_columns == ("user_id", "timestamp")


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_without_a_column_of_users_all_rows_are_of_one_user(tmp_path, name):
    rows = without("user_id") | {"item_id": ["c", "b", "nope", "a", "c"]}
    given = read(write(tmp_path / name, rows))
    assert given.user_ids.to_pylist() == ["-"]
    features = given.queries.gather(np.array([0], np.int32))
    # Of the two ratings of c, the later one counts.
    np.testing.assert_array_equal(features[HISTORY], [[2, 1, 3]])
    np.testing.assert_array_equal(features[HISTORY_RATINGS], [[4, 2.5, 3]])
    assert given.missing_columns == ("user_id",)


def test_without_a_column_of_times_the_rows_are_in_order(tmp_path):
    given = read(write(tmp_path / "mine.csv", without("timestamp")))
    np.testing.assert_array_equal(given.queries.gather(np.array([0], np.int32))[HISTORY], [[3, 1, 5]])
    assert given.missing_columns == ("timestamp",)
    columns = COLUMNS | {"timestamp": ""}
    assert read(tmp_path / "mine.csv", columns=columns).missing_columns == ()


def test_ratings_are_needed_by_a_model_of_ratings_alone(tmp_path):
    path = write(tmp_path / "mine.csv", without("rating"))
    with pytest.raises(DataError, match=r"has no column 'rating' with ratings.*Its columns are 'user_id', 'item_id'"):
        read(path)
    given = read(path, has_ratings=False)
    np.testing.assert_array_equal(given.queries.ratings, 1)
    # A model of events does not read ratings, which have another range.
    given = read(write(tmp_path / "rated.csv", ROWS), has_ratings=False)
    np.testing.assert_array_equal(given.queries.ratings, 1)


def test_events_may_be_lines_of_users_and_items(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("w a nope c\nu b\n")
    given = read(path, has_ratings=False)
    np.testing.assert_array_equal(given.queries.gather(np.array([0, 1], np.int32))[HISTORY], [[1, 3, 0], [2, 0, 0]])
    gender = build_encoder("gender", "query", pa.chunked_array([["F", "M"]]))
    given = read(path, dataclasses.replace(VOCABULARY, features=(gender,)), has_ratings=False)
    np.testing.assert_array_equal(given.queries.features["gender"], [0, 0])
    assert given.missing_columns == ("gender",)


def test_the_checks_and_the_messages_are_those_of_training_data(tmp_path):
    path = write(tmp_path / "mine.csv", ROWS | {"rating": [3.0, 4.0, 5.0, 7.0, 1.0]})
    with pytest.raises(DataError, match=r"1 of 5 rows are bad \(1 rating_out_of_range\)"):
        read(path)
    with pytest.raises(UserError, match="there is no such file or folder"):
        read(tmp_path / "missing.csv")
    with pytest.raises(UserError, match="has no column 'item_id'"):
        read(write(tmp_path / "mine.csv", without("item_id")))
    (tmp_path / "mine.csv").write_bytes(b"user_id,item_id,rating\nw,\xff,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        read(tmp_path / "mine.csv")
    (tmp_path / "mine.csv").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read(tmp_path / "mine.csv")
    (tmp_path / "mine.csv").write_bytes(b"x" * 200_000)
    with pytest.raises(DataError, match="does not start with a line of column names"):
        read(tmp_path / "mine.csv")
    (tmp_path / "mine.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UserError, match=r"mine.parquet cannot be read"):
        read(tmp_path / "mine.parquet")


def test_a_malformed_row_is_counted_wherever_it_is(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("item_id,rating\na,3\nb,3,3\nc,2\n")
    with pytest.raises(DataError, match="1 of 3 rows are bad"):
        read(path)
    assert read(path, max_bad_fraction=0.5).num_known.tolist() == [2]


def test_query_features_are_those_of_the_last_row_of_a_user(tmp_path):
    gender = build_encoder("gender", "query", pa.chunked_array([["F", "M"]]))
    age = build_encoder("age", "query", pa.chunked_array([[20.5, 30.5]]))
    vocabulary = dataclasses.replace(VOCABULARY, features=(gender, age))
    path = write(tmp_path / "mine.csv", ROWS | {"gender": ["M", "F", "M", "M", "F"]})
    given = read(path, vocabulary)
    features = given.queries.gather(np.array([0, 1], np.int32))
    np.testing.assert_array_equal(features["gender"], [1, 1])
    np.testing.assert_array_equal(features["age"], [0, 0])
    assert given.missing_columns == ("age",)
    path = write(
        tmp_path / "mine.csv", ROWS | {"gender": ["F", "M", "F", "F", "?"], "age": [1.5, 20.5, 2.5, 3.5, 30.5]}
    )
    features = read(path, vocabulary).queries.gather(np.array([0, 1], np.int32))
    np.testing.assert_array_equal(features["gender"], [0, 2])
    np.testing.assert_allclose(features["age"], [1, -1], rtol=1e-6)


def test_titles_identify_items_where_they_do_in_training(tmp_path):
    path = write(tmp_path / "mine.csv", {"item_id": ["1", "2"], "title": ["b", "e"], "rating": [5.0, 1.0]})
    given = read(path, item_identity="title")
    np.testing.assert_array_equal(given.queries.items, [2, 5])


def test_the_columns_of_a_file_are_recognized_as_those_of_training_data(tmp_path):
    """Here with other names than in training, for a model of ratings with their times."""
    columns = dict.fromkeys(COLUMNS, AUTO)
    path = tmp_path / "mine.csv"
    path.write_text("movieId,Stars,userId,date,timestamps\nc,3,w,1970-01-02,1\na,2.5,w,1970-01-01,2\n")
    given = read(path, columns=columns)
    np.testing.assert_array_equal(given.queries.gather(np.array([0], np.int32))[HISTORY], [[1, 3, 0]])
    assert given.user_ids.to_pylist() == ["w"] and given.missing_columns == ()
    path.write_text("movie,score\nc,3\na,2.5\n")
    given = read(path, columns=columns)
    np.testing.assert_array_equal(given.queries.gather(np.array([0], np.int32))[HISTORY], [[3, 1, 0]])
    assert given.user_ids.to_pylist() == ["-"] and given.missing_columns == ("user_id", "timestamp")
    # All may be equal: one user's favourites.
    path.write_text("movie,score\n" + "".join(f"{item},5\n" for item in "abcdefghijkl"))
    assert read(path, columns=columns).num_ratings.tolist() == [12]
    path.write_text("movie,liked\nc,3\n")
    with pytest.raises(DataError, match=r"usual name for the ratings; .*Give each column of this file the") as refused:
        read(path, columns=columns)
    assert "config." not in str(refused.value)
    assert read(path, columns=columns, has_ratings=False).num_known.tolist() == [1]
    path.write_text("movie,item,score\nc,c,3\n")
    with pytest.raises(DataError, match=r"several columns that could be item_id: 'movie', 'item'\. Give each"):
        read(path, columns=columns)
