"""The features of queries: histories against a reference that is built entry by entry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import schema
from trainer.data.queries import Queries, QuerySource, build_queries

NUM_USERS = 5

# (user, item, rating, timestamp). Many times are equal, and item 0 is unknown.
RATINGS = st.lists(st.tuples(st.integers(1, NUM_USERS - 1), st.integers(0, 9), st.integers(1, 5), st.integers(0, 3)))


def build(ratings, history_size, features=None):
    users, items, stars, times = (np.array(column) for column in zip(*ratings, strict=True)) if ratings else [[]] * 4
    return build_queries(
        np.array(users, np.int32),
        np.array(items, np.int32),
        np.array(stars, np.float32),
        np.array(times, np.int64),
        num_users=NUM_USERS,
        history_size=history_size,
        features=features or {},
    )


def memory_mapped(queries, folder):
    mapped = {}
    for name in ("offsets", "items", "ratings"):
        array = getattr(queries, name)
        np.save(folder / f"{name}.npy", array)
        mapped[name] = np.load(folder / f"{name}.npy", mmap_mode="r" if len(array) else None)
    return Queries(**mapped, history_size=queries.history_size, features=queries.features)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("queries")


@pytest.mark.parametrize("is_mapped", [False, True])
@settings(deadline=None)
@given(ratings=RATINGS, history_size=st.integers(1, 6), users=st.lists(st.integers(0, NUM_USERS - 1), max_size=8))
def test_a_history_has_the_latest_known_items_oldest_first(folder, is_mapped, ratings, history_size, users):
    queries: QuerySource = build(ratings, history_size)
    if is_mapped:
        queries = memory_mapped(queries, folder)
    assert isinstance(queries, QuerySource)
    features = queries.gather(np.array(users, np.int32))

    items, stars = [], []
    for user in users:
        # `sorted` is stable, so ratings of the same time stay in row order.
        of_user = sorted((row for row in ratings if row[0] == user and row[1] != 0), key=lambda row: row[3])
        latest = of_user[-history_size:]
        padding = [0] * (history_size - len(latest))
        items.append([item for _, item, _, _ in latest] + padding)
        stars.append([float(star) for _, _, star, _ in latest] + padding)
    assert {name: value.tolist() for name, value in features.items()} == {
        schema.QUERY: users,
        schema.HISTORY: items,
        schema.HISTORY_RATINGS: stars,
    }
    assert [value.dtype for value in features.values()] == [np.int32, np.int32, np.float32]
    assert features[schema.HISTORY].shape == features[schema.HISTORY_RATINGS].shape == (len(users), history_size)


def test_features_come_by_user_and_without_a_history_nothing_else_does():
    values = {"age": np.arange(NUM_USERS) * 10, "tags": np.arange(NUM_USERS * 2).reshape(NUM_USERS, 2)}
    features = build([(1, 2, 3, 4)], 0, values).gather(np.array([3, 0, 3], np.int32))
    assert {name: value.tolist() for name, value in features.items()} == {
        schema.QUERY: [3, 0, 3],
        "age": [30, 0, 30],
        "tags": [[6, 7], [0, 1], [6, 7]],
    }


@pytest.mark.parametrize("user", [-1, NUM_USERS])
def test_a_user_that_is_out_of_range_is_refused(user):
    with pytest.raises(IndexError):
        build([(1, 2, 3, 4)], 3).gather(np.array([0, user], np.int32))
