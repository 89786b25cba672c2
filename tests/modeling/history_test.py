"""Encoders of a history against sums that are written out."""

import numpy as np
import pytest

from trainer.compat import tf
from trainer.modeling.embedding import EmbeddingTable
from trainer.modeling.history import PooledHistory, SequentialHistory
from trainer.modeling.randomness import Draws

VALUES = np.array([[9, 9], [1, 0], [0, 1], [2, 2], [4, -4]], np.float32)
HISTORY = np.array([[1, 3, 0], [0, 0, 0], [4, 2, 1]], np.int32)
RATINGS = np.array([[5, 2.5, 0], [0, 0, 0], [5, 5, 2.5]], np.float32)


def pooled(**options):
    encoder = PooledHistory(5, 2, **{"power": 0.0, "highest_rating": 5.0, **options})
    encoder.table.embeddings.assign(VALUES)
    return encoder


def test_a_history_is_the_sum_of_its_items_weighted_by_their_ratings():
    expected = [[1 + 0.5 * 2, 0.5 * 2], [0, 0], [4 + 0 + 0.5 * 1, -4 + 1]]
    np.testing.assert_allclose(pooled()(HISTORY, RATINGS), expected)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_sum_is_divided_by_a_power_of_the_total_weight(power):
    total = np.array([[1.5], [1.0], [2.5]])
    np.testing.assert_allclose(
        pooled(power=power)(HISTORY, RATINGS), pooled()(HISTORY, RATINGS) / total**power, rtol=1e-6
    )


def test_an_older_item_counts_less():
    """With a half-life of 1, the items of three count 1/4, 1/2 and 1, the oldest first."""
    weights = pooled(recency_half_life=1.0).item_weights(tf.constant(HISTORY), tf.constant(RATINGS))
    np.testing.assert_allclose(weights, [[0.5, 0.5, 0], [0, 0, 0], [0.25, 0.5, 0.5]])


def test_padding_has_no_effect_whatever_its_rating():
    longer = np.pad(HISTORY, [[0, 0], [0, 2]]), np.pad(RATINGS, [[0, 0], [0, 2]], constant_values=3)
    encoder = pooled(power=0.5, recency_half_life=2.0)
    np.testing.assert_allclose(encoder(*longer), encoder(HISTORY, RATINGS), rtol=1e-6)


def test_the_items_that_a_step_drops_do_not_count():
    encoder = pooled(dropout=0.5)
    history = tf.tile([[1, 2, 3, 4]], [64, 1])
    draws = Draws(3, 7, tf.range(64))
    kept = encoder.is_kept(history, draws).numpy()
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(encoder(history, tf.fill([64, 4], 5.0), draws), kept.astype(np.float32) @ VALUES[1:])


def test_what_a_step_drops_depends_on_the_item_and_not_on_its_place():
    encoder, draws = pooled(dropout=0.5), Draws(3, 7, tf.range(64))
    history = tf.tile([[1, 2, 3, 4]], [64, 1])
    np.testing.assert_array_equal(
        encoder.is_kept(history[:, ::-1], draws)[:, ::-1].numpy(), encoder.is_kept(history, draws).numpy()
    )


@pytest.fixture(scope="module")
def sequential():
    table = EmbeddingTable(6, 4, seed=1)
    return SequentialHistory(table, size=5, num_layers=1, num_heads=2, dropout=0.5, seed=2)


def test_each_item_of_a_list_is_encoded_by_the_items_before_it(sequential):
    """Without dropout, the encoding before item t is that of the history of the first t items."""
    items = tf.constant([[3, 1, 5, 2], [4, 2, 0, 0]])
    before = sequential.before_each(items, None).numpy()
    assert not before[:, 0].any()
    for t in range(1, 4):
        history = np.pad(items[:, :t], [[0, 0], [0, 5 - t]])
        np.testing.assert_allclose(before[0, t], sequential(history, None)[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(before[1, 2], sequential(tf.constant([[4, 2, 0, 0, 0]]), None)[0], rtol=1e-4, atol=1e-6)


def test_the_order_of_a_history_matters_and_an_empty_one_is_zero(sequential):
    one, other, empty = sequential(tf.constant([[1, 2, 3], [2, 1, 3], [0, 0, 0]]), None).numpy()
    assert np.abs(one - other).max() > 1e-4
    assert not empty.any()
