"""The verdict on planted metrics, whose outcome is known."""

import numpy as np
import pytest

from trainer.evaluation import verdict
from trainer.evaluation.query_metrics import QueryMetrics
from trainer.evaluation.statistics import ListMetrics, means_of_scorers

NUM_USERS = 60
# Users differ much more than scorers.
OF_USER = np.random.default_rng(0).uniform(0.2, 0.7, NUM_USERS)
NOISE = np.random.default_rng(1).normal(0, 0.02, NUM_USERS)
CENTERED = NOISE - NOISE.mean()


def lists_of(quality, names, *, num_users=NUM_USERS, num_defined=NUM_USERS):
    """A scorer that adds its quality to what each user has."""
    values = np.stack([OF_USER + quality] * len(names), axis=1).astype(np.float32)[:num_users]
    weights = np.ones_like(values)
    weights[num_defined:] = 0
    return ListMetrics(names, values, weights)


def decide(names=("mrr", "ndcg@10"), *, split="test", best_metric="catalogue/ndcg@10", **protocols):
    """Each protocol is a dict of the qualities of its scorers, and perhaps `num_users` and `num_defined`."""
    queries = {}
    for protocol, scorers in protocols.items():
        sizes = {name: scorers.pop(name) for name in ("num_users", "num_defined") if name in scorers}
        by_scorer = {scorer: lists_of(quality, list(names), **sizes) for scorer, quality in scorers.items()}
        queries[protocol] = QueryMetrics(np.arange(NUM_USERS), by_scorer, {})
    means = {protocol: means_of_scorers(of.by_scorer, seed=0) for protocol, of in queries.items()}
    return verdict.decide(split, queries, means, best_metric=best_metric)


def test_better_in_one_protocol_and_no_better_in_the_other():
    found = decide(
        rated={"model": CENTERED, "popularity": -0.1, "item_mean": 0.0, "random": -0.2},
        catalogue={"model": 0.05 + CENTERED, "popularity": 0.0, "item_mean": -0.1, "random": -0.2},
    )
    mean = OF_USER.mean()
    catalogue, rated = found.protocols["catalogue"], found.protocols["rated"]
    assert (catalogue.metric, catalogue.baseline, catalogue.outcome) == ("ndcg@10", "popularity", "better")
    assert (rated.metric, rated.baseline, rated.outcome) == ("ndcg@10", "item_mean", "no better")
    assert catalogue.is_better and not rated.is_better
    assert catalogue.difference.value == pytest.approx(0.05, abs=1e-6) and catalogue.difference.low > 0.04
    assert rated.difference.low < 0 < rated.difference.high and rated.difference.p_value > 0.05
    assert found.sentence == (
        "Verdict: recommends better than popularity, the best baseline "
        f"(catalogue ndcg@10 {catalogue.model} against {mean:.4f}); "
        f"orders rated items no better than the item mean, the best baseline "
        f"(rated ndcg@10 {rated.model} against {mean:.4f})."
    )
    assert str(catalogue.model).startswith(f"{mean + 0.05:.4f} ± ")


def test_worse_than_the_best_baseline_although_better_than_others():
    found = decide(catalogue={"model": CENTERED, "popularity": -0.1, "recent_popularity": 0.05, "random": -0.2})
    assert found.protocols["catalogue"].outcome == "worse"
    assert found.sentence.startswith("Verdict: recommends worse than recent popularity, the best baseline (catalogue")


def test_events_have_no_rated_lists_and_the_sentence_does_not_miss_them():
    found = decide(catalogue={"model": 0.05 + CENTERED, "popularity": 0.0})
    assert list(found.protocols) == ["catalogue"]
    # A single baseline is not called the best.
    assert "better than popularity (catalogue ndcg@10" in found.sentence and found.sentence.count(";") == 0


def test_a_catalogue_that_was_not_ranked_is_named():
    found = decide(rated={"model": 0.05 + CENTERED, "item_mean": 0.0, "random": -0.1})
    assert found.sentence.startswith(
        "Verdict: how well it recommends was not measured; orders rated items better than the item mean, the best"
    )


def test_to_beat_a_random_order_is_no_success():
    found = decide(catalogue={"model": 0.3 + CENTERED, "random": 0.0})
    assert found.protocols["catalogue"].outcome == "unknown" and not found.protocols["catalogue"].is_better
    assert "how well it recommends is unknown, because its only baseline is a random order (cat" in found.sentence
    # A random order can be the best of several baselines. Then the model is better than all of them.
    found = decide(catalogue={"model": 0.3 + CENTERED, "popularity": -0.1, "random": 0.0})
    assert "recommends better than a random order, the best baseline" in found.sentence


def test_a_metric_that_no_list_defines_decides_nothing():
    found = decide(catalogue={"model": 0.3, "popularity": 0.0, "random": -0.1, "num_defined": 0})
    assert found.protocols["catalogue"].outcome == "unknown"
    assert found.sentence == (
        "Verdict: how well it recommends is unknown, because catalogue ndcg@10 is undefined for every list."
    )


def test_a_few_lists_decide_nothing_however_large_the_difference():
    """The bootstrap interval of three lists is above 0, but any three numbers have the same sign one time in four."""
    found = decide(catalogue={"model": 0.3 + CENTERED, "popularity": 0.0, "num_users": 3}).protocols["catalogue"]
    assert found.difference.low > 0 and found.difference.p_value > 0.05 and found.outcome == "no better"
    one = decide(catalogue={"model": 0.3 + CENTERED, "popularity": 0.0, "num_users": 1}).protocols["catalogue"]
    assert np.isnan(one.difference.low) and one.outcome == "no better"


def test_a_lower_mean_rank_is_better():
    found = decide(["arp"], rated={"model": -0.05 + CENTERED, "popularity": 0.0, "item_mean": 0.1})
    assert (found.protocols["rated"].baseline, found.protocols["rated"].outcome) == ("popularity", "better")
    found = decide(["arp"], rated={"model": 0.05 + CENTERED, "popularity": 0.0})
    assert found.protocols["rated"].outcome == "worse"


def test_the_validation_split_chose_the_step():
    found = decide(split="validation", catalogue={"model": 0.05 + CENTERED, "popularity": 0.0})
    assert found.sentence.startswith(
        "Verdict, on the validation ratings, which also chose the exported step: recommends better than popularity"
    )
    assert verdict.NOTHING_HELD_OUT.sentence == (
        "Verdict: no ratings were held out, so nothing is known about its quality."
    )


@pytest.mark.parametrize(
    ("protocol", "names", "best_metric", "expected"),
    [
        ("catalogue", ["mrr", "recall@20", "ndcg@10"], "catalogue/recall@20", "recall@20"),
        ("rated", ["mrr", "recall@20", "ndcg@10"], "catalogue/recall@20", "ndcg@10"),
        ("rated", ["mrr", "recall@20", "ndcg@10"], "recall@20", "recall@20"),
        ("catalogue", ["mrr", "recall@20", "ndcg@10"], "recall@20", "ndcg@10"),
        ("catalogue", ["mrr", "recall@20"], "loss", "mrr"),
    ],
)
def test_the_main_metric(protocol, names, best_metric, expected):
    assert verdict.main_metric(protocol, names, best_metric=best_metric) == expected


def test_plain_values_for_the_result():
    found = decide(catalogue={"model": 0.05 + CENTERED, "popularity": 0.0, "random": -0.1})
    plain = verdict.to_json(found)
    catalogue = plain["protocols"]["catalogue"]
    assert plain["sentence"] == found.sentence
    assert catalogue["is_better"] is True and catalogue["baseline"] == "popularity" and catalogue["metric"] == "ndcg@10"
    assert {"value", "low", "high", "p_value", "num_queries"} <= catalogue["difference"].keys()
    assert verdict.from_json(plain) == found
