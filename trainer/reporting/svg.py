"""Turns a figure of Matplotlib into an SVG element for the inside of an HTML page.

The element takes its colours and its font from the style of the page, so that it is readable in light and dark. All its
text is text. It refers to nothing outside of itself, and the ids in it are its own.
"""

import io
import logging
import re
from contextlib import AbstractContextManager
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# What a figure is drawn in → the variables of the style sheet. Each stands for a role, not for a colour.
INK, MUTED, RULE, MODEL, BASELINE, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
SERIES = tuple(f"#0700{number:02x}" for number in range(8))
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    MODEL: "model",
    BASELINE: "baseline",
    PAPER: "paper",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES)},
}

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# "default" undoes the settings of the user of this machine, so that the same run has the same page everywhere. A search
# through several fonts takes longer than all else.
_STYLE: Any = [
    "default",
    {
        "font.sans-serif": ["DejaVu Sans"],
        "svg.fonttype": "none",
        "svg.hashsalt": "listwise",
        "text.parse_math": False,
    },
]
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

ElementTree.register_namespace("", _SVG)

# That it builds a cache of fonts, and where, is no news for the user.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


def in_own_style() -> AbstractContextManager[None]:
    """Figures have to be made and drawn within it."""
    return style.context(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in CSS pixels."""
    return Figure(figsize=(width / 72, height / 72))


def to_svg(figure: Figure, *, identifier: str, title: str, description: str) -> Markup:
    """Draws a figure. The same figure gives the same text.

    Args:
      figure: From `new_figure`, drawn in the colours of this module.
      identifier: Unique in the page. The ids of the element begin with it.
      title: What the figure is, for readers who do not see it.
      description: What it shows, for the same readers.
    """
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=_NO_METADATA)
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", buffer.getvalue()))
    _clean(root, identifier)
    labels: list[str] = []
    for name, text in (("desc", description), ("title", title)):
        label = ElementTree.Element(f"{{{_SVG}}}{name}", {"id": f"{identifier}-{name}"})
        label.text = text
        root.insert(0, label)
        labels.insert(0, f"{identifier}-{name}")
    size = root.get("viewBox", "").split()[2:]
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "width": size[0],
        "height": size[1],
        "role": "img",
        "aria-labelledby": " ".join(labels),
    }
    return Markup(ElementTree.tostring(root, encoding="unicode").replace("\n", " "))


def _clean(root: ElementTree.Element, identifier: str) -> None:
    """Leaves out what a page does not need, and replaces fonts, colours and ids."""
    used = {element.get(f"{{{_XLINK}}}href") for element in root.iter()}
    for parent in list(root.iter()):
        for child in list(parent):
            # Nothing is drawn outside of its axes, so nothing has to be clipped.
            if child.tag.rpartition("}")[2] in ("metadata", "style", "clipPath"):
                parent.remove(child)
    for element in root.iter():
        attributes = element.attrib
        attributes.pop("clip-path", None)
        if attributes.get("transform", "").startswith("rotate(-0"):
            del attributes["transform"]
        if target := attributes.pop(f"{{{_XLINK}}}href", None):
            attributes["href"] = f"#{identifier}-{target[1:]}"
        if (name := attributes.pop("id", None)) and f"#{name}" in used:
            attributes["id"] = f"{identifier}-{name}"
        if style := attributes.get("style"):
            attributes["style"] = _restyled(style)
        for name in ("d", "x", "y", "transform"):
            if name in attributes:
                attributes[name] = " ".join(re.sub(r"\.(\d\d?)\d*", r".\1", attributes[name]).split())
        if element.text is not None and not element.text.strip():
            element.text = None
        element.tail = None
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}defs") and not len(child):
                parent.remove(child)


def _restyled(style: str) -> str:
    style = re.sub(r"\s*font-family:[^;]*;?", "", style)
    return re.sub(r"#[0-9a-f]{6}", lambda found: _variable(found[0]), style)


def _variable(colour: str) -> str:
    return f"var(--{_VARIABLES[colour]})"
