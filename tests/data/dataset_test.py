"""A dataset has each rating in one split, and its lists, indices and fingerprints agree with the ratings."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import default
from settings.errors import DataError
from settings.trainer_config import load_trainer_config
from tests.conftest import NUM_ITEMS, NUM_USERS, planted_ratings
from trainer.config import dataset_arguments
from trainer.data import dataset as dataset_module
from trainer.data.loading import load_dataset
from trainer.schema import (
    HISTORY,
    HISTORY_RATINGS,
    ITEM_ID,
    ITEMS,
    LABELS,
    QUERY,
    SPLITS,
    UNKNOWN_INDEX,
    USER_ID,
)

# Each user has five ratings. The latest is for testing, the one before it for validation. The user indices are a = 1
# and b = 2. The item indices, by training ratings and then by id, are x = 1, y = 2, v = 3 and z = 4. The items n and w
# are in the test split only.
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
# By user, and those of a user in the order of their rows.
KNOWN_SPLITS = {
    "train": [(1, 1, 2.0), (1, 2, 3.0), (1, 4, 5.0), (2, 1, 5.0), (2, 2, 4.0), (2, 3, 3.5)],
    "validation": [(1, 3, 4.5), (2, 4, 1.5)],
    "test": [(1, UNKNOWN_INDEX, 1.0), (2, UNKNOWN_INDEX, 2.5)],
}


@pytest.fixture
def load(tmp_path):
    """Loads a table or rows of ratings like a run of the default config without histories, with changed `arguments`."""

    def load(ratings, **arguments):
        if not isinstance(ratings, pa.Table):
            columns = zip(*ratings, strict=True)
            ratings = pa.table(dict(zip((USER_ID, ITEM_ID, "rating", "timestamp"), map(list, columns), strict=True)))
        pq.write_table(ratings, tmp_path / "ratings.parquet")
        source = {"source": str(tmp_path / "ratings.parquet"), "history_size": 0, "list_order": "row"}
        return load_dataset(**{**dataset_arguments(load_trainer_config(default.get_config())), **source, **arguments})

    return load


@pytest.fixture
def known(load):
    return load(KNOWN_RATINGS, split_method="last", validation_fraction=0.2, test_fraction=0.2, list_size=2)


def test_histories_and_times_belong_to_their_ratings(load):
    dataset = load(
        KNOWN_RATINGS, split_method="last", validation_fraction=0.2, test_fraction=0.2, list_size=2, history_size=3
    )
    times = {"a": {"n": 5, "x": 1, "y": 2, "v": 4, "z": 3}, "b": {"x": 1, "z": 4, "y": 2, "w": 5, "v": 3}}
    user_ids, item_ids = (
        dataset.vocabulary.users["user_id"].to_pylist(),
        dataset.vocabulary.items["item_id"].to_pylist(),
    )
    for split in ("train", "validation"):
        users, items, _ = dataset.ratings[split]
        assert dataset.timestamps[split].tolist() == [
            times[user_ids[user]][item_ids[item]] for user, item in zip(users, items, strict=True)
        ]
    assert dataset.timestamps["test"].tolist() == [5, 5]

    def history(features):
        return {
            user: (items, ratings)
            for user, items, ratings in zip(
                *(features[name].tolist() for name in (QUERY, HISTORY, HISTORY_RATINGS)), strict=True
            )
        }

    of_train = {1: ([1, 2, 4], [2.0, 3.0, 5.0]), 2: ([1, 2, 3], [5.0, 4.0, 3.5])}
    of_both = {1: ([2, 4, 3], [3.0, 5.0, 4.5]), 2: ([2, 3, 4], [4.0, 3.5, 1.5])}
    for split, expected in {"train": of_train, "validation": of_train, "test": of_both}.items():
        lists = dataset.lists[split]
        assert history(lists.gather(np.arange(lists.num_lists))) == expected
    # The items n and w of the test split are not in the vocabulary.
    assert history(dataset.query_source("train", "validation", "test").gather(np.array([1, 2]))) == of_both
    assert history(dataset.query_source("validation").gather(np.array([0, 2]))) == {
        0: ([0, 0, 0], [0.0, 0.0, 0.0]),
        2: ([4, 0, 0], [1.5, 0.0, 0.0]),
    }


@pytest.mark.parametrize("ratings_per_chunk", [1, 30, 10_000])
def test_histories_are_in_time_order_however_many_users_are_built_at_a_time(load, monkeypatch, ratings_per_chunk):
    """Many ratings have the same time. Those of the earlier split then come first, then those of the earlier row."""
    monkeypatch.setattr(dataset_module, "_RATINGS_PER_CHUNK", ratings_per_chunk)
    table = planted_ratings()
    table = table.set_column(3, "timestamp", pa.array(np.arange(table.num_rows) % 3))
    dataset = load(table, history_size=100)
    splits = ("train", "validation", "test")
    for present in (splits, splits[:2], splits[1:]):
        found = dataset.query_source(*present)
        expected = [[] for _ in range(dataset.vocabulary.num_users)]
        for split in present:
            for *row, time in zip(*dataset.ratings[split], dataset.timestamps[split], strict=True):
                expected[row[0]].append((time, *row[1:]))
        for user, rows in enumerate(expected):
            rows.sort(key=lambda row: row[0])
            known = [(item, rating) for _, item, rating in rows if item != UNKNOWN_INDEX]
            entries = slice(found.offsets[user], found.offsets[user + 1])
            assert list(zip(found.items[entries], found.ratings[entries], strict=True)) == known
        assert found.history_sizes.tolist() == np.diff(found.offsets).tolist()
        assert (found.items.dtype, found.ratings.dtype) == (np.int32, np.float32)


def test_users_are_built_together_up_to_a_number_of_ratings(monkeypatch):
    monkeypatch.setattr(dataset_module, "_RATINGS_PER_CHUNK", 5)
    offsets = np.append(0, np.cumsum([0, 2, 3, 1, 9, 4, 1, 1, 0]))
    assert list(dataset_module._user_ranges(offsets)) == [(0, 3), (3, 4), (4, 5), (5, 7), (7, 9)]


def test_without_histories_and_features_the_lists_have_three_features(known):
    assert list(known.lists["train"].gather(np.array([0]))) == [QUERY, ITEMS, LABELS]
    assert (known.features, known.item_features, known.has_ratings, known.has_timestamps) == ([], {}, True, True)


def test_in_time_order_the_newest_list_is_full(load):
    dataset = load(KNOWN_RATINGS, split_method="none", list_size=3, list_order="time")
    item_ids = dataset.vocabulary.items["item_id"].to_pylist()
    lists = [dataset.lists["train"][i] for i in range(dataset.lists["train"].num_lists)]
    assert [(query, "".join(item_ids[item] for item in items)) for query, items, _ in lists] == [
        (1, "xy"),
        (1, "zvn"),
        (2, "xy"),
        (2, "vzw"),
    ]


def test_features_come_out_of_the_lists_and_change_the_fingerprints(load):
    table = pa.table(
        {
            "user_id": ["a", "a", "b", "b"],
            "item_id": ["x", "y", "x", "y"],
            "rating": [1.0, 2.0, 3.0, 4.0],
            "timestamp": [1, 2, 1, 2],
            "age": ["20", "21", "30", None],
            "price": [1.0, 5.0, 3.0, 7.0],
            "place": ["top", "end", "end", "end"],
        }
    )
    features = {"query": ("age",), "item": ("price",), "example": ("place",)}
    dataset = load(table, split_method="none", list_size=3, features=features)
    assert [(spec.name, spec.owner, spec.num_values) for spec in dataset.features] == [
        ("age", "query", 2),
        ("price", "item", None),
        ("place", "example", 3),
    ]
    gathered = dataset.lists["train"].gather(np.array([1, 0]))
    assert gathered["age"].tolist() == [0, 1]  # The last row of b has no age.
    assert gathered["place"].tolist() == [[1, 1], [2, 1]]
    assert dataset.item_features["price"].tolist() == [0.0, -1.0, 1.0]
    assert dataset.query_source("train").gather(np.array([1]))["age"].tolist() == [1]

    def fingerprints(**columns):
        changed = pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **columns})
        return load(changed, split_method="none", list_size=3, features=features).description["fingerprints"]

    before = fingerprints()
    for columns, names in (
        ({"age": ["20", "20", "30", "20"]}, {"vocabulary", "queries"}),
        ({"price": [1.0, 5.0, 7.0, 3.0]}, {"items"}),
        ({"place": ["top", "end", "top", "end"]}, {"train lists"}),
    ):
        after = fingerprints(**columns)
        assert {name for name in before if before[name] != after[name]} == names


def test_a_counted_event_has_its_number_as_label(load):
    columns = {"user_id": "user_id", "item_id": "item_id", "rating": ""}
    rows = [("a", "x", 1.0, 1), ("a", "y", 1.0, 2), ("a", "x", 1.0, 3)]
    dataset = load(rows, split_method="none", columns=columns, duplicates="count", history_size=2)
    gathered = dataset.lists["train"].gather(np.array([0]))
    assert gathered[LABELS].tolist() == [[1.0, 2.0]]
    assert gathered[HISTORY_RATINGS].tolist() == [[1.0, 2.0]]
    assert (dataset.has_ratings, dataset.has_timestamps) == (False, False)
    assert (dataset.description["has_ratings"], dataset.description["duplicates"]) == (False, "count")
    assert dataset.description["rows"]["counted"] == 1


def triples(users, items, ratings):
    return list(zip(users.tolist(), items.tolist(), ratings.tolist(), strict=True))


def entries(lists):
    """(user, item, label) of all entries of all lists."""
    return triples(np.repeat(lists.queries, np.diff(lists.offsets)), lists.items, lists.labels)


def test_known_ratings_are_in_known_splits(known):
    assert {split: triples(*columns) for split, columns in known.ratings.items()} == KNOWN_SPLITS
    assert [column.dtype for column in known.ratings["train"]] == [np.int32, np.int32, np.float32]


def test_lists_hold_the_ratings_of_their_split_by_user(known):
    assert {split: entries(lists) for split, lists in known.lists.items()} == KNOWN_SPLITS
    assert known.lists["train"].queries.tolist() == [1, 1, 2, 2]


def test_description_counts(known):
    description = known.description
    assert (description["num_users"], description["num_items"]) == (2, 4)
    assert description["num_ratings"] == {"train": 6, "validation": 2, "test": 2}
    assert description["num_lists"] == {"train": 4, "validation": 2, "test": 2}
    assert description["rows"]["read"] == description["rows"]["used"] == len(KNOWN_RATINGS)


def test_items_by_user_joins_the_splits_that_exist(known, load):
    offsets, items = known.items_by_user("train", "validation")
    assert offsets.tolist() == [0, 0, 4, 8]
    assert items.tolist() == [1, 2, 4, 3, 1, 2, 3, 4]
    offsets, items = known.items_by_user("train")
    assert (offsets.tolist(), items.tolist()) == ([0, 0, 3, 6], [1, 2, 4, 1, 2, 3])

    without_validation = load(KNOWN_RATINGS, split_method="last", validation_fraction=0.0, test_fraction=0.2)
    assert without_validation.items_by_user("train", "validation")[0].tolist() == [0, 0, 4, 8]


def test_seen_items_are_the_known_items_of_all_splits(known, load):
    def seen(dataset):
        offsets, items = dataset.seen_items()
        assert (offsets.dtype, items.dtype) == (np.int64, np.int32)
        return [sorted(items[offsets[user] : offsets[user + 1]].tolist()) for user in range(len(offsets) - 1)]

    # The items n and w are not in the vocabulary.
    assert seen(known) == [[], [1, 2, 3, 4], [1, 2, 3, 4]]
    # Of the ratings of b, only x is in the training split, y is in the validation split and z in the test split.
    rows = [("a", item, 3.0, time) for time, item in enumerate("xyzx")] + [("b", "x", 1.0, 0)]
    rows += [("b", "y", 1.0, 5), ("b", "z", 1.0, 6)]
    assert seen(load(rows, split_method="time", validation_fraction=0.15, test_fraction=0.15)) == [
        [],
        [1, 2, 3],
        [1, 2, 3],
    ]


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
def test_a_changed_rating_changes_only_the_fingerprint_of_its_split(known, load, row, split):
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
    assert set(before) == {"vocabulary", "titles and genres", "train lists", "validation lists", "test lists"}


def test_fingerprints_depend_on_the_users_the_list_size_and_the_items(load):
    """In each comparison everything else is equal."""

    def fingerprint(user_of_row, items, list_size):
        rows = [
            (user, item, 5.0 - row / 2, row) for row, (user, item) in enumerate(zip(user_of_row, items, strict=True))
        ]
        return load(rows, split_method="none", list_size=list_size).description["fingerprints"]["train lists"]

    assert fingerprint("aaaabb", "xyzwxy", 2) != fingerprint("aabbbb", "xyzwxy", 2)
    assert fingerprint("aaaa", "xyzw", 2) != fingerprint("aaaa", "xyzw", 3)
    assert fingerprint("aabb", "xyxy", 2) != fingerprint("aabb", "yxxy", 2)


def test_final_metrics_use_the_test_split_or_else_the_validation_split(load):
    table = planted_ratings()
    assert load(table).held_out_split == "test"
    assert load(table, test_fraction=0.0).held_out_split == "validation"
    assert load(table, split_method="none").held_out_split is None


def test_held_out_ratings_of_users_without_training_ratings_are_dropped_and_counted(load):
    """Split by time: all ratings of c are after the cut, so the model does not know c."""
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


def test_a_split_with_only_unknown_users_is_refused(load):
    rows = [("a", "x", 4.0, 1), ("b", "x", 4.0, 2), ("c", "y", 3.0, 3), ("d", "y", 2.0, 4)]
    with pytest.raises(DataError, match="from users without training ratings"):
        load(rows, split_method="time", validation_fraction=0.25, test_fraction=0.25)


def test_equal_ratings_are_refused_with_the_way_out(load):
    rows = [(f"u{row % 5}", f"i{row}", 4.0, row) for row in range(10)]
    says = r"All 10 ratings of .*ratings\.parquet are 4, .*--config\.data\.columns\.rating="
    with pytest.raises(DataError, match=says):
        load(rows, split_method="none")
    load([*rows[1:], ("u0", "i0", 3.0, 0)], split_method="none")
    load(rows[1:], split_method="none")  # A first try with a few rows.
    events = dataset_arguments(load_trainer_config(default.get_config()))["columns"] | {"rating": ""}
    assert not load(rows, split_method="none", columns=events).has_ratings


@pytest.mark.parametrize("changed", [{"split_method": "last"}, {"split_method": "time"}, {"list_order": "time"}])
def test_times_are_needed_where_their_order_matters(load, changed):
    table = pa.table({"user": ["a", "a", "b"], "item": ["x", "y", "z"], "stars": [1.0, 2.0, 3.0]})
    with pytest.raises(DataError, match=r"the times; .*--config\.data\.columns\.timestamp="):
        load(table, **changed)
    columns = dataset_arguments(load_trainer_config(default.get_config()))["columns"]
    assert not load(table, split_method="random", validation_fraction=0.0, test_fraction=0.5).has_timestamps
    allowed = {"split_method": "last", **changed, "validation_fraction": 0.0, "test_fraction": 0.5}
    assert not load(table, columns={**columns, "timestamp": ""}, **allowed).has_timestamps


def test_the_columns_are_described_and_names_do_not_change_the_fingerprints(load):
    values = [pa.array(column) for column in zip(*KNOWN_RATINGS, strict=True)]
    named = pa.table(values, names=["userId", "movieId", "stars", "date"])
    fields = {"split_method": "last", "validation_fraction": 0.2, "test_fraction": 0.2}
    other = load(named.append_column("note", pa.array(["x"] * 10)), **fields).description
    assert other["columns"] == {
        "train": {
            "used": {"user_id": "userId", "item_id": "movieId", "rating": "stars", "timestamp": "date"},
            "unused": ["note"],
        }
    }
    assert other["fingerprints"] == load(KNOWN_RATINGS, **fields).description["fingerprints"]
