"""The promises of the README, and the tests that prove them."""

import re

from tests.conftest import REPOSITORY
from tests.docs.pages import text_of

_ROW = re.compile(r"^\| (\d+) \| .*\| \[[\w/.]+\]\((tests/[\w/.]+)\) \|$", re.MULTILINE)

NUM_PROMISES = 15


def test_each_promise_names_the_test_that_proves_it():
    """The test counts its cases under the number of the promise."""
    rows = {int(number): path for number, path in _ROW.findall(text_of("README.md"))}
    assert sorted(rows) == list(range(1, NUM_PROMISES + 1))
    for number, path in rows.items():
        assert f"promise({number}, " in (REPOSITORY / path).read_text(), f"{path} has no case of promise {number}"
