"""Lists and data sets of a few ratings, for the tests of this folder."""

import numpy as np
import pyarrow as pa

from trainer.compat import tf
from trainer.data.dataset import build_dataset
from trainer.data.lists import cut_lists, group_ratings
from trainer.data.queries import Queries
from trainer.data.vocabulary import Vocabulary

NUM_ITEMS = 20
DEFAULT_STRATEGY = tf.distribute.get_strategy()


def lists_of(lists, list_size):
    """QueryLists of (user, items, labels)."""
    users, items, labels = zip(*lists, strict=True)
    sizes = [len(list_items) for list_items in items]
    users, times = np.repeat(users, sizes), np.zeros(sum(sizes), np.int64)
    num_users = max(users) + 1
    ratings = group_ratings(users, np.concatenate(items), np.concatenate(labels), times, num_users=num_users)
    return cut_lists(ratings, list_size=list_size, list_order="row")


def random_lists(num_lists, list_size, seed=0):
    """Lists of 1 to `list_size` items with labels from 1 to 5. Queries are numbered from 1."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, list_size + 1, num_lists)
    return lists_of(
        [
            (query, rng.choice(np.arange(1, NUM_ITEMS), size, replace=False), rng.integers(1, 6, size))
            for query, size in enumerate(sizes, start=1)
        ],
        list_size,
    )


def users_only(num_users):
    """A QuerySource without histories and features."""
    none = np.zeros(0, np.int32)
    return Queries(np.zeros(num_users + 1, np.int64), none, none.astype(np.float32), history_size=0)


def dataset_of(num_users, num_items, *, has_ratings=True, history_size=0, timestamps=None, **ratings):
    """A Dataset of triples (user, item, rating) of each split. User 3 has the id "u3", and item 4 the id "i4".

    `timestamps` are those of each split; by default each rating is later than those before it.
    """
    columns = {
        split: (triples[:, 0].astype(np.int32), triples[:, 1].astype(np.int32), triples[:, 2].astype(np.float32))
        for split, triples in ((split, np.asarray(triples).reshape([-1, 3])) for split, triples in ratings.items())
        if len(triples)
    }
    vocabulary = Vocabulary(
        users=pa.table({"index": np.arange(num_users, dtype=np.int32), "user_id": ids_of("u", num_users)}),
        items=pa.table({"index": np.arange(num_items, dtype=np.int32), "item_id": ids_of("i", num_items)}),
    )
    sizes = [len(part[0]) for part in columns.values()]
    times = timestamps or dict(zip(columns, np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]), strict=True))
    return build_dataset(
        vocabulary,
        {split: group_ratings(*part, times[split], num_users=num_users) for split, part in columns.items()},
        list_size=num_items,
        list_order="row",
        has_ratings=has_ratings,
        has_timestamps=True,
        query_features={},
        item_features={},
        history_size=history_size,
    )


def ids_of(prefix, number):
    """The ids of a vocabulary. The unknown index 0 has the id ""."""
    return ["", *(f"{prefix}{i}" for i in range(1, number))]


def random_dataset(seed, num_users=6, num_items=9):
    """Every pair of user and item is in one split or in none. Training knows no user or item of index 0."""
    rng = np.random.default_rng(seed)
    pairs = np.argwhere(np.ones([num_users, num_items]))
    triples = np.column_stack([pairs, rng.integers(1, 6, len(pairs))])
    # Some users have rated two items that training has not seen.
    triples = np.concatenate([triples, triples[(triples[:, 1] == 0) & (rng.random(len(triples)) < 0.5)]])
    part = rng.choice(["train", "validation", "test", "none"], len(triples))
    part[((triples[:, 0] == 0) | (triples[:, 1] == 0)) & (part == "train")] = "none"
    part[-1], triples[-1] = "train", (1, 1, 3)  # Training is never empty.
    splits = {split: triples[part == split] for split in ("train", "validation", "test")}
    return dataset_of(num_users, num_items, **splits)
