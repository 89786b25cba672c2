"""Which rating is in which split, told once and the same to everybody."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import default
from settings.errors import DataError
from tests.conftest import NUM_ITEMS, NUM_USERS, planted_ratings
from trainer.config import dataset_arguments
from trainer.data.dataset import load_dataset
from trainer.schema import ITEM_ID, SPLITS, UNKNOWN_INDEX, USER_ID

# Of five ratings each, the latest is for the test and the one before it for validation. Index: of users a = 1,
# b = 2; of items, by training ratings and then by id, x = 1, y = 2, v = 3, z = 4; n and w stand in the test only.
KNOWN_RATINGS = [
    ("a", "n", 1.0, 5),
    ("b", "x", 5.0, 1),
    ("a", "x", 2.0, 1),
    ("a", "y", 3.0, 2),
    ("b", "z", 1.5, 4),
    ("b", "y", 4.0, 2),
    ("a", "v", 4.5, 4),
    ("b", "w", 2.5, 5),
    ("b", "v", 3.5, 3),
    ("a", "z", 5.0, 3),
]
KNOWN_SPLITS = {
    "train": [(2, 1, 5.0), (1, 1, 2.0), (1, 2, 3.0), (2, 2, 4.0), (2, 3, 3.5), (1, 4, 5.0)],
    "validation": [(2, 4, 1.5), (1, 3, 4.5)],
    "test": [(1, UNKNOWN_INDEX, 1.0), (2, UNKNOWN_INDEX, 2.5)],
}


@pytest.fixture
def load(tmp_path):
    """Loads a table of ratings, or rows of them, as a run of the default config would but for `arguments`."""

    def load(ratings, **arguments):
        if not isinstance(ratings, pa.Table):
            columns = zip(*ratings, strict=True)
            ratings = pa.table(dict(zip((USER_ID, ITEM_ID, "rating", "timestamp"), map(list, columns), strict=True)))
        pq.write_table(ratings, tmp_path / "ratings.parquet")
        source = {"source": str(tmp_path / "ratings.parquet")}
        return load_dataset(**{**dataset_arguments(default.get_config()), **source, **arguments})

    return load


@pytest.fixture
def known(load):
    return load(KNOWN_RATINGS, split_method="last", validation_fraction=0.2, test_fraction=0.2, list_size=2)


def triples(users, items, ratings):
    return list(zip(users.tolist(), items.tolist(), ratings.tolist(), strict=True))


def entries(lists):
    """(user, item, label) of all entries of all lists."""
    return triples(np.repeat(lists.queries, np.diff(lists.offsets)), lists.items, lists.labels)


def test_known_ratings_land_in_known_splits(known):
    assert {split: triples(*columns) for split, columns in known.ratings.items()} == KNOWN_SPLITS
    assert [column.dtype for column in known.ratings["train"]] == [np.int32, np.int32, np.float32]


def test_lists_hold_the_ratings_of_their_split_by_user(known):
    assert {split: entries(lists) for split, lists in known.lists.items()} == {
        # sorted is stable: within a user the order of the rows is kept.
        split: sorted(ratings, key=lambda rating: rating[0])
        for split, ratings in KNOWN_SPLITS.items()
    }
    assert known.lists["train"].queries.tolist() == [1, 1, 2, 2]


def test_description_counts(known):
    description = known.description
    assert (description["num_users"], description["num_items"]) == (2, 4)
    assert description["num_ratings"] == {"train": 6, "validation": 2, "test": 2}
    assert description["num_lists"] == {"train": 4, "validation": 2, "test": 2}
    assert description["rows"]["read"] == description["rows"]["used"] == len(KNOWN_RATINGS)


def test_items_by_user_joins_the_splits_that_there_are(known, load):
    offsets, items = known.items_by_user("train", "validation")
    assert offsets.tolist() == [0, 0, 4, 8]
    assert items.tolist() == [1, 2, 4, 3, 1, 2, 3, 4]
    offsets, items = known.items_by_user("train")
    assert (offsets.tolist(), items.tolist()) == ([0, 0, 3, 6], [1, 2, 4, 1, 2, 3])

    without_validation = load(KNOWN_RATINGS, split_method="last", validation_fraction=0.0, test_fraction=0.2)
    assert without_validation.items_by_user("train", "validation")[0].tolist() == [0, 0, 4, 8]


@pytest.mark.parametrize("method", ["random", "last", "time"])
def test_every_rating_is_in_one_split_and_its_lists(load, method):
    table = planted_ratings()
    dataset = load(table, split_method=method, list_size=7)
    assert list(dataset.ratings) == list(dataset.lists) == list(SPLITS)
    pairs = {split: {(user, item) for user, item, _ in triples(*dataset.ratings[split])} for split in SPLITS}
    assert not pairs["train"] & (pairs["validation"] | pairs["test"])
    assert not pairs["validation"] & pairs["test"]

    vocabulary = dataset.vocabulary
    assert (vocabulary.num_users - 1, vocabulary.num_items - 1) == (NUM_USERS, NUM_ITEMS)
    users = vocabulary.user_indices(table[USER_ID])
    items = vocabulary.item_indices(table[ITEM_ID])
    everything = sorted(triples(users, items, table["rating"].to_numpy()))
    assert sorted(rating for columns in dataset.ratings.values() for rating in triples(*columns)) == everything
    for split in SPLITS:
        assert sorted(entries(dataset.lists[split])) == sorted(triples(*dataset.ratings[split]))


@pytest.mark.parametrize(("row", "split"), [(1, "train"), (4, "validation"), (7, "test")])
def test_one_other_rating_changes_the_fingerprint_of_its_split_alone(known, load, row, split):
    changed = list(KNOWN_RATINGS)
    user, item, rating, timestamp = changed[row]
    changed[row] = (user, item, rating - 0.5, timestamp)
    again, other = (
        load(ratings, split_method="last", validation_fraction=0.2, test_fraction=0.2, list_size=2)
        for ratings in (KNOWN_RATINGS, changed)
    )
    before, after = known.description["fingerprints"], other.description["fingerprints"]
    assert again.description["fingerprints"] == before
    assert {name for name in before if before[name] != after[name]} == {f"{split} lists"}
    assert set(before) == {"vocabulary", "train lists", "validation lists", "test lists"}


def test_fingerprints_cover_whose_list_it_is_where_it_is_cut_and_of_which_items(load):
    """Each time all else is equal."""

    def fingerprint(user_of_row, items, list_size):
        rows = [
            (user, item, 5.0 - row / 2, row) for row, (user, item) in enumerate(zip(user_of_row, items, strict=True))
        ]
        return load(rows, split_method="none", list_size=list_size).description["fingerprints"]["train lists"]

    assert fingerprint("aaaabb", "xyzwxy", 2) != fingerprint("aabbbb", "xyzwxy", 2)
    assert fingerprint("aaaa", "xyzw", 2) != fingerprint("aaaa", "xyzw", 3)
    assert fingerprint("aabb", "xyxy", 2) != fingerprint("aabb", "yxxy", 2)


def test_final_figures_are_of_the_test_split_or_else_of_validation(load):
    table = planted_ratings()
    assert load(table).held_out_split == "test"
    assert load(table, test_fraction=0.0).held_out_split == "validation"
    assert load(table, split_method="none").held_out_split is None


def test_held_out_ratings_of_users_that_training_has_not_seen_are_left_out_and_counted(load):
    """By time: c comes only after the cut, so nobody can be told apart from c whom the model does not know."""
    rows = [("a", "x", 4.0, 1), ("b", "x", 4.0, 2), ("a", "y", 3.0, 3), ("b", "y", 2.0, 4)]
    rows += [("a", "z", 1.0, 5), ("c", "x", 5.0, 6), ("b", "z", 1.0, 7), ("c", "y", 5.0, 8)]
    dataset = load(rows, split_method="time", validation_fraction=0.25, test_fraction=0.25)
    assert {split: len(columns[0]) for split, columns in dataset.ratings.items()} == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }
    assert all((users != UNKNOWN_INDEX).all() for users, _, _ in dataset.ratings.values())
    assert dataset.description["num_ratings_of_unknown_users"] == {"train": 0, "validation": 1, "test": 1}


def test_a_split_of_unknown_users_only_is_refused(load):
    rows = [("a", "x", 4.0, 1), ("b", "x", 4.0, 2), ("c", "y", 3.0, 3), ("d", "y", 2.0, 4)]
    with pytest.raises(DataError, match="users that training has not seen"):
        load(rows, split_method="time", validation_fraction=0.25, test_fraction=0.25)
