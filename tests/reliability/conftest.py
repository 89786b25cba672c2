"""What the tests of the promises share: processes by fork, and uninterrupted runs to compare with."""

import functools
import pathlib
import runpy
from collections.abc import Callable

import pyarrow.csv
import pytest

from tests.conftest import planted_ratings, train
from tests.reliability.corpus import CONFIG_FILE
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


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> tuple[str, pathlib.Path]:
    """A config file, and the folder of a finished run of this config. Beside both is `ratings.csv`, their source."""
    folder = tmp_path_factory.mktemp("finished")
    pyarrow.csv.write_csv(planted_ratings(), folder / "ratings.csv")
    config = folder / "config.py"
    config.write_text(CONFIG_FILE.format(source=str(folder / "ratings.csv")))
    train(runpy.run_path(str(config))["get_config"](), folder / "run")
    return str(config), folder / "run"
