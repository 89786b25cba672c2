"""result.json: the final metrics of a run, with the checks of what it must have. Imports no TensorFlow."""

from typing import Any

from pydantic import Field

from settings.records import Record, check_types
from trainer import storage
from trainer.workdir import Workdir

MODEL = "model"


class _Mean(Record):
    value: float
    low: float
    high: float
    num_lists: int
    num_left_out: int


class _Difference(Record):
    mean_a: float
    mean_b: float
    value: float
    low: float
    high: float
    p_value: float
    num_queries: int


class _ProtocolVerdict(Record):
    metric: str
    baseline: str
    num_baselines: int
    model: _Mean
    difference: _Difference
    outcome: str


class _Verdict(Record):
    sentence: str
    protocols: dict[str, _ProtocolVerdict]


class _Speed(Record):
    strategy: str
    num_replicas: int
    steps_per_second: float
    lists_per_second: float


class _Breakdown(Record):
    groups: dict[str, dict[str, float]]
    scorers: dict[str, dict[str, dict[str, float]]]


class _Result(Record):
    """A finished run that was evaluated."""

    step: int
    exported_step: int
    held_out: str | None
    train: dict[str, float]
    speed: _Speed | None
    verdict: _Verdict
    warnings: list[str]
    protocols: dict[str, dict[str, dict[str, _Mean]]] = Field(default_factory=dict)
    recommendations: dict[str, dict[str, float]] = Field(default_factory=dict)
    breakdowns: dict[str, _Breakdown] = Field(default_factory=dict)


def load_result(paths: Workdir) -> dict[str, Any]:
    """Returns the content of result.json, with NaN for null in a section; {} for an unfinished run.

    Raises:
      ConfigError: another version of this project wrote the file.
      StorageError: it cannot be read, or lacks something, or something in it has another type.
    """
    result = paths.load_result()
    if result:
        with storage.reading_json(paths.result, of="a run"):
            check_types(_Result, result)
            _check_names(result)
    return result


def _check_names(result: dict[str, Any]) -> None:
    """Raises ValueError if scorers or metrics that belong together differ."""
    protocols = result.get("protocols", {})
    if result["held_out"] is not None and not {"protocols", "recommendations"} <= result.keys():
        raise ValueError("it has no metrics")
    tables = {**protocols, "recommendations": result.get("recommendations", {})}
    tables |= {name: found["scorers"] for name, found in result.get("breakdowns", {}).items()}
    for name, by_scorer in tables.items():
        if (by_scorer or name in protocols) and not by_scorer.get(MODEL):
            raise ValueError(f"its {name} has nothing of the model")
        for scorer, metrics in by_scorer.items():
            if metrics.keys() != by_scorer[MODEL].keys():
                raise ValueError(f"its {name} has other names for {scorer} than for the model")
    if "catalogue" in result["verdict"]["protocols"] and not result.get("recommendations"):
        raise ValueError("it does not say what is recommended")
    for name, verdict in result["verdict"]["protocols"].items():
        for scorer in (MODEL, verdict["baseline"]):
            if verdict["metric"] not in protocols.get(name, {}).get(scorer, {}):
                raise ValueError(f"its verdict on {name} names {verdict['metric']} of {scorer}, which it does not have")
    if result.get("breakdowns") and result["breakdowns"].keys() != {"user_activity", "item_popularity"}:
        raise ValueError(f"its breakdowns are by {', '.join(result['breakdowns'])}")
