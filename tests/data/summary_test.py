"""What a run says about its data before it trains."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import default
from settings.trainer_config import load_trainer_config
from trainer.config import dataset_arguments
from trainer.data import summary
from trainer.data.arrays import ShardedArray
from trainer.data.loading import load_dataset

COUNTS = {"source": "mine.csv", "rows": {"read": 10, "used": 10, "duplicate": 0, "rating_out_of_range": 0}}


@pytest.fixture
def load(tmp_path):
    """Loads columns of ratings with the default config and some changed arguments."""

    def load(ratings, **changed):
        path = tmp_path / "mine.parquet"
        pq.write_table(pa.table(ratings), path)
        arguments = dataset_arguments(load_trainer_config(default.get_config()))
        return load_dataset(**{**arguments, "source": str(path), **changed})

    return load


def columns(used, *unused):
    return {"columns": {"train": {"used": used, "unused": list(unused)}}}


OURS = {name: name for name in ("user_id", "item_id", "rating", "timestamp")}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, []),
        ({"columns": {}}, []),
        (columns(OURS), []),
        (
            columns(OURS | {"user_id": "userId", "title": "name"}),
            [
                "Columns of mine.csv: user_id = userId, item_id = item_id, rating = rating, timestamp = timestamp, "
                "title = name."
            ],
        ),
        (
            columns(OURS, "note", "session"),
            [
                "Columns of mine.csv: user_id = user_id, item_id = item_id, rating = rating, timestamp = timestamp; "
                "not used: note, session."
            ],
        ),
        (
            columns({"user_id": "user_id", "item_id": "item_id"}),
            ["mine.csv is read without times: its rows count as ordered from old to new."],
        ),
    ],
)
def test_columns_are_named_if_there_is_something_to_say(found, expected):
    assert summary.describe_columns(COUNTS | found) == expected


def test_many_columns_that_are_not_used_are_counted():
    (sentence,) = summary.describe_columns(COUNTS | columns(OURS, *(f"c{number}" for number in range(1012))))
    assert sentence.endswith("not used: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 1,002 others.")


def test_each_source_of_a_given_split_has_its_columns():
    counts = COUNTS | {"sources": {"train": "a.csv", "test": "b.csv"}}
    counts["columns"] = {split: {"used": OURS | {"item_id": split}, "unused": []} for split in ("train", "test")}
    train, test = summary.describe_columns(counts)
    assert train.startswith("Columns of a.csv:") and "item_id = train" in train
    assert test.startswith("Columns of b.csv:") and "item_id = test" in test


@pytest.mark.parametrize(
    ("changed", "dropped", "sentence"),
    [
        ({}, False, "mine.csv: 10 rows read, 10 used."),
        (
            {"read": 1010, "duplicate": 993, "rating_out_of_range": 7},
            True,
            "mine.csv: 1,010 rows read, 10 used (others: 993 duplicate, 7 rating_out_of_range).",
        ),
        # Counted rows are in the ratings of others.
        ({"read": 15, "counted": 5}, False, "mine.csv: 15 rows read, 10 used (others: 5 counted)."),
    ],
)
def test_rows_are_counted_by_what_became_of_them(changed, dropped, sentence):
    counts = COUNTS | {"rows": COUNTS["rows"] | changed}
    assert summary.describe_rows(counts) == sentence and summary.has_dropped_rows(counts) == dropped


def users_over_time(num_old, num_new):
    """Old users rate in both halves of the time, and new users in the second one only."""
    users = [f"old{user}" for user in range(num_old)]
    early, late = users * 10, [*users, *(f"new{user}" for user in range(num_new))]
    num = len(early) + len(late)
    return {
        "user_id": [*early, *late],
        "item_id": [f"i{row}" for row in range(num)],
        "rating": [1.0 + row % 5 for row in range(num)],
        "timestamp": [*np.arange(len(early)), *(10_000 + np.arange(len(late)))],
    }


def test_ratings_of_unknown_users_are_reported_with_the_users_that_are_left(load):
    ratings = users_over_time(num_old=3, num_new=27)
    fraction = 30 / len(ratings["user_id"])
    dataset = load(ratings, split_method="time", validation_fraction=0.0, test_fraction=fraction)
    assert summary.describe_unused_ratings(dataset) == [
        "27 of 30 test ratings (90%) are not used, because their users have no training ratings. 3 users with 3 test "
        "ratings are left."
    ]
    dataset = load(ratings, split_method="random", validation_fraction=0.0, test_fraction=0.2)
    assert summary.describe_unused_ratings(dataset) == []


@pytest.mark.parametrize(("num_new", "is_said"), [(1, False), (2, True)])
def test_a_hundredth_of_the_ratings_is_not_worth_a_sentence(load, num_new, is_said):
    ratings = users_over_time(num_old=99, num_new=num_new)
    fraction = (99 + num_new) / len(ratings["user_id"])
    dataset = load(ratings, split_method="time", validation_fraction=0.0, test_fraction=fraction)
    assert dataset.description["num_ratings_of_unknown_users"]["test"] == num_new
    assert bool(summary.describe_unused_ratings(dataset)) == is_said


def rated(*numbers):
    """Ratings of 1, 2, ... stars, that many of each."""
    stars = np.repeat(np.arange(1.0, len(numbers) + 1), numbers)
    return {
        "user_id": [f"u{row % 7}" for row in range(len(stars))],
        "item_id": [f"i{row}" for row in range(len(stars))],
        "rating": stars,
        "timestamp": np.arange(len(stars)),
    }


@pytest.mark.parametrize(
    ("numbers", "threshold", "says"),
    [
        ((5, 0, 0, 45, 50), 4.0, None),  # 95%
        (
            (4, 0, 0, 36, 60),
            4.0,
            "96.0% of the training ratings are at or above config.eval.relevance_threshold=4, so nearly all count as "
            "relevant, and metrics say little about the model. With --config.eval.relevance_threshold=5 it would be "
            "60.0%.",
        ),
        ((50, 45, 0, 0, 5), 4.0, None),  # 5%
        (
            (40, 56, 0, 0, 4),
            3.5,
            "4.0% of the training ratings are at or above config.eval.relevance_threshold=3.5, so",
        ),
        ((40, 56, 0, 0, 4), 3.5, "hardly any count as relevant"),
        ((40, 56, 0, 0, 4), 3.5, "With --config.eval.relevance_threshold=2 it would be 60.0%."),
        ((1, 0, 0, 1, 98), 4.0, "No other threshold is better, because nearly all ratings are equal."),
    ],
)
def test_a_threshold_that_separates_nothing_is_reported_with_one_that_does(load, numbers, threshold, says):
    dataset = load(rated(*numbers), split_method="none")
    found = summary.describe_relevance(dataset, threshold)
    assert found is None if says is None else says in found
    lists = dataset.lists["train"]
    # As with prepared data of several shards.
    parts = ShardedArray([lists.labels[:30], lists.labels[30:]])
    sharded = dataclasses.replace(dataset, lists={"train": dataclasses.replace(lists, labels=parts)})
    assert summary.describe_relevance(sharded, threshold) == found


def test_events_have_no_threshold(load):
    dataset = load(rated(4, 0, 0, 36, 60), split_method="none", columns=OURS | {"rating": ""})
    assert summary.describe_relevance(dataset, 4.0) is None
