"""A corpus of bad input, each case made by code: what a command gets, its exit code and words of its message.

The cases are in `corpus_tables.py`, `corpus_sources.py` (files, archives, folders), `corpus_configs.py` (also flags and
workdirs) and `corpus_runs.py` (the files of a run). This module has what they share, and how a case is checked.
"""

import pathlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.reliability.commands import call, snapshot

DATA, STORAGE, CONFIG = 65, 74, 78
"""The exit codes of what is wrong: the ratings, a file, a flag or the config."""

CONFIG_FILE = """
from configs import default

def get_config():
    config = default.get_config()
    config.data.source = {source!r}
    config.data.columns.title = "title"
    config.split.method = "random"
    config.list_size = 12
    config.candidates.method = "sampled"
    config.model.embedding_size = 8
    config.model.query_embedding = False
    config.history.size = 20
    config.train.global_batch_size = 8
    config.train.num_epochs = 2
    config.train.steps_per_execution = 5
    config.eval.metrics = ("ndcg@5", "mrr")
    config.eval.best_metric = "ndcg@5"
    return config
"""
"""The config of all cases, with a history, so that a model can be asked for ratings of a file."""


@dataclass(frozen=True)
class Place:
    """Where a case is made.

    Attributes:
      folder: an empty folder.
      config: a config file whose source can be read.
      finished: the folder of a finished run of this config, which no case changes.
    """

    folder: pathlib.Path
    config: str
    finished: pathlib.Path

    def path(self, name: str) -> pathlib.Path:
        """The path of a file to make, whose folder exists."""
        path = self.folder / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def file(self, name: str, content: bytes | str) -> str:
        path = self.path(name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def run(self, name: str = "run") -> pathlib.Path:
        """A copy of the finished run."""
        shutil.copytree(self.finished, self.folder / name)
        return self.folder / name

    def train(self, *flags: str) -> tuple[str, ...]:
        """The command that trains in a new workdir."""
        return ("trainer.main", f"--config={self.config}", f"--workdir={self.folder}/workdir", *flags)

    def train_on(self, source: str, *flags: str) -> tuple[str, ...]:
        return self.train(f"--config.data.source={source}", *flags)


@dataclass(frozen=True)
class Case:
    """A command with something wrong.

    Attributes:
      name: what is wrong.
      make: makes what the command gets, and returns the command line: the module and its arguments.
      exit_code: of the command.
      says: words of the message. None of several commands may leave them out.
    """

    name: str
    make: Callable[[Place], tuple[str, ...]]
    exit_code: int
    says: str


def check(case: Case, finished_run: tuple[str, pathlib.Path], folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
    """Makes a case in an empty folder, calls its command in it, and asserts what it answers and leaves.

    Args:
      case: the case.
      finished_run: the fixture of this name.
      folder: an empty folder.
      patch: sets the environment of the command.
    """
    config, run = finished_run
    patch.delenv("AIP_MODEL_DIR", raising=False)
    patch.chdir(folder)
    (folder / "case").mkdir()
    command = case.make(Place(folder / "case", config, run))
    before = snapshot(folder), snapshot(run.parent)
    answer = call(*command)
    assert answer.exit_code == case.exit_code, answer
    assert answer.stderr.startswith("error: ") and case.says in answer.stderr
    assert answer.stderr.endswith("\n") and len(answer.stderr.splitlines()) == 1, answer.stderr
    assert len(answer.stderr) < 3000
    assert answer.stdout == ""
    assert (snapshot(folder), snapshot(run.parent)) == before
