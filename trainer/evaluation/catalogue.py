"""Ranks the whole catalogue in bounded memory. Everything that ranks the catalogue calls this module.

`top_k` and `ranks` are plain TensorFlow functions. They work inside a `tf.function` with unknown shapes, so that an
exported model can call them. `CatalogueScorer` applies them to any number of users.

The rules are the same everywhere:

- Items are ordered by descending score. `top_k` orders equal scores by ascending item index. `ranks` tells how many
  candidates have an equal score.
- Item index 0 (`schema.UNKNOWN_INDEX`) is never a candidate.
- A score of NaN or −inf is replaced by the lowest finite score. So the score −inf always means that no candidate is
  left.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.compat import tf
from trainer.data.queries import QuerySource
from trainer.modeling.chunks import CHUNK_BYTES
from trainer.schema import UNKNOWN_INDEX

# CHUNK_BYTES is the size of one chunk of scores, float32 [queries of a chunk, items of a chunk]. At most about six
# arrays of this size exist at a time, whatever the number of queries and items.

QUERIES_PER_CHUNK = 512
"""`CatalogueScorer` scores at most this many queries at a time."""

_ITEMS_PER_CANDIDATE_CHUNK = 65_536

ScoreChunk = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""`score_chunk(begin, end)` returns the scores [batch_size, end - begin] of the item indices begin to end - 1."""


def top_k(
    score_chunk: ScoreChunk,
    num_items: tf.Tensor | int,
    k: tf.Tensor | int,
    excluded: tf.Tensor,
    *,
    chunk_size: tf.Tensor | int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the k best items of each query.

    Args:
      score_chunk: Scores a range of items for every query of the batch.
      num_items: Number of item indices, including index 0.
      k: Number of items to return for each query, at least 1.
      excluded: int32 [batch_size, num_excluded]: the items to leave out, padded with 0.
      chunk_size: Number of items to score at a time. By default a chunk of scores has CHUNK_BYTES.

    Returns:
      The items, int32 [batch_size, min(k, num_items)], best first, and their scores, float32 of the same shape.
      Where no candidate is left the item is 0 and the score −inf.
    """
    num_items = tf.convert_to_tensor(num_items, tf.int32)
    k = tf.minimum(tf.convert_to_tensor(k, tf.int32), num_items)
    batch_size = tf.shape(excluded)[0]
    chunk_size = _chunk_size(chunk_size, batch_size, num_items)

    def add_chunk(begin: tf.Tensor, items: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
        end = tf.minimum(begin + chunk_size, num_items)
        chunk = _exclude(_candidate_scores(score_chunk(begin, end)), begin, excluded)
        chunk_scores, positions = tf.math.top_k(chunk, tf.minimum(k, end - begin))
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
      excluded: int32 [batch_size, num_excluded]: the items to leave out, padded with 0.
      chunk_size: Number of items to score at a time. By default a chunk of scores has CHUNK_BYTES.

    Returns:
      Two int32 tensors [batch_size, num_ranked], both 0 where the item is 0: the best rank of the items with this
      score, from 1, and the number of candidates with this score, including the item. An excluded item gets what it
      would have as a candidate.
    """
    num_items = tf.convert_to_tensor(num_items, tf.int32)
    batch_size, num_ranked = tf.shape(items)[0], tf.shape(items)[1]
    chunk_size = _chunk_size(chunk_size, batch_size, num_items)

    def look_up_chunk(begin: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
        end = tf.minimum(begin + chunk_size, num_items)
        return end, _look_up(_candidate_scores(score_chunk(begin, end)), begin, items, scores)

    # Look up the scores of the items in the same matrix product that they are compared with. A product of another
    # shape may round differently.
    scores = _over_chunks(look_up_chunk, num_items, tf.fill([batch_size, num_ranked], -np.inf))
    keys = _sort_keys(scores)
    # A candidate is above the first of two thresholds if it is not worse than the item, and above the second if it is
    # better.
    thresholds = tf.concat([keys - 1, keys + 1], axis=1)
    order = tf.argsort(thresholds, axis=1)
    ascending = tf.gather(thresholds, order, batch_dims=1)

    def count_chunk(begin: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        end = tf.minimum(begin + chunk_size, num_items)
        chunk = _exclude(_candidate_scores(score_chunk(begin, end)), begin, excluded)
        num_below = tf.searchsorted(ascending, _sort_keys(chunk), side="left")
        num_candidates = tf.math.bincount(
            num_below, minlength=2 * num_ranked + 1, maxlength=2 * num_ranked + 1, axis=-1
        )
        num_above = end - begin - tf.cumsum(num_candidates, axis=1)[:, :-1]
        # An excluded item does not count itself.
        itself = _look_up(tf.where(chunk == -np.inf, 1.0, 0.0), begin, items, tf.zeros([batch_size, num_ranked]))
        return end, state + tf.concat([num_above, tf.cast(itself, tf.int32)], axis=1)

    counts = _over_chunks(count_chunk, num_items, tf.zeros([batch_size, 3 * num_ranked], tf.int32))
    num_above, num_itself = counts[:, : 2 * num_ranked], counts[:, 2 * num_ranked :]
    num_not_worse, num_better = tf.split(tf.gather(num_above, tf.argsort(order, axis=1), batch_dims=1), 2, axis=1)
    is_item = items != UNKNOWN_INDEX
    return tf.where(is_item, 1 + num_better, 0), tf.where(is_item, num_not_worse + num_itself - num_better, 0)


def _chunk_size(chunk_size: tf.Tensor | int | None, batch_size: tf.Tensor, num_items: tf.Tensor) -> tf.Tensor:
    if chunk_size is None:
        chunk_size = CHUNK_BYTES // (4 * tf.maximum(batch_size, 1))
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
    return tf.where(scores >= tf.float32.min, scores, tf.float32.min)


def _exclude(scores: tf.Tensor, begin: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Sets the scores [batch_size, chunk_size] of the excluded items to −inf."""
    batch_size, chunk_size = tf.shape(scores)[0], tf.shape(scores)[1]
    is_here = (excluded >= begin) & (excluded < begin + chunk_size)
    rows = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(excluded))
    cells = tf.stack([rows, tf.where(is_here, excluded - begin, 0)], axis=-1)
    # The minimum with +inf changes nothing, so the shapes need not depend on how many items are in this chunk.
    return tf.tensor_scatter_nd_min(scores, cells, tf.where(is_here, -np.inf, np.inf))


def _look_up(chunk: tf.Tensor, begin: tf.Tensor, items: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The values of `items` [batch_size, num_ranked]: from the chunk for those that are in it, else from `values`."""
    is_here = (items >= begin) & (items < begin + tf.shape(chunk)[1])
    return tf.where(is_here, tf.gather(chunk, tf.where(is_here, items - begin, 0), batch_dims=1), values)


def _sort_keys(scores: tf.Tensor) -> tf.Tensor:
    """Even int64 keys in the order of the scores. Equal scores have equal keys."""
    # Read as integers, positive floats keep their order and negative floats reverse it. −0 must become 0 first;
    # not by adding 0, which TensorFlow's graph optimizer removes.
    bits = tf.bitcast(tf.where(scores == 0, 0.0, scores), tf.int32)
    return 2 * tf.cast(tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, np.int32(0x7FFFFFFF)), bits), tf.int64)


@dataclass(frozen=True, eq=False)
class ItemLists:
    """The items of each query, end to end (compressed sparse rows).

    Attributes:
      offsets: int64 [num_queries + 1]; query i has items[offsets[i]:offsets[i + 1]].
      items: int32 [num_entries].
    """

    offsets: np.ndarray
    items: np.ndarray

    @classmethod
    def empty(cls, num_queries: int) -> "ItemLists":
        """No item for any of `num_queries` queries."""
        return cls(np.zeros(num_queries + 1, np.int64), np.zeros(0, np.int32))

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray]) -> "ItemLists":
        """From one array of items per query."""
        offsets: np.ndarray = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        return cls(offsets, np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int32))

    @property
    def num_queries(self) -> int:
        return len(self.offsets) - 1

    def entries(self, rows: np.ndarray) -> np.ndarray:
        """Positions in `items` of the items of the queries `rows`, query by query: int64 [num_selected_entries]."""
        begins, sizes = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        ends = np.cumsum(sizes)
        return np.repeat(begins - ends + sizes, sizes) + np.arange(ends[-1] if len(ends) else 0)

    def take(self, rows: np.ndarray) -> "ItemLists":
        """The lists of the queries `rows`, int [num_rows], in their order."""
        offsets: np.ndarray = np.append(0, np.cumsum(self.offsets[rows + 1] - self.offsets[rows]))
        return ItemLists(offsets, self.items[self.entries(rows)])

    def padded(self) -> np.ndarray:
        """int32 [num_queries, longest list], at least one column wide; 0 after the end of a list."""
        sizes = np.diff(self.offsets)
        dense: np.ndarray = np.zeros([len(sizes), max(1, sizes.max(initial=0))], np.int32)
        dense[np.arange(dense.shape[1]) < sizes[:, None]] = self.items[self.offsets[0] : self.offsets[-1]]
        return dense


class CatalogueScorer:
    """Ranks the catalogue for many queries, where a score is query vector · candidate vector.

    It holds the candidate vectors, and the features and scores of one chunk of queries; see CHUNK_BYTES. Build a new
    one when the model's weights have changed.

    Example:
      candidates = candidate_matrix(model.candidate_vectors, num_items)
      scorer = CatalogueScorer(model.query_vectors, candidates, dataset.query_source("train"))
      users = np.array([7, 9], np.int32)
      items, scores = scorer.top_k(users, 10, seen.take(users))
    """

    def __init__(
        self,
        query_fn: Callable[[Mapping[str, tf.Tensor]], tf.Tensor],
        candidates: tf.Tensor | np.ndarray,
        query_source: QuerySource,
        *,
        chunk_size: int | None = None,
        queries_per_chunk: int = QUERIES_PER_CHUNK,
    ):
        """Builds a scorer.

        Args:
          query_fn: Turns a batch of query features into query vectors, float [batch_size, vector_size]. All batches of
            a call have the same size, so a `tf.function` is traced once.
          candidates: float [num_items, vector_size]; row i is the vector of item index i. Row 0 is never used.
          query_source: Has the features of the queries.
          chunk_size: Number of items to score at a time. By default a chunk of scores has CHUNK_BYTES.
          queries_per_chunk: Number of queries to score at a time.
        """
        self._query_fn = query_fn
        self._candidates = tf.cast(candidates, tf.float32)
        self._query_source = query_source
        self._chunk_size = chunk_size
        self._queries_per_chunk = queries_per_chunk

    def top_k(self, users: np.ndarray, k: int, excluded: ItemLists | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query: see the function `top_k`.

        Args:
          users: int32 [num_queries], user indices.
          k: At least 1.
          excluded: The items to leave out, for each query.

        Returns:
          Items, int32 [num_queries, min(k, num_items)], and scores, float32 of the same shape.
        """
        parts = [
            _top_k_of_vectors(
                self._query_vectors(users, rows),
                self._candidates,
                k,
                _rows_of(excluded, rows),
                self._items_per_chunk(len(rows)),
            )
            for rows in self._chunks_of(users)
        ]
        num_columns = min(k, self._candidates.shape[0])
        items = [np.zeros([0, num_columns], np.int32), *(items.numpy() for items, _ in parts)]
        scores = [np.zeros([0, num_columns], np.float32), *(scores.numpy() for _, scores in parts)]
        return np.concatenate(items), np.concatenate(scores)

    def ranks(
        self, users: np.ndarray, items: ItemLists, excluded: ItemLists | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rank of each of `items` among the candidates of its query: see the function `ranks`.

        Args:
          users: int32 [num_queries], user indices.
          items: The items to rank, for each query.
          excluded: The items to leave out, for each query.

        Returns:
          The best rank of the items with this score, and the number of candidates with this score, both int32
          [num_entries], in the order of `items.items`.
        """
        parts: list[np.ndarray] = [np.zeros([2, 0], np.int32)]
        for rows in self._chunks_of(users):
            chunk = items.take(rows)
            dense = chunk.padded()
            both = _ranks_of_vectors(
                self._query_vectors(users, rows),
                self._candidates,
                dense,
                _rows_of(excluded, rows),
                self._items_per_chunk(len(rows)),
            )
            parts.append(np.stack(both)[:, np.arange(dense.shape[1]) < np.diff(chunk.offsets)[:, None]])
        best_ranks, tie_sizes = np.concatenate(parts, axis=1)
        return best_ranks, tie_sizes

    def _chunks_of(self, users: np.ndarray) -> list[np.ndarray]:
        rows = np.arange(len(users))
        return [rows[i : i + self._queries_per_chunk] for i in range(0, len(rows), self._queries_per_chunk)]

    def _items_per_chunk(self, num_queries: int) -> int:
        return self._chunk_size or max(1, CHUNK_BYTES // (4 * num_queries))

    def _query_vectors(self, users: np.ndarray, rows: np.ndarray) -> tf.Tensor:
        # The last chunk is filled up with unknown users, so that all batches have the same shape.
        batch_size = min(len(users), self._queries_per_chunk)
        of_chunk: np.ndarray = np.full(batch_size, UNKNOWN_INDEX, np.int32)
        of_chunk[: len(rows)] = users[rows]
        features = self._query_source.gather(of_chunk)
        vectors = self._query_fn({name: tf.convert_to_tensor(values) for name, values in features.items()})
        return tf.cast(vectors, tf.float32)[: len(rows)]


_FLOATS, _INTEGERS = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None, None], tf.int32)
_NUMBER = tf.TensorSpec([], tf.int32)


# These two are functions of the module, so that TensorFlow traces them once for all scorers.
@tf.function(input_signature=[_FLOATS, _FLOATS, _NUMBER, _INTEGERS, _NUMBER])
def _top_k_of_vectors(
    vectors: tf.Tensor, candidates: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor, chunk_size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    return top_k(dot_products(vectors, candidates), tf.shape(candidates)[0], k, excluded, chunk_size=chunk_size)


@tf.function(input_signature=[_FLOATS, _FLOATS, _INTEGERS, _INTEGERS, _NUMBER])
def _ranks_of_vectors(
    vectors: tf.Tensor, candidates: tf.Tensor, items: tf.Tensor, excluded: tf.Tensor, chunk_size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    return ranks(dot_products(vectors, candidates), tf.shape(candidates)[0], items, excluded, chunk_size=chunk_size)


def candidate_matrix(candidate_fn: Callable[[tf.Tensor], tf.Tensor], num_items: int) -> tf.Tensor:
    """The vectors of all items, [num_items, vector_size], computed 65,536 at a time.

    Args:
      candidate_fn: Turns item indices, int32 [n], into vectors [n, vector_size].
      num_items: Number of item indices, including index 0.
    """
    begins = range(0, num_items, _ITEMS_PER_CANDIDATE_CHUNK)
    ranges = [tf.range(begin, min(begin + _ITEMS_PER_CANDIDATE_CHUNK, num_items)) for begin in begins]
    return tf.concat([candidate_fn(items) for items in ranges], axis=0)


def dot_products(vectors: tf.Tensor, candidates: tf.Tensor) -> ScoreChunk:
    """A `score_chunk` of query vectors [batch_size, vector_size] and candidates [num_items, vector_size]."""
    return lambda begin, end: tf.matmul(vectors, candidates[begin:end], transpose_b=True)


def _rows_of(lists: ItemLists | None, rows: np.ndarray) -> np.ndarray:
    return (ItemLists.empty(len(rows)) if lists is None else lists.take(rows)).padded()
