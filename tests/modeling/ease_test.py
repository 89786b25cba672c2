"""The closed form of EASE against its definition, and the blend against scores that are written out."""

import numpy as np
import pytest

from trainer import schema
from trainer.compat import tf
from trainer.modeling import ease
from trainer.modeling.ease import EaseBlend, item_item_weights
from trainer.modeling.two_tower import TwoTowerModel

NUM_USERS, NUM_ITEMS, REGULARIZATION = 40, 8, 3.0


@pytest.fixture(scope="module")
def events():
    """Events in a random order, as (users, items, inputs, targets)."""
    generator = np.random.default_rng(0)
    pairs = generator.permutation(np.argwhere(generator.random([NUM_USERS, NUM_ITEMS - 1]) < 0.4))
    inputs = generator.uniform(0.2, 1.0, len(pairs)).astype(np.float32)
    return pairs[:, 0].astype(np.int32), (pairs[:, 1] + 1).astype(np.int32), inputs, (inputs > 0.6).astype(np.float32)


def weights_of(events):
    users, items, inputs, targets = events
    return item_item_weights(
        users, items, inputs=inputs, targets=targets, num_items=NUM_ITEMS, regularization=REGULARIZATION
    )


def test_each_item_is_predicted_by_ridge_regression_on_the_other_items(events):
    users, items, inputs, targets = events
    x, y = np.zeros([NUM_USERS, NUM_ITEMS]), np.zeros([NUM_USERS, NUM_ITEMS])
    x[users, items], y[users, items] = inputs, targets
    weights = weights_of(events)
    for item in range(1, NUM_ITEMS):
        others = np.delete(np.arange(NUM_ITEMS), item)
        design = x[:, others]
        expected = np.linalg.solve(design.T @ design + REGULARIZATION * np.eye(NUM_ITEMS - 1), design.T @ y[:, item])
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-5)
        assert weights[item, item] == 0
    assert not weights[0].any() and not weights[:, 0].any()


def test_chunks_of_users_do_not_change_the_weights(events, monkeypatch):
    at_once = weights_of(events)
    monkeypatch.setattr(ease, "CHUNK_BYTES", 7 * 4 * NUM_ITEMS)
    np.testing.assert_allclose(weights_of(events), at_once, atol=1e-5)


def test_the_blend_adds_the_weighted_scores_of_ease():
    history = {"power": 0.0, "highest_rating": 5.0, "leave_out_targets": False}
    model = TwoTowerModel(
        num_queries=3, num_items=4, embedding_size=2, query_embedding=False, item_bias=True, history=history
    )
    model.item_bias.embeddings.assign([[0], [1], [2], [3]])
    weights = np.arange(16, dtype=np.float32).reshape(4, 4)
    features = {
        schema.HISTORY: tf.constant([[1, 3], [2, 0]]),
        schema.HISTORY_RATINGS: tf.constant([[5.0, 2.5], [5.0, 0.0]]),
        schema.ITEMS: tf.constant([[1, 2, 3], [3, 0, 1]]),
    }
    blend = EaseBlend(model, weights, weight=2.0)
    linear = 2.0 * np.stack([5 * weights[1] + 2.5 * weights[3], 5 * weights[2]])
    expected = model(features) + np.take_along_axis(linear, features[schema.ITEMS].numpy(), axis=1)
    np.testing.assert_allclose(blend(features), expected, rtol=1e-6)
    everything = tf.matmul(blend.query_vectors(features), blend.candidate_vectors(tf.range(4)), transpose_b=True)
    np.testing.assert_allclose(
        np.take_along_axis(everything.numpy(), features[schema.ITEMS].numpy(), axis=1), expected, rtol=1e-6
    )
