"""The synthetic ratings are distributed like MovieLens 100K, and no ranking beats the planted one."""

import numpy as np
import pytest

from trainer import schema
from trainer.data.synthetic import (
    FIRST_SECOND,
    GENRES,
    MAX_SESSIONS,
    NUM_SECONDS,
    STAR_SHARES,
    SyntheticRatings,
    generate_ratings,
)


@pytest.fixture(scope="module")
def synthetic() -> SyntheticRatings:
    return generate_ratings(seed=0)


def _columns(synthetic: SyntheticRatings) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """User and item numbers from 0, stars and timestamps, each [num_ratings]."""
    table = synthetic.ratings
    users, items = (table[name].to_numpy().astype(int) - 1 for name in (schema.USER_ID, schema.ITEM_ID))
    return users, items, table[schema.RATING].to_numpy(), table[schema.TIMESTAMP].to_numpy()


def _ndcg(relevance: np.ndarray, score: np.ndarray) -> float:
    """NDCG@10 with linear gain. Ties keep their order."""
    discount = 1 / np.log2(np.arange(2, 12))[: len(relevance)]
    ranked = relevance[np.argsort(-score, kind="stable")][:10]
    return float(ranked @ discount / (np.sort(relevance)[::-1][:10] @ discount))


@pytest.mark.parametrize("seed", [0, 1])
def test_has_the_shape_of_movielens_100k(seed):
    synthetic = generate_ratings(seed=seed)
    users, items, stars, timestamps = _columns(synthetic)
    assert synthetic.ratings.schema == schema.RATINGS_SCHEMA
    assert synthetic.items.schema == schema.ITEMS_SCHEMA
    assert len(stars) == 100_000
    assert len(np.unique(users * 1682 + items)) == 100_000, "a user rated an item twice"
    shares = np.bincount(stars.astype(int), minlength=6)[1:] / 100_000
    np.testing.assert_allclose(shares, STAR_SHARES, atol=1e-4)

    of_user = np.bincount(users, minlength=943)
    assert of_user.min() == 20
    assert 55 <= np.median(of_user) <= 75
    assert 600 <= of_user.max() <= 850
    of_item = np.bincount(items, minlength=1682)
    assert 20 <= np.median(of_item) <= 34
    assert 480 <= of_item.max() <= 690
    assert timestamps.min() >= FIRST_SECOND
    assert timestamps.max() < FIRST_SECOND + NUM_SECONDS
    assert np.all(np.diff(timestamps) >= 0)


def test_a_user_comes_in_a_few_sessions(synthetic):
    users, _, _, timestamps = _columns(synthetic)
    num_sessions = []
    for user in range(943):
        # The pauses within a session are seconds. Two sessions that start within an hour are counted as one.
        num_sessions.append(1 + np.sum(np.diff(timestamps[users == user]) > 3600))
    assert max(num_sessions) == MAX_SESSIONS
    assert min(num_sessions) == 1
    np.testing.assert_allclose(np.bincount(num_sessions)[1:] / 943, 1 / 3, atol=0.05)


def test_items_have_different_titles_and_one_to_three_genres(synthetic):
    titles = synthetic.items[schema.TITLE].to_pylist()
    assert synthetic.items[schema.ITEM_ID].to_pylist() == [str(item) for item in range(1, 1683)]
    assert len(set(titles)) == 1682
    assert all(title.startswith("The ") and title.endswith(")") for title in titles)
    genres = synthetic.items[schema.GENRES].to_pylist()
    assert {len(of_item) for of_item in genres} == {1, 2, 3}
    assert all(len(set(of_item)) == len(of_item) for of_item in genres)
    assert {genre for of_item in genres for genre in of_item} == set(GENRES.split())


def test_titles_stay_different_when_the_words_run_out():
    items = generate_ratings(num_users=3, num_items=4000, num_ratings=60).items
    assert len(set(items[schema.TITLE].to_pylist())) == 4000


def test_expected_rating_is_the_mean_of_the_stars_given(synthetic):
    users, items, stars, _ = _columns(synthetic)
    expected = synthetic.expected_rating
    assert expected.shape == (943, 1682)
    assert expected.dtype == np.float32
    of_pair = expected[users, items]
    for low in np.arange(1.0, 5.0, 0.5):  # Calibrated at every level, not only on average.
        within = (of_pair >= low) & (of_pair < low + 0.5)
        assert abs(stars[within].mean() - of_pair[within].mean()) < 0.06, low
    # The stars have noise that no model can predict.
    assert 0.5 < np.sqrt(np.mean((stars - of_pair) ** 2)) < 0.9


def test_the_oracle_ranks_better_than_popularity_and_chance_and_is_not_perfect(synthetic):
    users, items, stars, _ = _columns(synthetic)
    popularity = np.bincount(items, minlength=1682)
    random = np.random.default_rng(0)
    ndcg = []
    for user in range(943):
        rated, of_user = items[users == user], stars[users == user]
        scores = (synthetic.expected_rating[user, rated], popularity[rated], random.random(len(rated)))
        ndcg.append([_ndcg(of_user, score) for score in scores])
    oracle, by_popularity, by_chance = np.mean(ndcg, axis=0)
    assert by_popularity + 0.1 < oracle < 0.99
    assert by_chance + 0.005 < by_popularity


def test_the_truth_predicts_how_many_and_which_ratings_there_are(synthetic):
    users, items, stars, _ = _columns(synthetic)
    rated: np.ndarray = np.zeros((943, 1682), bool)
    rated[users, items] = True
    relevant: np.ndarray = np.zeros((943, 1682), bool)
    relevant[users[stars >= 4], items[stars >= 4]] = True
    of_rated = synthetic.relevance_probability(relevance_threshold=1.0)
    np.testing.assert_allclose(of_rated.sum(axis=1), rated.sum(axis=1), rtol=1e-9)
    of_relevant = synthetic.relevance_probability()
    for truth, probability in ((rated, of_rated), (relevant, of_relevant)):
        for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
            within = (probability >= low) & (probability < high)
            assert abs(truth[within].mean() - probability[within].mean()) < 0.02, (low, high)


def test_the_truth_of_unseen_items_is_calibrated_and_ranks_better_than_popularity(synthetic):
    users, items, stars, _ = _columns(synthetic)
    is_train = np.random.default_rng(0).random(len(users)) < 0.8
    candidate: np.ndarray = np.ones((943, 1682), bool)
    candidate[users[is_train], items[is_train]] = False
    relevance: np.ndarray = np.zeros((943, 1682))
    is_relevant = ~is_train & (stars >= 4)
    relevance[users[is_relevant], items[is_relevant]] = 1
    probability = synthetic.relevance_probability(train_fraction=0.8)
    for low, high in ((0.0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 1.0)):
        within = candidate & (probability >= low) & (probability < high)
        assert abs(relevance[within].mean() - probability[within].mean()) < 0.02, (low, high)

    popularity = np.bincount(items[is_train], minlength=1682)
    by_truth, by_popularity = (
        np.mean(
            [
                _ndcg(relevance[user, candidate[user]], score[user, candidate[user]])
                for user in np.unique(users[is_relevant])
            ]
        )
        for score in (probability, np.tile(popularity, (943, 1)))
    )
    assert by_popularity + 0.05 < by_truth < 0.9


def test_popular_items_are_better_on_the_whole(synthetic):
    _, items, _, _ = _columns(synthetic)
    popularity = np.log1p(np.bincount(items, minlength=1682))
    assert 0.3 < np.corrcoef(popularity, synthetic.expected_rating.mean(axis=0))[0, 1] < 0.7


def test_the_seed_decides_everything(synthetic):
    again, other = generate_ratings(seed=0), generate_ratings(seed=1)
    assert again.ratings.equals(synthetic.ratings)
    assert again.items.equals(synthetic.items)
    np.testing.assert_array_equal(again.expected_rating, synthetic.expected_rating)
    assert not other.ratings.equals(synthetic.ratings)


@pytest.mark.parametrize(
    ("num_users", "num_items", "num_ratings"), [(5, 4, 20), (7, 30, 100), (10, 25, 249), (1, 1, 1)]
)
def test_gives_exactly_as_many_ratings_as_asked_for(num_users, num_items, num_ratings):
    synthetic = generate_ratings(num_users=num_users, num_items=num_items, num_ratings=num_ratings)
    users, items, _, _ = _columns(synthetic)
    assert len(np.unique(users * num_items + items)) == len(users) == num_ratings
    assert synthetic.items.num_rows == num_items


def test_refuses_more_ratings_than_pairs():
    with pytest.raises(ValueError, match="21 ratings do not fit 5 users and 4 items"):
        generate_ratings(num_users=5, num_items=4, num_ratings=21)
