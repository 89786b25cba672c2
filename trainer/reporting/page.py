"""Fills the templates of the report. Everything that comes from the data is escaped. Imports no TensorFlow."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from settings.visible_text import visible
from trainer.evaluation.breakdowns import ACTIVITIES, POPULARITIES
from trainer.evaluation.comparison import MODEL, lower_is_better
from trainer.evaluation.statistics import Difference, Mean
from trainer.evaluation.verdict import UNKNOWN, ProtocolVerdict, name_of
from trainer.reporting import charts
from trainer.reporting.comparing import Compared, ComparedProtocol
from trainer.reporting.contents import Contents, differences_from_baselines
from trainer.reporting.curves import Curve
from trainer.reporting.limits import limits_of
from trainer.reporting.svg import in_own_style

if TYPE_CHECKING:
    from trainer.reporting.samples import Samples

_FOLDER = pathlib.Path(__file__).parent

MAX_CHARTS = 8
"""The largest number of metrics of a protocol that are drawn. The tables have all."""

_MAX_TITLE, _MAX_HOVER, _MAX_VALUE, _MAX_GENRES = 64, 300, 120, 3

_ABOUT = {
    "catalogue": (
        "The model ranks all items that a user has not rated before. Are the good ones of the {split} split at the top?"
    ),
    "rated": "The model orders the items that a user has rated in the {split} split. Do the better ones come first?",
}
_RECOMMENDATION_METRICS = {
    "coverage": "share of the catalogue that somebody gets",
    "mean_popularity": "mean number of training ratings of what is recommended",
    "novelty": "novelty in bits: how rare what is recommended is",
}


def render_run(contents: Contents, samples: "Samples") -> str:
    """Returns the report of a run as HTML."""
    with in_own_style():
        return _run_page(contents, samples)


def render_comparison(compared: Compared) -> str:
    """Returns the comparison of several runs as HTML."""
    with in_own_style():
        return _comparison_page(compared)


def _run_page(contents: Contents, samples: "Samples") -> str:
    return _render(
        "run.html.jinja",
        run=contents,
        samples=samples,
        sentence=contents.verdict.sentence.removeprefix("Verdict: "),
        warnings=contents.warnings,
        protocols=[_protocol(contents, protocol) for protocol in _ABOUT if protocol in contents.protocols],
        curves=[
            {
                "name": curve.name,
                "chart": charts.draw_curves(
                    {"": curve},
                    identifier=f"curve-{number}",
                    title=f"{curve.name} by epoch",
                    exported_epoch=contents.curves.exported_epoch,
                ),
            }
            for number, curve in enumerate(contents.curves.curves)
        ],
        groups=_groups(contents),
        recommended=_recommended(contents),
        limits=limits_of(contents),
    )


def _comparison_page(compared: Compared) -> str:
    by_name: dict[str, dict[str, Curve]] = {}
    for run in compared.runs:
        for curve in run.contents.curves.curves:
            by_name.setdefault(curve.name, {})[run.letter] = curve
    measured = all(run.contents.recommendations for run in compared.runs)
    return _render(
        "comparison.html.jinja",
        compared=compared,
        protocols=[_compared_protocol(protocol) for protocol in compared.protocols],
        curves=[
            {
                "name": name,
                "chart": charts.draw_curves(curves, identifier=f"curve-{number}", title=f"{name} by epoch"),
            }
            for number, (name, curves) in enumerate(by_name.items())
        ],
        recommended=list(compared.runs[0].contents.recommendations[MODEL]) if measured else [],
    )


def _shorten(text: str, length: int) -> str:
    """Cuts a text that is longer than this."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _dot(label: str, mean: Mean, *, is_model: bool) -> charts.Dot:
    """A mean as a row of a chart."""
    return charts.Dot(label, mean.value, mean.low, mean.high, is_model, _number(mean.value))


def _difference_dot(label: str, found: Difference, *, is_model: bool) -> charts.Dot:
    """A difference as a row of a chart."""
    return charts.Dot(label, found.value, found.low, found.high, is_model, _signed(found.value))


def _label_of(scorer: str) -> str:
    """The name of a scorer in a table or chart, such as `item mean`."""
    return name_of(scorer).removeprefix("the ").removeprefix("a ")


def _protocol(contents: Contents, protocol: str) -> dict[str, Any]:
    by_scorer = contents.protocols[protocol]
    verdict = contents.verdict.protocols[protocol]
    names = list(by_scorer[MODEL])
    differences = differences_from_baselines(contents.queries[protocol])
    return {
        "name": protocol,
        "about": _ABOUT[protocol].format(split=contents.split),
        "verdict": verdict,
        "headline": _headline(verdict),
        "names": names,
        "by_scorer": by_scorer,
        "best": {name: _best(by_scorer, name) for name in names},
        "num_lists": max(mean.num_lists for mean in by_scorer[MODEL].values()),
        "num_left_out": max(mean.num_left_out for mean in by_scorer[MODEL].values()),
        "charts": {
            name: charts.draw_dots(
                [
                    _dot(_label_of(scorer), metrics[name], is_model=scorer == MODEL)
                    for scorer, metrics in by_scorer.items()
                ],
                identifier=f"{protocol}-{number}",
                title=f"{protocol} {name} of the model and of the baselines",
            )
            for number, name in enumerate(_drawn(names, verdict.metric))
        },
        "differences": differences,
        "difference_chart": charts.draw_dots(
            [
                _difference_dot(_label_of(baseline), found[verdict.metric], is_model=True)
                for baseline, found in differences.items()
            ],
            identifier=f"{protocol}-differences",
            title=f"{protocol} {verdict.metric}: the model minus each baseline",
            zero=True,
        ),
    }


def _compared_protocol(protocol: ComparedProtocol) -> dict[str, Any]:
    rows = {**protocol.means, **protocol.baselines}
    names = list(protocol.best)
    return {
        "name": protocol.name,
        "names": names,
        "rows": rows,
        "best": protocol.best,
        "differences": protocol.differences,
        "charts": {
            name: charts.draw_dots(
                [
                    _dot(_label_of(scorer), metrics[name], is_model=scorer in protocol.means)
                    for scorer, metrics in rows.items()
                ],
                identifier=f"{protocol.name}-{number}",
                title=f"{protocol.name} {name} of the runs and of the baselines",
            )
            for number, name in enumerate(_drawn(names, protocol.metric))
        },
        "difference_chart": charts.draw_dots(
            [
                _difference_dot(letter, found[protocol.metric], is_model=True)
                for letter, found in protocol.differences.items()
            ],
            identifier=f"{protocol.name}-differences",
            title=f"{protocol.name} {protocol.metric}: each run minus A",
            zero=True,
        ),
    }


def _drawn(names: Sequence[str], main_metric: str) -> list[str]:
    """The metrics that are drawn, the main one first."""
    return sorted(names, key=lambda name: name != main_metric)[:MAX_CHARTS]


def _headline(verdict: ProtocolVerdict) -> str:
    if verdict.outcome == UNKNOWN:
        return "Not known"
    return f"{verdict.outcome.capitalize()} than {name_of(verdict.baseline)}"


def _best(by_scorer: Mapping[str, Mapping[str, Mean]], name: str) -> float:
    values = [metrics[name].value for metrics in by_scorer.values()]
    return min(values) if lower_is_better(name) else max(values)


def _groups(contents: Contents) -> list[dict[str, Any]]:
    """Charts of the quality by groups of users and of items."""
    verdict = contents.verdict.protocols.get("catalogue")
    if not contents.breakdowns or verdict is None:
        return []
    baseline = verdict.baseline
    activity, popularity = contents.breakdowns["user_activity"], contents.breakdowns["item_popularity"]
    recall = next(iter(next(iter(popularity["scorers"][MODEL].values()), {})), "")
    found = [
        (
            f"{verdict.metric} by user activity",
            "Users with few, some and many training ratings.",
            [
                (
                    f"{group['min_train_ratings']:,}–{group['max_train_ratings']:,} ratings",
                    f"{group['num_users']:,} users",
                    *(activity["scorers"][scorer][name][verdict.metric] for scorer in (MODEL, baseline)),
                )
                for name in ACTIVITIES
                if (group := activity["groups"].get(name))
            ],
        ),
        (
            f"{recall} by item popularity",
            "The share of the relevant held-out items that are found. Each group of items has a third of all training "
            "ratings; the head are the most popular ones.",
            [
                (
                    name,
                    f"{group['num_items']:,} items, {group['num_relevant']:,} relevant",
                    *(popularity["scorers"][scorer][name][recall] for scorer in (MODEL, baseline)),
                )
                for name in POPULARITIES
                if (group := popularity["groups"].get(name))
            ],
        ),
    ]
    return [
        {
            "title": title,
            "about": about,
            "baseline": _label_of(baseline),
            "rows": rows,
            "chart": charts.draw_pairs(
                [charts.Pair(label, model, other) for label, _, model, other in rows],
                identifier=f"groups-{number}",
                title=title,
                baseline=_label_of(baseline),
            ),
        }
        for number, (title, about, rows) in enumerate(found)
        if rows
    ]


def _recommended(contents: Contents) -> list[dict[str, Any]]:
    if not contents.recommendations:
        return []
    return [
        {
            "name": name,
            "about": _RECOMMENDATION_METRICS.get(name.partition("@")[0], ""),
            "values": {scorer: values[name] for scorer, values in contents.recommendations.items()},
            "chart": charts.draw_dots(
                [
                    charts.Dot(
                        _label_of(scorer), values[name], math.nan, math.nan, scorer == MODEL, f"{values[name]:,.4g}"
                    )
                    for scorer, values in contents.recommendations.items()
                ],
                identifier=f"recommended-{number}",
                title=f"{name} of the model and of the baselines",
            ),
        }
        for number, name in enumerate(contents.recommendations[MODEL])
    ]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.4f}".replace("-", "−")


def _interval(found: Difference) -> str:
    return f"{_signed(found.low)} to {_signed(found.high)}"


def _cut(text: object, length: int = _MAX_TITLE) -> Markup:
    """A text of any length: its beginning, with more of it in a title attribute."""
    whole = " ".join(str(text).split())
    if len(whole) <= length:
        return Markup("{}").format(whole)
    return Markup('<span title="{}">{}</span>').format(_shorten(whole, _MAX_HOVER), _shorten(whole, length))


def _genres(genres: Sequence[str]) -> str:
    return _shorten(", ".join(genres[:_MAX_GENRES]), _MAX_TITLE)


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cut": _cut,
        "genres": _genres,
        "interval": _interval,
        "label": _label_of,
        "number": _number,
        "signed": _signed,
    }
    page = environment.get_template(template).render(MODEL=MODEL, MAX_VALUE=_MAX_VALUE, **values)
    # Ids and titles are anywhere in it, and an override of the direction of writing would turn what follows.
    return visible(page, keep="\n\t")
