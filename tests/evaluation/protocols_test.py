"""The protocols: known orders, an oracle, missed items, disliked items, and bounded memory."""

import tracemalloc

import numpy as np
import pytest

from tests.conftest import mirrored_strategy
from tests.evaluation.helpers import DEFAULT_STRATEGY, dataset_of, random_dataset
from trainer.compat import tf
from trainer.evaluation import catalogue, protocols
from trainer.evaluation.baselines import ItemScores
from trainer.evaluation.held_out import held_out_items
from trainer.evaluation.metrics import build_metrics
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import ITEMS, QUERY, UNKNOWN_INDEX


class UserItemScores:
    """A model that is a table of scores [num_users, num_items]."""

    def __init__(self, scores):
        self.scores = tf.constant(scores, tf.float32)

    def __call__(self, features):
        return tf.gather(self.query_vectors(features), features[ITEMS], batch_dims=1)

    def query_vectors(self, features):
        return tf.gather(self.scores, features[QUERY])

    def candidate_vectors(self, items):
        return tf.gather(tf.eye(self.scores.shape[1]), items)


def evaluate(dataset, model, names, *, on=DEFAULT_STRATEGY, num_catalogue_users=-1, seed=0, subtopics=None):
    queries = protocols.evaluate_queries(
        on,
        model,
        dataset,
        "test",
        build_metrics(names, relevance_threshold=4.0, item_subtopics=subtopics),
        global_batch_size=4,
        num_catalogue_users=num_catalogue_users,
        relevance_threshold=4.0,
        seed=seed,
    )
    return protocols.means_of(queries)


def by_index(num_items):
    """Higher indices have higher scores."""
    return ItemScores(np.arange(num_items))


def test_protocols_of_a_known_order():
    """The order is 5 > 4 > 3 > 2 > 1. User 1 has seen item 5, user 2 item 1. Relevant are 3 and 4, and 2."""
    dataset = dataset_of(
        4, 6, train=[(1, 5, 5), (2, 1, 1)], test=[(1, 3, 4), (1, 4, 5), (1, 1, 1), (2, 2, 5), (2, 3, 2), (3, 4, 5)]
    )
    result = evaluate(dataset, by_index(6), ["mrr", "precision@1"])
    assert list(result) == ["rated", "catalogue"]
    for by_scorer in result.values():
        assert list(by_scorer) == ["model", "popularity", "item_mean", "random"]
    rated, in_catalogue = (result[protocol]["model"] for protocol in ("rated", "catalogue"))
    # Rated: 4 is the first of (4, 3, 1), 2 the second of (3, 2), 4 the only one.
    assert (rated["mrr"].value, rated["mrr"].num_lists) == (pytest.approx((1 + 1 / 2 + 1) / 3), 3)
    # The catalogue: 4 is the first of (4, 3, 2, 1), 2 the last of (5, 4, 3, 2), 4 the second of (5, 4, ...).
    assert (in_catalogue["mrr"].value, in_catalogue["mrr"].num_lists) == (pytest.approx((1 + 1 / 4 + 1 / 2) / 3), 3)
    assert in_catalogue["precision@1"].value == pytest.approx(1 / 3)
    # Popularity is the order of the vocabulary, 1 > 2 > ...: ranks 3 of (1, 2, 3, 4), 1 of (2, ...) and 4.
    assert result["catalogue"]["popularity"]["mrr"].value == pytest.approx((1 / 3 + 1 + 1 / 4) / 3)
    # Damped means, global mean 3: 5 > the rest = 3 > 1. Equal scores are ordered by index: 2, 3, 4, 1 for user 1,
    # (5, 2, ...) for user 2, and (5, 2, 3, 4, 1) for user 3.
    assert result["catalogue"]["item_mean"]["mrr"].value == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)

    assert protocols.final_scalars(result)["catalogue/mrr"] == pytest.approx(7 / 12)
    assert protocols.to_json(result)["rated"]["model"]["mrr"]["num_lists"] == 3
    assert protocols.from_json(protocols.to_json(result)) == result


def test_a_disliked_item_gains_nothing_in_the_catalogue():
    """User 1 gave item 4 one star and item 2 five stars. The first version paid gain 1 for item 4 in first place."""
    dataset = dataset_of(2, 6, train=[(1, 5, 5)], test=[(1, 4, 1), (1, 2, 5)])
    liked_first, disliked_first = ([0, 0, 9, 0, 8, 0], [0, 0, 8, 0, 9, 0])
    names = ["dcg@1", "ndcg@2"]
    best, worse = (evaluate(dataset, ItemScores(np.array(s)), names) for s in (liked_first, disliked_first))
    # Relevance 5 − 4 + 1 = 2, gain 3.
    assert best["catalogue"]["model"]["dcg@1"].value == 3
    assert best["catalogue"]["model"]["ndcg@2"].value == 1
    assert worse["catalogue"]["model"]["dcg@1"].value == 0
    assert worse["catalogue"]["model"]["ndcg@2"].value == pytest.approx(1 / np.log2(3))


def test_an_oracle_is_perfect_in_both_protocols():
    dataset = random_dataset(3)
    # Without unknown items, which even an oracle cannot recommend.
    known = {split: np.column_stack(columns)[columns[1] != UNKNOWN_INDEX] for split, columns in dataset.ratings.items()}
    dataset = dataset_of(6, 9, **known)
    scores = np.zeros([6, 9])
    users, items, ratings = dataset.ratings["test"]
    scores[users, items] = ratings
    for by_scorer in evaluate(dataset, UserItemScores(scores), ["ndcg", "ndcg@3"]).values():
        assert by_scorer["model"]["ndcg"].value == pytest.approx(1.0)
        assert by_scorer["model"]["ndcg@3"].value == pytest.approx(1.0)
        assert by_scorer["random"]["ndcg"].value < 0.99


@pytest.mark.parametrize("unknown_score", [100.0, -100.0, -np.inf, np.nan])
def test_an_item_that_training_has_not_seen_counts_as_missed(unknown_score):
    """Whatever score the model has for the unknown item, it is last in the list and missed in the catalogue."""
    dataset = dataset_of(2, 4, train=[(1, 1, 3)], test=[(1, UNKNOWN_INDEX, 5), (1, 2, 4), (1, 3, 1)])
    scores = [unknown_score, 1.0, 2.0, 3.0]
    result = evaluate(dataset, ItemScores(np.array(scores)), ["recall@3", "recall@2", "mrr"])
    # The list is 3 > 2 > unknown. In the catalogue item 2 is the second of (3, 2), and the unknown item not there.
    assert result["rated"]["model"]["recall@2"].value == 1 / 2
    assert result["rated"]["model"]["recall@3"].value == 1.0
    assert result["rated"]["model"]["mrr"].value == 1 / 2
    for metrics in result["catalogue"].values():
        assert metrics["recall@3"].value == 1 / 2
    assert result["catalogue"]["model"]["mrr"].value == 1 / 2


def test_without_a_relevant_item_or_a_user_there_is_no_catalogue():
    dataset = dataset_of(2, 4, train=[(1, 1, 3)], test=[(1, 2, 3), (1, 3, 1)])
    assert list(evaluate(dataset, by_index(4), ["mrr"])) == ["rated"]
    dataset = dataset_of(2, 4, train=[(1, 1, 3)], test=[(1, 2, 5)])
    assert list(evaluate(dataset, by_index(4), ["mrr"], num_catalogue_users=0)) == ["rated"]
    assert list(evaluate(dataset, by_index(4), ["mrr"], num_catalogue_users=1)) == ["rated", "catalogue"]


def test_each_list_keeps_its_user_and_its_metrics():
    dataset = random_dataset(5)
    metrics = build_metrics(["ndcg", "recall@2"], relevance_threshold=4.0)
    options = {"global_batch_size": 4, "num_catalogue_users": -1, "relevance_threshold": 4.0, "seed": 0}
    per_query = protocols.evaluate_queries(DEFAULT_STRATEGY, by_index(9), dataset, "test", metrics, **options)
    np.testing.assert_array_equal(per_query["rated"].queries, dataset.lists["test"].queries)
    assert UNKNOWN_INDEX not in per_query["catalogue"].queries
    means = protocols.means_of(per_query)
    for protocol, result in per_query.items():
        for scorer, lists in result.by_scorer.items():
            assert lists.values.shape == lists.weights.shape == (len(result.queries), 2)
            expected = np.average(lists.values, axis=0, weights=lists.weights)
            actual = [means[protocol][scorer][name].value for name in ("ndcg", "recall@2")]
            np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_a_model_has_the_same_metrics_on_any_number_of_replicas():
    dataset = random_dataset(7)
    names = ["ndcg@3", "alpha_dcg@3"]
    subtopics = np.arange(9)[:, None] % 3 == np.arange(3)
    sizes = {"num_queries": 6, "num_items": 9, "embedding_size": 4, "seed": 3}
    one = evaluate(dataset, TwoTowerModel(**sizes), names, subtopics=subtopics)
    on = mirrored_strategy(2)
    with on.scope():
        model = TwoTowerModel(**sizes)
    many = evaluate(dataset, model, names, on=on, subtopics=subtopics)
    for protocol, by_scorer in one.items():
        for scorer, metrics in by_scorer.items():
            for name, mean in metrics.items():
                assert many[protocol][scorer][name].value == pytest.approx(mean.value, rel=1e-5, nan_ok=True)


def test_memory_does_not_grow_with_users_times_items(monkeypatch):
    """The first version held a label for each of 2,000 × 5,000 pairs: 40 MB in one NumPy array."""
    monkeypatch.setattr(catalogue, "CHUNK_BYTES", 2**20)
    num_users, num_items = 2001, 5001
    rng = np.random.default_rng(0)
    triples = [(user, item, 5) for user in range(1, num_users) for item in rng.integers(1, num_items, 3)]
    dataset = dataset_of(num_users, num_items, train=[(1, 1, 5)], test=triples)
    metrics = build_metrics(["ndcg@10"], relevance_threshold=4.0)
    tracemalloc.start()
    held_out = held_out_items(dataset, "test", num_users=-1, relevance_threshold=4.0, seed=0)
    result = protocols.catalogue_metrics(by_index(num_items), held_out, metrics, num_items=num_items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.values.shape == (2000, 1)
    assert peak < 10e6
