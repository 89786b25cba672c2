"""The metrics of the comparison, against all orders of tied items."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="SciPy is not installed; `pip install '.[bench]'` installs it")

from benchmarks.quality.method import same_for_all
from benchmarks.quality.metrics import USERS_PER_CHUNK, catalogue_metrics, rated_metrics
from tests.benchmarks.helpers import interactions

small_scores = st.lists(st.integers(0, 2), min_size=4, max_size=5)


def one_user(items: list[int], num_items: int):
    return interactions([(0, item) for item in items]).matrix(1, num_items)


class TestMetrics:
    @given(small_scores, st.data())
    def test_ties_count_by_their_expectation(self, scores, data):
        """The mean over all orders of the items that agree with the scores."""
        num_items = len(scores)
        relevant = data.draw(st.sets(st.integers(0, num_items - 1), min_size=1))
        excluded = data.draw(st.sets(st.integers(0, num_items - 1))) - relevant
        cutoff = data.draw(st.integers(1, num_items))
        candidates = [item for item in range(num_items) if item not in excluded]
        orders = [
            order
            for order in itertools.permutations(candidates)
            if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
        ]
        discounts = 1 / np.log2(np.arange(2, num_items + 2))
        dcgs = [
            sum(discounts[rank] for rank, item in enumerate(order[:cutoff]) if item in relevant) for order in orders
        ]
        hits = [sum(item in relevant for item in order[:cutoff]) for order in orders]

        _, values = catalogue_metrics(
            same_for_all(np.array(scores, np.float32)),
            excluded=one_user(sorted(excluded), num_items),
            relevant=one_user(sorted(relevant), num_items),
            names=[f"binary_ndcg@{cutoff}", f"recall@{cutoff}"],
        )

        ideal = discounts[: min(cutoff, len(relevant))].sum()
        assert values[f"binary_ndcg@{cutoff}"] == pytest.approx([np.mean(dcgs) / ideal])
        assert values[f"recall@{cutoff}"] == pytest.approx([np.mean(hits) / len(relevant)])

    def test_chunks_are_put_together(self):
        """The relevant item of user u is on the rank 1 + u mod 7."""
        num_users, num_items = 2 * USERS_PER_CHUNK + 3, 12
        users = np.arange(num_users)
        relevant = interactions([(user, 0) for user in users if user % 5]).matrix(num_users, num_items)
        excluded = interactions([(user, 11) for user in users]).matrix(num_users, num_items)

        def scores(rows):
            better = np.arange(1, num_items) <= (rows % 7)[:, np.newaxis]
            own = np.concatenate([np.zeros([len(rows), 1]), np.where(better, 1.0, -1.0)], axis=1)
            own[:, 11] = 9.0
            return own

        evaluated, values = catalogue_metrics(
            scores, excluded=excluded, relevant=relevant, names=["binary_ndcg@5", "recall@3"]
        )

        assert evaluated.tolist() == [user for user in users if user % 5]
        ranks = 1 + evaluated % 7
        assert values["binary_ndcg@5"] == pytest.approx(np.where(ranks <= 5, 1 / np.log2(ranks + 1), 0))
        assert values["recall@3"].tolist() == (ranks <= 3).tolist()

    def test_items_that_cannot_be_ranked_are_missed(self):
        scores = np.array([-np.inf, 1, np.nan], np.float32)
        _, values = catalogue_metrics(
            same_for_all(scores), excluded=one_user([], 3), relevant=one_user([0, 1, 2], 3), names=["recall@3"]
        )
        assert values["recall@3"] == pytest.approx([1 / 3])

    @given(small_scores, st.data())
    def test_rated_lists_have_graded_gains(self, scores, data):
        stars = data.draw(st.lists(st.integers(1, 5), min_size=len(scores), max_size=len(scores)))
        cutoff = data.draw(st.integers(1, len(scores)))
        discounts = 1 / np.log2(np.arange(2, cutoff + 2))
        orders = [
            order
            for order in itertools.permutations(range(len(scores)))
            if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
        ]
        gains = [2.0**star - 1 for star in stars]
        dcgs = [sum(discounts[rank] * gains[item] for rank, item in enumerate(order[:cutoff])) for order in orders]
        ideal = sum(discounts * sorted(gains, reverse=True)[:cutoff])

        # A second user, whose list must not mix with the first.
        pairs = [(user, item) for user in (3, 1) for item in range(len(scores))]
        users, values = rated_metrics(
            lambda rows: np.where(rows[:, np.newaxis] == 3, scores, 0.0),
            interactions(pairs, [*stars, *([2.0] * len(scores))]),
            relevance_threshold=4.0,
            names=[f"ndcg@{cutoff}"],
        )

        assert users.tolist() == [1, 3]
        assert values[f"ndcg@{cutoff}"] == pytest.approx([1, np.mean(dcgs) / ideal])
