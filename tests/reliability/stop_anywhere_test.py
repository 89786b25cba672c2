"""Stopped or killed at each stage of a run, one after the other: nothing is left over, and the end is the same."""

import json
import pathlib
import signal

import pytest

from tests.training import stages
from tests.training.resume_test import last_checkpoint, logged, projected, shown

pytestmark = [pytest.mark.slow, pytest.mark.reliability]

SENTENCES = {
    **dict.fromkeys(stages.BEFORE_TRAINING, "Stopped by SIGTERM. No file is half-written"),
    **dict.fromkeys(stages.TRAINING, "; it is saved. The same command resumes the run."),
    **dict.fromkeys(stages.AFTER_TRAINING, "Stopped by SIGTERM after training. All steps are saved."),
}


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with stages.forks(tmp_path_factory.mktemp("forks")) as running:
        yield running


@pytest.fixture(scope="module")
def uninterrupted(forks, tmp_path_factory, ratings_csv) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("uninterrupted")
    ended = forks.run(stages.run_flags(workdir, ratings_csv))
    assert ended.returncode == 0, ended.stderr
    return workdir


def leftovers(folder: pathlib.Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".tmp", ".partial")]


def assert_same_end(workdir: pathlib.Path, uninterrupted: pathlib.Path) -> None:
    (step, tensors), (expected_step, expected) = last_checkpoint(workdir), last_checkpoint(uninterrupted)
    assert step == expected_step and tensors.keys() == expected.keys()
    assert [name for name in expected if tensors[name].tobytes() != expected[name].tobytes()] == []
    assert logged(workdir) == logged(uninterrupted)
    assert shown(workdir) == shown(uninterrupted)
    assert projected(workdir) == projected(uninterrupted)
    results = [json.loads((folder / "result.json").read_text()) for folder in (workdir, uninterrupted)]
    for result in results:
        del result["speed"]
    assert results[0] == results[1]
    files = [
        {str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name}
        for folder in (workdir, uninterrupted)
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_at_each_stage_ends_as_one_that_is_not(
    forks, uninterrupted, tmp_path, ratings_csv, number
):
    flags = stages.run_flags(tmp_path / "run", ratings_csv)
    for name, stage in stages.STAGES.items():
        if number == signal.SIGKILL and name in stages.TRAINING:
            continue  # It would begin again from the same checkpoint.
        ended = forks.run(flags, stage=stage, number=number)
        if number == signal.SIGTERM:
            assert ended.returncode == 143, (name, ended)
            assert ended.stderr.count("\n") == 1 and SENTENCES[name] in ended.stderr, (name, ended.stderr)
            assert leftovers(tmp_path) == [], name
        else:
            assert ended.returncode == -number, (name, ended)
    assert forks.run(flags).returncode == 0
    assert_same_end(tmp_path / "run", uninterrupted)
    assert leftovers(tmp_path) == []
