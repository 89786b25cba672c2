"""Ranks the whole catalogue in bounded memory. Everything that ranks the catalogue calls this module.

`top_k` and `ranks` are plain TensorFlow functions. They work inside a `tf.function` with unknown shapes, so that an
exported model can call them. `catalogue_scorer.CatalogueScorer` applies them to any number of users.

The rules are the same everywhere:

- Items are ordered by descending score. `top_k` orders equal scores by ascending item index. `ranks` tells how many
  candidates have an equal score.
- Item index 0 (`schema.UNKNOWN_INDEX`) is never a candidate.
- A score of NaN or −inf is replaced by the lowest finite score. So the score −inf always means that no candidate is
  left.
"""

from collections.abc import Callable

import numpy as np

from trainer.compat import tf
from trainer.modeling.chunks import CHUNK_BYTES
from trainer.schema import UNKNOWN_INDEX

# CHUNK_BYTES is the size of one chunk of scores, float32 [queries of a chunk, items of a chunk]. At most about six
# arrays of this size exist at a time, whatever the number of queries and items.

_BLOCK_SIZE = 32
"""The number of items that `top_k` first represents by their highest score."""

ScoreChunk = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""`score_chunk(begin, end)` returns the scores [batch_size, end - begin] of the item indices begin to end - 1."""


def top_k(
    score_chunk: ScoreChunk,
    num_items: tf.Tensor | int,
    k: tf.Tensor | int,
    excluded: tf.Tensor,
    *,
    batch_size: tf.Tensor | int,
    chunk_size: tf.Tensor | int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the k best items of each query.

    Args:
      score_chunk: Scores a range of items for every query of the batch.
      num_items: Number of item indices, including index 0.
      k: Number of items to return for each query, at least 1.
      excluded: int32 [num_excluded, 2]: pairs of a row of the batch and an item to leave out.
      batch_size: Number of queries.
      chunk_size: Number of items to score at a time. By default a chunk of scores has CHUNK_BYTES.

    Returns:
      The items, int32 [batch_size, min(k, num_items)], best first, and their scores, float32 of the same shape.
      Where no candidate is left the item is 0 and the score −inf.
    """
    num_items = tf.convert_to_tensor(num_items, tf.int32)
    k = tf.minimum(tf.convert_to_tensor(k, tf.int32), num_items)
    chunk_size = items_per_chunk(batch_size, num_items, chunk_size)

    def add_chunk(begin: tf.Tensor, items: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
        end = tf.minimum(begin + chunk_size, num_items)
        chunk = _exclude(_candidate_scores(score_chunk(begin, end)), begin, excluded)
        chunk_scores, positions = _best_of(chunk, tf.minimum(k, end - begin))
        # top_k keeps equal scores in order of position, and the items of earlier chunks come first.
        all_scores = tf.concat([scores, chunk_scores], axis=1)
        all_items = tf.concat([items, begin + positions], axis=1)
        scores, positions = tf.math.top_k(all_scores, k)
        return end, tf.gather(all_items, positions, batch_dims=1), scores

    none = tf.zeros([batch_size, k], tf.int32), tf.fill([batch_size, k], -np.inf)
    _, items, scores = tf.while_loop(
        lambda begin, *_: begin < num_items,
        add_chunk,
        (tf.constant(UNKNOWN_INDEX + 1), *none),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])),
        maximum_iterations=num_items,
        parallel_iterations=1,
    )
    return items, scores


def ranks(
    score_chunk: ScoreChunk,
    num_items: tf.Tensor | int,
    items: tf.Tensor,
    excluded: tf.Tensor,
    *,
    chunk_size: tf.Tensor | int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the ranks of given items among all candidates of their query.

    Items with equal scores share their ranks: an item of the rank r that is tied with s − 1 others may stand at any of
    the places r to r + s − 1.

    Args:
      score_chunk: Scores a range of items for every query of the batch. It must be deterministic: each range is
        scored twice.
      num_items: Number of item indices, including index 0.
      items: int32 [batch_size, num_ranked]: the items to rank, padded with 0.
      excluded: int32 [num_excluded, 2]: pairs of a row of the batch and an item to leave out.
      chunk_size: Number of items to score at a time. By default a chunk of scores has CHUNK_BYTES.

    Returns:
      Two int32 tensors [batch_size, num_ranked], both 0 where the item is 0: the best rank of the items with this
      score, from 1, and the number of candidates with this score, including the item. An excluded item gets what it
      would have as a candidate.
    """
    num_items = tf.convert_to_tensor(num_items, tf.int32)
    batch_size, num_ranked = tf.shape(items)[0], tf.shape(items)[1]
    chunk_size = items_per_chunk(batch_size, num_items, chunk_size)

    def look_up_chunk(begin: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
        end = tf.minimum(begin + chunk_size, num_items)
        return end, _look_up(tf.cast(score_chunk(begin, end), tf.float32), begin, items, scores)

    # Look up the scores of the items in the same matrix product that they are compared with. A product of another
    # shape may round differently.
    scores = _over_chunks(look_up_chunk, num_items, tf.fill([batch_size, num_ranked], -np.inf))
    # A candidate reaches the first of two thresholds if it is not worse than the item, and the second if it is better.
    thresholds = tf.concat(_thresholds(_candidate_scores(scores)), axis=1)
    order = tf.argsort(thresholds, axis=1)
    ascending = tf.gather(thresholds, order, batch_dims=1)

    def count_chunk(begin: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        end = tf.minimum(begin + chunk_size, num_items)
        chunk = _exclude(_candidate_scores(score_chunk(begin, end)), begin, excluded)
        num_reached = tf.searchsorted(ascending, _sort_keys(chunk), side="right")
        num_candidates = tf.math.bincount(
            num_reached, minlength=2 * num_ranked + 1, maxlength=2 * num_ranked + 1, axis=-1
        )
        num_above = end - begin - tf.cumsum(num_candidates, axis=1)[:, :-1]
        # An excluded item does not count itself.
        itself = _look_up(chunk, begin, items, tf.zeros([batch_size, num_ranked])) == -np.inf
        return end, state + tf.concat([num_above, tf.cast(itself, tf.int32)], axis=1)

    counts = _over_chunks(count_chunk, num_items, tf.zeros([batch_size, 3 * num_ranked], tf.int32))
    num_above, num_itself = counts[:, : 2 * num_ranked], counts[:, 2 * num_ranked :]
    num_not_worse, num_better = tf.split(tf.gather(num_above, tf.argsort(order, axis=1), batch_dims=1), 2, axis=1)
    is_item = items != UNKNOWN_INDEX
    return tf.where(is_item, 1 + num_better, 0), tf.where(is_item, num_not_worse + num_itself - num_better, 0)


def pairs_of(items: tf.Tensor) -> tf.Tensor:
    """Items int32 [batch_size, n], padded with 0 → pairs of row and item, int32 [num_items, 2]."""
    cells = tf.where(items != UNKNOWN_INDEX)
    return tf.stack([tf.cast(cells[:, 0], tf.int32), tf.gather_nd(items, cells)], axis=1)


def dot_products(vectors: tf.Tensor, candidates: tf.Tensor) -> ScoreChunk:
    """A `score_chunk` of query vectors [batch_size, vector_size] and candidates [num_items, vector_size]."""
    return lambda begin, end: tf.matmul(vectors, candidates[begin:end], transpose_b=True)


def items_per_chunk(
    batch_size: tf.Tensor | int, num_items: tf.Tensor | int, chunk_size: tf.Tensor | int | None = None
) -> tf.Tensor:
    """The number of items that are scored at a time, int32 []: so many that a chunk of scores has CHUNK_BYTES.

    Args:
      batch_size: Number of queries.
      num_items: Number of item indices.
      chunk_size: If given, the number itself. It is limited to num_items.
    """
    if chunk_size is None:
        size = CHUNK_BYTES // (4 * tf.maximum(batch_size, 1))
        # `_best_by_blocks` copies a chunk that does not consist of whole blocks.
        chunk_size = tf.where(size < _BLOCK_SIZE, size, size - size % _BLOCK_SIZE)
    return tf.clip_by_value(tf.convert_to_tensor(chunk_size, tf.int32), 1, tf.maximum(num_items, 1))


def _over_chunks(
    body: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]], num_items: tf.Tensor, state: tf.Tensor
) -> tf.Tensor:
    """Calls `body(begin, state)`, which returns the end of its chunk and the new state, from item 1 to the last."""
    return tf.while_loop(
        lambda begin, _: begin < num_items,
        body,
        (tf.constant(UNKNOWN_INDEX + 1), state),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None])),
        maximum_iterations=num_items,
        parallel_iterations=1,
    )[1]


def _candidate_scores(scores: tf.Tensor) -> tf.Tensor:
    """float32 scores above −inf: NaN and −inf become the lowest finite score."""
    scores = tf.cast(scores, tf.float32)
    # A sum is finite only if all its terms are, and takes a fraction of the time.
    return tf.cond(
        tf.math.is_finite(tf.reduce_sum(scores)),
        lambda: scores,
        lambda: tf.where(scores >= tf.float32.min, scores, tf.float32.min),
    )


def _exclude(scores: tf.Tensor, begin: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Sets the scores [batch_size, chunk_size] of the excluded pairs to −inf."""
    items = excluded[:, 1]
    is_here = (items >= begin) & (items < begin + tf.shape(scores)[1])
    cells = tf.boolean_mask(excluded, is_here) - tf.stack([0, begin])
    return tf.tensor_scatter_nd_update(scores, cells, tf.fill(tf.shape(cells)[:1], -np.inf))


def _best_of(scores: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The same as `tf.math.top_k`, faster for many scores. Where scores are −inf, their positions have no meaning."""
    return tf.cond(
        tf.shape(scores)[1] // _BLOCK_SIZE > 2 * k,
        lambda: _best_by_blocks(scores, k),
        lambda: tuple(tf.math.top_k(scores, k)),
    )


def _best_by_blocks(scores: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Looks for the k best scores only in the k blocks with the highest scores.

    No other score can be among the k best: in each of these blocks there is a score before it, because a block whose
    highest score is equal comes earlier.
    """
    batch_size, num_scores = tf.shape(scores)[0], tf.shape(scores)[1]
    num_blocks = -(-num_scores // _BLOCK_SIZE)
    num_missing = num_blocks * _BLOCK_SIZE - num_scores
    whole = tf.cond(
        num_missing == 0,
        lambda: scores,
        lambda: tf.pad(scores, [[0, 0], [0, num_missing]], constant_values=-np.inf),
    )
    blocks = tf.reshape(whole, [batch_size, num_blocks, _BLOCK_SIZE])
    # In ascending order, so that equal scores stay in the order of their positions.
    best = tf.sort(tf.math.top_k(tf.reduce_max(blocks, axis=2), k).indices, axis=1)
    inside = tf.reshape(tf.gather(blocks, best, batch_dims=1), [batch_size, k * _BLOCK_SIZE])
    values, positions = tf.math.top_k(inside, k)
    block = tf.gather(best, positions // _BLOCK_SIZE, batch_dims=1)
    return values, block * _BLOCK_SIZE + positions % _BLOCK_SIZE


def _look_up(chunk: tf.Tensor, begin: tf.Tensor, items: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The values of `items` [batch_size, num_ranked]: from the chunk for those that are in it, else from `values`."""
    is_here = (items >= begin) & (items < begin + tf.shape(chunk)[1])
    return tf.where(is_here, tf.gather(chunk, tf.where(is_here, items - begin, 0), batch_dims=1), values)


def _sort_keys(scores: tf.Tensor) -> tf.Tensor:
    """int32 keys in the order of the scores; only for −0 the key is −1, and for 0 it is 0."""
    # Read as integers, positive floats keep their order and negative floats reverse it.
    bits = tf.bitcast(scores, tf.int32)
    is_negative = tf.bitwise.right_shift(bits, 31)  # All bits are 1 or 0.
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.bitwise_and(is_negative, np.int32(0x7FFFFFFF)))


def _thresholds(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The lowest key of the scores that are not worse than these, and of those that are better. −0 is equal to 0."""
    keys = _sort_keys(scores)
    is_zero = scores == 0
    return tf.where(is_zero, -1, keys), tf.where(is_zero, 1, keys + 1)
