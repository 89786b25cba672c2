"""Text that others have written, such as ids, titles and names of columns, as it is shown on a terminal or a page."""

import re

_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Returns the text with an escape such as \n or \x1b for each character that acts on a terminal or on other text.

    These are control characters, line and paragraph separators, overrides of the direction of writing, and bytes that
    were no UTF-8.
    """
    return _INVISIBLE.sub(lambda match: repr(match[0])[1:-1], text)
