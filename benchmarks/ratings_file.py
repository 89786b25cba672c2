"""Write a CSV file of synthetic ratings with the shape of MovieLens, at any size.

python -m benchmarks.ratings_file --output=ratings.csv
python -m benchmarks.ratings_file --output=ratings.csv --num_ratings=1000000

Users have a taste: half of a user's ratings are of items of the user's own group, and these have more stars. So a
model that learns the tastes ranks better than popularity.
"""

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
from absl import app, flags

# With the numbers of MovieLens 25M, users have 154 ratings on average and half of them at most 71, as there. The most
# popular item has 40,820 ratings (there 81,491) and half of the items have at most 32 (there 6).
_MIN_RATINGS_PER_USER = 20
_ACTIVITY_DEVIATION = 1.39
_LARGEST_SHARE_OF_ITEMS = 1 / 3
_POPULARITY_POWER = 2.2
_HEAD = 1 / 150

_NUM_POPULAR_ROUNDS = 8

_NUM_TASTES = 20
_SHARE_OF_TASTE = 0.5
_STARS = {"mean": 3.3, "of taste": 0.6, "user": 0.4, "item": 0.4, "noise": 0.7}

_FIRST_SECOND, _LAST_SECOND = 820_454_400, 1_574_000_000  # 1996 to 2019.
_SECONDS_PER_USER = 10_000_000


def shape_of(num_ratings: int) -> tuple[int, int]:
    """The numbers of users and items of MovieLens at this size.

    MovieLens 100K has 943 users and 1,682 items; MovieLens 25M has 162,541 and 59,047. Between and beyond them the
    numbers follow the power of the number of ratings that fits both.
    """
    ratio = np.log(num_ratings / 100_000) / np.log(25_000_095 / 100_000)
    return int(943 * (162_541 / 943) ** ratio), int(1682 * (59_047 / 1682) ** ratio)


def write_ratings(
    path: str, num_ratings: int, *, num_users: int = 0, num_items: int = 0, seed: int = 0
) -> dict[str, int]:
    """Writes ratings with the columns user_id, item_id, rating and timestamp, sorted by user and item as in MovieLens.

    No user rates an item twice. Every user and every item has ratings.

    Args:
      path: the file.
      num_ratings: at least the numbers of users and of items together, and at most a sixth of their product.
      num_users, num_items: 0 for those of `shape_of`.
      seed: determines everything.

    Returns:
      The numbers of ratings, users and items.
    """
    users_of_shape, items_of_shape = shape_of(num_ratings)
    num_users, num_items = num_users or users_of_shape, num_items or items_of_shape
    random = np.random.default_rng(seed)
    wanted = _ratings_per_user(random, num_ratings, num_users, num_items)
    users, items = np.divmod(_draw_pairs(random, wanted, num_items), num_items)
    first_seconds = random.integers(_FIRST_SECOND, _LAST_SECOND - _SECONDS_PER_USER, num_users)
    table = pa.table(
        {
            "user_id": users + 1,
            "item_id": items + 1,
            "rating": _stars(random, users, items, num_users, num_items),
            "timestamp": first_seconds[users] + random.integers(0, _SECONDS_PER_USER, num_ratings),
        }
    )
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(quoting_style="none"))
    return {"num_ratings": num_ratings, "num_users": num_users, "num_items": num_items}


def _ratings_per_user(random: np.random.Generator, num_ratings: int, num_users: int, num_items: int) -> np.ndarray:
    """The number of ratings of each user, int64 [num_users], with the sum `num_ratings`."""
    least = min(_MIN_RATINGS_PER_USER, num_ratings // num_users)
    most = max(least, int(num_items * _LARGEST_SHARE_OF_ITEMS))
    activity = np.exp(_ACTIVITY_DEVIATION * random.standard_normal(num_users))
    more = np.minimum(activity * (num_ratings - least * num_users) / activity.sum(), most - least)
    numbers = least + more.astype(np.int64)
    while missing := num_ratings - numbers.sum():
        free = np.flatnonzero(numbers < most)
        numbers[random.permutation(free)[:missing]] += 1
    return numbers


def _draw_pairs(random: np.random.Generator, wanted: np.ndarray, num_items: int) -> np.ndarray:
    """Pairs user · num_items + item, int64 [num_ratings], sorted and different, `wanted` of each user."""
    num_users = len(wanted)
    # Every item is rated at least once.
    users = random.permutation(np.repeat(np.arange(num_users), np.minimum(wanted, -(-num_items // num_users))))
    pairs = np.sort(users[:num_items] * num_items + np.arange(len(users[:num_items])))
    for number in itertools.count():
        missing = wanted - np.bincount(pairs // num_items, minlength=num_users)
        if not missing.any():
            return pairs
        users = np.repeat(np.arange(num_users), missing)
        # Whoever has rated nearly all popular items rates any.
        is_last = number >= _NUM_POPULAR_ROUNDS
        items = random.integers(0, num_items, len(users)) if is_last else _draw_items(random, users, num_items)
        drawn = np.unique(users * num_items + items)
        is_new = pairs[np.minimum(np.searchsorted(pairs, drawn), len(pairs) - 1)] != drawn
        pairs = np.sort(np.concatenate([pairs, drawn[is_new]]), kind="stable")
    raise AssertionError


def _draw_items(random: np.random.Generator, users: np.ndarray, num_items: int) -> np.ndarray:
    """An item for each of the users, [n], by popularity: item 0 is the most popular one."""
    head = num_items * _HEAD
    power = 1 - _POPULARITY_POWER
    share = random.random(len(users)) * (1 - ((num_items + head) / head) ** power)
    items = np.minimum((head * ((1 - share) ** (1 / power) - 1)).astype(np.int64), num_items - 1)
    # The item of the user's own group that is about as popular.
    of_taste = items - items % _NUM_TASTES + users % _NUM_TASTES
    is_of_taste = (random.random(len(users)) < _SHARE_OF_TASTE) & (of_taste < num_items)
    return np.where(is_of_taste, of_taste, items)


def _stars(
    random: np.random.Generator, users: np.ndarray, items: np.ndarray, num_users: int, num_items: int
) -> np.ndarray:
    """Half stars from 0.5 to 5.0."""
    stars = _STARS["mean"] + _STARS["of taste"] * (users % _NUM_TASTES == items % _NUM_TASTES)
    stars += _STARS["user"] * random.standard_normal(num_users)[users]
    stars += _STARS["item"] * random.standard_normal(num_items)[items]
    stars += _STARS["noise"] * random.standard_normal(len(users))
    return np.clip(np.round(2 * stars), 1, 10) / 2


def main() -> None:
    """Writes the file and prints its shape as JSON."""
    values = flags.FLAGS
    shape = write_ratings(
        values.output, values.num_ratings, num_users=values.num_users, num_items=values.num_items, seed=values.seed
    )
    print(json.dumps({"output": values.output, **shape}))


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "The CSV file to write.", required=True)
    flags.DEFINE_integer("num_ratings", 25_000_095, "The number of ratings.", lower_bound=1000)
    flags.DEFINE_integer("num_users", 0, "The number of users. 0: as many as MovieLens of this size has.")
    flags.DEFINE_integer("num_items", 0, "The number of items. 0: as many as MovieLens of this size has.")
    flags.DEFINE_integer("seed", 0, "Determines everything.")
    app.run(lambda _: main())
