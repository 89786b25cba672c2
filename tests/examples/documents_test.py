"""Runs every command and every piece of Python in the documents, page by page, in the order of the page."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.docs.commands import RUN, kind_of, noise_of, shortened, write_files
from tests.docs.pages import PAGES, Block, blocks_of, text_of

pytestmark = pytest.mark.examples

_LISTWISE = ["-c", "import sys; from trainer.command import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A small run, for pages that use a run and do not train it."""
    folder = tmp_path_factory.mktemp("finished")
    write_files(folder)
    command = "python -m trainer.main --workdir=run --config.data.source=ratings.csv"
    _run(Block("a finished run", 0, "", command), shortened(command)[1:], folder)
    return folder / "run"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_works(page, tmp_path, finished_run):
    write_files(tmp_path)
    text = text_of(page)
    trained = set(re.findall(r"(?:trainer\.main|launch\.local|trainer\.tune|train\()[^`]*?workdir=\"?(runs/\w+)", text))
    for workdir in set(re.findall(r"\bruns/\w+\b(?!\.)", text)) - trained:
        shutil.copytree(finished_run, tmp_path / workdir)
    for block in blocks_of(page):
        if block.language == "python":
            _run(block, ["-c", "import pandas\n" + block.text], tmp_path)
        for command in block.commands():
            if kind_of(command) != RUN:
                continue
            program, *arguments = shortened(command)
            _run(block, [*(_LISTWISE if program == "listwise" else []), *arguments], tmp_path)


def _run(block: Block, arguments: list[str], folder: pathlib.Path) -> None:
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    where = f"{block.page}:{block.line}: {' '.join(arguments)}"
    assert process.returncode == 0, f"{where}\n{process.stderr}"
    plain_tensorflow = "import tensorflow" in block.text
    assert not noise_of(process.stderr, plain_tensorflow=plain_tensorflow), f"{where}\n{process.stderr}"
