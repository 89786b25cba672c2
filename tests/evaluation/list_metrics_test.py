"""Ranks by counting against a sort, and each metric against TF-Ranking's own on the same lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.compat import tf, tfr
from trainer.evaluation.list_metrics import ScoredLists, order_keys, ranks_of, sum_over_partners
from trainer.evaluation.metrics import build_metrics, compute_metrics
from trainer.schema import PADDING_LABEL

_impl = tfr.keras.metrics.metrics_impl
GRADED = {
    "ndcg": _impl.NDCGMetric,
    "dcg": _impl.DCGMetric,
    "arp": _impl.ARPMetric,
    "ordered_pair_accuracy": _impl.OPAMetric,
}
BINARY = {
    "binary_ndcg": _impl.NDCGMetric,
    "mrr": _impl.MRRMetric,
    "map": _impl.MeanAveragePrecisionMetric,
    "precision": _impl.PrecisionMetric,
    "tfr_precision": _impl.PrecisionMetric,
    "recall": _impl.RecallMetric,
    "hits": _impl.HitsMetric,
}
WITH_SUBTOPICS = {"precision_ia": _impl.PrecisionIAMetric, "alpha_dcg": _impl.AlphaDCGMetric}
WHOLE_LIST = ("arp", "ordered_pair_accuracy")
NAMES = [f"{key}{at}" for key in GRADED | BINARY | WITH_SUBTOPICS for at in ("", "@1", "@20")]
NAMES = [name for name in NAMES if name in WHOLE_LIST or not name.startswith(WHOLE_LIST)]

THRESHOLD = 3.0
NUM_ITEMS = 60
SUBTOPICS = np.random.default_rng(7).random([NUM_ITEMS, 5]) < 0.3
NUM_LISTS = 30

# Floats whose bits are not in the order of the values, or that are equal with different bits, or that are extreme.
UNUSUAL = [0.0, -0.0, 1.0, -1.0, -1.5, 1e-30, -1e-30, 3e38, -3e38, np.inf, -np.inf]
FLOATS = st.sampled_from(UNUSUAL) | st.floats(width=32, allow_nan=False, allow_subnormal=False)


def random_lists(list_size):
    """Labels, scores and items of lists with padding at any place, one without a relevant label and one of padding."""
    rng = np.random.default_rng(list_size)
    labels = rng.choice([0.0, 0.5, 1.0, 2.5, 3.0, 4.0, 5.0], [NUM_LISTS, list_size])
    labels[rng.random(labels.shape) < rng.random([NUM_LISTS, 1])] = PADDING_LABEL
    labels[0] = np.minimum(labels[0], 2.5)
    labels[1] = np.minimum(labels[1], 0.0)
    labels[2] = PADDING_LABEL
    scores = rng.permuted(np.tile(np.linspace(-2, 3, list_size), [NUM_LISTS, 1]), axis=1)
    items = rng.integers(0, NUM_ITEMS, labels.shape)
    return labels.astype(np.float32), scores.astype(np.float32), items.astype(np.int32)


def compute(names, labels, scores, items):
    """The value and the weight of each list, [num_lists] each, by the name of the metric; compiled by XLA."""
    metrics = build_metrics(names, relevance_threshold=THRESHOLD, item_subtopics=SUBTOPICS)

    @tf.function(jit_compile=True)
    def evaluate(labels, scores, items):
        return compute_metrics(metrics, labels, scores, tf.ones(labels.shape[0]), items)

    pairs = evaluate(*map(tf.constant, (labels, scores, items))).numpy()
    return dict(zip(names, np.moveaxis(pairs, 0, 2), strict=True))


def tf_ranking(name, labels, scores, items):
    """The values and weights of TF-Ranking's implementation, [num_lists] each."""
    key, _, cutoff = name.partition("@")
    options = {} if key in WHOLE_LIST else {"topn": int(cutoff) if cutoff else None}
    metric = (GRADED | BINARY | WITH_SUBTOPICS)[key](name, **options)
    is_real = labels >= 0
    if key not in GRADED:
        labels = np.where(is_real, labels >= THRESHOLD, PADDING_LABEL).astype(np.float32)
    if key in WITH_SUBTOPICS:
        labels = np.where(is_real[:, :, np.newaxis], labels[:, :, np.newaxis] * SUBTOPICS[items], PADDING_LABEL)
    values, weights = metric.compute(tf.constant(labels, tf.float32), tf.constant(scores), tf.ones([len(labels), 1]))
    if key == "precision" and cutoff:  # The one key with another definition: short lists are divided by the cutoff too.
        values *= np.minimum(is_real.sum(axis=1, keepdims=True) / int(cutoff), 1)
    return np.ravel(values), np.ravel(weights)


@pytest.mark.parametrize("list_size", [1, 11, 37])
def test_values_and_weights_are_those_of_tf_ranking(list_size):
    labels, scores, items = random_lists(list_size)
    for name, (values, weights) in compute(NAMES, labels, scores, items).items():
        expected, expected_weights = tf_ranking(name, labels, scores, items)
        np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-6, err_msg=name)
        if name in WHOLE_LIST:
            np.testing.assert_allclose(weights, expected_weights, rtol=1e-6, err_msg=name)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), list_size=st.integers(1, 32))
def test_a_rank_is_the_place_in_a_stable_sort(data, list_size):
    values = np.array(data.draw(st.lists(FLOATS, min_size=list_size, max_size=list_size)), np.float32)
    is_real = np.array(data.draw(st.lists(st.booleans(), min_size=list_size, max_size=list_size)))
    # −3.4e38 and −∞ are equal: both are at least the lowest finite number.
    comparable = np.where(is_real, np.maximum(values, np.finfo(np.float32).min), -np.inf)
    order = np.argsort(-comparable, kind="stable")
    expected = np.empty(list_size, np.int32)
    expected[order] = 1 + np.arange(list_size)
    ranks = ranks_of(order_keys(tf.constant(values[:, np.newaxis]), tf.constant(is_real[:, np.newaxis])))
    np.testing.assert_array_equal(ranks[:, 0], expected)


def test_the_keys_of_zeros_are_equal_under_xla_too():
    zeros = tf.constant([[0.0, -0.0]])
    keys = tf.function(order_keys, jit_compile=True)(zeros, tf.constant([[True, True]])).numpy()
    assert keys[0, 0] == keys[0, 1]


def test_a_score_that_is_not_a_number_comes_last_but_before_padding():
    scores = tf.constant([[np.nan, 2.0, -np.inf, 9.0, 1.0]])
    lists = ScoredLists(tf.constant([[5.0, 1.0, 2.0, PADDING_LABEL, 3.0]]), scores)
    rank_by_label = dict(zip(lists.labels[:, 0].numpy().tolist(), lists.ranks[:, 0].numpy().tolist(), strict=True))
    assert rank_by_label[1.0] == 1 and rank_by_label[3.0] == 2
    assert {rank_by_label[5.0], rank_by_label[2.0]} == {3, 4} and rank_by_label[0.0] == 5


def test_ties_are_ordered_by_one_permutation_of_the_positions():
    """Equal scores have the order that they have in a list where all scores are equal."""
    rng = np.random.default_rng(3)
    list_size = 25
    labels = rng.choice([0.0, 2.0, 3.0, 4.0, PADDING_LABEL], [NUM_LISTS, list_size]).astype(np.float32)
    scores = rng.integers(0, 3, labels.shape).astype(np.float32)
    items = rng.integers(0, NUM_ITEMS, labels.shape).astype(np.int32)
    one_hit = 5 * np.eye(list_size, dtype=np.float32)  # At each position in turn.
    places = 1 / compute(["mrr"], one_hit, 0 * one_hit, np.zeros(one_hit.shape, np.int32))["mrr"][0]
    assert sorted(np.round(places)) == list(range(1, list_size + 1)) and np.any(np.diff(places) < 0)
    distinct = scores - places / 100
    # Pairs with equal scores are another matter for ordered_pair_accuracy.
    names = [name for name in NAMES if name != "ordered_pair_accuracy"]
    for name, (values, _) in compute(names, labels, scores, items).items():
        expected, _ = tf_ranking(name, labels, distinct, items)
        np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-6, err_msg=name)


def test_a_pair_with_equal_scores_is_in_the_wrong_order():
    labels, scores = (
        np.array([[4.0, 2.0, 1.0, PADDING_LABEL]], np.float32),
        np.array([[1.0, 1.0, 0.0, 5.0]], np.float32),
    )
    values, weights = compute(["ordered_pair_accuracy"], labels, scores, np.zeros([1, 4], np.int32))[
        "ordered_pair_accuracy"
    ]
    assert (values.tolist(), weights.tolist()) == (pytest.approx([2 / 3]), [3.0])


@pytest.mark.parametrize("list_size", [1, 2, 10, 11, 21, 40])
def test_every_pair_counts_once_with_the_partner_where_it_stands(list_size):
    """Each entry is paired with itself and all others: first those that come later, then those that come earlier."""
    place = tf.range(list_size)[:, tf.newaxis]
    total = sum_over_partners(lambda later: later, [(place, 1000 * (1 + place))])[:, 0].numpy().tolist()
    assert total == [sum(range(i, list_size)) + sum(1000 * (1 + j) for j in range(i)) for i in range(list_size)]
