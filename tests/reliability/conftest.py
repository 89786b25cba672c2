"""What the tests of the promises share: processes by fork, and uninterrupted runs to compare with."""

import functools
import pathlib
from collections.abc import Callable

import pytest

from tests.reliability.fork_server import ForkServer, fork_server
from tests.reliability.runs import Runs


@pytest.fixture(scope="session")
def forks(tmp_path_factory) -> ForkServer:
    """Starts modules of this project in processes of their own."""
    with fork_server(tmp_path_factory.mktemp("forks")) as server:
        yield server


@pytest.fixture(scope="session")
def runs(forks, ratings_csv) -> Runs:
    """Starts runs on the planted ratings."""
    return Runs(forks, ratings_csv)


@pytest.fixture(scope="session")
def uninterrupted(runs, tmp_path_factory) -> Callable[[str], pathlib.Path]:
    """Returns the workdir of an uninterrupted run under a strategy."""

    @functools.cache
    def workdir_of(strategy: str) -> pathlib.Path:
        workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
        runs.finish(workdir, strategy)
        return workdir

    return workdir_of
