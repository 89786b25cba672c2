"""The verdict on a run in one sentence: is the model better than the best baseline? Imports no TensorFlow.

In each protocol, the main metric of the model is compared with that of the best baseline. The main metric is that of
`config.eval.best_metric` if it belongs to the protocol; otherwise ndcg@10 if it was computed, and otherwise the first
metric. The best baseline is the one with the best mean.

The model is better if the 95% interval of the paired difference is above 0 and the p-value of the paired test is below
0.05, and worse if the interval is below 0 and the p-value is below 0.05. (With few lists, the bootstrap interval is too
narrow, and the p-value is not.) Otherwise it is no better. A model whose only baseline is a random order is never
called better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from settings.trainer_config.evaluation import CATALOGUE
from trainer.evaluation import comparison
from trainer.evaluation.comparison import MODEL
from trainer.evaluation.final_metrics import Protocols
from trainer.evaluation.query_metrics import QueryMetrics, StoredQueries
from trainer.evaluation.statistics import LEVEL, Difference, ListMetrics, Mean, Metrics

BETTER, NO_BETTER, WORSE, UNKNOWN = "better", "no better", "worse", "unknown"

_RANDOM = "random"
_USUAL_METRIC = "ndcg@10"
_RATED_PROTOCOL, _CATALOGUE_PROTOCOL = "rated", "catalogue"
_DOES = {_CATALOGUE_PROTOCOL: "recommends", _RATED_PROTOCOL: "orders rated items"}
_NAMES = {"item_mean": "the item mean", "random": "a random order", "ease": "EASE"}


@dataclass(frozen=True)
class ProtocolVerdict:
    """The verdict in one protocol.

    Attributes:
      metric: The main metric.
      baseline: The best baseline.
      num_baselines: The number of baselines.
      model: The mean of the model.
      difference: The model minus the best baseline, over the same lists.
      outcome: `better`, `no better`, `worse`, or `unknown` if the metric is undefined for every list or if there is no
        baseline but a random order.
    """

    metric: str
    baseline: str
    num_baselines: int
    model: Mean
    difference: Difference
    outcome: str

    @property
    def is_better(self) -> bool:
        """Whether the model is better than the best baseline."""
        return self.outcome == BETTER


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    Attributes:
      sentence: One sentence, from `Verdict: ` to its full stop.
      protocols: The verdict in each protocol.
    """

    sentence: str
    protocols: dict[str, ProtocolVerdict]


NOTHING_HELD_OUT = Verdict("Verdict: no ratings were held out, so nothing is known about its quality.", {})
"""The verdict on a run that was not evaluated."""


def decide(
    split: str, queries: Mapping[str, QueryMetrics | StoredQueries], means: Protocols, *, best_metric: str
) -> Verdict:
    """Decides how good the model of a run is. The docstring of this module has the rules.

    Args:
      split: The split that was evaluated.
      queries: The metrics of each list, by protocol.
      means: Their means, by protocol and scorer.
      best_metric: config.eval.best_metric.
    """
    found = {
        protocol: _decide_protocol(
            of_protocol.by_scorer,
            means[protocol],
            main_metric(protocol, list(means[protocol][MODEL]), best_metric=best_metric),
        )
        for protocol, of_protocol in queries.items()
    }
    clauses = [_clause(protocol, found[protocol]) for protocol in _DOES if protocol in found]
    if _CATALOGUE_PROTOCOL not in found:
        clauses.insert(0, "how well it recommends was not measured")
    # The ratings that chose the checkpoint flatter it.
    where = "" if split == "test" else f", on the {split} ratings, which also chose the exported step"
    return Verdict(f"Verdict{where}: {'; '.join(clauses)}.", found)


def main_metric(protocol: str, names: Sequence[str], *, best_metric: str) -> str:
    """The metric that decides in a protocol.

    Args:
      protocol: `rated` or `catalogue`.
      names: The metrics that were computed.
      best_metric: config.eval.best_metric.
    """
    is_catalogue = best_metric.startswith(CATALOGUE)
    name = best_metric.removeprefix(CATALOGUE)
    if is_catalogue == (protocol == _CATALOGUE_PROTOCOL) and name in names:
        return name
    return _USUAL_METRIC if _USUAL_METRIC in names else names[0]


def to_json(verdict: Verdict) -> dict[str, Any]:
    """Converts a verdict to plain values, for result.json."""
    return {
        "sentence": verdict.sentence,
        "protocols": {
            protocol: {**asdict(found), "is_better": found.is_better} for protocol, found in verdict.protocols.items()
        },
    }


def from_json(fields: Mapping[str, Any]) -> Verdict:
    """Reads what `to_json` returned."""
    protocols = {}
    for protocol, values in fields["protocols"].items():
        plain = {name: value for name, value in values.items() if name != "is_better"}
        plain |= {"model": Mean(**plain["model"]), "difference": Difference(**plain["difference"])}
        protocols[protocol] = ProtocolVerdict(**plain)
    return Verdict(fields["sentence"], protocols)


def name_of(scorer: str) -> str:
    """The name of a scorer in a sentence, such as `the item mean`."""
    return _NAMES.get(scorer, scorer.replace("_", " "))


def outcome_of(difference: Difference, *, lower_is_better: bool) -> str:
    """What a paired difference says of its second side: `better`, `no better` or `worse`; `unknown` without lists."""
    if not difference.num_queries:
        return UNKNOWN
    low, high = (-difference.high, -difference.low) if lower_is_better else (difference.low, difference.high)
    if difference.p_value >= 1 - LEVEL:
        return NO_BETTER
    return BETTER if low > 0 else WORSE if high < 0 else NO_BETTER


def clause_of(
    protocol: str, metric: str, outcome: str, mean: Mean, difference: Difference, *, than: str, subject: str = ""
) -> str:
    """Says in words what a comparison has found.

    Args:
      protocol: `rated` or `catalogue`.
      metric: What was compared.
      outcome: The result of `outcome_of`.
      mean: The mean of what is judged.
      difference: What is judged minus what it is compared with.
      than: What it is compared with.
      subject: What is judged; "" for the model of the run, which the sentence need not name.
    """
    does = _DOES[protocol]
    if outcome == UNKNOWN:
        return f"how well {subject or 'it'} {does} is unknown, because {protocol} {metric} is undefined for every list"
    return f"{subject} {does} {outcome} than {than} {_numbers(protocol, metric, mean, difference)}".lstrip()


def _decide_protocol(
    by_scorer: Mapping[str, ListMetrics], means: Mapping[str, Metrics], metric: str
) -> ProtocolVerdict:
    baselines = [scorer for scorer in by_scorer if scorer != MODEL]
    lower_is_better = comparison.lower_is_better(metric)
    sign = -1 if lower_is_better else 1
    best = max(baselines, key=lambda scorer: sign * means[scorer][metric].value)
    difference = comparison.differences(by_scorer[best], by_scorer[MODEL], [metric])[metric]
    outcome = outcome_of(difference, lower_is_better=lower_is_better)
    if baselines == [_RANDOM]:
        outcome = UNKNOWN
    return ProtocolVerdict(metric, best, len(baselines), means[MODEL][metric], difference, outcome)


def _clause(protocol: str, found: ProtocolVerdict) -> str:
    best = ", the best baseline" if found.num_baselines > 1 else ""
    if found.outcome == UNKNOWN and found.difference.num_queries:
        return (
            f"how well it {_DOES[protocol]} is unknown, because its only baseline is a random order "
            f"{_numbers(protocol, found.metric, found.model, found.difference)}"
        )
    return clause_of(
        protocol, found.metric, found.outcome, found.model, found.difference, than=f"{name_of(found.baseline)}{best}"
    )


def _numbers(protocol: str, metric: str, mean: Mean, difference: Difference) -> str:
    return f"({protocol} {metric} {mean} against {difference.mean_a:.4f})"
