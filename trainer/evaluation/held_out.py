"""The users and held-out items of the catalogue protocol."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer import schema
from trainer.data.dataset import Dataset
from trainer.evaluation.item_lists import ItemLists

_USERS_PER_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Users, and the held-out items that are relevant to them.

    Attributes:
      queries: int32 [num_queries], user indices.
      items: The relevant held-out items of each user. Index 0 is an item that training has not seen.
      relevance: float32 [num_entries of items]: at least 1; see `relevance_of`.
      excluded: The items of each user that are no candidates.
      num_candidates: int64 [num_queries].
      num_left_out: Number of users with held-out items of which none is relevant. They are not among the queries.
    """

    queries: np.ndarray
    items: ItemLists
    relevance: np.ndarray
    excluded: ItemLists
    num_candidates: np.ndarray
    num_left_out: int


def relevance_of(ratings: np.ndarray, *, relevance_threshold: float | None) -> np.ndarray:
    """The relevance of held-out ratings in the catalogue protocol: float32, of the same shape.

    It is 1 for events, where the threshold is None. For ratings it is rating − relevance_threshold + 1 at or above the
    threshold, and 0 below it, as for items that the user has not rated. So the gain of DCG, 2^relevance − 1, is 1 at
    the threshold, and a film that the user disliked gains nothing.
    """
    if relevance_threshold is None:
        return np.ones_like(ratings, np.float32)
    return np.where(ratings >= relevance_threshold, ratings - relevance_threshold + 1, 0).astype(np.float32)


def earlier_splits(split: str) -> tuple[str, ...]:
    """The splits whose ratings a model may use to rank for `split`."""
    return schema.SPLITS[: schema.SPLITS.index(split)]


def held_out_items(dataset: Dataset, split: str, *, num_users: int, relevance_threshold: float, seed: int) -> HeldOut:
    """Finds the users with a relevant rating in `split`, their relevant items, and their candidates.

    A user's candidates are all items of the vocabulary, except those that the user rated in an earlier split. If a
    pair of user and item is in `split` more than once, the last rating counts.

    Args:
      dataset: The ratings of all splits.
      split: `validation` or `test`.
      num_users: How many of the users to draw; -1 for all.
      relevance_threshold: Ratings at or above this value are relevant. Events are always relevant.
      seed: Determines which users are drawn.
    """
    num_items = dataset.vocabulary.num_items
    users, items, ratings = dataset.ratings[split]
    relevance = relevance_of(ratings, relevance_threshold=relevance_threshold if dataset.has_ratings else None)
    is_known = users != schema.UNKNOWN_INDEX
    drawn = np.unique(users[(relevance > 0) & is_known])
    num_left_out = len(np.unique(users[is_known])) - len(drawn)
    if 0 <= num_users < len(drawn):
        # NumPy guarantees the raw bits of a generator for all versions, but not `choice`.
        order = np.argsort(np.random.PCG64(seed).random_raw(len(drawn)), kind="stable")
        drawn = np.sort(drawn[order[:num_users]])
    row_of_user: np.ndarray = np.full(dataset.vocabulary.num_users, -1, np.int64)
    row_of_user[drawn] = np.arange(len(drawn))

    rows = row_of_user[users]
    order = np.lexsort([items, rows])  # Stable, so that the last rating of a pair stays the last.
    rows, items, relevance = (column[order][rows[order] >= 0] for column in (rows, items, relevance))
    pairs = rows * num_items + items
    is_last = np.append(pairs[1:] != pairs[:-1], True)[: len(pairs)] | (items == schema.UNKNOWN_INDEX)
    counts = is_last & (relevance > 0)

    excluded = _excluded_items(dataset, earlier_splits(split), drawn, pairs)
    return HeldOut(
        queries=drawn.astype(np.int32),
        items=ItemLists(_offsets(rows[counts], len(drawn)), items[counts].astype(np.int32)),
        relevance=relevance[counts],
        excluded=excluded,
        num_candidates=num_items - 1 - np.diff(excluded.offsets),
        num_left_out=num_left_out,
    )


def _excluded_items(dataset: Dataset, splits: Sequence[str], users: np.ndarray, pairs: np.ndarray) -> ItemLists:
    """The items that each user rated in `splits`, without the held-out ones: they are candidates even so.

    Args:
      dataset: The ratings of all splits.
      splits: The earlier splits.
      users: The user of each row, in ascending order.
      pairs: row · num_items + item of each held-out item, in ascending order.
    """
    num_items = dataset.vocabulary.num_items
    of_splits = [ItemLists(*dataset.items_by_user(split)) for split in splits if split in dataset.lists]
    offsets, items = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
    # Some users at a time, because pairs are 64-bit numbers and sorting them needs several copies.
    for begin in range(0, len(users), _USERS_PER_CHUNK):
        end = min(begin + _USERS_PER_CHUNK, len(users))
        parts = [lists.take(users[begin:end]).pairs() for lists in of_splits]
        rows, seen = np.concatenate(parts).T.astype(np.int64)
        first, last = np.searchsorted(pairs, [begin * num_items, end * num_items])
        seen_pairs = ((begin + rows) * num_items + seen)[seen != schema.UNKNOWN_INDEX]
        left = np.setdiff1d(seen_pairs, pairs[first:last])
        offsets.append(offsets[-1][-1] + _offsets(left // num_items - begin, end - begin)[1:])
        items.append((left % num_items).astype(np.int32))
    return ItemLists(np.concatenate(offsets), np.concatenate(items))


def _offsets(rows: np.ndarray, num_rows: int) -> np.ndarray:
    return np.append(0, np.cumsum(np.bincount(rows, minlength=num_rows)))
