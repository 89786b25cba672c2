"""Fields of the trainer's config that contradict each other, and fields that fit each other."""

import pytest

from settings.trainer_config import load_trainer_config
from tests.settings.helpers import message, with_fields


@pytest.mark.parametrize(
    ("changes", "field", "way_out"),
    [
        ({"split__validation_fraction": 0.9, "split__test_fraction": 0.1}, "split.validation_fraction=0.9", "below 1"),
        ({"loss__key": "mean_squared_loss", "loss__temperature": 0.1}, "loss.temperature=0.1", "Set it to 1.0"),
        ({"loss__key": "yeti_logistic_loss", "loss__temperature": 0.1}, "loss.temperature=0.1", "Set it to 1.0"),
        ({"loss__lambda_weight": "precision"}, "loss.lambda_weight='precision'", "dcg, ndcg"),
        ({"loss__key": "approx_ndcg_loss", "loss__lambda_weight": "ndcg"}, "loss.lambda_weight='ndcg'", "leave it"),
        ({"loss__key": "pairwise_mse_loss", "loss__lambda_weight": "list_mle"}, "loss.lambda_weight=", "ndcg_v2"),
        ({"loss__key": "pairwise_mse_loss", "loss__lambda_weight_cutoff": 5}, "loss.lambda_weight_cutoff=5", "to 0"),
        ({"loss__lambda_weight": "ndcg", "loss__lambda_weight_cutoff": 5}, "loss.lambda_weight_cutoff=5", "pairwise"),
        (
            {"loss__key": "pairwise_mse_loss", "loss__lambda_weight": "precision"},
            "loss.lambda_weight_cutoff=0",
            "to 10",
        ),
        (
            {"optimizer__schedule": "constant", "optimizer__warmup_steps": 5},
            "optimizer.warmup_steps=5",
            "warmup_cosine",
        ),
        ({"optimizer__weight_decay": 0.0}, "optimizer.weight_decay=0", "to adam"),
        ({"optimizer__name": "ftrl"}, "optimizer.weight_decay=0.5", "another"),
        (
            {
                "optimizer__name": "ftrl",
                "optimizer__weight_decay": 0.0,
                "optimizer__schedule": "warmup_cosine",
                "optimizer__warmup_steps": 5,
            },
            "optimizer.warmup_steps=5",
            "another",
        ),
        ({"optimizer__name": "adam", "optimizer__momentum": 0.9}, "optimizer.momentum=0.9", "rmsprop, sgd"),
        ({"model__similarity": "dot", "model__scale": 4.0}, "model.scale=4.0", "cosine"),
        (
            {"history__targets": "dropped", "history__dropout": 0.0},
            "history.dropout=0.0",
            "targets to all",
        ),
        ({"history__encoder": "none"}, "model.query_embedding=False", "pooled"),
        (
            {"history__encoder": "none", "model__query_embedding": True, "ease__weight": 1.0},
            "ease.weight=1.0",
            "pooled",
        ),
        (
            {"history__encoder": "transformer", "model__embedding_size": 6, "transformer__num_heads": 4},
            "transformer.num_heads=4",
            "embedding_size=6",
        ),
        (
            {"history__encoder": "transformer", "transformer__num_heads": 3},
            "transformer.num_heads=3",
            "64 or a multiple",
        ),
        (
            {"history__encoder": "transformer", "list_size": 52, "history__size": 50},
            "history.size=50",
            "at least 51",
        ),
        (
            {"ease__weight": 1.0, "history__recency_half_life": 5.0},
            "ease.weight=1.0",
            "one of them to 0",
        ),
        ({"candidates__method": "rated", "history__targets": "all"}, "history.targets='all'", "to dropped"),
        ({"candidates__method": "rated", "history__dropout": 0.0}, "history.targets='auto'", "to dropped"),
        (
            {"candidates__method": "sampled", "loss__key": "gbce_loss"},
            "candidates.logq_correction=True",
            "to False",
        ),
        (
            {
                "candidates__method": "sampled",
                "candidates__logq_correction": False,
                "loss__key": "cosine_contrastive_loss",
            },
            "loss.key='cosine_contrastive_loss'",
            "item_bias to False",
        ),
        ({"data__features__example": ("position",)}, "data.features.example=('position',)", "rated or sampled"),
        (
            {"history__encoder": "transformer", "candidates__method": "rated"},
            "candidates.method='rated'",
            "sampled or catalogue",
        ),
        ({"loss__key": "gbce_loss"}, "loss.key='gbce_loss'", "to sampled"),
        ({"loss__key": "approx_ndcg_loss"}, "loss.key='approx_ndcg_loss'", "sampled or rated"),
        (
            {"candidates__method": "catalogue", "loss__lambda_weight": "ndcg"},
            "loss.key='softmax_loss' with config.loss.lambda_weight='ndcg'",
            "sampled or rated",
        ),
        ({"eval__num_validation_users": 0}, "eval.best_metric='catalogue/ndcg@10'", "loss, ndcg, ndcg@10"),
        ({"eval__metrics": ("mrr", "ndcg@10", "mrr")}, "eval.metrics=", "twice"),
        ({"eval__best_metric": "recall@5"}, "eval.best_metric='recall@5'", "loss, ndcg, ndcg@10"),
        (
            {"data__rating_range": (0.0, 3.0)},
            "eval.relevance_threshold=4.0",
            "config.data.rating_range=(0.0, 3.0)",
        ),
    ],
    ids=str,
)
def test_fields_that_contradict_each_other_are_refused(changes, field, way_out):
    text = message(with_fields(**changes))
    assert text.startswith(f"config.{field}") and way_out in text


@pytest.mark.parametrize(
    "changes",
    [
        {"loss__key": "yeti_logistic_loss", "loss__lambda_weight_cutoff": 5, "candidates__method": "rated"},
        {
            "loss__key": "pairwise_mse_loss",
            "loss__lambda_weight": "precision",
            "loss__lambda_weight_cutoff": 5,
            "candidates__method": "sampled",
            "candidates__logq_correction": False,
        },
        {
            "loss__key": "list_mle_loss",
            "loss__lambda_weight": "list_mle",
            "loss__temperature": 2,
            "candidates__method": "rated",
        },
        {"loss__key": "gbce_loss", "candidates__method": "sampled", "candidates__logq_correction": False},
        {
            "loss__key": "cosine_contrastive_loss",
            "candidates__method": "sampled",
            "candidates__logq_correction": False,
            "model__scale": 1.0,
            "model__item_bias": False,
        },
        {"history__dropout": 0.0},
        {"history__encoder": "transformer", "list_size": 51, "history__size": 50},
        {"model__similarity": "dot", "model__scale": 1.0},
        {"history__encoder": "none", "data__features__query": ("age",)},
        {"optimizer__name": "adamw", "optimizer__weight_decay": 0.004},
        {"optimizer__name": "sgd", "optimizer__momentum": 0.9},
        {"optimizer__schedule": "warmup_cosine", "optimizer__warmup_steps": 5},
        {"eval__metrics": ("precision@5", "tfr_precision@5"), "eval__best_metric": "tfr_precision@5"},
        {"eval__best_metric": "loss"},
    ],
    ids=str,
)
def test_fields_that_fit_each_other_are_accepted(changes):
    load_trainer_config(with_fields(**changes))
