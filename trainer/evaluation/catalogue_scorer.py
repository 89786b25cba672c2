"""Ranks the catalogue for any number of queries, some at a time."""

from collections.abc import Callable, Mapping

import numpy as np

from settings.progress import Advance
from trainer.compat import tf
from trainer.data.queries import QuerySource
from trainer.evaluation import catalogue
from trainer.evaluation.catalogue import dot_products, items_per_chunk
from trainer.evaluation.item_lists import ItemLists, chunks
from trainer.schema import UNKNOWN_INDEX

QUERIES_PER_CHUNK = 512
"""`CatalogueScorer` scores at most this many queries at a time."""

_ITEMS_PER_CANDIDATE_CHUNK = 65_536


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
        advance: Advance = lambda number: None,
    ):
        """Builds a scorer.

        Args:
          query_fn: Turns a batch of query features into query vectors, float [batch_size, vector_size]. All batches of
            a call have the same size, so a `tf.function` is traced once.
          candidates: float [num_items, vector_size]; row i is the vector of item index i. Row 0 is never used.
          query_source: Has the features of the queries.
          chunk_size: Number of items to score at a time. By default a chunk of scores has CHUNK_BYTES.
          queries_per_chunk: The largest number of queries to score at a time.
          advance: Is called with the number of queries of each chunk that was scored.
        """
        self._query_fn = query_fn
        self._candidates = tf.cast(candidates, tf.float32)
        self._query_source = query_source
        self._chunk_size = chunk_size
        self._queries_per_chunk = queries_per_chunk
        self._advance = advance

    def top_k(self, users: np.ndarray, k: int, excluded: ItemLists | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query: see the function `top_k`.

        Args:
          users: int32 [num_queries], user indices.
          k: At least 1.
          excluded: The items to leave out, for each query.

        Returns:
          Items, int32 [num_queries, min(k, num_items)], and scores, float32 of the same shape.
        """
        num_columns = min(k, self._candidates.shape[0])
        best: np.ndarray = np.zeros([len(users), num_columns], np.int32)
        scores: np.ndarray = np.zeros([len(users), num_columns], np.float32)
        for rows in chunks(np.full(len(users), num_columns), max_rows=self._queries_per_chunk):
            best[rows], scores[rows] = _top_k_of_vectors(
                self._query_vectors(users, rows),
                self._candidates,
                k,
                _pairs_of(excluded, rows),
                self._items_per_chunk(len(rows)),
            )
            self._advance(len(rows))
        return best, scores

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
        found: np.ndarray = np.zeros([2, len(items.items)], np.int32)
        for rows in chunks(np.diff(items.offsets), max_rows=self._queries_per_chunk):
            of_rows = items.take(rows)
            dense = of_rows.padded()
            both = _ranks_of_vectors(
                self._query_vectors(users, rows),
                self._candidates,
                dense,
                _pairs_of(excluded, rows),
                self._items_per_chunk(len(rows)),
            )
            is_item = np.arange(dense.shape[1]) < np.diff(of_rows.offsets)[:, None]
            found[:, items.offsets[rows[0]] : items.offsets[rows[-1] + 1]] = np.stack(both)[:, is_item]
            self._advance(len(rows))
        best_ranks, tie_sizes = found
        return best_ranks, tie_sizes

    def _items_per_chunk(self, num_queries: int) -> tf.Tensor:
        return items_per_chunk(num_queries, self._candidates.shape[0], self._chunk_size)

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
@tf.function(input_signature=[_FLOATS, _FLOATS, _NUMBER, _INTEGERS, _NUMBER], autograph=False)
def _top_k_of_vectors(
    vectors: tf.Tensor, candidates: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor, chunk_size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    return catalogue.top_k(
        dot_products(vectors, candidates),
        tf.shape(candidates)[0],
        k,
        excluded,
        batch_size=tf.shape(vectors)[0],
        chunk_size=chunk_size,
    )


@tf.function(input_signature=[_FLOATS, _FLOATS, _INTEGERS, _INTEGERS, _NUMBER], autograph=False)
def _ranks_of_vectors(
    vectors: tf.Tensor, candidates: tf.Tensor, items: tf.Tensor, excluded: tf.Tensor, chunk_size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    return catalogue.ranks(
        dot_products(vectors, candidates), tf.shape(candidates)[0], items, excluded, chunk_size=chunk_size
    )


def candidate_matrix(candidate_fn: Callable[[tf.Tensor], tf.Tensor], num_items: int) -> tf.Tensor:
    """The vectors of all items, [num_items, vector_size], computed 65,536 at a time.

    Args:
      candidate_fn: Turns item indices, int32 [n], into vectors [n, vector_size].
      num_items: Number of item indices, including index 0.
    """
    matrix = None
    for begin in range(0, num_items, _ITEMS_PER_CANDIDATE_CHUNK):
        items = tf.range(begin, min(begin + _ITEMS_PER_CANDIDATE_CHUNK, num_items))
        vectors = candidate_fn(items)
        if matrix is None:
            # A variable is changed in place. Joining the chunks at the end would need twice the memory.
            matrix = tf.Variable(tf.zeros([num_items, vectors.shape[1]], vectors.dtype), trainable=False)
        matrix.scatter_update(tf.IndexedSlices(vectors, items))
    assert matrix is not None
    return matrix.read_value()


def _pairs_of(lists: ItemLists | None, rows: np.ndarray) -> np.ndarray:
    return np.zeros([0, 2], np.int32) if lists is None else lists.take(rows).pairs()
