"""Initial embeddings against the singular value decomposition of NumPy."""

import numpy as np
import pytest

from trainer.modeling.spectral import item_embeddings

NUM_USERS, NUM_ITEMS, SIZE = 60, 40, 5


@pytest.fixture(scope="module")
def events():
    """Two groups of users, each of which has seen items of its own half of the catalogue. Item 0 has no event."""
    generator = np.random.default_rng(0)
    is_seen = generator.random([NUM_USERS, NUM_ITEMS]) < 0.3
    is_seen[: NUM_USERS // 2, NUM_ITEMS // 2 :] = False
    is_seen[NUM_USERS // 2 :, : NUM_ITEMS // 2] = False
    is_seen[:, 0] = False
    pairs = generator.permutation(np.argwhere(is_seen)).astype(np.int32)
    return pairs[:, 0], pairs[:, 1]


def embed(events, embedding_size=SIZE, seed=0):
    return item_embeddings(*events, num_users=NUM_USERS, num_items=NUM_ITEMS, embedding_size=embedding_size, seed=seed)


def test_they_are_the_first_singular_vectors_of_the_normalized_matrix(events):
    matrix = np.zeros([NUM_USERS, NUM_ITEMS])
    matrix[events] = 1
    matrix /= np.sqrt(np.maximum(matrix.sum(1, keepdims=True), 1) * np.maximum(matrix.sum(0, keepdims=True), 1))
    _, values, vectors = np.linalg.svd(matrix)
    expected = vectors[:SIZE].T * np.sqrt(values[:SIZE])
    found = embed(events)
    # Vectors are determined up to a rotation within equal values, and up to their signs. Their products are not.
    products = found @ found.T
    np.testing.assert_allclose(products / np.trace(products), expected @ expected.T / np.sum(expected**2), atol=4e-3)
    assert np.std(found) == pytest.approx(0.05 / np.sqrt(3), rel=0.2)


def test_items_of_the_same_users_are_alike(events):
    embeddings = embed(events)[1:]
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    half = NUM_ITEMS // 2 - 1
    assert cosines[:half, half:].mean() < 0.1 < 0.3 < cosines[:half, :half].mean()


def test_every_size_gives_numbers_that_depend_on_the_seed_alone(events):
    for size in (1, 39, 64):
        found = embed(events, size)
        assert found.shape == (NUM_ITEMS, size) and np.isfinite(found).all()
        assert np.abs(found).max(axis=0).min() > 0  # No column is empty, not even beyond the rank of the matrix.
        np.testing.assert_array_equal(found, embed(events, size))
    assert np.abs(embed(events, seed=1) - embed(events)).max() > 0


def test_the_order_of_the_events_does_not_matter(events):
    shuffled = [column[::-1].copy() for column in events]
    np.testing.assert_array_equal(embed(shuffled), embed(events))
