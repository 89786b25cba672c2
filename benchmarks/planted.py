"""Data sets of any size, without a source: lists of random items, as `trainer` holds them in memory."""

import numpy as np
import pyarrow as pa

from trainer import schema
from trainer.data.dataset import Dataset, build_dataset
from trainer.data.lists import group_ratings
from trainer.data.vocabulary import NUM_RATINGS, Vocabulary


def build_planted_dataset(
    *, num_users: int, num_items: int, list_size: int, lists_per_user: int = 2, history_size: int = 0, seed: int = 0
) -> Dataset:
    """Builds the lists of users who each rated `list_size` · `lists_per_user` items at random.

    The logarithm of the rank of an item in popularity is uniform, so that few items have most of the ratings.

    Args:
      num_users: without the unknown user.
      num_items: without the unknown item.
      list_size: every list is full.
      lists_per_user: the number of lists of each user.
      history_size: the largest number of items in a history; 0 for none.
      seed: of the draws.
    """
    random = np.random.default_rng(seed)
    num_ratings = num_users * list_size * lists_per_user
    items = np.minimum((num_items + 1.0) ** random.random(num_ratings), num_items).astype(np.int32)
    users: np.ndarray = np.repeat(np.arange(1, num_users + 1, dtype=np.int32), list_size * lists_per_user)
    grouped = group_ratings(
        users,
        items,
        random.integers(1, 6, num_ratings).astype(np.float32),
        np.arange(num_ratings),
        num_users=num_users + 1,
    )
    return build_dataset(
        build_planted_vocabulary(num_users, np.bincount(items, minlength=num_items + 1)),
        {"train": grouped},
        list_size=list_size,
        list_order="row",
        has_ratings=True,
        has_timestamps=True,
        query_features={},
        item_features={},
        history_size=history_size,
    )


def build_planted_vocabulary(num_users: int, num_ratings_of_item: np.ndarray) -> Vocabulary:
    """A vocabulary whose ids are the indices.

    Args:
      num_users: without the unknown user.
      num_ratings_of_item: int64 [num_items], of each item index; the first is the unknown item.
    """
    num_items = len(num_ratings_of_item)
    user_index, item_index = (pa.array(np.arange(size, dtype=np.int32)) for size in (num_users + 1, num_items))
    users = {schema.INDEX: user_index, schema.USER_ID: user_index.cast(pa.string())}
    items = {
        schema.INDEX: item_index,
        schema.ITEM_ID: item_index.cast(pa.string()),
        schema.TITLE: pa.array(np.full(num_items, "")),
        schema.GENRES: pa.ListArray.from_arrays(np.zeros(num_items + 1, np.int32), pa.array([], pa.string())),
        NUM_RATINGS: pa.array(num_ratings_of_item, pa.int64()),
    }
    return Vocabulary(users=pa.table(users), items=pa.table(items))
