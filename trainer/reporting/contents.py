"""What the report of a run tells, gathered from the files of the run. Imports no TensorFlow."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs import default
from settings.errors import ConfigError
from settings.records import Record, check_types
from settings.trainer_config import TrainerConfig
from trainer import config as config_lib
from trainer import storage
from trainer.evaluation import comparison, final_metrics, verdict
from trainer.evaluation.comparison import MODEL
from trainer.evaluation.final_metrics import Protocols
from trainer.evaluation.query_metrics import StoredQueries, read_queries
from trainer.evaluation.result import load_result
from trainer.evaluation.statistics import Difference
from trainer.evaluation.verdict import Verdict
from trainer.reporting.curves import MAX_POINTS, Curves, load_curves
from trainer.workdir import Workdir

_REASONS = {
    "duplicate": "earlier rows of the same user and item",
    "counted": "further rows of the same user and item, which are counted in its number of rows",
    "malformed_row": "bad: too few or too many values",
    "user_id_missing": "bad: no user id",
    "item_id_missing": "bad: no item id",
    "rating_not_a_number": "bad: the rating is not a number",
    "rating_out_of_range": "bad: the rating is out of range",
    "timestamp_not_seconds": "bad: the time is not in seconds since 1970",
}


@dataclass(frozen=True)
class Split:
    """The ratings of a split.

    Attributes:
      name: train, validation or test.
      num_ratings: The number of ratings that are used.
      num_lists: The number of lists that they are cut into.
      num_unknown: The number of ratings that were left out, because training has not seen their users.
      first_day, last_day: The days of the first and of the last rating; "" if the ratings have no times.
    """

    name: str
    num_ratings: int
    num_lists: int
    num_unknown: int
    first_day: str
    last_day: str


@dataclass(frozen=True)
class Data:
    """The account of the data.

    Attributes:
      source: config.data.source.
      has_ratings: False if the rows are events.
      num_users, num_items: Those of the training split.
      num_read, num_used: Rows.
      dropped: The number of rows that were not used, by reason. Reasons without a row are absent.
      splits: The splits that have ratings.
    """

    source: str
    has_ratings: bool
    num_users: int
    num_items: int
    num_read: int
    num_used: int
    dropped: dict[str, int]
    splits: tuple[Split, ...]


@dataclass(frozen=True)
class Field:
    """A field of the config.

    Attributes:
      name: Its dotted name.
      value: As in the config.
      default: As in configs/default.py.
      chosen: What followed from the size of the data in place of the value; "" if nothing did.
    """

    name: str
    value: str
    default: str
    chosen: str

    @property
    def is_different(self) -> bool:
        """Whether it differs from the default, or the run has chosen it."""
        return bool(self.chosen) or self.value != self.default


@dataclass(frozen=True)
class Contents:
    """What the report of a run tells.

    Attributes:
      name: The last part of the path of its folder.
      config: Its config.
      fields: The fields of its config.
      data: The account of its data.
      split: The split that was evaluated; None if no ratings were held out.
      step, exported_step: The last step, and the step of the exported model.
      train: The metrics of the training lists.
      verdict: The verdict on it.
      warnings: Why the model may be of no use.
      protocols: The means of its final metrics.
      queries: The metrics of each list, by protocol.
      recommendations: Metrics of what is recommended: scorer → metric.
      breakdowns: As in result.json. Empty without the catalogue protocol.
      curves: Its learning curves.
      speed: Steps and lists per second, strategy, number of replicas. Empty if it took too few steps to tell.
    """

    name: str
    config: TrainerConfig
    fields: tuple[Field, ...]
    data: Data
    split: str | None
    step: int
    exported_step: int
    train: dict[str, float]
    verdict: Verdict
    warnings: tuple[str, ...]
    protocols: Protocols
    queries: dict[str, StoredQueries]
    recommendations: dict[str, dict[str, float]]
    breakdowns: dict[str, Any]
    curves: Curves
    speed: dict[str, Any]


def gather(workdir: str, *, best_metrics: Sequence[str] = (), max_points: int = MAX_POINTS) -> Contents:
    """Reads the files of a finished run, local or gs://.

    Args:
      workdir: The folder of the run.
      best_metrics: Metrics that have a learning curve beside config.eval.best_metric, where they were measured.
      max_points: The largest number of points of a learning curve.

    Raises:
      ConfigError: The folder holds no finished run, or one of another version of this project.
      StorageError: A file of the run is missing or damaged.
    """
    paths = Workdir(workdir)
    config = paths.load_config()
    result = load_result(paths)
    if not result:
        raise ConfigError(
            f"{workdir} has no report yet: it has no result.json, so its run has not finished. Start the command of "
            "the run again, or name the workdir of a finished run."
        )
    with storage.reading_json(paths.result, of="a run"):
        split = result["held_out"]
        protocols = final_metrics.from_json(result.get("protocols", {}))
        queries: dict[str, StoredQueries] = {}
        if protocols:
            _, queries = read_queries(paths.queries)
        return Contents(
            name=workdir.rstrip("/").rpartition("/")[2],
            config=config,
            fields=_fields(config, _chosen(paths)),
            data=_data(paths),
            split=split,
            step=result["step"],
            exported_step=result["exported_step"],
            train=result["train"],
            verdict=verdict.from_json(result["verdict"]),
            warnings=tuple(result["warnings"]),
            protocols=protocols,
            queries=queries,
            recommendations=result.get("recommendations", {}),
            breakdowns=result.get("breakdowns", {}),
            curves=load_curves(
                paths.metrics,
                best_metrics=list(dict.fromkeys([*best_metrics, config.eval.best_metric])),
                exported_step=result["exported_step"],
                max_points=max_points,
            ),
            speed=result["speed"] or {},
        )


def differences_from_baselines(queries: StoredQueries) -> dict[str, dict[str, Difference]]:
    """The model minus each baseline, by baseline and metric."""
    baselines = [scorer for scorer in queries.by_scorer if scorer != MODEL]
    model = queries.by_scorer[MODEL]
    found = comparison.differences_from_each(
        [queries.by_scorer[scorer] for scorer in baselines], model, list(model.names)
    )
    return dict(zip(baselines, found, strict=True))


def reason_of(kind: str) -> str:
    """Says why rows of a kind that data.json counts were not used."""
    return _REASONS.get(kind, kind.replace("_", " "))


def _chosen(paths: Workdir) -> dict[str, Any]:
    record = paths.load_json(paths.config)
    with storage.reading_json(paths.config, of="a run"):
        return dict(record.get("chosen", {}))


def _data(paths: Workdir) -> Data:
    described = paths.load_json(paths.data)
    with storage.reading_json(paths.data, of="a run"):
        check_types(_Described, described)
        rows = described["rows"]
        return Data(
            source=described["source"],
            has_ratings=described["has_ratings"],
            num_users=described["num_users"],
            num_items=described["num_items"],
            num_read=rows["read"],
            num_used=rows["used"],
            dropped={
                reason_of(kind): number for kind, number in rows.items() if number and kind not in ("read", "used")
            },
            splits=tuple(_split(name, described) for name in described["num_ratings"]),
        )


class _Described(Record):
    """What data.json has for a report."""

    source: str
    has_ratings: bool
    num_users: int
    num_items: int
    rows: dict[str, int]
    num_ratings: dict[str, int]
    num_lists: dict[str, int]
    num_ratings_of_unknown_users: dict[str, int]
    periods: dict[str, list[int]]


def _split(name: str, described: Mapping[str, Any]) -> Split:
    first, last = described.get("periods", {}).get(name, (None, None))
    return Split(
        name=name,
        num_ratings=described["num_ratings"][name],
        num_lists=described["num_lists"][name],
        num_unknown=described["num_ratings_of_unknown_users"].get(name, 0),
        first_day=_day(first),
        last_day=_day(last),
    )


def _day(second: int | None) -> str:
    if second is None:
        return ""
    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=second)).strftime("%Y-%m-%d")


def _fields(config: TrainerConfig, chosen: Mapping[str, Any]) -> tuple[Field, ...]:
    defaults = config_lib.flatten(config_lib.plain(default.get_config()))
    return tuple(
        Field(name, repr(value), repr(defaults[name]), repr(chosen[name]) if name in chosen else "")
        for name, value in config_lib.flatten(config_lib.plain(config)).items()
    )
