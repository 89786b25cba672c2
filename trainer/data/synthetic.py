"""Draws synthetic ratings from a known model. Their number and their distribution are like MovieLens 100K's.

Because the model is known, the best possible ranking is known too: `expected_rating`. Users and items each have a bias
and a vector of factors,

    score[u, i] = user_bias[u] + quality[i] + <user_factors[u], item_factors[i]>,

and the stars of a rating are 1 + the number of thresholds that its score, with logistic noise added, exceeds.
"""

import dataclasses

import numpy as np
import pyarrow as pa

from trainer import schema

STAR_SHARES = (0.0611, 0.1137, 0.27145, 0.34174, 0.21201)
"""The shares of ratings with 1, 2, 3, 4 and 5 stars in MovieLens 100K."""

FIRST_SECOND = 874_724_710
NUM_SECONDS = 18_561_928
"""The period of MovieLens 100K: 20 September 1997 to 22 April 1998."""

MIN_RATINGS_PER_USER = 20
ACTIVITY_DEVIATION = 1.15
MAX_ACTIVITY = 2.4
"""A user's number of ratings beyond the minimum is log-normal, cut off at this many standard deviations."""

MAX_SESSIONS = 3
SECONDS_BETWEEN_RATINGS = 20

# The standard deviations of the parts of a score, close to those of a least-squares fit to MovieLens 100K.
USER_BIAS_DEVIATION = 0.4
QUALITY_DEVIATION = 0.5
TASTE_DEVIATION = 0.7
NOISE_SCALE = 0.4

# Users mostly rate popular items, and among these the items to their taste.
POPULARITY_DEVIATION = 1.75
TASTE_IN_CHOICE = 0.5
QUALITY_OF_POPULAR = 0.5
"""The correlation between the quality and the popularity of an item."""

GENRES = (
    "Action Adventure Animation Biography Comedy Crime Documentary Drama Family Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller Western"
)
ADJECTIVES = (
    "Amber Bitter Borrowed Brave Broken Burning Crimson Crooked Distant Electric Empty Endless Fallen "
    "Forgotten Frozen Gentle Gilded Golden Hidden Hollow Hungry Invisible Last Lonely Lost Lucky Midnight "
    "Northern Painted Patient Quiet Reckless Restless Scarlet Secret Silent Stolen Stubborn Unlikely Velvet "
    "Wandering Wild"
)
NOUNS = (
    "Accomplice Alibi Apprentice Architect Bargain Bridge Cartographer Castle Circus Clockmaker Comet Dancer "
    "Detective Empire Farewell Garden Ghost Harbour Harvest Highway Island Journey Kingdom Lantern Letter "
    "Lighthouse Mirror Mountain Orchard Orchestra Passenger Piano Promise Rebellion River Season Shadow "
    "Stranger Summer Tailor Witness Wolf"
)


@dataclasses.dataclass(frozen=True)
class SyntheticRatings:
    """Ratings whose best possible ranking is known.

    Attributes:
      ratings: schema.RATINGS_SCHEMA, sorted by time.
      items: schema.ITEMS_SCHEMA, one row per item.
      expected_rating: float32 [num_users, num_items], the expected stars if user str(u + 1) rates item str(i + 1).
        No ranking of a user's rated items has a higher expected sum of discounted stars. It does not predict which
        items a user rates, which depends mostly on their popularity.
      score: float64 [num_users, num_items], the score of each pair, without noise.
      thresholds: float64 [4], ascending. The stars are 1 + the number of thresholds that the noisy score exceeds.
      attraction: float64 [num_users, num_items]. A user draws items without replacement, with probabilities
        proportional to exp(attraction).
      num_ratings_of_user: int64 [num_users].
    """

    ratings: pa.Table
    items: pa.Table
    expected_rating: np.ndarray
    score: np.ndarray
    thresholds: np.ndarray
    attraction: np.ndarray
    num_ratings_of_user: np.ndarray

    def relevance_probability(self, *, relevance_threshold: float = 4.0, train_fraction: float = 0.0) -> np.ndarray:
        """Returns the probability that a user rates an item, and at or above the threshold.

        The order of the unrated items by this probability has the highest expected number of relevant items at every
        cutoff, so it is the ceiling for any model of these ratings.

        Args:
          relevance_threshold: a number of stars in [1, 5].
          train_fraction: in [0, 1), the fraction of each user's ratings that a random training split has. The
            probability is that of a rating outside of this split, given that the item is not in it.

        Returns:
          float64 [num_users, num_items]. The entry [u, i] is for user str(u + 1) and item str(i + 1).
        """
        rated = _choice_probability(self.attraction, self.num_ratings_of_user)
        rated *= (1 - train_fraction) / (1 - train_fraction * rated)
        threshold = int(np.ceil(relevance_threshold)) - 2
        if threshold < 0:
            return rated
        return rated / (1 + np.exp((self.thresholds[threshold] - self.score) / NOISE_SCALE))


def generate_ratings(
    *,
    seed: int = 0,
    num_users: int = 943,
    num_items: int = 1682,
    num_ratings: int = 100_000,
    num_factors: int = 4,
) -> SyntheticRatings:
    """Draws ratings from the model above. The same seed gives the same ratings on every platform.

    Args:
      seed: the seed of the random generator.
      num_users: the number of users. Their ids are "1", "2", ...
      num_items: the number of items. Their ids are "1", "2", ...
      num_ratings: the number of ratings. No user rates an item twice.
      num_factors: the length of the factor vectors.

    Raises:
      ValueError: there are more ratings than pairs of a user and an item.
    """
    if num_ratings > num_users * num_items:
        raise ValueError(f"{num_ratings} ratings do not fit {num_users} users and {num_items} items")
    random = np.random.Generator(np.random.PCG64(seed))

    genres = _draw_genres(random, num_items)
    user_factors = random.standard_normal((num_users, num_factors))
    item_factors = _draw_item_factors(random, genres, num_factors)
    taste = user_factors @ item_factors.T / np.sqrt(num_factors)  # [num_users, num_items], standard deviation 1

    # The log popularity is nearly uniform, with a few hits. Its standard deviation is 1.
    popularity = np.sqrt(0.85 * 3) * random.uniform(-1, 1, num_items)
    popularity += np.sqrt(0.15) * random.standard_normal(num_items)
    own_quality = random.standard_normal(num_items)
    quality = QUALITY_OF_POPULAR * popularity + np.sqrt(1 - QUALITY_OF_POPULAR**2) * own_quality
    user_bias = random.standard_normal(num_users)
    score = USER_BIAS_DEVIATION * user_bias[:, np.newaxis] + QUALITY_DEVIATION * quality + TASTE_DEVIATION * taste

    num_ratings_of_user = _draw_num_ratings_of_user(random, num_users, num_items, num_ratings)
    attraction = POPULARITY_DEVIATION * popularity + TASTE_IN_CHOICE * taste
    users, items = _choose_items(random, attraction, num_ratings_of_user)
    noisy_score = score[users, items] + random.logistic(scale=NOISE_SCALE, size=num_ratings)
    thresholds = np.quantile(noisy_score, np.cumsum(STAR_SHARES)[:-1])
    stars = 1 + np.searchsorted(thresholds, noisy_score)
    timestamps = _draw_timestamps(random, users, num_users)

    by_time = np.lexsort((users, timestamps))
    ratings = pa.table(
        [
            pa.array(users[by_time] + 1).cast(pa.string()),
            pa.array(items[by_time] + 1).cast(pa.string()),
            stars[by_time].astype(np.float32),
            timestamps[by_time],
        ],
        schema=schema.RATINGS_SCHEMA,
    )
    item_table = pa.table(
        [
            pa.array(np.arange(1, num_items + 1)).cast(pa.string()),
            _draw_titles(random, num_items),
            [[GENRES.split()[genre] for genre in sorted(genres_of_item)] for genres_of_item in genres],
        ],
        schema=schema.ITEMS_SCHEMA,
    )
    return SyntheticRatings(
        ratings,
        item_table,
        expected_rating=_expected_stars(score, thresholds),
        score=score,
        thresholds=thresholds,
        attraction=attraction,
        num_ratings_of_user=num_ratings_of_user,
    )


def _draw_genres(random: np.random.Generator, num_items: int) -> list[list[int]]:
    """One to three different genres per item."""
    num_genres = random.integers(1, 4, num_items)
    shuffled = np.argsort(random.random((num_items, len(GENRES.split()))), axis=1)
    return [row[:count].tolist() for row, count in zip(shuffled, num_genres, strict=True)]


def _draw_item_factors(random: np.random.Generator, genres: list[list[int]], num_factors: int) -> np.ndarray:
    """Item factors [num_items, num_factors]. Half of their variance is shared by items of the same genres."""
    genre_factors = random.standard_normal((len(GENRES.split()), num_factors))
    of_genres = np.stack(
        [genre_factors[genres_of_item].sum(axis=0) / np.sqrt(len(genres_of_item)) for genres_of_item in genres]
    )
    return np.sqrt(0.5) * (of_genres + random.standard_normal(of_genres.shape))


def _draw_num_ratings_of_user(
    random: np.random.Generator, num_users: int, num_items: int, num_ratings: int
) -> np.ndarray:
    """The number of ratings of each user, int64 [num_users]: a minimum, plus a log-normal number."""
    least = min(MIN_RATINGS_PER_USER, num_ratings // num_users)
    room = num_items - least
    weights = np.exp(ACTIVITY_DEVIATION * np.minimum(random.standard_normal(num_users), MAX_ACTIVITY))
    weights -= weights.min()
    num_on_top = num_ratings - least * num_users
    on_top = np.minimum(np.floor(weights / max(weights.sum(), 1e-9) * num_on_top).astype(np.int64), room)
    while missing := num_on_top - on_top.sum():  # Left over by rounding and by users who rated everything.
        by_activity = np.argsort(-on_top, kind="stable")
        on_top[by_activity[on_top[by_activity] < room][:missing]] += 1
    return least + on_top


def _choose_items(
    random: np.random.Generator, attraction: np.ndarray, num_ratings_of_user: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws each user's items without replacement, with probabilities proportional to exp(attraction).

    Adding Gumbel noise to the attraction and taking the largest values is equivalent to such a draw
    (Efraimidis and Spirakis 2006, https://doi.org/10.1016/j.ipl.2005.11.003).

    Returns:
      The user and the item of each rating, int64 [num_ratings] each, sorted by user.
    """
    perturbed = attraction - np.log(random.standard_exponential(attraction.shape))
    ranked = np.argsort(-perturbed, axis=1)
    chosen = np.arange(ranked.shape[1]) < num_ratings_of_user[:, np.newaxis]
    return np.nonzero(chosen)[0], ranked[chosen]


def _choice_probability(attraction: np.ndarray, num_chosen: np.ndarray) -> np.ndarray:
    """The probability of each item to be among those that `_choose_items` draws, float64 [num_users, num_items].

    A user chooses the items whose attraction with Gumbel noise exceeds a limit. For a given limit t the probability is
    1 − exp(−exp(attraction − t)). The limit is taken to be the number for which the probabilities have the sum
    num_chosen. This becomes exact as the number of items grows.

    Args:
      attraction: float64 [num_users, num_items].
      num_chosen: int64 [num_users].
    """
    # The sum of the probabilities falls with the limit. Bisection finds where it is the number of chosen items.
    num_items = attraction.shape[1]
    low = attraction.min(axis=1) - np.log(num_items) - 40
    high = attraction.max(axis=1) + np.log(num_items)
    for _ in range(60):
        limit = (low + high) / 2
        is_too_low = -np.expm1(-np.exp(attraction - limit[:, np.newaxis])).sum(axis=1) > num_chosen
        low, high = np.where(is_too_low, limit, low), np.where(is_too_low, high, limit)
    return -np.expm1(-np.exp(attraction - low[:, np.newaxis]))


def _draw_timestamps(random: np.random.Generator, users: np.ndarray, num_users: int) -> np.ndarray:
    """Timestamps int64 [num_ratings]. Each user has one to MAX_SESSIONS sessions and rates items one after another."""
    num_sessions = random.integers(1, MAX_SESSIONS + 1, num_users)
    session = random.integers(0, num_sessions[users]) + MAX_SESSIONS * users
    longest = SECONDS_BETWEEN_RATINGS * np.bincount(session).max()
    start = FIRST_SECOND + random.integers(0, max(NUM_SECONDS - longest, 1), num_users * MAX_SESSIONS)
    # The order within a session is random: the rank of a random key.
    by_session = np.lexsort((random.random(len(users)), session))
    first_of_session = np.searchsorted(session[by_session], session[by_session])
    position = np.empty_like(users)
    position[by_session] = np.arange(len(users)) - first_of_session
    pause = random.integers(0, SECONDS_BETWEEN_RATINGS, len(users))
    return start[session] + SECONDS_BETWEEN_RATINGS * position + pause


def _draw_titles(random: np.random.Generator, num_items: int) -> list[str]:
    """Different titles with years. After all combinations of words are used, titles get sequel numbers."""
    names = [f"{adjective} {noun}" for adjective in ADJECTIVES.split() for noun in NOUNS.split()]
    order = random.permutation(len(names))
    years = random.integers(1930, 1999, num_items)
    titles = []
    for item, year in enumerate(years):
        sequel, position = divmod(item, len(names))
        titles.append(f"The {names[order[position]]}{f' {sequel + 1}' if sequel else ''} ({year})")
    return titles


def _expected_stars(score: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """1 + the sum over thresholds of the probability that score + logistic noise exceeds it, as float32."""
    expected = np.ones(score.shape)
    for threshold in thresholds:
        expected += 1 / (1 + np.exp((threshold - score) / NOISE_SCALE))
    return expected.astype(np.float32)
