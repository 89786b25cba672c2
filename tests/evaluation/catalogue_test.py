"""The catalogue scorer against a naive reference: ties, exclusions, and any chunk size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.helpers import users_only
from trainer.compat import tf
from trainer.evaluation import catalogue
from trainer.evaluation.catalogue import CatalogueScorer, ItemLists

LOWEST = np.finfo(np.float32).min
# Unknown shapes, as in an exported model.
FLOATS, INTEGERS, NUMBER = (
    tf.TensorSpec([None, None]),
    tf.TensorSpec([None, None], tf.int32),
    tf.TensorSpec([], tf.int32),
)


def naive_order(scores, excluded):
    """The candidates of one query, best first."""
    candidates = [item for item in range(1, len(scores)) if item not in set(excluded)]
    usable = {item: scores[item] if scores[item] > LOWEST else LOWEST for item in candidates}
    return sorted(candidates, key=lambda item: (-usable[item], item))


@st.composite
def cases(draw, with_special=True):
    """Scores [batch_size, num_items] with many ties, excluded and held-out items, and a chunk size."""
    batch_size, num_items = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    values = [-2.5, -1.0, -0.0, 0.0, 1.0, 3.5] + ([np.nan, -np.inf, np.inf, LOWEST] if with_special else [])
    scores = [[draw(st.sampled_from(values)) for _ in range(num_items)] for _ in range(batch_size)]
    subsets = st.lists(st.integers(0, num_items - 1), max_size=num_items)
    excluded = [draw(subsets) for _ in range(batch_size)]
    items = [draw(subsets) for _ in range(batch_size)]
    return np.array(scores, np.float32), excluded, items, draw(st.integers(1, num_items + 2))


def naive_ties(scores, items, excluded):
    """(best rank, number of tied candidates) of each item of one query; (0, 0) for item 0."""
    usable = np.where(scores > LOWEST, scores, LOWEST)
    ties = []
    for item in items:
        others = [o for o in range(1, len(scores)) if o != item and o not in set(excluded)]
        better, equal = (sum(compare(usable[o], usable[item]) for o in others) for compare in (np.greater, np.equal))
        ties.append((1 + better, 1 + equal) if item else (0, 0))
    return ties


def padded(rows):
    return ItemLists.from_rows([np.array(row, np.int32) for row in rows]).padded()


@tf.function(input_signature=[FLOATS, NUMBER, INTEGERS, NUMBER])
def top_k(scores, k, excluded, chunk_size):
    return catalogue.top_k(lambda a, b: scores[:, a:b], tf.shape(scores)[1], k, excluded, chunk_size=chunk_size)


@tf.function(input_signature=[FLOATS, INTEGERS, INTEGERS, NUMBER])
def ranks(scores, items, excluded, chunk_size):
    return catalogue.ranks(lambda a, b: scores[:, a:b], tf.shape(scores)[1], items, excluded, chunk_size=chunk_size)


@settings(deadline=None, max_examples=150)
@given(case=cases(), k=st.integers(1, 15))
def test_top_k_is_the_start_of_the_naive_order(case, k):
    scores, excluded, _, chunk_size = case
    items, item_scores = (part.numpy() for part in top_k(scores, k, padded(excluded), chunk_size))
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


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), chunk_size=st.integers(1, 40), queries_per_chunk=st.integers(1, 9))
def test_a_scorer_ranks_many_queries_in_any_chunks(seed, chunk_size, queries_per_chunk):
    rng = np.random.default_rng(seed)
    num_queries, num_items = 7, 30
    # Small integers: their products are exact, and many scores are equal.
    query_table = rng.integers(-2, 3, [50, 2]).astype(np.float32)
    candidates = rng.integers(-2, 3, [num_items, 2]).astype(np.float32)
    queries = rng.integers(0, 50, num_queries).astype(np.int32)
    items, excluded = (
        [rng.choice(num_items, rng.integers(0, 12), replace=False).astype(np.int32) for _ in range(num_queries)]
        for _ in range(2)
    )
    scorer = CatalogueScorer(
        lambda features: tf.gather(query_table, features["query"]),
        candidates,
        users_only(50),
        chunk_size=chunk_size,
        queries_per_chunk=queries_per_chunk,
    )
    best, scores = scorer.top_k(queries, 5, ItemLists.from_rows(excluded))
    best_ranks, tie_sizes = scorer.ranks(queries, ItemLists.from_rows(items), ItemLists.from_rows(excluded))
    expected = []
    for row, query in enumerate(queries):
        all_scores = candidates @ query_table[query]
        order = naive_order(all_scores, excluded[row])[:5]
        assert best[row].tolist() == order
        assert scores[row].tolist() == all_scores[order].tolist()
        expected += naive_ties(all_scores, items[row], excluded[row])
    assert list(zip(best_ranks.tolist(), tie_sizes.tolist(), strict=True)) == expected


def test_without_queries_a_scorer_returns_empty_arrays():
    scorer = CatalogueScorer(lambda features: tf.zeros([0, 2]), np.zeros([9, 2], np.float32), users_only(1))
    nobody = np.zeros(0, np.int32)
    items, scores = scorer.top_k(nobody, 3)
    assert (items.shape, scores.shape) == ((0, 3), (0, 3))
    assert [part.shape for part in scorer.ranks(nobody, ItemLists.empty(0))] == [(0,), (0,)]


def test_features_are_gathered_one_chunk_at_a_time_in_one_shape():
    """7 users in chunks of 3: the last chunk is filled up with unknown users, so nothing is traced again."""
    gathered, traced = [], []

    class Source:
        history_size = 2

        def gather(self, users):
            gathered.append(users.tolist())
            return {"query": users, "history": np.stack([users, users % 2], axis=1)}

    @tf.function
    def query_fn(features):
        traced.append(features["history"].shape)
        return tf.cast(features["history"], tf.float32)

    candidates = np.array([[9, 9], [1, 0], [0, 10]], np.float32)  # Item 2 is better for odd users below 10.
    scorer = CatalogueScorer(query_fn, candidates, Source(), queries_per_chunk=3)
    items, scores = scorer.top_k(np.arange(1, 8, dtype=np.int32), 1)
    assert gathered == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert traced == [(3, 2)]
    assert items[:, 0].tolist() == [2, 1, 2, 1, 2, 1, 2]
    assert scores[:, 0].tolist() == [10, 2, 10, 4, 10, 6, 10]


def test_rounding_in_the_matrix_product_does_not_change_ranks():
    """Every score is there twice. Float scores from two different products could break that."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=[3, 64]).astype(np.float32)
    # Row 0 is no candidate.
    candidates = np.tile(rng.normal(size=[500, 64]), [2, 1]).astype(np.float32)
    candidates = np.concatenate([candidates[:1], candidates])
    scorer = CatalogueScorer(
        lambda features: tf.gather(vectors, features["query"]), candidates, users_only(3), chunk_size=100
    )
    users = np.arange(3, dtype=np.int32)
    best_ranks, tie_sizes = scorer.ranks(users, ItemLists.from_rows([np.arange(1, 1001)] * 3))
    best, _ = scorer.top_k(users, 1000)
    assert set(tie_sizes.tolist()) == {2}
    for row, ranked in enumerate(best_ranks.reshape(3, -1)):
        assert sorted(ranked.tolist()) == sorted([*range(1, 1001, 2)] * 2)
        # Equal scores are ordered by index.
        assert best[row][ranked - 1].tolist() == [*range(1, 501)] * 2
        assert best[row][ranked].tolist() == [*range(501, 1001)] * 2


def test_no_array_has_a_cell_for_every_query_and_item(monkeypatch):
    """The default chunk follows from CHUNK_BYTES."""
    monkeypatch.setattr(catalogue, "CHUNK_BYTES", 4 * 2 * 10)
    sizes = []

    def score_chunk(begin, end):
        sizes.append(int(end - begin))
        return tf.zeros([2, end - begin])

    catalogue.top_k(score_chunk, 36, 3, tf.zeros([2, 1], tf.int32))
    assert sizes == [10, 10, 10, 5]


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_scores_of_low_precision_are_ranked(dtype):
    scores = tf.constant([[9, 1, 3, 2, 3]], dtype)
    none = tf.zeros([1, 1], tf.int32)
    items, top = catalogue.top_k(lambda a, b: scores[:, a:b], 5, 3, none)
    assert (items.numpy().tolist(), top.numpy().tolist()) == ([[2, 4, 3]], [[3, 3, 2]])
    best_ranks, tie_sizes = catalogue.ranks(lambda a, b: scores[:, a:b], 5, [[1, 4]], none)
    assert (best_ranks.numpy().tolist(), tie_sizes.numpy().tolist()) == ([[4, 1]], [[1, 2]])


def test_new_scorers_are_not_traced_again():
    """A scorer is built at each validation."""
    before = catalogue._top_k_of_vectors.experimental_get_tracing_count()
    for num_items in (5, 6, 7):
        scorer = CatalogueScorer(lambda features: tf.ones([1, 2]), np.ones([num_items, 2]), users_only(1))
        scorer.top_k(np.zeros(1, np.int32), 3)
    assert catalogue._top_k_of_vectors.experimental_get_tracing_count() <= max(before, 1)
