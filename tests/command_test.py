"""The command `listwise`."""

import importlib.util
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from trainer import command


def listwise(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "import sys; from trainer.command import main; sys.exit(main())", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_is_a_module():
    assert all(importlib.util.find_spec(module) for module in command.COMMANDS.values())


def test_it_runs_the_module_with_the_flags_that_follow():
    found = listwise("compare", "--format=json", "runs/missing")
    assert found.returncode == 78
    assert found.stderr.startswith("error: runs/missing")
    assert found.stdout == ""


def test_it_explains_its_commands():
    found = listwise("--help")
    assert found.returncode == 0
    assert "train      python -m trainer.main" in found.stdout


@pytest.mark.parametrize(("arguments", "message"), [(["trian"], "Did you mean train?"), ([], "'' is not a command.")])
def test_an_unknown_command_is_refused(arguments, message):
    found = listwise(*arguments)
    assert found.returncode == 78
    assert message in found.stderr
    assert "Traceback" not in found.stderr
