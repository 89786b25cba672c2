"""Paths of the trainer that exist on this machine only."""

import pytest

from launch.vertex import __main__ as vertex
from tests.conftest import REPOSITORY
from tests.launch.vertex.commands import refused, with_destination
from tests.launch.vertex.study_test import write_study

GIVEN = ["--config.split.method=given", "--config.data.source=gs://b/train.txt"]


@pytest.mark.parametrize("field", ["config.data.source", "config.split.validation_source", "config.split.test_source"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_ratings_on_this_machine_are_refused(field, is_folder, capsys, tmp_path):
    path = tmp_path if is_folder else tmp_path / "ratings.csv"
    if not is_folder:
        path.write_text("user_id,item_id\n")
    given = [*GIVEN, "--config.split.test_source=gs://b/test.txt"] if field.startswith("config.split") else []
    error = refused(capsys, with_destination([], [*given, f"--{field}={path}"]))
    assert f"The trainer's {field}='{path}' is on this machine" in error
    assert f"`gcloud storage cp --recursive {path} gs://BUCKET/`" in error


def test_a_relative_path_is_one_of_this_machine_too(capsys):
    assert "config.data.source='README.md' is on this machine" in refused(
        capsys, with_destination([], ["--config.data.source=README.md"])
    )


def test_ratings_of_a_study_are_checked(capsys, tmp_path):
    (tmp_path / "ratings.csv").touch()
    path = write_study(tmp_path, {"field": "data.source", "values": ("gs://b/1.csv", str(tmp_path / "ratings.csv"))})
    error = refused(capsys, with_destination(["tune", f"--config={path}"], []))
    assert "a trial would fail: The trainer's config.data.source=" in error and "ratings.csv' is on this mach" in error


@pytest.mark.parametrize(
    "flag",
    [
        "--config.data.source=gs://b/ratings.csv",
        "--config.data.source=/gcs/b/ratings.csv",
        "--config.data.source=movielens/1m",
        "--config.data.source=synthetic",
        "--config.data.source=configs/default.py",
        "--config.data.data_dir=gs://b/tfds",
        "--config.data.data_dir=/var/no/such/folder",
        "--config=configs/tutorial.py",
        "--config=./configs/tutorial.py",
    ],
)
def test_what_the_job_can_read_gets_no_warning(flag, capsys):
    assert vertex.main(with_destination([], [flag])) == 0
    assert "The trainer's" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.data.source=/data/r.csv", "The trainer's config.data.source='/data/r.csv' is not in the image that"),
        ("--config.data.source=ratings.csv", "config.data.source='ratings.csv' is not in the image that"),
        ("--config.data.data_dir={folder}", "config.data.data_dir='{folder}' is a folder of this machine. In the job"),
    ],
)
def test_what_may_be_missing_in_the_job_gets_a_warning(flag, says, capsys, tmp_path):
    assert vertex.main(with_destination([], [flag.format(folder=tmp_path)])) == 0
    captured = capsys.readouterr()
    assert captured.err.count("warning: The trainer's") == 1 and says.format(folder=tmp_path) in captured.err
    assert "worker_pool_specs" in captured.out


def test_the_warning_of_a_study_comes_once(capsys, tmp_path):
    path = write_study(tmp_path, {"field": "train.num_epochs", "values": (1, 2, 3)})
    assert vertex.main(with_destination(["tune", f"--config={path}"], ["--config.data.source=/data/r.csv"])) == 0
    assert capsys.readouterr().err.count("warning: The trainer's") == 1


def test_a_config_file_outside_of_the_image_is_refused(capsys, tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text((REPOSITORY / "configs" / "tutorial.py").read_text())
    error = refused(capsys, with_destination([], [f"--config={path}"]))
    assert f"--config={path} of the trainer is a file of this machine" in error
    assert "Put it into the folder configs/, build the image again, and give it as --config=configs/mine.py." in error
    # The job would look for the path from the root of its own file system.
    error = refused(capsys, with_destination([], [f"--config={REPOSITORY}/configs/tutorial.py"]))
    assert "Give it as --config=configs/tutorial.py, which is its path in the image." in error
    # A folder of the same name in another place is not the one of the image.
    (tmp_path / "configs").mkdir()
    path.rename(tmp_path / "configs" / "mine.py")
    monkeypatch.chdir(tmp_path)
    assert "--config=configs/mine.py of the trainer" in refused(
        capsys, with_destination([], ["--config=configs/mine.py"])
    )
