"""Metrics from ranks against TF-Ranking's metrics of the whole list."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.reference import reference
from trainer.compat import tf
from trainer.evaluation.metrics import build_metrics, compute_metrics
from trainer.evaluation.rank_metrics import ranked_lists
from trainer.schema import PADDING_LABEL

NUM_ITEMS = 12
MAX_QUERIES = 4
SUBTOPICS = np.random.default_rng(5).integers(0, 2, [NUM_ITEMS, 3]).astype(bool)
SUBTOPICS[0] = False
KEYS = [
    "ndcg",
    "binary_ndcg",
    "dcg",
    "mrr",
    "map",
    "precision",
    "tfr_precision",
    "recall",
    "hits",
    "alpha_dcg",
    "precision_ia",
]
NAMES = [f"{key}{at}" for key in KEYS for at in ("", "@1", "@3", "@50")] + ["arp", "ordered_pair_accuracy"]
METRICS = build_metrics(NAMES, relevance_threshold=1.0, item_subtopics=SUBTOPICS)


@tf.function
def whole_list_metrics(labels, scores, items):
    return compute_metrics(METRICS, labels, scores, tf.ones(labels.shape[0]), items)


@st.composite
def catalogues(draw):
    """Labels and distinct scores of every item for some queries, and which items are no candidates."""
    num_queries = draw(st.integers(1, MAX_QUERIES))
    labels = [0.0, 0.0, 0.0, 1.0, 1.5, 2.0, 3.0]
    rows = [
        (
            [draw(st.sampled_from(labels)) for _ in range(NUM_ITEMS)],
            draw(st.permutations(range(NUM_ITEMS))),
            [draw(st.booleans()) for _ in range(NUM_ITEMS)],
        )
        for _ in range(num_queries)
    ]
    labels, scores, is_excluded = (np.array(column) for column in zip(*rows, strict=True))
    is_excluded[:, 0], is_excluded[:, 1] = True, False
    return labels.astype(np.float32), scores.astype(np.float32), is_excluded


def ranked(labels, scores, is_excluded, *, with_zeros=False):
    """RankedLists of the candidates with labels, in an arbitrary order within each query."""
    rng = np.random.default_rng(0)
    rows = []
    for row_labels, row_scores, row_excluded in zip(labels, scores, is_excluded, strict=True):
        candidates = np.flatnonzero(~row_excluded)
        by_score = candidates[np.argsort(-row_scores[candidates])].tolist()
        held_out = rng.permutation([item for item in candidates if with_zeros or row_labels[item] > 0])
        rows.append([(by_score.index(item) + 1, 1, row_labels[item], item) for item in held_out])
    return lists_of_entries(rows, np.sum(~is_excluded, axis=1))


def lists_of_entries(rows, num_candidates):
    """RankedLists of (rank, tie size, label, item) of each query."""
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    ranks, tie_sizes, labels, items = (np.array([entry[i] for row in rows for entry in row]) for i in range(4))
    return ranked_lists(offsets, ranks, tie_sizes, labels, labels >= 1, items.astype(np.int32), num_candidates)


@settings(deadline=None, max_examples=40)
@given(catalogue=catalogues(), with_zeros=st.booleans())
def test_values_and_weights_are_those_of_the_whole_list(catalogue, with_zeros):
    labels, scores, is_excluded = catalogue
    items = np.tile(np.arange(NUM_ITEMS, dtype=np.int32), [len(labels), 1])
    rows = np.where(is_excluded, PADDING_LABEL, labels).astype(np.float32), scores, items
    # Always as many lists, so that the metrics are traced once.
    whole = whole_list_metrics(*(np.resize(array, [MAX_QUERIES, NUM_ITEMS]) for array in rows)).numpy()[: len(labels)]
    lists = ranked(labels, scores, is_excluded, with_zeros=with_zeros)
    for metric, (values, weights) in zip(METRICS, np.moveaxis(whole, 0, 2), strict=True):
        actual, actual_weights = metric.from_ranks(lists)
        np.testing.assert_allclose(actual, values, rtol=1e-5, atol=1e-6, err_msg=metric.name)
        np.testing.assert_allclose(actual_weights, weights, rtol=1e-6, err_msg=metric.name)


@settings(deadline=None, max_examples=20)
@given(catalogue=catalogues())
def test_a_chunk_of_queries_has_the_same_values(catalogue):
    lists = ranked(*catalogue)
    for metric in METRICS:
        chunks = [lists.chunk(row, row + 1) for row in range(lists.num_queries)]
        for whole, *parts in zip(
            metric.from_ranks(lists), *(metric.from_ranks(chunk) for chunk in chunks), strict=True
        ):
            np.testing.assert_array_equal(np.concatenate(parts), whole, metric.name)


def test_an_item_that_cannot_be_ranked_is_missed():
    """Of two equally relevant items one is ranked first of ten candidates, and one not at all."""
    lists = lists_of_entries([[(np.inf, 1, 2.0, 0), (1, 1, 2.0, 3)]], np.array([10]))
    expected = {
        "ndcg": 1 / (1 + 1 / np.log2(3)),
        "ndcg@1": 1.0,
        "dcg@3": 3.0,
        "mrr": 1.0,
        "map": 1 / 2,
        "precision@3": 1 / 3,
        "precision": 1 / 11,
        "tfr_precision@50": 1 / 11,
        "recall@50": 1 / 2,
        "hits@1": 1.0,
        "arp": (1 + 11) / 2,  # After all candidates.
        "ordered_pair_accuracy": 9 / 18,  # 9 candidates of label 0, for each of the two.
    }
    for metric in build_metrics(list(expected), relevance_threshold=1.0):
        assert metric.from_ranks(lists)[0] == pytest.approx([expected[metric.name]]), metric.name


def test_without_a_ranked_item_nothing_is_gained():
    lists = lists_of_entries([[(np.inf, 1, 1.0, 0)]], np.array([10]))
    for metric in METRICS:
        expected = 11.0 if metric.name == "arp" else 0.0
        assert metric.from_ranks(lists)[0].tolist() == [expected], metric.name


def ties_of(labels, scores, *, with_zeros):
    """(rank, tie size, label, item) of each item with a label above 0, by counting."""
    return [
        (1 + int(np.sum(scores > scores[i])), int(np.sum(scores == scores[i])), labels[i], i)
        for i in range(len(labels))
        if with_zeros or labels[i] > 0
    ]


def mean_over_orders(name, labels, scores):
    """The mean of the metric over all orders of the items that agree with the scores."""
    values = []
    for order in itertools.permutations(range(len(labels))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            distinct = np.zeros(len(labels))
            distinct[list(order)] = -np.arange(len(labels))
            items = np.arange(len(labels))
            values.append(reference(name, labels, distinct, items, threshold=1.0, subtopics=SUBTOPICS))
    return np.mean(values)


@settings(deadline=None, max_examples=25)
@given(
    labels=st.lists(st.sampled_from([0.0, 0.0, 1.0, 1.5, 3.0]), min_size=5, max_size=5),
    scores=st.lists(st.sampled_from([0, 1, 2]), min_size=5, max_size=5),
    with_zeros=st.booleans(),
)
def test_with_ties_a_value_is_the_mean_over_all_orders(labels, scores, with_zeros):
    labels, scores = np.array(labels), np.array(scores)
    lists = lists_of_entries([ties_of(labels, scores, with_zeros=with_zeros)], np.array([len(labels)]))
    for metric in METRICS:
        expected = mean_over_orders(metric.name, labels, scores)
        assert metric.from_ranks(lists)[0] == pytest.approx([expected], abs=1e-9), metric.name


def test_the_order_of_tied_items_changes_nothing():
    """Of 100 tied items two are relevant. A break by index would find both, or neither."""
    lists = lists_of_entries([[(1, 100, 1.0, 1), (1, 100, 1.0, 2)]], np.array([100]))
    expected = {
        "recall@10": 0.1,
        "precision@10": 0.02,
        "hits@10": 1 - (90 / 100) * (89 / 99),
        # The first of two among 100 places: 2 / 99 · (H(100) − 1).
        "mrr": 2 / 99 * (np.sum(1 / np.arange(1, 101)) - 1),
        "ordered_pair_accuracy": 0.5,
        "arp": 50.5,
    }
    for metric in build_metrics(list(expected), relevance_threshold=1.0):
        assert metric.from_ranks(lists)[0] == pytest.approx([expected[metric.name]]), metric.name


def test_a_query_without_a_relevant_item_has_no_weight():
    lists = lists_of_entries([[(1, 1, 0.5, 1)], [(2, 1, 1.0, 1)], []], np.array([5, 5, 5]))
    weights = {metric.name: metric.from_ranks(lists)[1].tolist() for metric in METRICS}
    assert weights["mrr"] == weights["binary_ndcg@3"] == weights["alpha_dcg"] == [0, 1, 0]
    assert weights["ndcg"] == weights["dcg@1"] == [1, 1, 0]
