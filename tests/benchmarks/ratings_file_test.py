"""The synthetic ratings have the numbers that were asked for, the shape of MovieLens, and a taste to learn."""

import numpy as np
import pyarrow.csv
import pytest

from benchmarks.ratings_file import shape_of, write_ratings

NUM_USERS, NUM_ITEMS, NUM_RATINGS = 300, 900, 20_000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("ratings") / "ratings.csv")
    shape = write_ratings(path, NUM_RATINGS, num_users=NUM_USERS, num_items=NUM_ITEMS)
    assert shape == {"num_ratings": NUM_RATINGS, "num_users": NUM_USERS, "num_items": NUM_ITEMS}
    return path


@pytest.fixture(scope="module")
def columns(path):
    return {name: column.to_numpy() for name, column in zip(*table_of(path), strict=True)}


def table_of(path):
    table = pyarrow.csv.read_csv(path)
    return table.column_names, table.columns


def test_has_the_numbers_that_were_asked_for(columns):
    pairs = columns["user_id"] * (NUM_ITEMS + 1) + columns["item_id"]
    assert len(np.unique(pairs)) == len(pairs) == NUM_RATINGS
    np.testing.assert_array_equal(np.unique(columns["user_id"]), np.arange(1, NUM_USERS + 1))
    np.testing.assert_array_equal(np.unique(columns["item_id"]), np.arange(1, NUM_ITEMS + 1))
    assert (np.diff(pairs) > 0).all()


def test_has_the_long_tails_of_movielens(columns):
    of_user = np.bincount(columns["user_id"])[1:]
    of_item = np.sort(np.bincount(columns["item_id"])[1:])[::-1]
    assert of_user.min() >= 20 and of_user.max() <= NUM_ITEMS / 3
    assert np.median(of_user) < 0.75 * np.mean(of_user)
    assert of_item[: NUM_ITEMS // 10].sum() > 0.5 * NUM_RATINGS
    assert np.median(of_item) < 0.7 * np.mean(of_item)


def test_ratings_are_half_stars_at_a_time(columns):
    assert set(np.unique(columns["rating"]).tolist()) <= {star / 2 for star in range(1, 11)}
    assert 3 < columns["rating"].mean() < 4
    assert columns["timestamp"].min() > 820_000_000 and columns["timestamp"].max() < 1_574_000_000


def test_users_prefer_the_items_of_their_group(columns):
    is_taste = columns["user_id"] % 20 == columns["item_id"] % 20
    assert is_taste.mean() > 2 / 20
    assert columns["rating"][is_taste].mean() > columns["rating"][~is_taste].mean() + 0.4


def test_the_seed_determines_the_file(path, tmp_path):
    with open(path, "rb") as file:
        content = file.read()
    for seed, is_same in ((0, True), (1, False)):
        other = tmp_path / f"{seed}.csv"
        write_ratings(str(other), NUM_RATINGS, num_users=NUM_USERS, num_items=NUM_ITEMS, seed=seed)
        assert (other.read_bytes() == content) == is_same


def test_by_default_the_numbers_are_those_of_movielens():
    assert shape_of(100_000) == (943, 1682)
    assert shape_of(25_000_095) == (162_541, 59_047)
