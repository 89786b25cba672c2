"""Nothing that the documents say, and nothing of the project, listens on other interfaces than the loopback one."""

import re

import pytest

from tests.conftest import REPOSITORY
from tests.docs.pages import PAGES, text_of


@pytest.mark.parametrize("page", PAGES)
def test_tensorboard_stays_on_its_machine(page):
    commands = re.findall(r"tensorboard --[^`\n]*", text_of(page))
    assert [command for command in commands if "--host=127.0.0.1" not in command] == []


def test_the_documents_start_tensorboard_at_all():
    assert len(re.findall(r"tensorboard --", "".join(map(text_of, PAGES)))) >= 3


def test_the_project_starts_no_server():
    """launch.local chooses ports, and listens on none of them."""
    server = re.compile(r"create_server|\.listen\(|profiler\.server|profiler_server|\.start_server|HTTPServer")
    sources = [path for folder in ("trainer", "launch", "settings") for path in (REPOSITORY / folder).rglob("*.py")]
    assert [str(path) for path in sources if server.search(path.read_text())] == []
