"""Runs the examples as a user does."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.docs.commands import noise_of

SCRIPTS = sorted(path.name for path in (REPOSITORY / "examples").glob("*.sh"))


@pytest.mark.examples
@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs(script, tmp_path):
    process = subprocess.run(
        [REPOSITORY / "examples" / script],
        env={**os.environ, "PYTHON": sys.executable, "RUNS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert not noise_of(
        process.stderr, plain_tensorflow="ask_model.py" in (REPOSITORY / "examples" / script).read_text()
    )


def test_every_example_is_in_the_list():
    listed = (REPOSITORY / "examples" / "README.md").read_text()
    assert all(f"[{script}]({script})" in listed for script in SCRIPTS)
