"""Baselines with known answers."""

import numpy as np
import pytest

from settings.trainer_config import load_trainer_config
from tests.conftest import mirrored_strategy
from tests.evaluation.helpers import DEFAULT_STRATEGY, dataset_of, lists_of, random_lists
from trainer import config as config_lib
from trainer.compat import tf
from trainer.data.dataset import load_dataset
from trainer.evaluation.baselines import ITEM_MEAN_DAMPING, RandomOrder, build_baselines, item_mean, popularity
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.metrics import build_metrics
from trainer.schema import ITEMS, QUERY, UNKNOWN_INDEX


def evaluate(lists, scorer, names, *, on=DEFAULT_STRATEGY, batch_size=8):
    metrics = build_metrics(names, relevance_threshold=4.0)
    return Evaluator(on, scorer, lists, metrics, global_batch_size=batch_size).evaluate()


def scores_of(baseline, num_items):
    return baseline({ITEMS: tf.range(num_items)[None]}).numpy()[0]


def test_popularity_ranks_by_training_ratings(tiny_config):
    dataset = load_dataset(**config_lib.dataset_arguments(load_trainer_config(tiny_config)))
    _, train_items, _ = dataset.ratings["train"]
    counts = np.bincount(train_items, minlength=dataset.vocabulary.num_items)
    assert len(set(counts.tolist())) > 5
    scores = scores_of(build_baselines(dataset, seed=0)["popularity"], dataset.vocabulary.num_items)
    ranked = np.argsort(-scores)
    assert (np.diff(counts[ranked]) <= 0).all()
    assert ranked[-1] == UNKNOWN_INDEX
    assert len(set(scores.tolist())) == len(scores)  # Without ties, which are broken at random.


def test_item_mean_is_the_damped_mean():
    """The global mean is 3. Item 1 has 4 ratings of mean 4, item 2 has one of 1, item 3 one of 1, item 4 none."""
    items, ratings = np.array([1, 1, 1, 1, 2, 3]), np.array([3, 5, 4, 4, 1, 1], np.float32)
    assert ITEM_MEAN_DAMPING == 5
    scores = scores_of(item_mean(items, ratings, num_items=5), 5)
    assert scores == pytest.approx([3, (16 + 15) / 9, 16 / 6, 16 / 6, 3])


def test_item_mean_uses_the_training_ratings_only():
    train, test = [(1, 1, 5), (2, 1, 5), (1, 2, 1)], [(1, 2, 5), (2, 2, 5), (1, 1, 1)]
    scores = [
        scores_of(build_baselines(dataset_of(3, 3, train=train, test=held_out), seed=0)["item_mean"], 3)
        for held_out in (test, [])
    ]
    np.testing.assert_array_equal(*scores)
    assert scores[0][1] > scores[0][2]


@pytest.mark.parametrize("baseline", [popularity(6), item_mean(np.array([1, 2]), np.array([5, 1]), num_items=6)])
def test_vectors_give_the_scores_of_lists(baseline):
    vectors = baseline.query_vectors({QUERY: tf.constant([3, 4])})
    products = tf.matmul(vectors, baseline.candidate_vectors(tf.range(6)), transpose_b=True)
    np.testing.assert_array_equal(products, np.tile(scores_of(baseline, 6), [2, 1]))


def test_a_random_order_finds_as_much_as_chance_does():
    """With r of n relevant, the expected precision@k of a random order is r / n."""
    lists = lists_of([(query, np.arange(1, 11), [5] * 3 + [1] * 7) for query in range(1, 1501)], 10)
    metrics = [evaluate(lists, RandomOrder(seed=seed), ["precision@2", "mrr"], batch_size=100) for seed in (1, 1, 2)]
    precision = metrics[0]["precision@2"]
    # The number of hits among 2 drawn of 10 is hypergeometric.
    assert precision.standard_error == pytest.approx(np.sqrt(0.3 * 0.7 / 2 * 8 / 9 / 1500), rel=0.05)
    assert abs(precision.value - 0.3) < 4 * precision.standard_error
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]


def test_ranks_of_a_random_order_are_uniform_and_different():
    queries = np.arange(1, 2001)
    num_ranked, num_candidates = np.full(2000, 3), np.full(2000, 10)
    ranks = RandomOrder(seed=1).catalogue_ranks(queries, num_ranked, num_candidates).reshape(2000, 3)
    assert (np.diff(np.sort(ranks), axis=1) > 0).all()
    # Each rank is expected 600 times, with a standard deviation below √600.
    counts = np.bincount(ranks.ravel(), minlength=11)
    assert counts[0] == 0 and len(counts) == 11 and np.abs(counts[1:] - 600).max() < 5 * np.sqrt(600)
    # They depend on the seed and the query, and not on the other queries.
    some = RandomOrder(seed=1).catalogue_ranks(queries[7:9], num_ranked[:2], num_candidates[:2])
    np.testing.assert_array_equal(some, ranks[7:9].ravel())
    other = RandomOrder(seed=2).catalogue_ranks(queries[7:9], num_ranked[:2], num_candidates[:2])
    assert some.tolist() != other.tolist()


@pytest.mark.parametrize("baseline", [popularity(20), RandomOrder(seed=0)], ids=["popularity", "random"])
def test_baselines_are_the_same_on_any_number_of_replicas(baseline):
    lists = random_lists(21, 8)
    one, four = (evaluate(lists, baseline, ["mrr"], on=on)["mrr"] for on in (DEFAULT_STRATEGY, mirrored_strategy(4)))
    assert four.value == pytest.approx(one.value, rel=1e-6)
