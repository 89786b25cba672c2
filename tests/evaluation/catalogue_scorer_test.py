"""The scorer of many queries against a naive reference, in any chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.helpers import users_only
from tests.evaluation.reference import naive_order, naive_ties
from trainer.compat import tf
from trainer.evaluation import catalogue_scorer, item_lists
from trainer.evaluation.catalogue_scorer import CatalogueScorer, candidate_matrix
from trainer.evaluation.item_lists import ItemLists, chunks


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


@pytest.mark.parametrize("max_entries", [1, 3, 8, 100])
def test_rows_are_split_where_their_padded_matrix_would_be_too_large(monkeypatch, max_entries):
    monkeypatch.setattr(item_lists, "_MAX_CHUNK_ENTRIES", max_entries)
    widths = np.array([1, 1, 4, 1, 0, 9, 2, 2, 2])
    parts = list(chunks(widths, max_rows=4))
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(9))
    for rows in parts:
        assert len(rows) == 1 or (len(rows) <= 4 and len(rows) * widths[rows].max() <= max_entries)
        # A chunk ends only where one more row would be too much.
        if rows[-1] < 8 and len(rows) < 4:
            assert (len(rows) + 1) * max(widths[rows].max(), widths[rows[-1] + 1]) > max_entries


def test_a_query_with_very_many_items_is_ranked_alone(monkeypatch):
    monkeypatch.setattr(item_lists, "_MAX_CHUNK_ENTRIES", 6)
    scored = []
    ranks_of_vectors = catalogue_scorer._ranks_of_vectors
    monkeypatch.setattr(
        catalogue_scorer,
        "_ranks_of_vectors",
        lambda *arguments: scored.append(arguments[2].shape) or ranks_of_vectors(*arguments),
    )
    candidates = np.arange(9, dtype=np.float32)[:, np.newaxis]
    num_done = []
    scorer = CatalogueScorer(lambda _: tf.ones([4, 1]), candidates, users_only(5), advance=num_done.append)
    items = ItemLists.from_rows([np.array(row) for row in ([1, 2], [3], [4, 5, 6, 7, 8], [8])])
    best_ranks, _ = scorer.ranks(np.arange(4, dtype=np.int32), items)
    assert scored == [(2, 2), (1, 5), (1, 1)]
    assert best_ranks.tolist() == [9 - item for item in items.items]
    scorer.top_k(np.arange(4, dtype=np.int32), 4)
    assert num_done == [2, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("num_items", [1, 3, 4, 9])
def test_the_vectors_of_all_items_are_computed_some_at_a_time(monkeypatch, num_items):
    monkeypatch.setattr(catalogue_scorer, "_ITEMS_PER_CANDIDATE_CHUNK", 4)
    sizes = []

    def candidate_fn(items):
        sizes.append(len(items))
        return tf.stack([items, items**2], axis=1)

    matrix = candidate_matrix(candidate_fn, num_items)
    np.testing.assert_array_equal(matrix, [[item, item**2] for item in range(num_items)])
    assert sizes == {1: [1], 3: [3], 4: [4], 9: [4, 4, 1]}[num_items]


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


def test_new_scorers_are_not_traced_again():
    """A scorer is built at each validation."""
    before = catalogue_scorer._top_k_of_vectors.experimental_get_tracing_count()
    for num_items in (5, 6, 7):
        scorer = CatalogueScorer(lambda features: tf.ones([1, 2]), np.ones([num_items, 2]), users_only(1))
        scorer.top_k(np.zeros(1, np.int32), 3)
    assert catalogue_scorer._top_k_of_vectors.experimental_get_tracing_count() <= max(before, 1)
