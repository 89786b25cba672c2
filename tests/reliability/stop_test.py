"""Stopped or killed at each stage of a run, one after the other: nothing is left over, and the end is the same."""

import json
import pathlib
import signal

import pytest

from tests.reliability.fork_server import ForkServer
from tests.training import stages
from tests.training.resume_test import last_checkpoint, logged, projected, shown

pytestmark = [
    pytest.mark.slow,
    pytest.mark.reliability,
    pytest.mark.promise(5, "asked to stop at every stage", "commands left nothing over and went on"),
]

AT_ANY_TIME = "Stopped by SIGTERM. No file is half-written"
SENTENCES = {
    **dict.fromkeys(stages.BEFORE_TRAINING, AT_ANY_TIME),
    **dict.fromkeys(stages.TRAINING, "; it is saved. The same command resumes the run."),
    **dict.fromkeys(stages.AFTER_TRAINING, "Stopped by SIGTERM after training. All steps are saved."),
    # Stopped after result.json, the run has finished, and only writes its report.
    "reporting": AT_ANY_TIME,
}


@pytest.fixture(scope="module")
def uninterrupted(forks, tmp_path_factory, ratings_csv) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert run(forks, stages.run_flags(workdir, ratings_csv))[0] == 0
    return workdir


def run(
    forks: ForkServer, flags: list[str], stage: str = "", number: int = 0, command: str = "trainer.main"
) -> tuple[int, str]:
    """Runs a command, which sends itself the signal at the stage. Returns the exit code and what it has printed."""
    environment = {stages.STAGE: stage, stages.SIGNAL: str(number), stages.COMMAND: command}
    child = forks.start("tests.training.stages", flags, environment)
    return child.wait(), child.text


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
    assert files_of(workdir) == files_of(uninterrupted)


def files_of(workdir: pathlib.Path) -> set[str]:
    """The names of all files but event files and checkpoints, which a stop adds."""
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if "tfevents" not in path.name}
    return {name for name in names if not name.startswith("checkpoints/")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_run_that_is_stopped_at_each_stage_ends_as_one_that_is_not(
    forks, uninterrupted, tmp_path, ratings_csv, number
):
    flags = stages.run_flags(tmp_path / "run", ratings_csv)
    for name in stages.STAGES:
        if number == signal.SIGKILL and name in stages.TRAINING:
            continue  # It would begin again from the same checkpoint.
        code, output = run(forks, flags, name, number)
        assert code == 128 + number, (name, output)
        if number == signal.SIGTERM:
            assert SENTENCES[name] in output.splitlines()[-1] and "Traceback" not in output, (name, output)
            assert leftovers(tmp_path) == [], name
    code, output = run(forks, flags)
    assert code == 0, output
    assert_same_end(tmp_path / "run", uninterrupted)
    assert leftovers(tmp_path) == []


def flags_of(command: str, workdir: pathlib.Path, output: pathlib.Path, ratings_csv: str) -> list[str]:
    own = {
        "evaluate": [],
        "compare": [str(workdir)],
        "report": [str(workdir), f"--output={output}.html"],
        "export": [f"--output={output}", "--nowarmup"],
        "recommend": ["--all_users", f"--output={output}.parquet"],
        "prepare": [f"--output={output}", *stages.run_flags(workdir, ratings_csv)[1:]],
    }[command]
    return own if command in ("compare", "report", "prepare") else [f"--workdir={workdir}", *own]


@pytest.mark.parametrize("command", stages.OTHER_COMMANDS)
def test_every_other_command_that_is_stopped_leaves_nothing_and_can_be_run_again(
    forks, uninterrupted, tmp_path, ratings_csv, command
):
    module = f"trainer.{command}"
    flags = flags_of(command, uninterrupted, tmp_path / "output", ratings_csv)
    before = files_of(uninterrupted)
    code, output = run(forks, flags, command, signal.SIGINT, module)
    assert code == 130, output
    assert output.splitlines()[-1].startswith("Stopped by SIGINT. No file is half-written"), output
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []

    assert run(forks, flags, command, signal.SIGKILL, module)[0] == 137
    code, output = run(forks, flags, command=module)
    assert code == 0, output
    assert leftovers(tmp_path) == [] and len(list(tmp_path.iterdir())) == (command not in ("evaluate", "compare"))
    assert files_of(uninterrupted) == before
