"""The score is the dot product of the towers' vectors."""

import numpy as np
import pytest

from trainer.compat import tf
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import ITEMS, QUERY

QUERIES = np.array([[9, 9], [1, 2], [-1, 3]], np.float32)
CANDIDATES = np.array([[8, 8], [1, 0], [0, 1], [2, -1]], np.float32)
FEATURES = {QUERY: tf.constant([2, 1]), ITEMS: tf.constant([[1, 2, 3], [3, 3, 0]])}
SCORES = [[-1, 3, -5], [0, 0, 24]]


def build(**arguments):
    return TwoTowerModel(**{"num_queries": 3, "num_items": 4, "embedding_size": 2, **arguments})


@pytest.fixture
def planted():
    model = build()
    model.set_weights([QUERIES, CANDIDATES])
    return model


def test_scores_are_dot_products_of_the_embeddings(planted):
    np.testing.assert_array_equal(planted(FEATURES), SCORES)


def test_scores_compile_to_the_same_and_have_a_static_shape(planted):
    compiled = tf.function(planted.call, jit_compile=True)
    np.testing.assert_array_equal(compiled(FEATURES), SCORES)
    assert compiled.get_concrete_function(FEATURES).output_shapes == [2, 3]


def test_score_all_scores_the_whole_catalogue(planted):
    np.testing.assert_array_equal(planted.score_all(tf.constant([2, 1])), [[16, -1, 3, -5], [24, 1, 2, 0]])


def test_hidden_layers_transform_the_embeddings():
    """Query tower: relu(e·W + b)·V + c. The candidate tower has weights of its own: it negates."""
    model = build(hidden_sizes=[3])
    w, b = np.array([[1, 0, -1], [0, 1, 0]], np.float32), np.array([0, -1, 0], np.float32)
    v, c = np.array([[1, 0], [0, 2], [5, 5]], np.float32), np.array([0, 10], np.float32)
    identity = np.eye(2, 3, dtype=np.float32)
    none = [np.zeros(3, np.float32), np.zeros(2, np.float32)]
    positive = np.abs(CANDIDATES)
    model.set_weights([QUERIES, w, b, v, c, positive, identity, none[0], -identity.T, none[1]])
    # (1, 2) → relu(1, 1, -1) → (1, 12), and (-1, 3) → relu(-1, 2, 1) → (5, 19); the last layer is linear.
    expected = -np.array([[5, 19], [1, 12]]) @ positive.T
    np.testing.assert_array_equal(model.score_all(tf.constant([2, 1])), expected)
    np.testing.assert_array_equal(model(FEATURES), np.take_along_axis(expected, FEATURES[ITEMS].numpy(), axis=1))


@pytest.mark.parametrize("hidden_sizes", [(), (5,)])
@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_initial_weights_are_determined_by_the_seed(hidden_sizes, seed):
    weights = build(hidden_sizes=hidden_sizes, seed=seed).get_weights()
    with tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:2]).scope():
        mirrored = build(hidden_sizes=hidden_sizes, seed=seed).get_weights()
    other = build(hidden_sizes=hidden_sizes, seed=seed - 1 if seed else 1).get_weights()
    for array, same, different in zip(weights, mirrored, other, strict=True):
        np.testing.assert_array_equal(array, same)
        if array.any():  # Biases start at zero whatever the seed.
            assert not np.isin(array, different).any()


def test_no_two_tables_start_alike():
    query, candidate = build(num_queries=4).get_weights()
    assert not np.isin(query, candidate).any()
    # Glorot's limits differ, so shapes are alike but numbers would be multiples of each other.
    kernels = [weight for weight in build(hidden_sizes=[2, 2]).get_weights() if weight.shape == (2, 2)]
    correlations = np.corrcoef([kernel.ravel() for kernel in kernels])
    assert np.abs(np.triu(correlations, 1)).max() < 0.99


def test_the_gradient_of_a_mean_reaches_only_the_rows_used(planted):
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(planted(FEATURES))
    query, candidate = (tf.convert_to_tensor(g) for g in tape.gradient(mean, planted.trainable_variables))
    # Query 2 met items 1, 2 and 3; query 1 met item 3 twice and item 0 once; of each score the mean takes 1/6.
    sums = [[0, 0], 2 * CANDIDATES[3] + CANDIDATES[0], CANDIDATES[1] + CANDIDATES[2] + CANDIDATES[3]]
    np.testing.assert_allclose(query, np.array(sums) / 6, rtol=1e-6)
    sums = [QUERIES[1], QUERIES[2], QUERIES[2], QUERIES[2] + 2 * QUERIES[1]]
    np.testing.assert_allclose(candidate, np.array(sums) / 6, rtol=1e-6)
    only_query_2 = {QUERY: FEATURES[QUERY][:1], ITEMS: FEATURES[ITEMS][:1, :2]}
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(planted(only_query_2))
    _, candidate = (tf.convert_to_tensor(g) for g in tape.gradient(mean, planted.trainable_variables))
    assert candidate.numpy().any(axis=1).tolist() == [False, True, True, False]
