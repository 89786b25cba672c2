"""What a killed process has left is removed by the next one that writes the same path, and nothing else is."""

import os
import subprocess
import sys

import pytest

from trainer import storage
from trainer.data.prepared.writing import whole_or_not_at_all

HIGHEST_ID = (1 << 22) - 1
"""The kernel gives ids in ascending order, so no process has this one."""


@pytest.fixture(scope="module")
def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def write_file(path: str) -> None:
    storage.write_bytes(path, b"new")


def write_folder(path: str) -> None:
    with whole_or_not_at_all(path) as temporary:
        os.mkdir(temporary)


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_what_a_killed_process_has_left_is_removed(tmp_path, write, gone):
    (tmp_path / f"out.{gone}.tmp").write_text("half")
    (tmp_path / f"out.{HIGHEST_ID}.tmp").mkdir()
    (tmp_path / f"out.{HIGHEST_ID}.tmp" / "part").write_text("half")
    write(str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["out"]


def test_in_the_current_folder_too(tmp_path, monkeypatch, gone):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"out.{gone}.tmp").write_text("half")
    write_file("out")
    assert os.listdir(tmp_path) == ["out"]


def test_all_that_is_not_known_to_be_a_leftover_stays(tmp_path, gone):
    names = {
        f"out.{os.getppid()}.tmp",  # Of a process that is alive.
        "out.1.tmp",
        f"other.{gone}.tmp",
        f"out.{gone}.tmp.csv",
        f"about.{gone}.tmp",
        "out.mine.tmp",
        "out.tmp",
        f"out.{gone}",
        "out.20261130.tmp",
    }
    for name in names:
        (tmp_path / name).write_text("precious")
    write_file(str(tmp_path / "out"))
    assert set(os.listdir(tmp_path)) == names | {"out"}
    assert {(tmp_path / name).read_text() for name in names} == {"precious"}


def test_a_folder_that_cannot_be_listed_can_be_written_to(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    write_file(str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"new"
