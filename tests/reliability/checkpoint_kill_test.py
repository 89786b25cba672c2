"""SIGKILL at each stage of a save: nothing that was saved is lost, and the next save deletes the remains."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.training.checkpoint_run import Run, contents_of, files_in, whole
from tests.training.checkpoint_stages import KEEP, SIZE, STAGES, folder_of

pytestmark = pytest.mark.reliability


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[str, tuple[str, set[str]]]:
    """The folder that each killed save left, and the names of the files in it, by stage."""
    folder = str(tmp_path_factory.mktemp("killed"))
    ended = subprocess.run(
        [sys.executable, "-m", "tests.training.checkpoint_stages", folder],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    folders = {stage: folder_of(folder, stage) for stage in STAGES}
    return {stage: (path, set(files_in(path))) for stage, path in folders.items()}


@pytest.mark.promise(3, "kills in a save", "left the new checkpoint or the one before")
@pytest.mark.parametrize("stage", STAGES)
def test_a_save_may_be_killed_at_any_stage(killed, stage):
    (folder, _), latest = killed[stage], STAGES[stage].latest
    left = contents_of(folder)
    run = Run(folder, size=SIZE, keep=KEEP)
    assert run.checkpointer.restore_latest().step == latest
    assert run.is_after(latest)
    # Also when the run goes on without its newest checkpoint.
    assert run.checkpointer.restore(20).step == 20 and run.is_after(20)
    assert contents_of(folder) == left
    assert run.checkpointer.restore_latest().step == latest
    next_step = latest + 10
    run.save(next_step)
    assert files_in(folder) == whole(latest, next_step)


def test_the_stages_differ(killed):
    """What is on the disk shows that each save was killed where it says."""
    left = {stage: names for stage, (_, names) in killed.items()}
    assert left["snapshot taken"] == {*whole(10, 20)}
    assert left["marker written"] == {*whole(10, 20), "step-00000030.partial"}
    (half_written,) = left["tensors half written"] - left["marker written"]
    assert half_written.startswith("step-00000030.data-00000-of-00001.tempstate")
    assert left["tensors written"] == {*whole(10, 20, 30), "step-00000030.partial"} - {"step-00000030.json"}
    (unfinished,) = left["manifest not renamed"] - left["tensors written"]
    assert unfinished.startswith("step-00000030.json.") and unfinished.endswith(".tmp")
    assert left["manifest renamed"] == {*whole(10, 20, 30), "step-00000030.partial"}
    assert left["marker removed"] == left["prune begun"] == {*whole(10, 20, 30)}
    assert left["old manifest renamed"] == {*whole(10, 20, 30), "step-00000010.partial"} - {"step-00000010.json"}
    assert left["old files removed"] == {*whole(20, 30), "step-00000010.partial"}
    assert left["not recorded"] == {*whole(20, 30)}
