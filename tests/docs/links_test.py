"""Every link in the documents leads somewhere, and every command in them is known."""

import ast
import re
import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.docs.commands import kind_of
from tests.docs.pages import PAGES, blocks_of, text_of, without_code

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors_of(page):
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE) + re.findall(
        r"^#+ (.*)$", text_of(page), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in _LINK.findall(without_code(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = ((REPOSITORY / page).parent / path).resolve() if path else REPOSITORY / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors_of(str(file.relative_to(REPOSITORY))), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_run_or_is_known_to_need_something_else(page):
    unknown = [(block.line, line) for block in blocks_of(page) for line in block.commands() if kind_of(line) is None]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES)
def test_python_in_the_documents_is_python(page):
    for block in blocks_of(page):
        if block.language == "python":
            ast.parse(block.text)


def test_every_page_is_linked_from_the_readme():
    links = {target.partition("#")[0] for target in _LINK.findall(text_of("README.md"))}
    assert {page for page in PAGES if page != "README.md"} <= links | {"examples/README.md"}


def test_git_ignores_what_the_commands_of_the_documents_write():
    lines = [line for page in PAGES for block in blocks_of(page) for line in block.commands()]
    written = {path for line in lines for path in re.findall(r"--(?:output|workdir|vectors)=([^\s:]+)(?=\s|$)", line)}
    # A folder is ignored as what lies in it.
    asked = sorted(f"{path}/x" if "." not in path else path for path in written)
    ignored = subprocess.run(
        ["git", "check-ignore", *asked], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert len(asked) > 5
    assert ignored.stdout.split() == asked
