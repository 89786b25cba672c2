"""Encoders of a history against sums that are written out."""

import numpy as np
import pytest

from trainer.compat import tf
from trainer.modeling import history
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
    weights: np.ndarray = np.array([[0.5, 0.5, 0], [0, 0, 0], [0.25, 0.5, 0.5]])
    expected = np.einsum("ij,ijk->ik", weights, VALUES[HISTORY])
    np.testing.assert_allclose(pooled(recency_half_life=1.0)(HISTORY, RATINGS), expected)


def test_without_ratings_all_items_count_alike():
    expected = np.array([[1 + 2, 2], [0, 0], [4 + 0 + 1, -4 + 1]]) / np.sqrt([[2], [1], [3]])
    np.testing.assert_allclose(pooled(weights="equal", power=0.5)(HISTORY, RATINGS), expected, rtol=1e-6)


def test_centered_ratings_count_by_their_difference_from_the_mean_of_the_history():
    """The mean of all ratings, 3, counts as five more ratings of the history."""
    encoder = pooled(weights="centered_ratings", mean_rating=3.0, power=1.0)
    first, last = (5 + 2.5 + 5 * 3) / 7, (5 + 5 + 2.5 + 5 * 3) / 8
    expected = [
        ((5 - first) * VALUES[1] + (2.5 - first) * VALUES[3]) / 2,
        [0, 0],
        ((5 - last) * (VALUES[4] + VALUES[2]) + (2.5 - last) * VALUES[1]) / 3,
    ]
    np.testing.assert_allclose(encoder(HISTORY, RATINGS), expected, rtol=1e-5)


def test_the_ratings_that_a_step_drops_are_not_in_the_mean():
    """They are labels of the step."""
    encoder = pooled(weights="centered_ratings", mean_rating=3.0, dropout=0.5)
    history, ratings, draws = (
        np.tile([[1, 2, 3, 4]], [64, 1]),
        np.tile([[1.0, 5, 2, 4]], [64, 1]),
        Draws(3, 7, tf.range(64)),
    )
    kept = encoder.is_kept(tf.constant(history, tf.int32), draws).numpy()
    mean = ((kept * ratings).sum(1, keepdims=True) + 15) / (kept.sum(1, keepdims=True) + 5)
    found = encoder(tf.constant(history, tf.int32), tf.constant(ratings, tf.float32), draws)
    np.testing.assert_allclose(found, (kept * (ratings - mean)) @ VALUES[1:], rtol=1e-4, atol=1e-4)


def test_a_residual_layer_follows_the_normalized_sum():
    encoder, plain = pooled(hidden_size=3, seed=4), pooled()
    generator = np.random.default_rng(0)
    np.testing.assert_allclose(encoder(HISTORY, RATINGS)[0], [1, -1], rtol=1e-5)  # The layer starts as nothing.
    for variable in encoder.trainable_variables[1:]:
        variable.assign(generator.normal(size=variable.shape))
    gain, offset, kernel, bias, out, out_bias = (variable.numpy() for variable in encoder.trainable_variables[1:])
    total = plain(HISTORY, RATINGS).numpy()
    deviation = total - total.mean(1, keepdims=True)
    normal = gain * deviation / np.sqrt((deviation**2).mean(1, keepdims=True) + 1e-6) + offset
    expected = normal + np.tanh(normal @ kernel + bias) @ out + out_bias
    np.testing.assert_allclose(encoder(HISTORY, RATINGS), expected, rtol=1e-4)


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


def test_long_histories_are_encoded_a_few_at_a_time(sequential, monkeypatch):
    """Three of five at once: the last two are padded. The number of histories may be unknown or 0."""
    histories: np.ndarray = np.array([[3, 1, 5, 2, 0], [4, 2, 0, 0, 0], [0] * 5, [1, 2, 3, 4, 5], [5, 0, 0, 0, 0]])
    histories = histories.astype(np.int32)
    expected = sequential(histories, None).numpy()
    sizes = []
    monkeypatch.setattr(history, "CHUNK_BYTES", 3 * 4 * 2 * 5**2)
    encode = sequential._encode
    monkeypatch.setattr(sequential, "_encode", lambda chunk: sizes.append(chunk.shape[0]) or encode(chunk))
    np.testing.assert_allclose(sequential(histories, None), expected, rtol=1e-5, atol=1e-6)
    assert sizes[0] == 3
    serving = tf.function(lambda rows: sequential(rows, None), input_signature=[tf.TensorSpec([None, None], tf.int32)])
    np.testing.assert_allclose(serving(histories), expected, rtol=1e-5, atol=1e-6)
    assert serving(histories[:0]).shape == (0, 4)
