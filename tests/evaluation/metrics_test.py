"""Each metric against its definition and against the Keras metric."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import ConfigError
from settings.trainer_config.evaluation import METRIC_KEYS
from tests.evaluation.reference import reference
from trainer.compat import tf, tfr
from trainer.evaluation.metrics import build_metrics, compute_metrics

PAD = -1.0
THRESHOLD = 3.0
LIST_SIZE = 6
# Items 0 to 9 with three genres; item 9 has none.
SUBTOPICS = np.random.default_rng(5).integers(0, 2, [10, 3]).astype(bool)
SUBTOPICS[9] = False

PLAIN = ["ndcg", "binary_ndcg", "dcg", "mrr", "map", "precision", "tfr_precision", "recall", "hits"]
WITH_SUBTOPICS = ["alpha_dcg", "precision_ia"]
WHOLE_LIST = ["arp", "ordered_pair_accuracy"]
NAMES = [f"{key}{at}" for key in PLAIN + WITH_SUBTOPICS for at in ("", "@1", "@3", "@50")] + WHOLE_LIST


def compute(names, labels, scores, weights=None, items=None, threshold=THRESHOLD):
    labels = np.asarray(labels, np.float32)
    weights = np.ones(len(labels), np.float32) if weights is None else weights
    items = np.zeros(labels.shape, np.int32) if items is None else items
    metrics = build_metrics(names, relevance_threshold=threshold, item_subtopics=SUBTOPICS)
    assert [metric.name for metric in metrics] == list(names)
    pairs = compute_metrics(metrics, tf.constant(labels), tf.constant(scores, tf.float32), weights, tf.constant(items))
    return {name: tuple(pair) for name, pair in zip(names, np.moveaxis(pairs.numpy(), 0, 2), strict=True)}


@st.composite
def batches(draw):
    num_lists = draw(st.integers(1, 4))
    label = st.sampled_from([PAD, 0.0, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0])
    labels = [draw(st.lists(label, min_size=LIST_SIZE, max_size=LIST_SIZE)) for _ in range(num_lists)]
    scores = [np.array(draw(st.permutations(range(LIST_SIZE)))) / 4 - 0.7 for _ in range(num_lists)]
    item = st.integers(0, len(SUBTOPICS) - 1)
    items = [draw(st.lists(item, min_size=LIST_SIZE, max_size=LIST_SIZE)) for _ in range(num_lists)]
    return np.array(labels, np.float32), np.array(scores, np.float32), np.array(items, np.int32)


@settings(deadline=None, max_examples=12)
@given(batches())
def test_each_list_has_the_value_that_the_definition_gives(batch):
    labels, scores, items = batch
    weights = np.any(labels >= 0, axis=1).astype(np.float32)
    for name, (values, list_weights) in compute(NAMES, labels, scores, weights, items).items():
        for row in np.flatnonzero(weights):
            expected = reference(name, labels[row], scores[row], items[row], threshold=THRESHOLD, subtopics=SUBTOPICS)
            assert values[row] == pytest.approx(expected, rel=1e-5, abs=1e-6), name
        if name not in WHOLE_LIST:
            # TF-Ranking takes the weight of a list without relevant items from the rest of the batch.
            least = 1e-9 if name.startswith(("ndcg", "dcg")) else THRESHOLD
            np.testing.assert_array_equal(list_weights, weights * np.any(labels >= least, axis=1), name)
        assert np.all(list_weights[weights == 0] == 0) and np.all(np.isfinite(values)), name


LABELS = np.array([[4, 0, 5, 2, PAD, 1], [1, 0, 2, PAD, PAD, 0], 6 * [PAD], [3, PAD, 2, 4, 0, 5]], np.float32)
SCORES = np.random.default_rng(1).normal(size=LABELS.shape).astype(np.float32)
WEIGHTS = np.array([1, 1, 0, 1], np.float32)
KERAS = {
    "ndcg@3": tfr.keras.metrics.NDCGMetric(topn=3),
    "dcg": tfr.keras.metrics.DCGMetric(),
    "arp": tfr.keras.metrics.ARPMetric(),
    "ordered_pair_accuracy": tfr.keras.metrics.OPAMetric(),
    "mrr": tfr.keras.metrics.MRRMetric(),
    "map@2": tfr.keras.metrics.MeanAveragePrecisionMetric(topn=2),
    "tfr_precision@3": tfr.keras.metrics.PrecisionMetric(topn=3),
    "recall@3": tfr.keras.metrics.RecallMetric(topn=3),
    "hits@1": tfr.keras.metrics.HitsMetric(topn=1),
}


def test_precision_divides_by_the_cutoff_and_tfr_precision_by_the_length_of_a_shorter_list():
    """Two of three items are relevant. Among five recommendations that would be two of five."""
    labels, scores = [[5.0, 1.0, 4.0, PAD, PAD, PAD]], [[3.0, 2.0, 1.0, 9.0, 9.0, 9.0]]
    names = ["precision@5", "tfr_precision@5", "precision@2", "tfr_precision@2", "precision", "tfr_precision"]
    values = {name: float(value[0]) for name, (value, _) in compute(names, labels, scores).items()}
    assert values == pytest.approx(
        {
            "precision@5": 2 / 5,
            "tfr_precision@5": 2 / 3,
            "precision@2": 1 / 2,
            "tfr_precision@2": 1 / 2,
            "precision": 2 / 3,
            "tfr_precision": 2 / 3,
        }
    )


@pytest.mark.parametrize("name", KERAS)
def test_over_a_batch_the_mean_is_that_of_the_keras_metric(name):
    # With threshold 1 relevance is TF-Ranking's own. Keras must not count the padding row.
    values, weights = compute([name], LABELS, SCORES, WEIGHTS, threshold=1.0)[name]
    expected = KERAS[name](LABELS, SCORES, sample_weight=WEIGHTS[:, np.newaxis])
    assert np.sum(values * weights) / np.sum(weights) == pytest.approx(float(expected), rel=1e-6)
    KERAS[name].reset_state()
    assert float(KERAS[name](LABELS[[0, 1, 3]], SCORES[[0, 1, 3]])) == pytest.approx(float(expected), rel=1e-6)


def test_a_label_at_the_threshold_is_relevant_and_one_below_is_not():
    # The best score is on 2, then come 3 and 5.
    labels, scores = [[5.0, 2.0, 3.0, PAD]], [[0.1, 0.9, 0.5, 2.0]]
    names = ["mrr", "precision@2", "recall@2", "hits@1", "ndcg@1"]
    at_3 = {name: values[0] for name, (values, _) in compute(names, labels, scores, threshold=3.0).items()}
    ndcg_at_1 = pytest.approx(3 / 31)
    assert at_3 == {"mrr": 0.5, "precision@2": 0.5, "recall@2": 0.5, "hits@1": 0.0, "ndcg@1": ndcg_at_1}
    at_2 = {name: values[0] for name, (values, _) in compute(names, labels, scores, threshold=2.0).items()}
    assert at_2["mrr"] == at_2["hits@1"] == at_2["precision@2"] == 1.0 and at_2["ndcg@1"] == ndcg_at_1
    above_3 = compute(["mrr"], labels, scores, threshold=3.5)["mrr"][0]
    assert above_3 == pytest.approx(1 / 3)


def test_a_list_without_a_relevant_item_has_no_weight():
    """Keras would count it, with the weight that the other lists have on average."""
    labels, scores = [[5.0, 1.0, PAD], [2.0, 1.0, PAD], [0.0, 0.0, PAD]], [[3.0, 2.0, 1.0]] * 3
    for name, (_, weights) in compute([*PLAIN, *WITH_SUBTOPICS], labels, scores).items():
        assert weights.tolist() == ([1, 1, 0] if name in ("ndcg", "dcg") else [1, 0, 0]), name


def test_ties_are_broken_at_random_but_always_the_same_way():
    labels = 5 * np.eye(LIST_SIZE, dtype=np.float32)  # One good item, at each place in turn.
    first = compute(["mrr"], labels, np.zeros_like(labels))["mrr"][0]
    again = compute(["mrr"], labels, np.zeros_like(labels))["mrr"][0]
    np.testing.assert_array_equal(first, again)
    ranks = np.round(1 / first).tolist()
    assert sorted(ranks) == list(range(1, LIST_SIZE + 1)) and ranks != sorted(ranks)


def test_several_scores_of_the_same_lists_are_computed_together():
    metrics = build_metrics(["ndcg", "arp", "precision_ia"], relevance_threshold=3.0, item_subtopics=SUBTOPICS)
    items = np.arange(LABELS.size, dtype=np.int32).reshape(LABELS.shape) % len(SUBTOPICS)
    stacked = np.stack([SCORES, -SCORES, SCORES[::-1]])
    together = compute_metrics(metrics, *map(tf.constant, (LABELS, stacked, WEIGHTS, items)))
    assert together.shape == [3, len(LABELS), len(metrics), 2]
    for scores, pairs in zip(stacked, together, strict=True):
        alone = compute_metrics(metrics, *map(tf.constant, (LABELS, scores, WEIGHTS, items)))
        np.testing.assert_array_equal(pairs, alone)


def test_every_key_of_tf_ranking_is_there():
    keys = [value for name, value in vars(tfr.keras.metrics.RankingMetricKey).items() if name.isupper()]
    assert set(METRIC_KEYS) == {*keys, "binary_ndcg", "recall", "tfr_precision"}
    built = build_metrics(list(METRIC_KEYS), relevance_threshold=1.0, item_subtopics=SUBTOPICS)
    assert [metric.name for metric in built] == list(METRIC_KEYS)


@pytest.mark.parametrize("name", ["alpha_dcg@10", "precision_ia"])
def test_metrics_of_subtopics_need_subtopics(name):
    with pytest.raises(ConfigError, match="genres"):
        build_metrics([name], relevance_threshold=1.0)
