"""Launchers in processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.launch.scripted_workers import command


@pytest.fixture
def launch(tmp_path):
    """Starts a launcher of two workers in its own process, and ends all three after the test.

    `before` is a statement of the launcher; `arguments` are those of `local.train`.
    """
    started = []

    def start(body: str, *, before: str = "pass", arguments: str = "", **options) -> subprocess.Popen:
        # Tests that run under `nohup` or in the background of a shell have signals ignored, and so would the launcher.
        program = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
            f"from launch import local, network; from settings import cli; {before}; "
            f"cli.run_launcher(lambda _: local.train({command(body, tmp_path)!r}, 2, {arguments}))"
        )
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
        started.append(subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    for path in tmp_path.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)
