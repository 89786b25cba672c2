"""A run that is stopped after its last step writes its final metrics once when it is started again."""

import pathlib
import shutil
import signal

import pytest

from settings.errors import Stopped
from tests.conftest import train
from tests.training import stages
from tests.training.resume_test import logged, projected, shown


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> list[pathlib.Path]:
    """The workdir of the finished run, once there is one."""
    return []


@pytest.fixture
def workdir(tiny_config, finished, tmp_path, tmp_path_factory) -> pathlib.Path:
    """A copy of the workdir of a finished run."""
    if not finished:
        finished.append(tmp_path_factory.mktemp("finished"))
        train(tiny_config, finished[0])
    return shutil.copytree(finished[0], tmp_path / "run")


def stop_at(stage: str, config, workdir) -> None:
    with pytest.MonkeyPatch.context() as patched:
        stages.send_at(stage, signal.SIGTERM, patched.setattr)
        with pytest.raises(Stopped, match="Stopped by SIGTERM after training") as stopped:
            train(config, workdir)
    assert stopped.value.exit_code == 143
    assert not list(workdir.rglob("*.partial")) and not list(workdir.rglob("*.tmp"))


def test_the_final_metrics_are_written_once(tiny_config, finished, workdir):
    (workdir / "result.json").unlink()
    stop_at("after the final metrics", tiny_config, workdir)
    assert not (workdir / "result.json").exists()
    assert train(tiny_config, workdir) == 0
    assert logged(workdir) == logged(finished[0])
    assert shown(workdir) == shown(finished[0])
    assert projected(workdir) == projected(finished[0])


def test_a_run_whose_model_is_exported_again_does_not_lose_its_final_metrics(tiny_config, finished, workdir):
    """Stopped before it has written them again, it has no result either, and the next start writes both."""
    shutil.rmtree(workdir / "model")
    stop_at("after the export", tiny_config, workdir)
    assert (workdir / "model").exists() and not (workdir / "result.json").exists()
    assert train(tiny_config, workdir) == 0
    assert logged(workdir) == logged(finished[0])
    assert shown(workdir) == shown(finished[0])


def test_a_run_that_goes_on_has_no_report_of_its_earlier_end(tiny_config, workdir):
    (workdir / "report.html").write_text("of 4 epochs")
    tiny_config.train.num_epochs = 5
    stop_at("after result.json", tiny_config, workdir)
    assert not (workdir / "report.html").exists()
    reports = []
    assert train(tiny_config, workdir, report_fn=reports.append) == 0
    assert reports == [str(workdir)]
