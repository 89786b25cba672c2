"""A number that is not finite, planted in one step on one replica, reaches no variable, and the step is named."""

import math

import numpy as np
import pytest

from settings.errors import DivergedError
from tests.modeling.input_pipeline_test import lists_of_sizes
from tests.training.planted_steps import K, build_steps
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.evaluation.metrics import build_metrics
from trainer.modeling import embedding
from trainer.strategy import Compilation
from trainer.training import divergence

NAN, INF = math.nan, math.inf
LAST_ROW = 6  # Of the second replica, where there are two.


def check_planted(planted, cases, *, is_exact=True):
    """Plants each case in step 12 of the steps 10 to 15, and looks at all variables after them.

    Args:
      cases: (what, number, row).
      is_exact: whether a step with gradients of 0 changes nothing.
    """
    planted.objective.step.assign(-1)
    taken = planted.take(2, 10)
    assert int(taken.failed_step) == divergence.NO_STEP and np.isfinite(taken.health).all()
    expected = [variable.numpy() for variable in planted.variables]
    for what, number, row in cases:
        planted.reset()
        planted.objective.step.assign(12)
        planted.objective.row.assign(row)
        planted.objective.of_loss.assign(number if what == "loss" else 0.0)
        planted.objective.of_gradients.assign(number if what == "gradients" else 0.0)
        taken = planted.take(K, 10)
        assert int(taken.failed_step) == 12, what
        assert np.isfinite(taken.health[0]) == (what == "gradients")
        with pytest.raises(DivergedError, match=f"at step 13 the {what} became"):
            divergence.check_step(int(taken.failed_step), taken.health.numpy())
        for variable, value in zip(planted.variables, expected, strict=True):
            assert np.isfinite(variable.numpy()).all(), (what, number, variable.name)
            if is_exact and variable.dtype.is_floating:
                np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.name)


CASES = [("loss", NAN, 0), ("loss", -INF, LAST_ROW), ("gradients", NAN, LAST_ROW), ("gradients", INF, 0)]


def test_on_one_device_with_metrics_whose_steps_are_taken_in_parts():
    """Nor does a later part of the call update anything."""
    metrics = build_metrics(["ndcg"], relevance_threshold=2.0)
    check_planted(build_steps(metrics=metrics), [*CASES, ("gradients", 1e30, 0)])


def test_in_sparse_gradients(monkeypatch):
    monkeypatch.setattr(embedding, "_ROWS_PER_INDEX", 0)
    check_planted(build_steps(), CASES)


@pytest.mark.parametrize("is_sparse", [True, pytest.param(False, marks=pytest.mark.long)])
def test_on_one_of_two_replicas(monkeypatch, is_sparse):
    if is_sparse:
        monkeypatch.setattr(embedding, "_ROWS_PER_INDEX", 0)
    check_planted(build_steps(2, clip_norm=1.0), CASES)


def test_in_one_of_four_virtual_replicas():
    check_planted(build_steps(2, num_virtual=4), CASES)


def test_where_the_strategy_compiles_the_step(monkeypatch):
    monkeypatch.setattr(strategy_lib, "compilation", lambda strategy: Compilation.RUN)
    check_planted(build_steps(), CASES)


def test_with_an_optimizer_that_moves_on_without_gradients():
    """Its moments and its weight decay go on. All variables stay finite."""
    check_planted(build_steps(optimizer_name="adamw", weight_decay=0.1, clip_norm=0.5), CASES, is_exact=False)


@pytest.mark.parametrize(
    ("health", "said"),
    [
        ((NAN, NAN), "the loss became nan"),
        ((INF, 1.0), "the loss became inf"),
        ((3.0, NAN), "the gradients became nan"),
        ((3.0, INF), "the gradients became infinite, or too large to be squared"),
    ],
)
def test_the_error_names_step_and_number(health, said):
    with pytest.raises(DivergedError, match=f"at step 1,235 {said}.*learning_rate.*clip_norm"):
        divergence.check_step(1234, health)


@pytest.mark.parametrize(
    ("train", "validation", "is_equal", "said"),
    [
        (0.99996, 0.9, False, ()),
        (0.5, None, False, ()),
        (1.0, None, False, ("training lists is 1 times",)),
        (7e5, 0.9, False, ("training lists is 7e+05 times",)),
        (0.5, 1.5, False, ("validation lists is 1.5 times",)),
        (NAN, NAN, False, ("no training list had a target",)),
        (0.5, 0.5, True, ("the same score",)),
        (1.0, 1.0, True, ("training lists", "validation lists", "the same score")),
    ],
)
def test_a_run_that_learnt_nothing_says_so_in_one_paragraph(train, validation, is_equal, said):
    found = divergence.warnings_of(train, validation, has_equal_scores=is_equal)
    assert len(found) == bool(said)
    assert all(part in found[0] for part in said)


def test_equal_scores_are_those_of_the_real_entries_of_each_list():
    lists = lists_of_sizes([2, 3, 1], list_size=3)

    def ranker(*rows):
        return lambda features: tf.constant(rows)

    assert divergence.has_equal_scores(ranker([1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [3.0, 4.0, 5.0]), lists)
    assert not divergence.has_equal_scores(ranker([1.0, 1.0, 1.0], [2.0, 2.0, 2.1], [3.0, 3.0, 3.0]), lists)
    of_one_item = lists_of_sizes([1, 1], list_size=3)
    assert not divergence.has_equal_scores(ranker([1.0, 1.0, 9.0], [2.0, 2.0, 2.0]), of_one_item)


def test_all_shapes_are_looked_at():
    """The last number of a gradient counts as the first one does."""
    shapes = [(), (3,), (5, 1), (2, 3, 4)]
    good = [tf.ones(shape) for shape in shapes]
    good.append(tf.IndexedSlices(tf.ones([4, 2]), tf.range(4), tf.constant([9, 2])))

    def is_usable(gradients, loss=1.0):
        marked = divergence.mark(divergence.health(tf.constant(loss), gradients), gradients)
        return bool(divergence.is_usable(marked))

    assert is_usable(good) and not is_usable(good, NAN)
    for place, gradient in enumerate(good):
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        for number in (NAN, INF, -INF):
            array = np.array(values)
            array.reshape(-1)[-1] = number
            bad = list(good)
            bad[place] = tf.constant(array)
            if isinstance(gradient, tf.IndexedSlices):
                bad[place] = tf.IndexedSlices(tf.constant(array), gradient.indices, gradient.dense_shape)
            assert not is_usable(bad), (gradient, number)


def test_a_mark_is_seen_in_the_sum_of_any_gradient():
    """A replica whose health is not finite marks the first gradient; the other replica adds good rows before it."""
    good = [tf.ones([4]), tf.ones([4, 2]), tf.ones([2, 3, 4]), tf.constant(1.0)]
    for gradient in good:
        (marked, _) = divergence.mark(tf.constant([1.0, NAN]), [gradient, gradient])
        assert not divergence.is_usable([gradient + marked, gradient])
        assert divergence.is_usable(divergence.mark(tf.constant([1.0, 1.0]), [gradient]))
    rows = tf.IndexedSlices(tf.ones([4, 2]), tf.range(4), tf.constant([9, 2]))
    (marked,) = divergence.mark(tf.constant([INF, 1.0]), [rows])
    of_both = tf.concat([rows.values, marked.values], axis=0)
    assert not divergence.is_usable([tf.IndexedSlices(of_both, tf.range(8), rows.dense_shape)])
