"""TF-Ranking's softmax loss where the list is the whole catalogue, in bounded memory.

Plain automatic differentiation keeps several arrays [num_queries, num_items] from the forward to the backward pass.
Here the queries are taken in chunks. Each chunk computes its scores once, and from them its losses and its gradients at
once, as kernels for a "fused linear cross-entropy" do (Hsu et al., "Liger Kernel", 2024).
"""

from typing import Any

import numpy as np

from trainer.compat import tf


def catalogue_softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    items: tf.Tensor,
    labels: tf.Tensor,
    excluded: tf.Tensor,
    weights: tf.Tensor,
    *,
    chunk_bytes: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The softmax loss of each query over all candidates, and the weighted sum that is differentiated.

    With the scores s_ij = queries[i] · candidates[j] and the labels y_ij of the list of query i,

        losses[i] = Σ_j y_ij · (log Σ_c exp(s_ic) − s_ij),    total = Σ_i weights[i] · losses[i]

    where c runs over the candidates of query i: all items but index 0 and the excluded ones. An item in the list stays
    a candidate even if it is excluded. The value is that of TF-Ranking's SoftmaxLoss on the list of all candidates,
    where every item outside of the list has label 0.

    All shapes must be static. The sizes of chunks follow from them.

    Args:
      queries: float [num_queries, vector_size].
      candidates: float [num_items, vector_size]. Row 0 is never a candidate.
      items: int32 [num_queries, list_size], the items of the lists. Labels of an item that is there twice add up.
      labels: float32 [num_queries, list_size], negative where padded. Items with index 0 are padding too.
      excluded: int32 [num_queries, num_excluded], padded with 0.
      weights: float32 [num_queries].
      chunk_bytes: the size in bytes of the scores of one chunk, float32 [queries of a chunk, num_items]. About three
        arrays of this size exist at a time. A chunk has at least one query.

    Returns:
      total float32 [], with gradients for `queries` and `candidates`. Without gradients: losses float32 [num_queries],
      and the losses of the same lists if all scores were equal, Σ_j y_ij · log(number of candidates of query i).
    """
    # Index 0 is a candidate of no query. It takes the updates that are not meant for any item.
    is_real = (labels >= 0) & (items > 0)
    lists = (
        tf.where(is_real, items, 0),
        tf.where(is_real, tf.cast(labels, tf.float32), 0.0),
        tf.concat([excluded, tf.zeros([queries.shape[0], 1], tf.int32)], axis=1),
        tf.cast(weights, tf.float32),
    )
    queries_per_chunk = max(1, chunk_bytes // (4 * candidates.shape[0]))

    @tf.custom_gradient
    def differentiable(queries: tf.Tensor, candidates: tf.Tensor) -> Any:
        losses, equal_losses, query_gradient, candidate_gradient = _losses_and_gradients(
            tf.cast(candidates, tf.float32), tf.cast(queries, tf.float32), *lists, queries_per_chunk=queries_per_chunk
        )

        def gradient(upstream: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                tf.cast(upstream * query_gradient, queries.dtype),
                tf.cast(upstream * candidate_gradient, candidates.dtype),
            )

        return (tf.reduce_sum(losses * lists[-1]), losses, equal_losses), gradient

    return differentiable(tf.convert_to_tensor(queries), tf.convert_to_tensor(candidates))


def _losses_and_gradients(
    candidates: tf.Tensor, queries: tf.Tensor, *lists: tf.Tensor, queries_per_chunk: int
) -> tuple[tf.Tensor, ...]:
    """`_chunk` for any number of queries."""
    num_queries, vector_size = queries.shape
    num_chunks = -(-num_queries // queries_per_chunk)
    if num_chunks == 1:
        return _chunk(candidates, queries, *lists)
    chunk_size = -(-num_queries // num_chunks)
    num_rows = num_chunks * chunk_size
    # Rows of zeros have the weight 0.
    of_queries = [
        tf.pad(argument, [[0, num_rows - num_queries]] + [[0, 0]] * (argument.shape.rank - 1))
        for argument in (queries, *lists)
    ]

    def add_chunk(
        index: tf.Tensor,
        losses: tf.Tensor,
        equal_losses: tf.Tensor,
        query_gradient: tf.Tensor,
        candidate_gradient: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        begin = index * chunk_size
        chunk = [_slice(argument, begin, chunk_size) for argument in of_queries]
        of_chunk = _chunk(candidates, *chunk)
        chunk_losses, chunk_equal_losses, chunk_query_gradient, chunk_candidate_gradient = of_chunk
        rows = (begin + tf.range(chunk_size))[:, tf.newaxis]
        return (
            index + 1,
            tf.tensor_scatter_nd_update(losses, rows, chunk_losses),
            tf.tensor_scatter_nd_update(equal_losses, rows, chunk_equal_losses),
            tf.tensor_scatter_nd_update(query_gradient, rows, chunk_query_gradient),
            candidate_gradient + chunk_candidate_gradient,
        )

    _, losses, equal_losses, query_gradient, candidate_gradient = tf.while_loop(
        lambda index, *_: index < num_chunks,
        add_chunk,
        (
            tf.constant(0),
            tf.zeros([num_rows]),
            tf.zeros([num_rows]),
            tf.zeros([num_rows, vector_size]),
            tf.zeros(candidates.shape),
        ),
        parallel_iterations=1,
    )
    return losses[:num_queries], equal_losses[:num_queries], query_gradient[:num_queries], candidate_gradient


def _chunk(
    candidates: tf.Tensor,
    queries: tf.Tensor,
    items: tf.Tensor,
    labels: tf.Tensor,
    excluded: tf.Tensor,
    weights: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Losses and those of equal scores, [chunk_size], and the gradients of the weighted sum of the losses."""
    scores = tf.matmul(queries, candidates, transpose_b=True)
    list_cells = _cells(items)
    list_scores = tf.gather_nd(scores, list_cells)
    scores = tf.tensor_scatter_nd_min(scores, _cells(excluded), tf.fill(tf.shape(excluded), -np.inf))
    # Items of the list become candidates again. The updates of padding go to index 0 and must not make it one.
    scores = tf.tensor_scatter_nd_max(scores, list_cells, tf.where(items > 0, list_scores, -np.inf))

    # A query may have no candidate at all, and then no label either.
    highest = tf.maximum(tf.reduce_max(scores, axis=1, keepdims=True), tf.float32.min)
    exponentials = tf.exp(scores - highest)
    normalizer = tf.maximum(tf.reduce_sum(exponentials, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    label_sum = tf.reduce_sum(labels, axis=1, keepdims=True)
    log_normalizer = highest + tf.math.log(normalizer)
    losses = tf.reduce_sum(tf.where(labels > 0, labels * (log_normalizer - list_scores), 0.0), axis=1)
    num_candidates = tf.reduce_sum(tf.cast(scores > -np.inf, tf.float32), axis=1)
    equal_losses = label_sum[:, 0] * tf.math.log(tf.maximum(num_candidates, 1.0))

    # d losses[i] / d s_ij = (Σ_k y_ik) · p_ij − y_ij = (Σ_k y_ik) / normalizer_i · residuals_ij. Scaling the queries
    # spares another pass over the residuals.
    of_labels = labels * tf.math.divide_no_nan(normalizer, label_sum)
    residuals = tf.tensor_scatter_nd_sub(exponentials, list_cells, of_labels)
    scale = weights[:, tf.newaxis] * label_sum / normalizer
    query_gradient = scale * tf.matmul(residuals, candidates)
    candidate_gradient = tf.matmul(residuals, scale * queries, transpose_a=True)
    return losses, equal_losses, query_gradient, candidate_gradient


def _cells(items: tf.Tensor) -> tf.Tensor:
    """int32 [chunk_size, n] → int32 [chunk_size, n, 2]: row and item."""
    rows = tf.broadcast_to(tf.range(items.shape[0])[:, tf.newaxis], items.shape)
    return tf.stack([rows, items], axis=-1)


def _slice(argument: tf.Tensor, begin: tf.Tensor, size: int) -> tf.Tensor:
    """argument[begin : begin + size]. A slice of constant size is what XLA compiles well."""
    begins = [begin] + [0] * (argument.shape.rank - 1)
    return tf.slice(argument, begins, [size, *argument.shape[1:]])
