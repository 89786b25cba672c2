"""What the exported model of a run recommends to some users, and the items that are similar to some popular ones."""

from dataclasses import dataclass

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.vocabulary import NUM_RATINGS, Vocabulary
from trainer.reporting.contents import Contents
from trainer.serving.recommender import Recommender

NUM_USERS, NUM_RATED, NUM_RECOMMENDED = 10, 8, 8
NUM_ITEMS, NUM_SIMILAR, NUM_POPULAR = 8, 5, 100


@dataclass(frozen=True)
class Item:
    """An item of the training ratings.

    Attributes:
      item_id: Its id.
      title: Its title; "" if the data has none.
      genres: Its genres.
      num_ratings: Its number of training ratings.
      value: What is known of it where it is shown: a rating or a score; None if nothing is.
    """

    item_id: str
    title: str
    genres: tuple[str, ...]
    num_ratings: int
    value: float | None = None


@dataclass(frozen=True)
class User:
    """A user.

    Attributes:
      user_id: Its id.
      num_seen: The number of items that it has rated.
      rated: Some of these, with their ratings: the latest ones, newest first, if the model knows them.
      recommended: What the model recommends to it, best first, with scores.
    """

    user_id: str
    num_seen: int
    rated: tuple[Item, ...]
    recommended: tuple[Item, ...]


@dataclass(frozen=True)
class Samples:
    """What the model does for some users and items.

    Attributes:
      users: Ten users, from the one with the fewest ratings to the one with the most.
      is_latest: Whether the items that users have rated are the latest ones, newest first.
      similar: Some popular items, each with its most similar items and their cosines.
    """

    users: tuple[User, ...]
    is_latest: bool
    similar: tuple[tuple[Item, tuple[Item, ...]], ...]

    @property
    def has_stars(self) -> bool:
        """Whether the ratings of the items that users have rated are known."""
        return any(item.value is not None for user in self.users for item in user.rated)


def draw(workdir: str, contents: Contents) -> Samples:
    """Asks the exported model of a run. The same run has the same samples.

    Raises:
      ConfigError: The run has no model.
      StorageError: A file of the run is missing or damaged.
    """
    # At the end of a run, the accelerator still holds the tables of the training.
    with tf.device("CPU:0"):
        return _draw(workdir, contents)


def _draw(workdir: str, contents: Contents) -> Samples:
    recommender = Recommender(workdir)
    users = _spread(recommender.num_seen())
    rated, ratings = recommender.rated_items(users)
    found = recommender.recommend(users, NUM_RECOMMENDED, exclude_seen=True)
    items = _Items(recommender.vocabulary)
    recommended: dict[str, list[Item]] = {}
    for user_id, item, score in zip(
        found[schema.USER_ID].to_pylist(),
        recommender.vocabulary.item_indices(found[schema.ITEM_ID]).tolist(),
        found["score"].to_pylist(),
        strict=True,
    ):
        recommended.setdefault(user_id, []).append(items.describe(item, score))
    user_ids = recommender.vocabulary.users[schema.USER_ID].take(users).to_pylist()
    num_seen = recommender.num_seen()[users].tolist()
    shown = []
    for row, user_id in enumerate(user_ids):
        latest = rated[row][::-1][:NUM_RATED].tolist()
        stars = (
            ratings[row][::-1].tolist() if ratings is not None and contents.data.has_ratings else [None] * len(latest)
        )
        shown.append(
            User(
                user_id,
                num_seen[row],
                tuple(items.describe(item, value) for item, value in zip(latest, stars, strict=False)),
                tuple(recommended.get(user_id, ())),
            )
        )
    return Samples(tuple(shown), ratings is not None, _similar(recommender, items))


class _Items:
    """Describes items by their indices."""

    def __init__(self, vocabulary: Vocabulary):
        self._table = vocabulary.items

    def describe(self, item: int, value: float | None) -> Item:
        row = self._table.slice(item, 1).to_pylist()[0]
        genres = tuple(row[schema.GENRES])
        return Item(row[schema.ITEM_ID], row[schema.TITLE], genres, row[NUM_RATINGS], value)


def _spread(num_seen: np.ndarray) -> np.ndarray:
    """Users from the least to the most active one, int32 [num_users], at equal steps of their order."""
    known = np.argsort(num_seen[1:], kind="stable") + 1
    positions = np.linspace(0, len(known) - 1, min(NUM_USERS, len(known))).round().astype(int)
    return known[positions].astype(np.int32)


def _similar(recommender: Recommender, items: _Items) -> tuple[tuple[Item, tuple[Item, ...]], ...]:
    # Items are sorted by popularity, from index 1.
    num_popular = min(NUM_POPULAR, recommender.vocabulary.num_items - 1)
    chosen = np.linspace(1, num_popular, min(NUM_ITEMS, num_popular)).round().astype(np.int32)
    found = recommender.similar_items(chosen, NUM_SIMILAR)
    similar: dict[int, list[Item]] = {item: [] for item in chosen.tolist()}
    for item, other, cosine in zip(
        recommender.vocabulary.item_indices(found[schema.ITEM_ID]).tolist(),
        recommender.vocabulary.item_indices(found["similar_item_id"]).tolist(),
        found["score"].to_pylist(),
        strict=True,
    ):
        similar[item].append(items.describe(other, cosine))
    return tuple((items.describe(item, None), tuple(others)) for item, others in similar.items())
