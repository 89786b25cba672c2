"""EmbeddingTable through its interface, with chunks smaller than the table."""

import numpy as np
import pytest

from trainer.compat import tf
from trainer.modeling import chunks, embedding
from trainer.modeling.embedding import EmbeddingTable

NUM_ROWS, SIZE = 7, 3
VALUES = np.arange(NUM_ROWS * SIZE, dtype=np.float32).reshape(NUM_ROWS, SIZE)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two rows per chunk."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 2 * SIZE * 4)


@pytest.fixture
def table():
    table = EmbeddingTable(NUM_ROWS, SIZE, seed=0)
    table.embeddings.assign(VALUES)
    return table


def test_lookup_returns_the_rows_of_the_indices(table):
    indices = np.array([[6, 0], [2, 2]])
    np.testing.assert_array_equal(table.lookup(indices), VALUES[indices])


def test_the_dense_gradient_sums_the_slices_of_a_row(table):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(table.lookup([2, 5, 2]) * [[1.0], [10.0], [100.0]])
    gradient = tape.gradient(total, table.embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    expected = np.zeros([NUM_ROWS, 1])
    expected[[2, 5]] = [[101], [10]]
    np.testing.assert_array_equal(
        table.gradient_of_rows(gradient, allow_sparse=False), np.broadcast_to(expected, [NUM_ROWS, SIZE])
    )


def test_values_are_copied(table):
    other = EmbeddingTable(NUM_ROWS, SIZE, seed=9)
    other.assign_from(table)
    np.testing.assert_array_equal(other.embeddings, VALUES)


def test_values_of_another_shape_are_refused(table):
    with pytest.raises(ValueError, match=r"\[8, 3\].*\[7, 3\]"):
        EmbeddingTable(8, SIZE, seed=0).assign_from(table)


@pytest.mark.parametrize("lookup_cost", [0, 100], ids=["lookups", "matrix product"])
def test_the_weighted_sum_is_the_same_by_lookups_and_by_a_matrix_product(table, monkeypatch, lookup_cost):
    monkeypatch.setattr(embedding, "_LOOKUP_COST", lookup_cost)
    indices = np.array([[6, 0, 6], [2, 1, 0]], np.int32)
    weights = np.array([[1.0, 0.5, 2.0], [10.0, -1.0, 0.0]], np.float32)
    expected = np.einsum("bn,bns->bs", weights, VALUES[indices])
    compiled = tf.function(table.weighted_sum, jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(indices), tf.constant(weights)), expected)


def test_all_returns_every_row(table):
    np.testing.assert_array_equal(table.all(), VALUES)
