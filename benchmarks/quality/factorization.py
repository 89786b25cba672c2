"""Matrix factorization by the package implicit: iALS and BPR."""

from collections.abc import Callable, Mapping
from typing import Any

import implicit.als
import implicit.bpr
import numpy as np
import threadpoolctl
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.quality.data import TrainingData
from benchmarks.quality.method import Fitted, Method


def _ials(data: TrainingData, hyperparameters: Mapping[str, Any]) -> Fitted:
    """Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008."""
    return _fit(implicit.als.AlternatingLeastSquares, data, hyperparameters)


def _bpr(data: TrainingData, hyperparameters: Mapping[str, Any]) -> Fitted:
    """Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009."""
    return _fit(implicit.bpr.BayesianPersonalizedRanking, data, hyperparameters)


def _fit(build: Callable[..., Any], data: TrainingData, hyperparameters: Mapping[str, Any]) -> Fitted:
    arguments = dict(hyperparameters)
    users = data.matrix(positives_only=arguments.pop("input", "all") == "positives")
    # implicit has threads of its own, and asks for BLAS to have one.
    with threadpoolctl.threadpool_limits(1, "blas"):
        model = build(**arguments, use_gpu=False, random_state=data.seed)
        model.fit(users, show_progress=False)
    if not (np.isfinite(model.user_factors).all() and np.isfinite(model.item_factors).all()):
        raise FloatingPointError("the factors are not finite")
    return Fitted(lambda rows: model.user_factors[rows] @ model.item_factors.T)


def _factors(data: TrainingData) -> IntDistribution:
    return IntDistribution(16, data.vector_size or 512, log=True)


def _with_input(space: dict[str, BaseDistribution], data: TrainingData) -> dict[str, BaseDistribution]:
    return space | ({"input": CategoricalDistribution(["all", "positives"])} if data.has_irrelevant else {})


def _ials_space(data: TrainingData) -> dict[str, BaseDistribution]:
    return _with_input(
        {
            "factors": _factors(data),
            "regularization": FloatDistribution(1e-2, 1e3, log=True),
            "alpha": FloatDistribution(1, 100, log=True),
            "iterations": IntDistribution(5, 50, log=True),
        },
        data,
    )


def _bpr_space(data: TrainingData) -> dict[str, BaseDistribution]:
    return _with_input(
        {
            "factors": _factors(data),
            "learning_rate": FloatDistribution(1e-3, 0.2, log=True),
            "regularization": FloatDistribution(1e-4, 0.3, log=True),
            "iterations": IntDistribution(30, 1000, log=True),
        },
        data,
    )


# The first trials have the defaults of the package.
IALS = Method(
    "ials",
    _ials,
    _ials_space,
    lambda data: {"factors": 64, "regularization": 0.01, "alpha": 1.0, "iterations": 15, "input": "all"},
)
BPR = Method(
    "bpr",
    _bpr,
    _bpr_space,
    lambda data: {"factors": 64, "learning_rate": 0.01, "regularization": 0.01, "iterations": 100, "input": "all"},
)
