"""Metrics of a scorer on lists against plain NumPy, on any number of replicas."""

import numpy as np
import pytest

from tests.conftest import mirrored_strategy
from tests.evaluation.helpers import DEFAULT_STRATEGY, NUM_ITEMS, lists_of, random_lists
from trainer.compat import tf
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.metrics import build_metrics
from trainer.schema import ITEMS, LABELS

# One score per item, all different.
SCORES = np.random.default_rng(5).permutation(NUM_ITEMS).astype(np.float32)


def score_items(features):
    return tf.gather(SCORES, features[ITEMS])


def evaluator_of(lists, names, *, scorer=score_items, on=DEFAULT_STRATEGY, **options):
    metrics = build_metrics(names, relevance_threshold=4.0)
    return Evaluator(on, scorer, lists, metrics, global_batch_size=8, **options)


def numpy_metrics(lists):
    """Name → value and weight of each list by SCORES, straight from the definitions."""
    values = {"loss": [], "ndcg": [], "mrr": [], "ordered_pair_accuracy": []}
    for _, items, labels in (lists[i] for i in range(lists.num_lists)):
        scores = SCORES[items]
        labels = labels[np.argsort(-scores)]
        discounts = 1 / np.log2(np.arange(len(items)) + 2)
        best = np.sort(labels)[::-1]
        ranks = np.flatnonzero(labels >= 4) + 1
        pairs = [(a, b) for a in range(len(labels)) for b in range(len(labels)) if labels[a] > labels[b]]
        values["loss"].append((scores.sum(), 1))
        values["ndcg"].append((((2**labels - 1) @ discounts) / ((2**best - 1) @ discounts), 1))
        values["mrr"].append((1 / ranks[0] if len(ranks) else 0, len(ranks) > 0))
        values["ordered_pair_accuracy"].append((np.mean([a < b for a, b in pairs]) if pairs else 0, len(pairs)))
    return {name: np.array(pairs, np.float64).T for name, pairs in values.items()}


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_each_list_has_its_metrics_on_any_number_of_replicas(num_replicas):
    lists = random_lists(21, 8)  # In batches of 8 the last has 5 lists, and one of 4 replicas only padding rows.
    on = DEFAULT_STRATEGY if num_replicas == 1 else mirrored_strategy(num_replicas)

    def losses_fn(features):
        losses = tf.reduce_sum(tf.where(features[LABELS] >= 0, score_items(features), 0.0), axis=1)
        return tf.stack([losses, losses + 1.0, losses + 2.0], axis=1)

    evaluator = evaluator_of(lists, ["ndcg", "mrr", "ordered_pair_accuracy"], on=on, losses_fn=losses_fn)
    per_list, means = evaluator.evaluate_lists(), evaluator.evaluate()
    assert per_list.names == list(means) == ["loss", "relative_loss", "ndcg", "mrr", "ordered_pair_accuracy"]
    expected = numpy_metrics(lists)
    losses = expected["loss"][0]
    expected["relative_loss"] = (losses + 1) / (losses + 2), losses + 2
    assert means["relative_loss"].value == pytest.approx(np.sum(losses + 1) / np.sum(losses + 2), rel=1e-5)
    for name, (values, weights) in expected.items():
        column = per_list.names.index(name)
        np.testing.assert_allclose(per_list.values[:, column], values, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(per_list.weights[:, column], weights, rtol=1e-6, err_msg=name)
        assert means[name].value == pytest.approx(np.average(values, weights=weights), rel=1e-5), name
        assert means[name].num_lists == np.count_nonzero(weights), name
        assert means[name].num_left_out == 21 - np.count_nonzero(weights), name


def test_an_evaluator_sees_the_current_weights():
    sign = tf.Variable(1.0)
    lists = lists_of([(1, [1, 2], [5, 1]), (2, [3, 4], [4, 2])], 2)
    evaluator = evaluator_of(lists, ["mrr"], scorer=lambda features: sign * features[LABELS])
    assert evaluator.evaluate()["mrr"].value == 1.0
    sign.assign(-1.0)
    assert evaluator.evaluate()["mrr"].value == 0.5


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_metric_that_no_list_defines_is_not_a_number():
    mean = evaluator_of(lists_of([(1, [1, 2], [3, 3])], 2), ["ordered_pair_accuracy"]).evaluate()
    assert np.isnan(mean["ordered_pair_accuracy"].value)
    assert mean["ordered_pair_accuracy"].num_lists == 0


def test_a_loss_that_is_not_finite_on_padding_rows_does_not_count():
    lists = random_lists(3, 8)

    def losses_fn(features):
        losses = tf.math.log(tf.reduce_max(features[LABELS], axis=1) + 1.0) + 1.0  # −inf where all labels are −1.
        return tf.stack([losses, losses, losses], axis=1)

    for loss in evaluator_of(lists, [], losses_fn=losses_fn).evaluate().values():
        assert loss.num_lists == 3 and np.isfinite(loss.value)
