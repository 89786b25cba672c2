"""Prepared data gives what its source gives, bit for bit, from one shard and from many."""

import dataclasses
import itertools

import numpy as np
import pytest

from tests.data.prepared.common import CASES, FEATURES, SMALL_SHARD, arguments_of, open_data, prepare
from trainer.compat import tf
from trainer.data.arrays import ShardedArray
from trainer.data.loading import load_source
from trainer.data.prepared import writing
from trainer.modeling import input_pipeline
from trainer.schema import ITEM_ID, SPLITS


@pytest.fixture(scope="module", params=itertools.product(CASES, ["one shard", "many shards"]), ids=" in ".join)
def both(request, tmp_path_factory):
    """The arguments that load the source, and those that open the data prepared from it."""
    case, shards = request.param
    folder = tmp_path_factory.mktemp("prepared")
    arguments = arguments_of(folder, case)
    with pytest.MonkeyPatch.context() as patch:
        if shards == "many shards":
            patch.setattr(writing, "SHARD_BYTES", SMALL_SHARD)
        opened = prepare(folder / "data", arguments)
    assert (len(list((folder / "data/shards").iterdir())) > 1) == (shards == "many shards")
    return arguments, opened


def assert_same(actual, expected):
    """Compares arrays, or collections of them, with their types and their order."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        actual, expected = list(actual.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    else:
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)


def assert_same_dataset(actual, expected):
    assert actual.description == expected.description
    assert (actual.has_ratings, actual.has_timestamps) == (expected.has_ratings, expected.has_timestamps)
    assert actual.vocabulary.users.equals(expected.vocabulary.users)
    assert actual.vocabulary.items.equals(expected.vocabulary.items)
    assert actual.vocabulary.features == expected.vocabulary.features
    assert actual.features == expected.features
    assert_same(actual.query_features, expected.query_features)
    assert_same(actual.item_features, expected.item_features)
    assert list(actual.lists) == list(expected.lists) == list(actual.ratings) == list(actual.timestamps)
    rng = np.random.default_rng(0)
    for split, lists in expected.lists.items():
        assert_same(actual.ratings[split], expected.ratings[split])
        assert_same(actual.timestamps[split], expected.timestamps[split])
        assert_same(actual.lists[split].queries, lists.queries)
        assert_same(actual.lists[split].offsets, lists.offsets)
        for rows in (np.arange(lists.num_lists), rng.integers(0, lists.num_lists, 50), np.zeros(0, np.int64)):
            assert_same(actual.lists[split].gather(rows), lists.gather(rows))
        for row in (0, lists.num_lists - 1):
            assert_same(actual.lists[split][row][1:], lists[row][1:])
    assert_same(actual.seen_items(), expected.seen_items())
    users = rng.permutation(expected.vocabulary.num_users).astype(np.int32)
    for splits in (("train",), ("train", "validation"), SPLITS, *[(split,) for split in expected.lists]):
        assert_same(actual.items_by_user(*splits), expected.items_by_user(*splits))
        assert_same(actual.query_source(*splits).gather(users), expected.query_source(*splits).gather(users))


def test_all_that_the_data_has_is_that_of_the_source(both):
    arguments, opened = both
    assert_same_dataset(open_data(opened), load_source(**arguments))


def test_lists_and_histories_can_have_other_sizes_than_when_the_data_was_prepared(both):
    arguments, opened = both
    for sizes in ({"list_size": 3, "history_size": 2}, {"list_size": 100, "history_size": 60}):
        assert_same_dataset(open_data(opened, **sizes), load_source(**{**arguments, **sizes}))


def test_batches_of_several_epochs_are_those_of_the_source(both):
    arguments, opened = both

    def batches(dataset):
        lists = dataset.lists["train"]
        epoch_steps = input_pipeline.steps_per_epoch(lists.num_lists, 16)
        data = input_pipeline.build_train_dataset(
            lists,
            np.arange(0, 3 * epoch_steps, 4),
            global_batch_size=16,
            steps_per_execution=4,
            seed=5,
            context=tf.distribute.InputContext(),
        )
        return list(data.take(3 * epoch_steps // 4).as_numpy_iterator())

    assert_same(batches(open_data(opened)), batches(load_source(**arguments)))


def base_of(array):
    while isinstance(array.base, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array


def test_opening_reads_no_array_of_the_ratings(both, monkeypatch):
    _, opened = both
    monkeypatch.setattr(ShardedArray, "__array__", lambda *_, **__: pytest.fail("All shards were read."))
    dataset = open_data(opened)
    for lists in dataset.lists.values():
        for array in (lists.items, lists.labels, *lists.features.values()):
            if not isinstance(array, ShardedArray):
                assert isinstance(base_of(array), np.memmap)
    for queries in dataset.histories.values():
        assert isinstance(queries.items, ShardedArray) or isinstance(base_of(queries.items), np.memmap)


def test_the_planted_ratings_reach_the_lists_and_histories_of_prepared_data(tmp_path):
    """Independent of the source's own lists: straight from the rows of the table."""
    arguments = arguments_of(tmp_path, "row order", split_method="none", list_size=1000, history_size=1000)
    dataset = open_data(prepare(tmp_path / "data", arguments))
    table = load_rows(arguments["source"])
    item_ids = dataset.vocabulary.items[ITEM_ID].to_pylist()
    user_ids = dataset.vocabulary.users["user_id"].to_pylist()
    features = dataset.lists["train"].gather(np.arange(dataset.lists["train"].num_lists))
    for row, user in enumerate(features["query"]):
        of_user = [rating for rating in table if rating["user_id"] == user_ids[user]]
        in_time = sorted(of_user, key=lambda rating: rating["timestamp"])
        num = len(of_user)
        assert [item_ids[item] for item in features["items"][row, :num]] == [rating["item_id"] for rating in of_user]
        assert features["labels"][row, :num].tolist() == [rating["rating"] for rating in of_user]
        assert features["place"][row, :num].tolist() == [1 + rating["place"] for rating in of_user]
        assert [item_ids[item] for item in features["history"][row, :num]] == [rating["item_id"] for rating in in_time]
        assert not features["history"][row, num:].any()
    assert set(FEATURES["query"]) < set(features)


def load_rows(path):
    """The last row of each pair of a user and an item, by time and then by row, in the order of the file."""
    import pyarrow.parquet as pq

    rows = list(enumerate(pq.read_table(path).to_pylist()))
    last = {}
    for number, row in sorted(rows, key=lambda pair: (pair[1]["timestamp"], pair[0])):
        last[row["user_id"], row["item_id"]] = number
    return [row for number, row in rows if last[row["user_id"], row["item_id"]] == number]


def test_fields_of_a_dataset_are_compared():
    """So that a new field of `Dataset` is added to `assert_same_dataset` too."""
    from trainer.data.dataset import Dataset

    assert {field.name for field in dataclasses.fields(Dataset)} == {
        *("vocabulary", "lists", "description", "times", "has_ratings", "has_timestamps", "query_features"),
        *("item_features", "history_size", "histories"),
    }
