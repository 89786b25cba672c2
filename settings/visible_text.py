"""Text that others have written, such as ids, titles and names of columns, as it is shown on a terminal or a page."""

import re

_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, keep: str = "") -> str:
    r"""Returns the text with an escape such as \n or \x1b for each character that acts on a terminal or on other text.

    These are control characters, line and paragraph separators, overrides of the direction of writing, and bytes that
    were no UTF-8.

    Args:
      text: any text.
      keep: such characters that stay as they are.
    """
    return _INVISIBLE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def visible_json(text: str) -> str:
    r"""Returns JSON with an escape such as \u202e for these characters. It has the same values."""
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
