"""The charts of a report, drawn by Matplotlib as SVG elements. No display and no global state is used."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from trainer.reporting.curves import Curve
from trainer.reporting.svg import BASELINE, INK, MODEL, MUTED, PAPER, RULE, SERIES, new_figure, to_svg

_WIDTH = 340.0
_ROW_HEIGHT = 23.0
_LEFT, _RIGHT = 112.0, 58.0
_TOP, _BOTTOM = 6.0, 24.0
_SIZE = 11.0
_DASHES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))


@dataclass(frozen=True)
class Dot:
    """A row of a chart of dots.

    Attributes:
      label: What has the value.
      value: The value.
      low, high: The ends of its interval; NaN for none.
      is_model: Whether it stands out, as the model does among baselines.
      text: The value as it is written beside the dot.
    """

    label: str
    value: float
    low: float
    high: float
    is_model: bool
    text: str


@dataclass(frozen=True)
class Pair:
    """A row of a chart of pairs.

    Attributes:
      label: The group.
      model, baseline: The values of both.
    """

    label: str
    model: float
    baseline: float


def draw_dots(dots: Sequence[Dot], *, identifier: str, title: str, zero: bool = False) -> Markup:
    """Draws values with their intervals, a row each.

    Args:
      dots: The rows, from top to bottom. Those that are not finite are named and not drawn.
      identifier, title: See `to_svg`.
      zero: Whether the values are differences: a line marks zero.
    """
    figure, axes, rows = _rows([dot.label for dot in dots])
    numbers = [number for dot in dots for number in (dot.value, dot.low, dot.high)]
    _set_limits(axes, [*numbers, 0.0] if zero else numbers)
    if zero:
        axes.axvline(0, color=MUTED, linewidth=1)
    for row, dot in zip(rows, dots, strict=True):
        colour = MODEL if dot.is_model else BASELINE
        axes.text(1.03, row, dot.text, transform=axes.get_yaxis_transform(), color=INK, va="center", fontsize=_SIZE)
        if np.isfinite(dot.low) and np.isfinite(dot.high):
            axes.plot([dot.low, dot.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
        if np.isfinite(dot.value):
            face = colour if dot.is_model else PAPER
            axes.plot(dot.value, row, "o", color=colour, markerfacecolor=face, markersize=7.5, markeredgewidth=1.8)
    described = "; ".join(
        f"{dot.label} {dot.text}" + (f" ({dot.low:.4g} to {dot.high:.4g})" if np.isfinite(dot.low) else "")
        for dot in dots
    )
    return to_svg(figure, identifier=identifier, title=title, description=described)


def draw_pairs(pairs: Sequence[Pair], *, identifier: str, title: str, baseline: str) -> Markup:
    """Draws the values of the model and of a baseline for each group, joined by a line.

    Args:
      pairs: The groups, from top to bottom.
      identifier, title: See `to_svg`.
      baseline: The name of the baseline.
    """
    figure, axes, rows = _rows([pair.label for pair in pairs])
    _set_limits(axes, [0.0, *(value for pair in pairs for value in (pair.model, pair.baseline))])
    for row, pair in zip(rows, pairs, strict=True):
        axes.plot([pair.baseline, pair.model], [row, row], color=RULE, linewidth=4, solid_capstyle="round")
        axes.plot(pair.baseline, row, "o", color=BASELINE, markerfacecolor=PAPER, markersize=7.5, markeredgewidth=1.8)
        axes.plot(pair.model, row, "o", color=MODEL, markersize=7.5, markeredgewidth=1.8)
        axes.text(
            1.03,
            row,
            f"{pair.model:.4f}",
            transform=axes.get_yaxis_transform(),
            color=INK,
            va="center",
            fontsize=_SIZE,
        )
    described = "; ".join(f"{pair.label}: model {pair.model:.4f}, {baseline} {pair.baseline:.4f}" for pair in pairs)
    return to_svg(figure, identifier=identifier, title=title, description=described)


def draw_curves(
    curves: Mapping[str, Curve], *, identifier: str, title: str, exported_epoch: float | None = None
) -> Markup:
    """Draws the same metric of one or several runs over the epochs.

    Args:
      curves: The curve of each run, by its letter, which decides the colour and stands at the end of the line. A single
        run needs no letter: "".
      identifier, title: See `to_svg`.
      exported_epoch: Where to mark the exported step.
    """
    width, height, left, right, bottom = _WIDTH, 190.0, 44.0, 22.0, 36.0
    figure = new_figure(width, height)
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - bottom - 20) / height)
    )
    _plain(axes)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    for letter, curve in curves.items():
        number = string.ascii_uppercase.find(letter) if letter else 0
        colour = SERIES[number % len(SERIES)]
        dash = _DASHES[number // 2 % len(_DASHES)]
        axes.plot(curve.epochs, curve.values, color=colour, linewidth=1.8, linestyle=dash)
        axes.plot(curve.epochs[-1], curve.values[-1], "o", color=colour, markersize=4)
        end = (curve.epochs[-1], curve.values[-1])
        axes.annotate(
            letter, end, (6, 0), textcoords="offset points", color=colour, va="center", fontsize=_SIZE, weight="bold"
        )
    axes.margins(x=0.02, y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.set_xlabel("epoch", color=MUTED, fontsize=_SIZE, labelpad=3)
    if exported_epoch is not None and np.isfinite(exported_epoch):
        axes.axvline(exported_epoch, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        is_left = exported_epoch < np.mean(axes.get_xlim())
        axes.annotate(
            "exported",
            (exported_epoch, 1),
            (4 if is_left else -4, 3),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="left" if is_left else "right",
            va="bottom",
            color=INK,
            fontsize=_SIZE,
        )
    described = "; ".join(
        f"{name} {curve.values[0]:.4g} at epoch {curve.epochs[0]:.4g}, {curve.values[-1]:.4g} at epoch "
        f"{curve.epochs[-1]:.4g}".strip()
        for name, curve in curves.items()
    )
    return to_svg(figure, identifier=identifier, title=title, description=described)


def _rows(labels: Sequence[str]) -> tuple[Figure, Axes, list[int]]:
    height = len(labels) * _ROW_HEIGHT + _TOP + _BOTTOM
    figure = new_figure(_WIDTH, height)
    width = _WIDTH - _LEFT - _RIGHT
    axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / height, width / _WIDTH, len(labels) * _ROW_HEIGHT / height))
    _plain(axes)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    rows = list(range(len(labels)))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(rows, labels)
    axes.tick_params(axis="y", labelcolor=INK)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    return figure, axes, rows


def _plain(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=_SIZE, labelcolor=MUTED, color=RULE)
    for spine in axes.spines.values():
        spine.set_color(RULE)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _set_limits(axes: Axes, numbers: Sequence[float]) -> None:
    finite = [number for number in numbers if np.isfinite(number)] or [0.0]
    low, high = min(finite), max(finite)
    margin = 0.06 * (high - low) or 0.5
    axes.set_xlim(low - margin, high + margin)
