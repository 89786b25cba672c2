"""The best items and the ranks of items against a naive reference: ties, exclusions, and any chunk size."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.reference import LOWEST, naive_order, naive_ties
from trainer.compat import tf
from trainer.evaluation import catalogue
from trainer.evaluation.item_lists import ItemLists

# Unknown shapes, as in an exported model.
FLOATS, INTEGERS, NUMBER = (
    tf.TensorSpec([None, None]),
    tf.TensorSpec([None, None], tf.int32),
    tf.TensorSpec([], tf.int32),
)


@st.composite
def cases(draw, max_items=12):
    """Scores [batch_size, num_items] with many ties, excluded and held-out items, and a chunk size."""
    batch_size, num_items = draw(st.integers(1, 4)), draw(st.integers(1, max_items))
    values = [-2.5, -1.0, -0.0, 0.0, 1.0, 3.5, *draw(st.sampled_from([[], [np.nan, -np.inf, np.inf, LOWEST]]))]
    scores = [[draw(st.sampled_from(values)) for _ in range(num_items)] for _ in range(batch_size)]
    subsets = st.lists(st.integers(0, num_items - 1), max_size=num_items)
    excluded = [draw(subsets) for _ in range(batch_size)]
    items = [draw(subsets) for _ in range(batch_size)]
    return np.array(scores, np.float32), excluded, items, draw(st.integers(1, num_items + 2))


def padded(rows):
    return ItemLists.from_rows([np.array(row, np.int32) for row in rows]).padded()


@functools.cache
def traced_top_k(block_size):
    """With blocks of this size, which is a constant of the graph."""

    @tf.function(input_signature=[FLOATS, NUMBER, INTEGERS, NUMBER])
    def top_k(scores, k, excluded, chunk_size):
        return catalogue.top_k(
            lambda begin, end: scores[:, begin:end],
            tf.shape(scores)[1],
            k,
            catalogue.pairs_of(excluded),
            batch_size=tf.shape(scores)[0],
            chunk_size=chunk_size,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "_BLOCK_SIZE", block_size)
        return top_k.get_concrete_function()


@tf.function(input_signature=[FLOATS, INTEGERS, INTEGERS, NUMBER])
def ranks(scores, items, excluded, chunk_size):
    pairs = catalogue.pairs_of(excluded)
    return catalogue.ranks(lambda a, b: scores[:, a:b], tf.shape(scores)[1], items, pairs, chunk_size=chunk_size)


@settings(deadline=None, max_examples=150)
@given(case=cases(max_items=24), k=st.integers(1, 15), block_size=st.sampled_from([1, 2, 3, 32]))
def test_top_k_is_the_start_of_the_naive_order(case, k, block_size):
    scores, excluded, _, chunk_size = case
    arguments = (tf.constant(part) for part in (scores, k, padded(excluded), chunk_size))
    items, item_scores = (part.numpy() for part in traced_top_k(block_size)(*arguments))
    assert items.dtype == np.int32
    assert items.shape == item_scores.shape == (len(scores), min(k, scores.shape[1]))
    for row, row_excluded in enumerate(excluded):
        order = naive_order(scores[row], row_excluded)[:k]
        assert items[row].tolist() == order + [0] * (items.shape[1] - len(order))
        expected = [scores[row, item] if scores[row, item] > LOWEST else LOWEST for item in order]
        assert item_scores[row].tolist() == expected + [-np.inf] * (items.shape[1] - len(order))


@settings(deadline=None, max_examples=150)
@given(case=cases())
def test_ranks_count_the_better_and_the_equal_candidates(case):
    scores, excluded, items, chunk_size = case
    best_ranks, tie_sizes = (x.numpy() for x in ranks(scores, padded(items), padded(excluded), chunk_size))
    for row, (row_items, row_excluded) in enumerate(zip(items, excluded, strict=True)):
        expected = naive_ties(scores[row], row_items, row_excluded)
        expected += [(0, 0)] * (best_ranks.shape[1] - len(expected))
        assert list(zip(best_ranks[row].tolist(), tie_sizes[row].tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("num_bytes", "sizes"),
    [(4 * 2 * 10, [10, 10, 10, 5]), (4 * 2 * 70, [64, 64, 64, 8]), (1, [1, 1, 1, 1, 1])],
)
def test_no_array_has_a_cell_for_every_query_and_item(monkeypatch, num_bytes, sizes):
    """The default chunk follows from CHUNK_BYTES, and has whole blocks if it has any."""
    monkeypatch.setattr(catalogue, "CHUNK_BYTES", num_bytes)
    found = []

    def score_chunk(begin, end):
        found.append(int(end - begin))
        return tf.zeros([2, end - begin])

    none, num_items = tf.zeros([0, 2], tf.int32), sum(sizes) + 1
    catalogue.top_k(score_chunk, num_items, 3, none, batch_size=2)
    assert found == sizes
    catalogue.ranks(score_chunk, num_items, tf.ones([2, 1], tf.int32), none)
    assert found == 3 * sizes


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 9))
def test_the_best_are_found_by_blocks(seed, num_scores, block_size):
    """Few different scores, so that most blocks have the same highest one."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, rng.integers(2, 9), [3, num_scores]).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    k = int(rng.integers(1, -(-num_scores // block_size) + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "_BLOCK_SIZE", block_size)
        values, positions = catalogue._best_by_blocks(tf.constant(scores), tf.constant(k))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(scores, order, axis=1)
    np.testing.assert_array_equal(values[:, : expected.shape[1]], expected)
    is_real = expected > -np.inf
    np.testing.assert_array_equal(positions.numpy()[:, : expected.shape[1]][is_real], order[is_real])


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_scores_of_low_precision_are_ranked(dtype):
    scores = tf.constant([[9, 1, 3, 2, 3]], dtype)
    none = tf.zeros([0, 2], tf.int32)
    items, top = catalogue.top_k(lambda a, b: scores[:, a:b], 5, 3, none, batch_size=1)
    assert (items.numpy().tolist(), top.numpy().tolist()) == ([[2, 4, 3]], [[3, 3, 2]])
    best_ranks, tie_sizes = catalogue.ranks(lambda a, b: scores[:, a:b], 5, [[1, 4]], none)
    assert (best_ranks.numpy().tolist(), tie_sizes.numpy().tolist()) == ([[4, 1]], [[1, 2]])
