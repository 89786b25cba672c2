"""ItemKNN and EASE: a user's score of an item is the sum of its similarities to the items of the user."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.quality.data import TrainingData
from benchmarks.quality.method import Fitted, Method

_ITEMS_PER_CHUNK = 1024

_MAX_DOUBLE_PRECISION_ITEMS = 20_000
"""A larger matrix of items takes single precision, to fit into memory."""


def _knn(data: TrainingData, hyperparameters: Mapping[str, Any]) -> Fitted:
    """Cosine similarity with a shrinkage term, of the k nearest neighbours of each item.

    s[i, j] = <x_i, x_j> / (|x_i| |x_j| + shrinkage), with x_i the column of item i, which TF-IDF may weight (Ferrari
    Dacrema et al., "Are we really making much progress?", RecSys 2019).
    """
    users = data.matrix(positives_only=hyperparameters.get("input") == "positives")
    weighted = _tf_idf(users) if hyperparameters["weighting"] == "tf_idf" else users
    columns = weighted.tocsc()
    norms = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0))).ravel()
    k = min(hyperparameters["k"], data.num_items)
    blocks = []
    for begin in range(0, data.num_items, _ITEMS_PER_CHUNK):
        end = min(begin + _ITEMS_PER_CHUNK, data.num_items)
        products = (columns[:, begin:end].T @ columns).toarray()
        similarity = products / (norms[begin:end, np.newaxis] * norms + hyperparameters["shrinkage"] + 1e-9)
        similarity[np.arange(end - begin), np.arange(begin, end)] = 0
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(similarity, nearest, axis=1).astype(np.float32)
        offsets = k * np.arange(end - begin + 1)
        blocks.append(
            scipy.sparse.csr_matrix((values.ravel(), nearest.ravel(), offsets), (end - begin, data.num_items))
        )
    # Row i has the neighbours of item i. An item is scored by those of its neighbours that the user has.
    similarities = scipy.sparse.vstack(blocks).T.tocsr()
    return Fitted(lambda rows: (users[rows] @ similarities).toarray())


def _tf_idf(users: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Each user is a term: a user with few items tells more about the similarity of two items."""
    num_items = np.diff(users.indptr)
    idf = np.log(users.shape[1] / np.maximum(num_items, 1)).astype(np.float32)
    return scipy.sparse.diags(idf).dot(users).tocsr()


def _ease(data: TrainingData, hyperparameters: Mapping[str, Any], *, positives_only: bool) -> Fitted:
    """The best item-item matrix B with an empty diagonal: B = −P / diag(P), P = (XᵀX + λI)⁻¹.

    Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    """
    users = data.matrix(positives_only=positives_only)
    products = users.T @ users
    precision = np.float64 if data.num_items <= _MAX_DOUBLE_PRECISION_ITEMS else np.float32
    weights = products.astype(precision).toarray(order="F")
    weights[np.diag_indices_from(weights)] += hyperparameters["l2"]
    _invert(weights)
    weights /= -np.diag(weights).copy()
    weights[np.diag_indices_from(weights)] = 0
    return Fitted(lambda rows: users[rows] @ weights)


def _invert(matrix: np.ndarray) -> None:
    """Inverts a symmetric positive definite matrix in Fortran order, in place: 41,000 items need 6.7 GB as it is."""
    potrf, potri = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (matrix,))
    _, failed = potrf(matrix, lower=0, overwrite_a=1)
    if not failed:
        _, failed = potri(matrix, lower=0, overwrite_c=1)
    if failed:
        raise np.linalg.LinAlgError("the Gram matrix has no inverse: λ is too small")
    _mirror_upper(matrix)


def _mirror_upper(matrix: np.ndarray) -> None:
    """Copies the upper triangle to the lower one, in place, a few rows at a time."""
    for begin in range(0, len(matrix), _ITEMS_PER_CHUNK):
        end = min(begin + _ITEMS_PER_CHUNK, len(matrix))
        matrix[end:, begin:end] = matrix[begin:end, end:].T
        block = matrix[begin:end, begin:end]
        matrix[begin:end, begin:end] = np.triu(block) + np.triu(block, 1).T


def _knn_space(data: TrainingData) -> dict[str, BaseDistribution]:
    space: dict[str, BaseDistribution] = {
        "k": IntDistribution(5, 1000, log=True),
        "shrinkage": FloatDistribution(0.1, 1000, log=True),
        "weighting": CategoricalDistribution(["none", "tf_idf"]),
    }
    if data.has_irrelevant:
        space["input"] = CategoricalDistribution(["all", "positives"])
    return space


def _ease_space(data: TrainingData) -> dict[str, BaseDistribution]:
    return {"l2": FloatDistribution(1, 10_000, log=True)}


ITEM_KNN = Method(
    "item_knn", _knn, _knn_space, lambda data: {"k": 100, "shrinkage": 10.0, "weighting": "none", "input": "all"}
)
EASE = Method("ease", functools.partial(_ease, positives_only=False), _ease_space, lambda data: {"l2": 250.0})
EASE_POSITIVES = Method(
    "ease_positives", functools.partial(_ease, positives_only=True), _ease_space, lambda data: {"l2": 250.0}
)
