"""Text that others have written cannot act on a terminal."""

import json

from hypothesis import given
from hypothesis import strategies as st

from settings.visible_text import visible, visible_json


def test_what_acts_on_a_terminal_or_on_other_text_is_escaped():
    assert visible("a\nb\tc\x1b[2J\x7f\x9b\u202e\u2066\u2028\udcff\0") == (
        r"a\nb\tc\x1b[2J\x7f\x9b\u202e\u2066\u2028\udcff\x00"
    )
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_other_text_stays():
    """Also emoji that are joined, and writing from right to left."""
    for text in ("Amélie [2001]", "👨\u200d👩\u200d👧", "שלום\u200f", "a\\nb", ""):
        assert visible(text) == text == visible_json(text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_has_the_same_values(text):
    shown = visible_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(shown) == [text] and visible(shown) == shown
