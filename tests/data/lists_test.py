import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import schema
from trainer.data.lists import ListSource, QueryLists, cut_lists, group_ratings, join_by_user

USERS = st.lists(st.integers(0, 5), max_size=60)


def arrays(users):
    """Ratings by `users`. The item of row r is r + 100 and its rating r / 2, so all rows differ."""
    rows = np.arange(len(users))
    return np.array(users, np.int32), (rows + 100).astype(np.int32), (rows / 2).astype(np.float32)


def build_lists(users, items, ratings, *, list_size, timestamps=None, features=None, query_source=None):
    """The lists of ratings in row order, or in time order if there are times."""
    order = "row" if timestamps is None else "time"
    times = np.zeros(len(users), np.int64) if timestamps is None else timestamps
    num_users = max(users, default=0) + 1
    grouped = group_ratings(
        users, items, ratings, times, num_users=num_users, list_order=order, features=features or {}
    )
    return cut_lists(grouped, list_size=list_size, list_order=order, query_source=query_source)


def test_lists_of_a_known_table():
    users = np.array([3, 1, 3, 3, 1, 3, 3], np.int32)
    items = np.array([10, 20, 11, 12, 21, 13, 14], np.int32)
    ratings = np.array([5, 4, 3, 2, 1, 4, 3], np.float32)
    lists = build_lists(users, items, ratings, list_size=2)
    assert lists.queries.tolist() == [1, 3, 3, 3]
    assert lists.offsets.tolist() == [0, 2, 4, 6, 7]
    assert lists.items.tolist() == [20, 21, 10, 11, 12, 13, 14]
    assert lists.labels.tolist() == [4, 1, 5, 3, 2, 4, 3]
    assert (lists.num_lists, lists.num_entries) == (4, 7)
    query, list_items, labels = lists[2]
    assert (query, list_items.tolist(), labels.tolist()) == (3, [12, 13], [2, 4])


@settings(deadline=None)
@given(USERS, st.integers(1, 8))
def test_every_rating_is_once_in_a_list_of_its_user_in_order(users, list_size):
    lists = build_lists(*arrays(users), list_size=list_size)

    expected = []
    for user in range(6):
        rows = [row for row, of_row in enumerate(users) if of_row == user]
        windows = [rows[begin : begin + list_size] for begin in range(0, len(rows), list_size)]
        expected += [(user, [row + 100 for row in window], [row / 2 for row in window]) for window in windows]

    actual = [lists[i] for i in range(lists.num_lists)]
    assert [(query, items.tolist(), labels.tolist()) for query, items, labels in actual] == expected
    assert lists.num_lists == sum(-(-n // list_size) for n in np.bincount(users, minlength=1).tolist())
    assert lists.num_entries == len(users) == lists.offsets[-1]
    assert len(lists.offsets) == lists.num_lists + 1


def test_types_are_those_of_the_features_whatever_comes_in():
    users, items, ratings = (array.astype(np.int64) for array in arrays([2, 0, 2]))
    lists = build_lists(users, items, ratings, list_size=2)
    types = [lists.queries.dtype, lists.offsets.dtype, lists.items.dtype, lists.labels.dtype]
    assert types == [np.int32, np.int64, np.int32, np.float32]
    grouped = group_ratings(users, items, ratings, users, num_users=3)
    assert [grouped.offsets.dtype, grouped.items.dtype, grouped.ratings.dtype] == [np.int64, np.int32, np.float32]


def naive_gather(source, lists, rows):
    """The features of ListSource.gather, built entry by entry from `lists` of (query, items, labels)."""
    queries, items, labels = [], [], []
    for row in rows:
        query, list_items, list_labels = lists[row]
        padding = [None] * (source.list_size - len(list_items))
        queries.append(query)
        items.append([*list_items, *(schema.UNKNOWN_INDEX for _ in padding)][: source.list_size])
        labels.append([*list_labels, *(schema.PADDING_LABEL for _ in padding)][: source.list_size])
    return {schema.QUERY: queries, schema.ITEMS: items, schema.LABELS: labels}


def in_memory(lists, list_size, folder):
    sizes = [len(items) for _, items, _ in lists]
    return QueryLists(
        queries=np.array([query for query, _, _ in lists], np.int32),
        offsets=np.append(0, np.cumsum(sizes)).astype(np.int64),
        items=np.array([item for _, items, _ in lists for item in items], np.int32),
        labels=np.array([label for _, _, labels in lists for label in labels], np.float32),
        list_size=list_size,
    )


def memory_mapped(lists, list_size, folder):
    source = in_memory(lists, list_size, folder)
    mapped = {}
    for name in ("queries", "offsets", "items", "labels"):
        np.save(folder / f"{name}.npy", getattr(source, name))
        mapped[name] = np.load(folder / f"{name}.npy", mmap_mode="r" if len(getattr(source, name)) else None)
    return QueryLists(**mapped, list_size=list_size)


ENTRIES = st.lists(st.tuples(st.integers(1, 2**31 - 1), st.integers(0, 10)), max_size=5)
LISTS = st.lists(st.tuples(st.integers(1, 9), ENTRIES), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lists")


@pytest.mark.parametrize("build", [in_memory, memory_mapped])
@settings(deadline=None)
@given(lists=LISTS, list_size=st.integers(1, 7), data=st.data())
def test_gather_pads_and_cuts_any_rows_of_any_list_source(build, folder, lists, list_size, data):
    lists = [(query, [item for item, _ in entries], [label / 2 for _, label in entries]) for query, entries in lists]
    source: ListSource = build(lists, list_size, folder)
    assert isinstance(source, ListSource)
    assert (source.num_lists, source.list_size) == (len(lists), list_size)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=12)), np.int64)
    features = source.gather(rows)
    assert {name: value.tolist() for name, value in features.items()} == naive_gather(source, lists, rows)
    assert {name: value.dtype for name, value in features.items()} == {
        schema.QUERY: np.int32,
        schema.ITEMS: np.int32,
        schema.LABELS: np.float32,
    }
    assert features[schema.ITEMS].shape == features[schema.LABELS].shape == (len(rows), list_size)


@pytest.mark.parametrize("row", [-1, 3, 2**40])
def test_gather_refuses_a_row_that_is_out_of_range(row):
    source = build_lists(*arrays([0, 1, 2]), list_size=4)
    with pytest.raises(IndexError):
        source.gather(np.array([0, row]))


@pytest.mark.parametrize(("list_size", "longest"), [(1, 1), (2, 2), (3, 3), (4, 3), (500, 3)])
def test_lists_are_padded_to_the_longest_one_and_not_further(list_size, longest):
    lists = build_lists(*arrays([1, 1, 2, 1]), list_size=list_size)
    assert lists.list_size == np.diff(lists.offsets).max() == longest
    assert lists.gather(np.array([0]))[schema.ITEMS].shape == (1, longest)


def test_build_lists_passes_its_list_size_on():
    features = build_lists(*arrays([1, 1, 1]), list_size=2).gather(np.array([1, 0]))
    assert features[schema.ITEMS].tolist() == [[102, 0], [100, 101]]
    assert features[schema.LABELS].tolist() == [[1.0, -1.0], [0.0, 0.5]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40), st.integers(1, 6))
def test_in_time_order_only_the_oldest_list_of_a_user_is_not_full(rows, list_size):
    users, items, ratings = arrays([user for user, _ in rows])
    times = np.array([time for _, time in rows], np.int64)
    lists = build_lists(users, items, ratings, list_size=list_size, timestamps=times)

    expected = []
    for user in range(5):
        of_user = sorted((row for row in range(len(rows)) if rows[row][0] == user), key=lambda row: rows[row][1])
        windows = []
        while of_user:
            windows.append(of_user[-list_size:])
            of_user = of_user[:-list_size]
        expected += [(user, [row + 100 for row in window], [row / 2 for row in window]) for window in windows[::-1]]
    actual = [lists[i] for i in range(lists.num_lists)]
    assert [(query, items.tolist(), labels.tolist()) for query, items, labels in actual] == expected
    assert lists.offsets[-1] == lists.num_entries == len(rows)


class AgeOfQuery:
    """A QuerySource with one feature: the age of a user is ten times the index."""

    history_size = 0

    def gather(self, users):
        return {schema.QUERY: users, "age": users * 10}


def test_gather_adds_the_features_of_examples_and_queries():
    users, items, ratings = arrays([1, 2, 1, 1])
    examples = {"place": np.array([5, 6, 7, 8], np.int32), "pixels": np.arange(8, dtype=np.float32).reshape(4, 2)}
    lists = build_lists(users, items, ratings, list_size=2, features=examples, query_source=AgeOfQuery())
    features = lists.gather(np.array([1, 2]))
    assert {name: value.tolist() for name, value in features.items()} == {
        schema.QUERY: [1, 2],
        "age": [10, 20],
        schema.ITEMS: [[103, 0], [101, 0]],
        schema.LABELS: [[1.5, -1.0], [0.5, -1.0]],
        "place": [[8, 0], [6, 0]],
        "pixels": [[[6.0, 7.0], [0.0, 0.0]], [[2.0, 3.0], [0.0, 0.0]]],
    }
    assert (features["place"].dtype, features["pixels"].dtype) == (np.int32, np.float32)
    in_time_order = build_lists(
        users, items, ratings, list_size=2, timestamps=np.array([3, 0, 2, 1]), features=examples
    )
    assert in_time_order.gather(np.array([0, 1]))["place"].tolist() == [[8, 0], [7, 5]]


@settings(deadline=None)
@given(USERS, st.integers(6, 9), st.lists(st.integers(0, 2), min_size=60, max_size=60))
def test_joined_parts_give_the_items_of_each_user_in_the_order_of_the_parts(users, num_users, part_of_row):
    user_indices, item_indices, ratings = arrays(users)
    part_of_row = np.array(part_of_row[: len(users)], int)
    parts = []
    for part in range(3):
        rows = part_of_row == part
        grouped = group_ratings(
            user_indices[rows], item_indices[rows], ratings[rows], np.zeros(rows.sum(), int), num_users=num_users
        )
        parts.append((grouped.offsets, grouped.items))
    for number in (1, 2, 3):
        offsets, items = join_by_user(parts[:number])
        assert (len(offsets), offsets.dtype, items.dtype) == (num_users + 1, np.int64, np.int32)
        assert [items[offsets[user] : offsets[user + 1]].tolist() for user in range(num_users)] == [
            [
                row + 100
                for part in range(number)
                for row in np.flatnonzero((user_indices == user) & (part_of_row == part))
            ]
            for user in range(num_users)
        ]
