"""The users and items of the catalogue protocol against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.evaluation.helpers import dataset_of, random_dataset
from trainer.evaluation import held_out as held_out_module
from trainer.evaluation.held_out import held_out_items, relevance_of
from trainer.schema import UNKNOWN_INDEX


def rows_of(lists):
    return [lists.items[a:b].tolist() for a, b in itertools.pairwise(lists.offsets)]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), split=st.sampled_from(["validation", "test"]), users_per_chunk=st.integers(1, 6))
def test_candidates_and_relevant_items_are_those_of_brute_force(seed, split, users_per_chunk):
    dataset = random_dataset(seed)
    ratings = {
        name: list(zip(*(c.tolist() for c in columns), strict=True)) for name, columns in dataset.ratings.items()
    }
    assume(split in ratings)
    earlier = ratings["train"] + (ratings.get("validation", []) if split == "test" else [])
    expected = {}
    for user in sorted({user for user, _, rating in ratings[split] if rating >= 4} - {UNKNOWN_INDEX}):
        held_out = [(item, rating) for of, item, rating in ratings[split] if of == user]
        seen = {item for of, item, _ in earlier if of == user}
        candidates = {item for item in range(1, dataset.vocabulary.num_items) if item not in seen}
        candidates |= {item for item, _ in held_out if item != UNKNOWN_INDEX}
        relevant = sorted((item, rating - 3) for item, rating in held_out if rating >= 4)
        expected[user] = (relevant, candidates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out_module, "_USERS_PER_CHUNK", users_per_chunk)
        actual = held_out_items(dataset, split, num_users=-1, relevance_threshold=4.0, seed=0)
    assert actual.queries.tolist() == list(expected)
    assert actual.num_candidates.tolist() == [len(candidates) for _, candidates in expected.values()]
    every_item = set(range(1, dataset.vocabulary.num_items))
    assert [set(row) for row in rows_of(actual.excluded)] == [every_item - c for _, c in expected.values()]
    assert rows_of(actual.items) == [[item for item, _ in relevant] for relevant, _ in expected.values()]
    relevance = [[relevance for _, relevance in relevant] for relevant, _ in expected.values()]
    # Several unknown items of one user have one index, and no order.
    offsets = actual.items.offsets
    found = [sorted(actual.relevance[a:b].tolist()) for a, b in itertools.pairwise(offsets)]
    assert found == [sorted(row) for row in relevance]


def test_relevance_starts_at_the_threshold():
    ratings = np.array([0.5, 1, 3, 3.5, 4, 5], np.float32)
    assert relevance_of(ratings, relevance_threshold=3.5).tolist() == [0, 0, 0, 1, 1.5, 2.5]
    # An event is relevant, however often it happened.
    assert relevance_of(np.array([1.0, 3.0], np.float32), relevance_threshold=None).tolist() == [1, 1]


def test_users_without_a_relevant_rating_are_left_out():
    dataset = dataset_of(4, 5, train=[(1, 1, 5)], test=[(1, 2, 4), (1, 3, 3), (2, 2, 3), (3, 3, 5)])
    actual = held_out_items(dataset, "test", num_users=-1, relevance_threshold=4.0, seed=0)
    assert actual.queries.tolist() == [1, 3]
    assert rows_of(actual.items) == [[2], [3]]
    assert actual.num_left_out == 1


def test_every_event_is_relevant():
    events = {"train": [(1, 1, 1)], "test": [(1, 2, 1), (1, 3, 7), (2, 3, 1)]}
    actual = held_out_items(
        dataset_of(3, 5, has_ratings=False, **events), "test", num_users=-1, relevance_threshold=4.0, seed=0
    )
    assert (actual.queries.tolist(), actual.num_left_out) == ([1, 2], 0)
    assert (rows_of(actual.items), actual.relevance.tolist()) == ([[2, 3], [3]], [1, 1, 1])


def test_the_last_of_several_ratings_of_a_pair_counts():
    dataset = dataset_of(
        3, 5, train=[(1, 2, 5)], test=[(1, 2, 5), (1, 2, 1), (1, 3, 1), (1, 3, 5), (2, 2, 5), (2, 2, 2)]
    )
    actual = held_out_items(dataset, "test", num_users=-1, relevance_threshold=4.0, seed=0)
    assert actual.queries.tolist()[:1] == [1]
    assert (rows_of(actual.items)[0], actual.relevance.tolist()) == ([3], [2.0])
    # Item 2 was seen in training, but it is held out too, and so a candidate.
    assert rows_of(actual.excluded)[0] == [] and actual.num_candidates[0] == 4


def test_users_are_drawn_by_the_seed():
    dataset = dataset_of(51, 4, train=[(user, 1, 3) for user in range(1, 51)], test=[(u, 2, 4) for u in range(51)])

    def draw(num_users, seed=0):
        return held_out_items(dataset, "test", num_users=num_users, relevance_threshold=4.0, seed=seed)

    assert draw(-1).queries.tolist() == draw(99).queries.tolist() == list(range(1, 51))
    assert draw(0).queries.tolist() == []
    some, again, others = draw(10, 1), draw(10, 1), draw(10, 2)
    assert len(set(some.queries.tolist())) == 10
    np.testing.assert_array_equal(some.queries, again.queries)
    assert set(some.queries.tolist()) != set(others.queries.tolist())
    assert some.queries.max() > 20  # Not only the first users.
    assert rows_of(some.items) == [[2]] * 10 and rows_of(some.excluded) == [[1]] * 10
    assert some.num_candidates.tolist() == [2] * 10


@pytest.mark.parametrize("split", ["validation", "test"])
def test_only_earlier_splits_are_excluded(split):
    ratings = {"train": [(1, 1, 5)], "validation": [(1, 2, 5)], "test": [(1, 3, 5)]}
    actual = held_out_items(dataset_of(2, 5, **ratings), split, num_users=-1, relevance_threshold=4.0, seed=0)
    assert rows_of(actual.excluded) == [[1] if split == "validation" else [1, 2]]
