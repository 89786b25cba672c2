"""Which negatives are drawn, and which of them a list gets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import schema
from trainer.compat import tf
from trainer.training.candidates import NegativeSampler, sampled_lists

COUNTS = np.array([1000, 4, 0, 1, 9, 25, 1])


def sampler(counts=COUNTS, *, num_negatives=50, popularity_power=0.5, uniform_fraction=0.1, seed=3):
    return NegativeSampler(
        counts,
        num_negatives=num_negatives,
        popularity_power=popularity_power,
        uniform_fraction=uniform_fraction,
        seed=seed,
    )


@pytest.mark.parametrize(
    ("popularity_power", "uniform_fraction", "expected"),
    [
        (0.5, 0.0, np.array([0, 2, 0, 1, 3, 5, 1]) / 12),
        (1.0, 0.0, np.array([0, 4, 0, 1, 9, 25, 1]) / 40),
        (1.0, 0.3, 0.7 * np.array([0, 4, 0, 1, 9, 25, 1]) / 40 + 0.3 / 6 * np.array([0, 1, 1, 1, 1, 1, 1])),
        (0.0, 0.0, np.array([0, 1, 1, 1, 1, 1, 1]) / 6),
        (2.0, 1.0, np.array([0, 1, 1, 1, 1, 1, 1]) / 6),
    ],
)
def test_items_are_drawn_with_their_probabilities(popularity_power, uniform_fraction, expected):
    drawn_from = sampler(popularity_power=popularity_power, uniform_fraction=uniform_fraction, num_negatives=1000)
    np.testing.assert_allclose(drawn_from.probabilities, expected, rtol=1e-12)
    positive = expected > 0
    np.testing.assert_allclose(drawn_from.log_expected_counts[positive], np.log(1000 * expected[positive]), rtol=1e-6)
    assert np.all(drawn_from.log_expected_counts[~positive] == drawn_from.log_expected_counts[positive].min())

    negatives = drawn_from.draw(range(100))
    assert negatives.dtype == np.int32 and negatives.shape == (100, 1000)
    drawn = np.bincount(negatives.ravel(), minlength=len(COUNTS))
    assert np.all(drawn[~positive] == 0)
    times = 100_000 * expected[positive]
    # With 5 degrees of freedom, one of a million seeds is above 36.
    assert np.sum((drawn[positive] - times) ** 2 / times) < 36


def test_draws_of_neighbouring_steps_and_positions_are_independent():
    negatives = sampler(np.ones(5), num_negatives=1000, seed=0).draw(range(200)) - 1
    for first, second in (
        (negatives[:-1], negatives[1:]),
        (negatives[:, :-1], negatives[:, 1:]),
        (negatives, sampler(np.ones(5), num_negatives=1000, seed=1).draw(range(200)) - 1),
    ):
        pairs = np.bincount((4 * first + second).ravel(), minlength=16)
        expected = pairs.sum() / 16
        # With 15 degrees of freedom, one of a million seeds is above 57.
        assert np.sum((pairs - expected) ** 2 / expected) < 57


def test_the_negatives_of_a_step_depend_only_on_the_seed_and_the_step():
    negatives = sampler().draw(np.array([0, 5, 2**33 + 5]))
    np.testing.assert_array_equal(sampler().draw([2**33 + 5])[0], negatives[2])
    np.testing.assert_array_equal(sampler().draw([5, 0]), negatives[[1, 0]])
    assert len({tuple(row) for row in negatives}) == 3
    assert not np.array_equal(sampler(seed=4).draw([5])[0], negatives[1])
    # Fewer negatives are the first of more.
    np.testing.assert_array_equal(sampler(num_negatives=7).draw([5])[0], negatives[1, :7])


def test_the_draws_are_those_of_every_version():
    """A run that is resumed with another version of NumPy must draw the same."""
    np.testing.assert_array_equal(
        sampler(num_negatives=8, seed=1).draw([0, 1]), [[4, 5, 1, 1, 5, 1, 5, 3], [4, 4, 5, 3, 5, 2, 4, 5]]
    )


@pytest.mark.parametrize(("bits", "item"), [(0, 2), (2**64 - 1, 4)])
def test_the_outermost_numbers_draw_items_that_can_be_drawn(monkeypatch, bits, item):
    class Philox:
        def __init__(self, **_):
            pass

        def random_raw(self, size):
            return np.full(size, bits, np.uint64)

    monkeypatch.setattr(np.random, "Philox", Philox)
    drawn_from = sampler(np.array([5, 0, 3, 0, 2, 0]), uniform_fraction=0.0)
    np.testing.assert_array_equal(drawn_from.draw([0]), np.full([1, 50], item))


def test_without_any_rating_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="none of the 2 items"):
        sampler(np.array([7, 0, 0]))


def lists(items, labels, negatives, seen, num_items=20, **options):
    """Vectors of size 2: the score of item i for query q is q · i."""
    items, negatives = np.array(items, np.int32), np.array(negatives, np.int32)
    queries = np.stack([np.arange(1, len(items) + 1), np.zeros(len(items))], axis=1).astype(np.float32)
    vectors = np.stack([negatives, np.ones(len(negatives))], axis=1).astype(np.float32)
    return sampled_lists(
        tf.constant(queries),
        tf.constant(items),
        tf.constant(labels, tf.float32),
        tf.constant(queries[:, :1] * items.astype(np.float32)),
        negatives=tf.constant(negatives),
        negative_vectors=tf.constant(vectors),
        seen=tf.constant(np.array(seen, np.int32)),
        num_items=num_items,
        **options,
    )


def test_negatives_join_each_list_unless_it_or_the_query_has_them():
    labels, scores = lists(
        items=[[3, 4], [5, 0], [0, 0]],
        labels=[[2, 0], [1, -1], [-1, -1]],
        negatives=[4, 9, 5, 9, 1],
        seen=[[9, 0], [2, 0], [5, 1]],
    )
    np.testing.assert_array_equal(
        labels, [[2, 0, -1, -1, 0, -1, 0], [1, -1, 0, 0, -1, 0, 0], [-1, -1, 0, 0, -1, 0, -1]]
    )
    expected = np.array([1, 2, 3])[:, None] * [[3, 4, 4, 9, 5, 9, 1], [5, 0, 4, 9, 5, 9, 1], [0, 0, 4, 9, 5, 9, 1]]
    np.testing.assert_array_equal(scores, expected)


def test_several_lists_of_a_query_share_what_it_has_seen():
    labels, _ = lists(
        items=[[3], [4], [5], [6]], labels=[[1], [1], [1], [1]], negatives=[3, 7, 8, 6], seen=[[7, 3], [8, 0]]
    )
    np.testing.assert_array_equal(labels, [[1, -1, -1, 0, 0], [1, -1, -1, 0, 0], [1, 0, 0, -1, 0], [1, 0, 0, -1, -1]])


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_hits_against_numpy(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    num_queries, lists_per_query = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    num_items = data.draw(st.integers(2, 12))
    items = rng.integers(0, num_items, [num_queries * lists_per_query, data.draw(st.integers(1, 4))])
    seen = rng.integers(0, num_items, [num_queries, data.draw(st.integers(0, 6))])
    negatives = rng.integers(1, num_items, data.draw(st.integers(1, 9)))
    labels, _ = lists(items, np.zeros(items.shape), negatives, seen, num_items)
    for row, of_list in enumerate(labels.numpy()):
        hits = np.isin(negatives, np.append(items[row], seen[row // lists_per_query]))
        np.testing.assert_array_equal(of_list[items.shape[1] :], np.where(hits, schema.PADDING_LABEL, 0))


def test_with_the_correction_the_sum_estimates_that_over_all_unseen_items():
    """Σ exp(score) converges to the sum over the target and all items that were not seen, each once."""
    num_items, num_negatives, target = 8, 100_000, 2
    counts = np.array([0, 9, 1, 3, 0, 50, 4, 7])
    drawn_from = sampler(counts, num_negatives=num_negatives, uniform_fraction=0.2)
    rng = np.random.default_rng(0)
    query = rng.normal(0, 1, [1, 3]).astype(np.float32)
    vectors = rng.normal(0, 1, [num_items, 3]).astype(np.float32)
    scores = query @ vectors.T
    negatives = drawn_from.draw([0])[0]
    labels, with_negatives = sampled_lists(
        tf.constant(query),
        tf.constant([[target]]),
        tf.constant([[1.0]]),
        tf.constant(scores[:, [target]]),
        negatives=tf.constant(negatives),
        negative_vectors=tf.constant(vectors[negatives]),
        seen=tf.constant([[5, 6]]),
        num_items=num_items,
        log_expected_counts=tf.constant(drawn_from.log_expected_counts),
    )
    terms = np.where(labels >= 0, np.exp(with_negatives), 0)[0]
    expected = np.sum(np.exp(scores[0, [1, 2, 3, 4, 7]]))
    assert terms[0] == pytest.approx(np.exp(scores[0, target]))
    standard_error = np.std(terms[1:]) * np.sqrt(num_negatives)
    assert standard_error < 0.01 * expected
    assert abs(np.sum(terms) - expected) < 5 * standard_error


def test_xla_compiles_it_and_gradients_reach_both_vectors():
    items, negatives = tf.constant([[3, 4], [5, 0]]), tf.constant([4, 9, 5, 9, 1])
    queries, vectors = tf.random.stateless_normal([2, 3], [0, 1]), tf.random.stateless_normal([5, 3], [2, 3])

    def forward_backward(queries, vectors):
        with tf.GradientTape() as tape:
            tape.watch([queries, vectors])
            labels, scores = sampled_lists(
                queries,
                items,
                tf.ones([2, 2]),
                tf.zeros([2, 2]),
                negatives=negatives,
                negative_vectors=vectors,
                seen=tf.constant([[9], [2]]),
                num_items=20,
                log_expected_counts=tf.range(20.0),
            )
            total = tf.reduce_sum(tf.where(labels >= 0, scores, 0.0) ** 2)
        return labels, scores, *tape.gradient(total, [queries, vectors])

    for found, expected in zip(
        tf.function(forward_backward, jit_compile=True)(queries, vectors),
        forward_backward(queries, vectors),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert np.any(found != 0)
