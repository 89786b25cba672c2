"""A split that is given is used as it is."""

import numpy as np
import pytest

from configs import default
from settings.errors import DataError
from settings.trainer_config import load_trainer_config
from tests.conftest import SHARED_DATA
from trainer.config import dataset_arguments
from trainer.data.loading import load_dataset
from trainer.schema import HISTORY


@pytest.fixture
def load(tmp_path):
    """Loads texts of lines "user item item ..." as a given split."""

    def load(train, test, validation="", **arguments):
        sources = {}
        for field, text in (("source", train), ("test_source", test), ("validation_source", validation)):
            (tmp_path / f"{field}.txt").write_text(text)
            sources[field] = str(tmp_path / f"{field}.txt") if text else ""
        given = {**sources, "split_method": "given", "validation_fraction": 0.0, "list_size": 4}
        return load_dataset(**{**dataset_arguments(load_trainer_config(default.get_config())), **given, **arguments})

    return load


def pairs(dataset, split):
    """(user id, item id) of each rating of a split. The id of an unknown item is ""."""
    users, items, ratings = dataset.ratings[split]
    assert (ratings == 1).all()
    user_ids, item_ids = (
        dataset.vocabulary.users["user_id"].to_pylist(),
        dataset.vocabulary.items["item_id"].to_pylist(),
    )
    return [(user_ids[user], item_ids[item]) for user, item in zip(users, items, strict=True)]


def test_each_source_is_the_split_of_its_name(load):
    dataset = load("a x y\nb x z\n", "a z new\nc x\n", "b y\n", history_size=4)
    assert pairs(dataset, "train") == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z")]
    assert pairs(dataset, "validation") == [("b", "y")]
    assert pairs(dataset, "test") == [("a", "z"), ("a", "")]
    description = dataset.description
    assert description["num_ratings_of_unknown_users"] == {"train": 0, "validation": 0, "test": 1}
    assert list(description["sources"]) == ["train", "validation", "test"]
    assert {split: report["used"] for split, report in description["rows_by_source"].items()} == {
        "train": 4,
        "validation": 1,
        "test": 3,
    }
    assert description["rows"]["used"] == 8
    assert (dataset.has_ratings, dataset.has_timestamps) == (False, False)
    # In lines the order of the file is the order in time, and validation comes after training.
    item_ids = dataset.vocabulary.items["item_id"].to_pylist()
    history = dataset.query_source("train", "validation").gather(np.array([2], np.int32))[HISTORY][0]
    assert [item_ids[item] for item in history] == ["x", "z", "y", ""]


def test_test_pairs_that_are_in_training_too_are_kept_and_counted(load):
    dataset = load("a x y\nb x z w\n", "a x z new\nb w x\n")
    assert pairs(dataset, "test") == [("a", "x"), ("a", "z"), ("a", ""), ("b", "w"), ("b", "x")]
    assert dataset.description["num_test_pairs_in_train"] == 3
    assert load("a x y\nb x z\n", "a z\n").description["num_test_pairs_in_train"] == 0
    assert load("a x y\nb z\n", "a z\n", "a z\n").description["num_test_pairs_in_train"] == 1
    # The items that training does not know are different ones, although they have the same index.
    assert load("a x y\n", "a new\n", "a other\n").description["num_test_pairs_in_train"] == 0


def test_a_validation_split_is_taken_from_training_and_never_from_test(load):
    train = "".join(f"u{user} " + " ".join(f"i{item}" for item in range(10)) + "\n" for user in range(5))
    test = "".join(f"u{user} " + " ".join(f"i{item}" for item in range(10, 14)) + "\n" for user in range(5))
    dataset = load(train, test, validation_fraction=0.2)
    assert {split: len(columns[0]) for split, columns in dataset.ratings.items()} == {
        "train": 40,
        "validation": 10,
        "test": 20,
    }
    assert sorted(pairs(dataset, "train") + pairs(dataset, "validation")) == sorted(
        (f"u{user}", f"i{item}") for user in range(5) for item in range(10)
    )
    assert np.bincount(dataset.ratings["validation"][0]).tolist() == [0, 2, 2, 2, 2, 2]
    assert pairs(load(train, test, validation_fraction=0.2, seed=1), "validation") != pairs(dataset, "validation")


def test_a_test_source_with_other_ids_is_refused(load):
    with pytest.raises(DataError, match=r"All 2 ratings of the test split are .*Check that its ids are those"):
        load("a x y\n", "other x y\n")


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"MovieLens may not be redistributed, and is not at {SHARED_DATA}")
@pytest.mark.parametrize(
    ("name", "num_users", "num_items", "num_train", "num_test"),
    [("ml-1m-lcf", 6022, 3043, 796_244, 99_455), ("gowalla", 29_858, 40_981, 810_128, 217_242)],
)
def test_the_published_splits_are_read_whole(name, num_users, num_items, num_train, num_test):
    folder = SHARED_DATA / "published" / name
    arguments = dataset_arguments(load_trainer_config(default.get_config()))
    given = {
        "source": str(folder / "train.txt"),
        "test_source": str(folder / "test.txt"),
        "split_method": "given",
        "validation_fraction": 0.0,
    }
    description = load_dataset(**{**arguments, **given}).description
    assert (description["num_users"], description["num_items"]) == (num_users, num_items)
    assert description["num_ratings"] == {"train": num_train, "test": num_test}
    assert description["num_test_pairs_in_train"] == 0
