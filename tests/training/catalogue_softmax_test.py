"""The loss over the whole catalogue against TF-Ranking's on dense lists, and against a NumPy reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.compat import tf, tfr
from trainer.training.catalogue_softmax import catalogue_softmax

NUM_QUERIES, NUM_ITEMS, VECTOR_SIZE = 5, 11, 3
PAD = -1.0
# A list with a duplicate, one whose items are excluded too, a padding row, one without relevance, and one with an item
# that the vocabulary does not know.
ITEMS = np.array([[3, 5, 3, 9], [1, 2, 4, 0], [0, 0, 0, 0], [7, 8, 0, 0], [10, 0, 6, 0]], np.int32)
LABELS = np.array(
    [[1, 2, 0.5, 0], [4, 0, 1, PAD], [PAD] * 4, [0, 0, PAD, PAD], [1, 5, 1, PAD]],
    np.float32,
)
EXCLUDED = np.array([[1, 2, 0], [1, 4, 9], [0, 0, 0], [5, 5, 0], [3, 0, 6]], np.int32)
WEIGHTS = np.array([1, 0.5, 0, 1, 2], np.float32)
# [queries that fit into a chunk]: one, two, all.
CHUNK_BYTES = [4 * NUM_ITEMS, 2 * 4 * NUM_ITEMS, 1 << 20]


def vectors(scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    queries = rng.normal(0, scale, [NUM_QUERIES, VECTOR_SIZE]).astype(np.float32)
    return queries, rng.normal(0, scale, [NUM_ITEMS, VECTOR_SIZE]).astype(np.float32)


def dense_labels(items=ITEMS, labels=LABELS, excluded=EXCLUDED, num_items=NUM_ITEMS):
    """float32 [num_queries, num_items]: the label of every item, −1 where it is no candidate."""
    dense = np.zeros([len(items), num_items], np.float32)
    for row in range(len(items)):
        dense[row, excluded[row]] = PAD
        is_real = (labels[row] >= 0) & (items[row] > 0)
        dense[row, items[row, is_real]] = 0
        np.add.at(dense[row], items[row, is_real], labels[row, is_real])
        dense[row, 0] = PAD
    return dense


def evaluate(queries, candidates, chunk_bytes=1 << 20, weights=WEIGHTS, factor=1.0, jit_compile=False):
    """total, losses, and the gradients of factor · total. The losses of equal scores are checked."""

    @tf.function(jit_compile=jit_compile)
    def forward_backward(queries, candidates):
        with tf.GradientTape() as tape:
            tape.watch([queries, candidates])
            total, losses, equal_losses = catalogue_softmax(
                queries, candidates, ITEMS, LABELS, EXCLUDED, weights, chunk_bytes=chunk_bytes
            )
            scaled = factor * total
        return equal_losses, total, losses, *tape.gradient(scaled, [queries, candidates])

    equal_losses, *results = forward_backward(tf.constant(queries), tf.constant(candidates))
    dense = dense_labels()
    num_candidates = np.maximum((dense != PAD).sum(axis=1), 1)
    np.testing.assert_allclose(equal_losses, np.maximum(dense, 0).sum(axis=1) * np.log(num_candidates), rtol=1e-5)
    return [result.numpy() for result in results]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("chunk_bytes", [1, *CHUNK_BYTES])
def test_value_and_gradients_are_those_of_tf_ranking_on_the_dense_list(chunk_bytes, jit_compile):
    queries, candidates = vectors()
    loss = tfr.keras.losses.SoftmaxLoss(reduction=tf.keras.losses.Reduction.NONE)
    with tf.GradientTape() as tape:
        tensors = tf.constant(queries), tf.constant(candidates)
        tape.watch(tensors)
        expected = loss(dense_labels(), tf.matmul(*tensors, transpose_b=True))
        expected_total = tf.reduce_sum(expected * WEIGHTS)
        scaled = 3.0 * expected_total
    gradients = tape.gradient(scaled, tensors)
    total, losses, *found = evaluate(queries, candidates, chunk_bytes, factor=3.0, jit_compile=jit_compile)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    assert total == pytest.approx(float(expected_total), rel=1e-5)
    for gradient, expected_gradient in zip(found, gradients, strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
    assert losses[2] == losses[3] == 0
    assert np.all(found[0][2:4] == 0) and np.all(found[1][0] == 0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_scores_of_ten_thousand_are_exact(jit_compile):
    queries, candidates = vectors(scale=70.0)
    scores = queries.astype(np.float64) @ candidates.T.astype(np.float64)
    assert np.abs(scores).max() > 1e4
    scores = np.where(dense_labels() == PAD, -np.inf, scores)
    labels = np.maximum(dense_labels(), 0)
    highest = np.maximum(scores.max(axis=1, keepdims=True), -1e300)
    exponentials = np.exp(scores - highest)
    normalizer = exponentials.sum(axis=1, keepdims=True)
    log_normalizer = highest + np.log(normalizer)
    expected = np.sum(labels * np.where(labels > 0, log_normalizer - scores, 0), axis=1)
    score_gradient = WEIGHTS[:, None] * (labels.sum(axis=1, keepdims=True) * exponentials / normalizer - labels)
    _, losses, query_gradient, candidate_gradient = evaluate(queries, candidates, 1, jit_compile=jit_compile)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=0.05)
    np.testing.assert_allclose(query_gradient, score_gradient @ candidates, rtol=1e-2, atol=0.1)
    np.testing.assert_allclose(candidate_gradient, score_gradient.T @ queries, rtol=1e-2, atol=0.1)


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_any_lists_against_numpy(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    num_queries, num_items = data.draw(st.integers(1, 7)), data.draw(st.integers(2, 9))
    items = rng.integers(0, num_items, [num_queries, 4]).astype(np.int32)
    labels = rng.integers(-1, 3, [num_queries, 4]).astype(np.float32)
    excluded = rng.integers(0, num_items, [num_queries, data.draw(st.integers(0, 3))]).astype(np.int32)
    queries = rng.normal(0, 1, [num_queries, 2]).astype(np.float32)
    candidates = rng.normal(0, 1, [num_items, 2]).astype(np.float32)
    _, losses, equal_losses = catalogue_softmax(
        queries,
        candidates,
        items,
        labels,
        excluded,
        np.ones(num_queries, np.float32),
        chunk_bytes=data.draw(st.integers(1, 200)),
    )
    dense = dense_labels(items, labels, excluded, num_items)
    for row in range(num_queries):
        is_candidate = dense[row] != PAD
        scores = (queries[row] @ candidates.T.astype(np.float64))[is_candidate]
        log_normalizer = np.log(np.sum(np.exp(scores))) if scores.size else 0.0
        expected = np.sum(dense[row, is_candidate] * (log_normalizer - scores))
        assert float(losses[row]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        of_equal_scores = dense[row, is_candidate].sum() * np.log(max(scores.size, 1))
        assert float(equal_losses[row]) == pytest.approx(of_equal_scores, rel=1e-4, abs=1e-5)


def test_chunks_of_any_size_agree():
    queries, candidates = vectors(scale=2.0)
    whole = evaluate(queries, candidates)
    for chunk_bytes in CHUNK_BYTES:
        for found, expected in zip(evaluate(queries, candidates, chunk_bytes), whole, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_no_array_has_more_scores_than_a_chunk():
    """The graph of a chunk of one query holds no [num_queries, num_items]."""
    queries, candidates = (tf.constant(tensor) for tensor in vectors())
    function = tf.function(
        lambda: catalogue_softmax(queries, candidates, ITEMS, LABELS, EXCLUDED, WEIGHTS, chunk_bytes=4 * NUM_ITEMS)
    ).get_concrete_function()
    graphs = [function.graph, *(definition.graph for definition in function.graph._functions.values())]
    shapes = {
        tuple(output.shape)
        for graph in graphs
        for op in graph.get_operations()
        for output in op.outputs
        if output.shape.rank is not None
    }
    assert (1, NUM_ITEMS) in shapes
    assert (NUM_QUERIES, NUM_ITEMS) not in shapes


def test_a_query_without_candidates_has_no_loss_and_no_gradient():
    queries, candidates = (tf.constant(tensor) for tensor in vectors())
    excluded = np.tile(np.arange(NUM_ITEMS, dtype=np.int32), [NUM_QUERIES, 1])
    with tf.GradientTape() as tape:
        tape.watch([queries, candidates])
        total, losses, _ = catalogue_softmax(
            queries,
            candidates,
            np.zeros_like(ITEMS),
            np.full_like(LABELS, PAD),
            excluded,
            np.ones_like(WEIGHTS),
            chunk_bytes=1 << 20,
        )
    np.testing.assert_array_equal(losses, np.zeros(NUM_QUERIES))
    for gradient in tape.gradient(total, [queries, candidates]):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_only_the_total_is_differentiated():
    queries, candidates = (tf.Variable(tensor) for tensor in vectors())
    with tf.GradientTape() as tape:
        total, losses, _ = catalogue_softmax(queries, candidates, ITEMS, LABELS, EXCLUDED, WEIGHTS, chunk_bytes=1)
        both = total + 100.0 * tf.reduce_sum(losses)
    gradients = tape.gradient(both, [queries, candidates])
    for found, expected in zip(gradients, evaluate(*vectors())[2:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_vectors_get_half_precision_gradients():
    queries, candidates = (tf.cast(tensor, tf.bfloat16) for tensor in vectors())
    total, losses, *gradients = evaluate(queries, candidates)
    assert total.dtype == losses.dtype == np.float32
    assert [gradient.dtype for gradient in gradients] == [tf.bfloat16.as_numpy_dtype] * 2
    exact = evaluate(tf.cast(queries, tf.float32).numpy(), tf.cast(candidates, tf.float32).numpy())
    np.testing.assert_allclose(losses, exact[1], rtol=1e-6, atol=1e-6)
