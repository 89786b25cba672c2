"""Training items that are ranked as if they were held out, to compare the model's training with its validation."""

import numpy as np

from trainer.data.dataset import Dataset
from trainer.data.queries import Queries
from trainer.evaluation.held_out import HeldOut, relevance_of
from trainer.evaluation.item_lists import ItemLists


def left_out_training_items(
    dataset: Dataset, *, num_users: int, fraction: float, relevance_threshold: float, seed: int
) -> tuple[HeldOut, Queries]:
    """Leaves some training items of some users out of their histories, so that they can be ranked.

    They are ranked like held-out items: the candidates are all items that the user has not rated, and those that were
    left out. But the model was trained on them. So their metrics show how well it has learnt its training data, and the
    distance to the metrics of the validation shows how much of it was learnt by heart.

    Args:
      dataset: The training ratings.
      num_users: How many users to draw. Those without a relevant item that was left out are not ranked.
      fraction: The probability with which an item is left out. With that of the validation split the numbers of items
        to find are alike, and the metrics can be compared.
      relevance_threshold: Ratings at or above this value are relevant. Events are always relevant.
      seed: Determines the users and the items.

    Returns:
      The users with their items, and the features of their queries. Other users have empty histories there.
    """
    history = dataset.query_source("train")
    bits = np.random.PCG64(seed)
    drawn = np.flatnonzero(np.diff(history.offsets))
    # NumPy guarantees the raw bits of a generator for all versions, but not `choice`.
    drawn = np.sort(drawn[np.argsort(bits.random_raw(len(drawn)), kind="stable")[:num_users]])
    sizes = np.diff(history.offsets)[drawn]
    entries = ItemLists(history.offsets, np.zeros(0, np.int32)).entries(drawn)
    rows = np.repeat(np.arange(len(drawn)), sizes)
    # As rows of one entry, because the arrays of prepared data are in parts, and a row is read from one part.
    items, ratings = (array.take(entries[:, np.newaxis])[:, 0] for array in (history.items, history.ratings))
    is_left_out = (bits.random_raw(len(entries)) >> np.uint64(11)) * 2.0**-53 < fraction
    relevance = relevance_of(ratings, relevance_threshold=relevance_threshold if dataset.has_ratings else None)
    counts = is_left_out & (relevance > 0)

    ranked = np.unique(rows[counts])
    found = _lists(rows[counts], items[counts], len(drawn)).take(ranked)
    excluded = _lists(rows[~is_left_out], items[~is_left_out], len(drawn)).take(ranked)
    held_out = HeldOut(
        queries=drawn[ranked].astype(np.int32),
        items=found,
        relevance=relevance[counts],
        excluded=excluded,
        num_candidates=dataset.vocabulary.num_items - 1 - np.diff(excluded.offsets),
        num_left_out=0,
    )
    kept = _lists(drawn[rows[~is_left_out]], items[~is_left_out], len(history.offsets) - 1)
    queries = Queries(
        offsets=kept.offsets,
        items=kept.items,
        ratings=ratings[~is_left_out],
        history_size=history.history_size,
        features=dataset.query_features,
    )
    return held_out, queries


def _lists(rows: np.ndarray, items: np.ndarray, num_rows: int) -> ItemLists:
    """The items of each row, where `rows` is in ascending order."""
    return ItemLists(np.append(0, np.cumsum(np.bincount(rows, minlength=num_rows))), items.astype(np.int32))
