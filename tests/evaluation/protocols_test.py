"""The protocols: known orders, an oracle, missed items, disliked items, and bounded memory."""

import tracemalloc

import numpy as np
import pytest

from tests.conftest import mirrored_strategy
from tests.evaluation.helpers import DEFAULT_STRATEGY, dataset_of, random_dataset
from trainer.compat import tf
from trainer.evaluation import catalogue, catalogue_ranking, protocols
from trainer.evaluation.baselines import ItemScores
from trainer.evaluation.held_out import held_out_items
from trainer.evaluation.metrics import build_metrics
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import HISTORY, ITEMS, QUERY, UNKNOWN_INDEX


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


def evaluate_queries(
    dataset,
    model,
    names,
    *,
    on=DEFAULT_STRATEGY,
    split="test",
    num_catalogue_users=-1,
    subtopics=None,
    recent_days=None,
):
    return protocols.evaluate_queries(
        on,
        model,
        dataset,
        split,
        build_metrics(names, relevance_threshold=4.0, item_subtopics=subtopics),
        global_batch_size=4,
        num_catalogue_users=num_catalogue_users,
        relevance_threshold=4.0,
        recent_days=recent_days,
        seed=0,
    )


def evaluate(dataset, model, names, **options):
    return protocols.means_of(evaluate_queries(dataset, model, names, **options).protocols, seed=0)


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
    # Popularity ties 5 and 1, and 4, 3 and 2. User 1 may get 1, user 2 may get 5, and user 3 both, before 2, 3 and 4.
    # The first of two among the ranks 2 to 4 is the second with 2/3 and the third with 1/3.
    expected = [(2 / 3) / 2 + (1 / 3) / 3, (1 / 2 + 1 / 3 + 1 / 4) / 3, (1 / 3 + 1 / 4 + 1 / 5) / 3]
    assert result["catalogue"]["popularity"]["mrr"].value == pytest.approx(np.mean(expected))
    # Damped means, global mean 3: 5 > the rest = 3 > 1. User 1: the first of (3, 4) in the tie of 2, 3 and 4.
    expected = [(2 / 3) + (1 / 3) / 2, (1 / 2 + 1 / 3 + 1 / 4) / 3, (1 / 2 + 1 / 3 + 1 / 4) / 3]
    assert result["catalogue"]["item_mean"]["mrr"].value == pytest.approx(np.mean(expected))
    # Random: the first of two among four, one among four, one among five.
    expected = [2 / 3 * (1 / 2 + 1 / 3 + 1 / 4), 25 / 12 / 4, (25 / 12 + 1 / 5) / 5]
    assert result["catalogue"]["random"]["mrr"].value == pytest.approx(np.mean(expected))
    # Random, rated: two of three are relevant; one of two; one of one.
    expected = [1 / 3 * (1 + 1 + 1 / 2), 3 / 4, 1]
    assert result["rated"]["random"]["mrr"].value == pytest.approx(np.mean(expected))


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
    per_query = evaluate_queries(dataset, by_index(9), ["ndcg", "recall@2"]).protocols
    np.testing.assert_array_equal(per_query["rated"].queries, dataset.lists["test"].queries)
    assert UNKNOWN_INDEX not in per_query["catalogue"].queries
    means = protocols.means_of(per_query, seed=0)
    for protocol, result in per_query.items():
        for scorer, lists in result.by_scorer.items():
            assert lists.values.shape == lists.weights.shape == (len(result.queries), 2)
            expected = np.average(lists.values, axis=0, weights=lists.weights)
            actual = [means[protocol][scorer][name].value for name in ("ndcg", "recall@2")]
            np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_lists_and_users_without_a_relevant_item_are_left_out_and_counted():
    """Users 2 and 3 like nothing of what was held out."""
    test = [(1, 2, 5), (1, 3, 1), (2, 2, 3), (2, 3, 1), (3, 2, 2)]
    result = evaluate(dataset_of(4, 5, train=[(1, 1, 5)], test=test), by_index(5), ["mrr", "ndcg"])
    for protocol, by_scorer in result.items():
        for scorer, metrics in by_scorer.items():
            assert (metrics["mrr"].num_lists, metrics["mrr"].num_left_out) == (1, 2), (protocol, scorer)
    assert result["rated"]["model"]["mrr"].value == 1 / 2
    # The gains of NDCG are graded: every rated list has some.
    assert (result["rated"]["model"]["ndcg"].num_lists, result["rated"]["model"]["ndcg"].num_left_out) == (3, 0)


def test_events_have_no_rated_lists_and_no_item_mean():
    events = dataset_of(3, 6, has_ratings=False, train=[(1, 5, 1), (2, 1, 1)], test=[(1, 4, 1), (1, 3, 3), (2, 2, 1)])
    result = evaluate(events, by_index(6), ["ndcg@2", "binary_ndcg@2"])
    assert list(result) == ["catalogue"]
    assert list(result["catalogue"]) == ["model", "popularity", "random"]
    # User 1: 4 and 3 are the first two of (4, 3, 2, 1). User 2: 2 is the last of (5, 4, 3, 2). Repeats do not count.
    for metrics in result["catalogue"].values():
        assert metrics["ndcg@2"].value == metrics["binary_ndcg@2"].value
    assert result["catalogue"]["model"]["ndcg@2"].value == pytest.approx(1 / 2)


class LastItem:
    """A model that recommends the successor of the last item of the history."""

    def __init__(self, num_items):
        self.num_items = num_items

    def query_vectors(self, features):
        last = tf.reduce_sum(tf.cast(features[HISTORY] != UNKNOWN_INDEX, tf.int32), axis=1) - 1
        items = tf.gather(features[HISTORY], last, batch_dims=1)
        return tf.one_hot((items + 1) % self.num_items, self.num_items)

    def candidate_vectors(self, items):
        return tf.gather(tf.eye(self.num_items), items)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_history_is_that_of_the_earlier_splits(split):
    """Everybody goes from one item to the next: 1 and 2 in training, 3 in validation, 4 in the test."""
    splits = {"train": [(1, 1, 1), (1, 2, 1)], "validation": [(1, 3, 1)], "test": [(1, 4, 1)]}
    events = dataset_of(2, 6, has_ratings=False, history_size=4, **splits)
    metrics = build_metrics(["recall@1"], relevance_threshold=1.0)
    result = evaluate(events, LastItem(6), ["recall@1"], split=split)
    assert result["catalogue"]["model"]["recall@1"].value == 1
    evaluator = catalogue_ranking.catalogue_evaluator(
        LastItem(6), events, split, metrics, num_users=-1, relevance_threshold=1.0, seed=0
    )
    assert evaluator()["recall@1"].value == 1


def test_a_catalogue_evaluator_sees_the_current_weights():
    """It has the metrics of the final evaluation, for the users that it draws."""
    dataset = random_dataset(11, num_users=30)
    model = TwoTowerModel(num_queries=30, num_items=9, embedding_size=4, seed=3)
    names = ["ndcg@3", "recall@3"]
    options = {"num_users": -1, "relevance_threshold": 4.0, "seed": 0}
    evaluator = catalogue_ranking.catalogue_evaluator(
        model, dataset, "test", build_metrics(names, relevance_threshold=4.0), **options
    )
    values = []
    for seed in (3, 4):
        model.assign_from(TwoTowerModel(num_queries=30, num_items=9, embedding_size=4, seed=seed))
        expected = evaluate(dataset, model, names)["catalogue"]["model"]
        found = evaluator()
        for name in names:
            assert found[name].value == pytest.approx(expected[name].value)
            assert found[name].num_lists == expected[name].num_lists
        values.append(found["ndcg@3"].value)
    assert values[0] != values[1]
    some = catalogue_ranking.catalogue_evaluator(
        model, dataset, "test", build_metrics(names, relevance_threshold=4.0), **options | {"num_users": 5}
    )
    assert some()["ndcg@3"].num_lists == 5


def test_a_scorer_that_ties_everything_is_as_good_as_a_random_order():
    """By index it would find the popular items."""
    dataset = random_dataset(13, num_users=20)
    names = ["ndcg@3", "binary_ndcg@3", "mrr", "map@3", "recall@2", "hits@2", "precision@3", "arp"]
    result = evaluate(dataset, ItemScores(np.zeros(9)), names)["catalogue"]
    for name in names:
        assert result["model"][name].value == pytest.approx(result["random"][name].value), name


def test_recent_popularity_is_printed_when_a_period_is_given():
    dataset = dataset_of(2, 5, train=[(1, 1, 5), (1, 2, 5)], test=[(1, 3, 5)])
    assert "recent_popularity" not in evaluate(dataset, by_index(5), ["mrr"])["catalogue"]
    assert list(evaluate(dataset, by_index(5), ["mrr"], recent_days=7)["rated"]) == [
        "model",
        "popularity",
        "recent_popularity",
        "item_mean",
        "random",
    ]


def test_recommendations_and_breakdowns_of_a_known_order():
    """Higher indices come first. The catalogue has 12 items."""
    train = [(1, 12, 5), (2, 12, 5), (2, 11, 5), (3, 11, 5), (1, 1, 5), (3, 2, 3)]
    dataset = dataset_of(4, 13, train=train, test=[(1, 11, 5), (2, 2, 4), (2, 1, 5), (3, 3, 1)])
    found = evaluate_queries(dataset, by_index(13), ["recall@1"])
    recommended = found.recommendations["model"]
    # User 1 gets 11, 10, ..., 2; user 2 gets 10, 9, ..., 1.
    assert recommended["coverage@10"] == pytest.approx(11 / 12)
    assert recommended["mean_popularity@10"] == pytest.approx((2 + 1 + 1 + 1) / 20)
    assert list(found.recommendations) == ["model", "popularity", "item_mean", "random"]
    activity = found.breakdowns["user_activity"]
    assert activity["groups"]["low"] == {"num_users": 2, "min_train_ratings": 2, "max_train_ratings": 2}
    assert activity["scorers"]["model"]["low"]["recall@1"] == 1 / 2
    items = found.breakdowns["item_popularity"]
    # Items 11 and 12 have two of the six training ratings each.
    assert items["groups"] == {
        "head": {"num_items": 1, "num_relevant": 1},
        "tail": {"num_items": 10, "num_relevant": 2},
    }
    assert items["scorers"]["model"]["tail"]["recall@10"] == pytest.approx(2 / 2)


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
    scorer = catalogue_ranking.build_scorer(by_index(num_items), dataset.query_source("train"), num_items=num_items)
    result = catalogue_ranking.metrics_from_ranks(catalogue_ranking.held_out_lists(scorer, held_out), metrics)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.values.shape == (2000, 1)
    assert peak < 10e6
