"""Which folders a run can use: their names, the access to them, and the lock against a second run."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest

from configs import default
from settings.errors import ConfigError, StorageError
from trainer.workdir import Workdir

# Locks a folder as a run does, prints a line, and waits.
HOLDER = """
import fcntl, os, sys, time
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.truncate(0)
lock.write(str(os.getpid()))
lock.flush()
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("character", ["*", "?", "[", "\\"])
def test_a_name_that_is_a_pattern_is_refused(tmp_path, character):
    path = f"{tmp_path}/run{character}1]"
    with pytest.raises(ConfigError, match=f"must not contain {re.escape(character)}\\."):
        Workdir(path).check(default.get_config())


@pytest.mark.parametrize("name", ["run", "new/run"])
def test_a_folder_without_write_access_is_refused_and_nothing_is_made(tmp_path, monkeypatch, name):
    # Patched, because root ignores the mode of a folder.
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
    with pytest.raises(StorageError, match=f"{tmp_path}/{name} cannot be written: .* no write access to {tmp_path}"):
        Workdir(str(tmp_path / name)).check(default.get_config())
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores the mode of a folder")
def test_a_mode_that_forbids_writing_is_respected(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(StorageError, match="no write access"):
        Workdir(str(tmp_path / "run")).check(default.get_config())


def test_a_disk_mounted_read_only_is_refused(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root can mount a disk")
    try:
        with pytest.raises(StorageError, match=f"no write access to {disk}"):
            Workdir(str(disk / "run")).check(default.get_config())
        failure = pytest.raises(StorageError, match=r"run cannot be written: .*Read-only file system")
        with failure, Workdir(str(disk / "run")).locked():
            pass
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_is_not_a_folder(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "file").chmod(0o777)
    with pytest.raises(
        StorageError, match=f"--workdir={tmp_path}/{name} cannot be made: {tmp_path}/file is not a folder"
    ):
        Workdir(str(tmp_path / name)).check(default.get_config())
    with (
        pytest.raises(StorageError, match=f"{tmp_path}/{name}.* cannot be written"),
        Workdir(str(tmp_path / name)).locked(),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_lock_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(StorageError, match=r"/\.lock cannot be written: Is a directory"),
        Workdir(str(tmp_path)).locked(),
    ):
        pass


@contextlib.contextmanager
def held(path):
    """Another process that holds the lock of a folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, f"{path}/.lock"], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def test_a_second_run_is_refused_and_names_the_first_until_that_is_killed(tmp_path):
    workdir = Workdir(str(tmp_path))
    with held(tmp_path) as holder:
        refused = pytest.raises(ConfigError, match=f"{tmp_path} is in use by another run, process {holder.pid}\\.")
        with refused, workdir.locked():
            pass
        with pytest.raises(ConfigError, match=f"process {holder.pid}\\."):
            workdir.check_free()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        workdir.check_free()
        with workdir.locked():
            assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_the_lock_is_held_meanwhile_and_freed_after(tmp_path):
    workdir = Workdir(str(tmp_path / "new"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".lock").write_text("4194303 and more than a process id")
    for _ in range(2):
        with pytest.raises(KeyError), workdir.locked():
            with pytest.raises(ConfigError, match=f"process {os.getpid()}\\."), Workdir(workdir.path).locked():
                pass
            raise KeyError("planted")
