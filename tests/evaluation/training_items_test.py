"""Which training items are ranked as if they were held out, and what their queries know."""

import numpy as np
import pytest

from tests.evaluation.helpers import dataset_of
from trainer import schema
from trainer.evaluation.training_items import left_out_training_items

NUM_USERS, NUM_ITEMS = 30, 12


@pytest.fixture(scope="module")
def dataset():
    """Each user has rated most items in training. The others are validation ratings."""
    rng = np.random.default_rng(0)
    triples = [(user, item, rng.integers(1, 6)) for user in range(1, NUM_USERS) for item in range(1, NUM_ITEMS)]
    is_train = rng.random(len(triples)) < 0.8
    splits = {
        "train": [triple for triple, train in zip(triples, is_train, strict=True) if train],
        "validation": [triple for triple, train in zip(triples, is_train, strict=True) if not train],
    }
    return dataset_of(NUM_USERS, NUM_ITEMS, history_size=NUM_ITEMS, **splits)


def left_out(dataset, **options):
    defaults = {"num_users": 100, "fraction": 0.4, "relevance_threshold": 4.0, "seed": 0}
    return left_out_training_items(dataset, **defaults | options)


def ratings_of(dataset, user):
    """item → rating in training"""
    users, items, ratings = dataset.ratings["train"]
    return dict(zip(items[users == user].tolist(), ratings[users == user].tolist(), strict=True))


def test_an_item_is_left_out_or_in_the_history(dataset):
    held_out, queries = left_out(dataset)
    assert len(held_out.queries) > NUM_USERS / 2
    num_left_out = 0
    for row, user in enumerate(held_out.queries):
        rated = ratings_of(dataset, user)
        features = queries.gather(held_out.queries[row : row + 1])
        history = features[schema.HISTORY][0].tolist()
        known = {
            item: rating for item, rating in zip(history, features[schema.HISTORY_RATINGS][0], strict=True) if item
        }
        found = held_out.items.take(np.array([row])).items.tolist()
        assert known == {item: rating for item, rating in rated.items() if item in known}
        assert set(found) == {item for item, rating in rated.items() if item not in known and rating >= 4}
        assert sorted(held_out.excluded.take(np.array([row])).items) == sorted(known)
        assert held_out.num_candidates[row] == NUM_ITEMS - 1 - len(known)
        assert features[schema.QUERY][0] == user
        num_left_out += len(rated) - len(known)
    assert 0.3 < num_left_out / sum(len(ratings_of(dataset, user)) for user in held_out.queries) < 0.55
    expected = [ratings_of(dataset, held_out.queries[row])[item] - 3 for row, item in held_out.items.pairs()]
    np.testing.assert_array_equal(held_out.relevance, expected)


@pytest.mark.parametrize(("fraction", "is_left_out"), [(0.0, False), (1.0, True)])
def test_all_items_or_none(dataset, fraction, is_left_out):
    held_out, queries = left_out(dataset, fraction=fraction)
    assert (len(held_out.queries) > 0) == is_left_out
    assert not held_out.excluded.items.size
    assert bool(queries.history_sizes.sum()) == (not is_left_out)


def test_users_are_drawn_by_the_seed(dataset):
    some, _ = left_out(dataset, num_users=5)
    again, _ = left_out(dataset, num_users=5)
    other, _ = left_out(dataset, num_users=5, seed=1)
    assert 0 < len(some.queries) <= 5
    np.testing.assert_array_equal(some.queries, again.queries)
    np.testing.assert_array_equal(some.items.items, again.items.items)
    assert some.queries.tolist() != other.queries.tolist()
