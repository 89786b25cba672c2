"""Histograms of scores and of embedding norms, to look at while the model trains."""

from collections.abc import Callable

import numpy as np

from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.evaluation.catalogue_ranking import Ranker
from trainer.modeling.two_tower import TwoTowerModel

MAX_USERS = 16
"""The scores are those of this number of users, spread evenly over the vocabulary."""

MAX_ITEMS = 2_000
"""The scores are those of this number of the most popular items."""

MAX_ROWS = 20_000
"""The norms are those of this number of rows of each table. Items are sorted by popularity, and users by id."""

_NUM_BUCKETS = 30


def build_distribution_fn(
    model: TwoTowerModel, ranker: Ranker, dataset: Dataset
) -> Callable[[tf.Tensor], dict[str, np.ndarray]]:
    """Prepares the histograms of a model.

    Args:
      model: Its tables are measured. A table of single numbers, such as the bias of items, is measured by its values.
      ranker: Its scores are measured. The users are described by their training ratings.
      dataset: The training ratings.

    Returns:
      A function of the candidate vectors, see `candidate_matrix`, that returns the histograms of the current weights:
      `scores`, and `embedding_norms/TABLE` for each table; see `histogram`.
    """
    users = np.unique(np.linspace(1, dataset.vocabulary.num_users - 1, MAX_USERS, dtype=np.int32))
    features = {name: tf.constant(values) for name, values in dataset.query_source("train").gather(users).items()}

    def measure(candidates: tf.Tensor) -> dict[str, np.ndarray]:
        # Not as a tf.function: for few users tracing takes longer than all calls of a run.
        queries = ranker.query_vectors(features)
        scores = tf.matmul(queries, candidates[1 : 1 + MAX_ITEMS], transpose_b=True)
        norms = {f"embedding_norms/{name}": histogram(table.norms(MAX_ROWS)) for name, table in model.tables.items()}
        return {"scores": histogram(scores.numpy()), **norms}

    return measure


def histogram(values: np.ndarray) -> np.ndarray:
    """Counts values in buckets of equal width.

    Args:
      values: float32 of any shape. Values that are not finite are left out.

    Returns:
      float64 [num_buckets, 3], as TensorBoard reads them: the lower end, the upper end and the count of each bucket. If
      all values are equal, there is one bucket. If there are no values, there is none.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros([0, 3])
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        return np.array([[low, high, len(finite)]])
    counts, edges = np.histogram(finite, _NUM_BUCKETS, (low, high))
    return np.stack([edges[:-1], edges[1:], counts], axis=1)
