"""Baselines with known answers."""

import numpy as np
import pytest

from settings.trainer_config import load_trainer_config
from tests.conftest import mirrored_strategy
from tests.evaluation.helpers import DEFAULT_STRATEGY, dataset_of, random_lists
from trainer import config as config_lib
from trainer.compat import tf
from trainer.data.loading import load_dataset
from trainer.evaluation.baselines import ITEM_MEAN_DAMPING, build_baselines, item_mean, popularity
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
    baselines = build_baselines(dataset, recent_days=None)
    assert list(baselines) == ["popularity", "item_mean"]
    scores = scores_of(baselines["popularity"], dataset.vocabulary.num_items)
    assert scores[1:].tolist() == counts[1:].tolist()
    assert scores[UNKNOWN_INDEX] < scores[1:].min()


def test_recent_popularity_counts_the_last_days_of_training():
    """The last training rating is at day 20. The window of 7 days begins just after day 13."""
    day = 86_400
    train = [(1, 1, 5), (2, 1, 5), (3, 1, 5), (1, 2, 1), (2, 2, 1), (1, 3, 3)]
    timestamps = {"train": np.array([0, 1, 13, 14, 20, 19]) * day, "test": np.array([99 * day])}
    dataset = dataset_of(4, 5, train=train, test=[(3, 4, 5)], timestamps=timestamps)
    baseline = build_baselines(dataset, recent_days=7)["recent_popularity"]
    assert scores_of(baseline, 5).tolist() == [-1, 0, 2, 1, 0]
    assert scores_of(build_baselines(dataset, recent_days=7.5)["recent_popularity"], 5).tolist() == [-1, 1, 2, 1, 0]


def test_events_have_no_item_mean():
    events = dataset_of(3, 3, has_ratings=False, train=[(1, 1, 1)], test=[(1, 2, 1)])
    assert list(build_baselines(events, recent_days=None)) == ["popularity"]


def test_item_mean_is_the_damped_mean():
    """The global mean is 3. Item 1 has 4 ratings of mean 4, item 2 has one of 1, item 3 one of 1, item 4 none."""
    items, ratings = np.array([1, 1, 1, 1, 2, 3]), np.array([3, 5, 4, 4, 1, 1], np.float32)
    assert ITEM_MEAN_DAMPING == 5
    scores = scores_of(item_mean(items, ratings, num_items=5), 5)
    assert scores == pytest.approx([3, (16 + 15) / 9, 16 / 6, 16 / 6, 3])


def test_item_mean_uses_the_training_ratings_only():
    train, test = [(1, 1, 5), (2, 1, 5), (1, 2, 1)], [(1, 2, 5), (2, 2, 5), (1, 1, 1)]
    scores = [
        scores_of(build_baselines(dataset_of(3, 3, train=train, test=held_out), recent_days=None)["item_mean"], 3)
        for held_out in (test, [])
    ]
    np.testing.assert_array_equal(*scores)
    assert scores[0][1] > scores[0][2]


@pytest.mark.parametrize(
    "baseline",
    [popularity(np.array([1, 2, 2]), num_items=6), item_mean(np.array([1, 2]), np.array([5, 1]), num_items=6)],
)
def test_vectors_give_the_scores_of_lists(baseline):
    vectors = baseline.query_vectors({QUERY: tf.constant([3, 4])})
    products = tf.matmul(vectors, baseline.candidate_vectors(tf.range(6)), transpose_b=True)
    np.testing.assert_array_equal(products, np.tile(scores_of(baseline, 6), [2, 1]))


def test_baselines_are_the_same_on_any_number_of_replicas():
    baseline = popularity(np.arange(20).repeat(np.arange(20)), num_items=20)
    lists = random_lists(21, 8)
    one, four = (evaluate(lists, baseline, ["mrr"], on=on)["mrr"] for on in (DEFAULT_STRATEGY, mirrored_strategy(4)))
    assert four.value == pytest.approx(one.value, rel=1e-6)
