"""The style sheet: its colours can be read, in light, in dark and on paper."""

import pathlib
import re

import pytest

from trainer.reporting import page, svg

CSS = (pathlib.Path(page.__file__).parent / "page.css").read_text()
SCHEMES = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
TEXT = ["ink", "muted", "model", "better", "doubt", "worse", *(f"series-{number}" for number in range(8))]


def variables(scheme):
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", scheme))


def luminance(colour):
    """As in WCAG 2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark", "print"])
def test_text_has_enough_contrast(scheme):
    colours = variables(scheme)
    for name in TEXT:
        for ground in ("paper", "raised"):
            lower, higher = sorted(luminance(colours[part]) for part in (name, ground))
            assert (higher + 0.05) / (lower + 0.05) >= 4.5, (name, ground)


def test_every_scheme_has_all_colours_that_charts_and_style_use():
    used = set(re.findall(r"var\(--([\w-]+)\)", CSS)) | set(svg._VARIABLES.values())
    for scheme in SCHEMES:
        assert used <= variables(scheme).keys()
