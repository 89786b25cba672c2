import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from configs import default
from settings.errors import ConfigError, StorageError
from trainer import storage
from trainer.workdir import Workdir

DESCRIPTION = {"num_users": 3, "fingerprints": {"vocabulary": "a" * 64, "train lists": "b" * 64}}

# What holds the lock of a folder as a run does, says so, and waits.
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


def changed(**fields):
    config = default.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@pytest.fixture(params=["local", "ram"])
def workdir(request, tmp_path):
    """The folder of a run of the default config."""
    workdir = Workdir(str(tmp_path / "run") if request.param == "local" else f"ram://{tmp_path.name}/run")
    with workdir.locked():
        workdir.save_run(default.get_config(), DESCRIPTION)
    return workdir


def contents(path):
    """Every file below a local path, with its content and time."""
    return {
        os.path.join(folder, name): (storage.read_bytes(os.path.join(folder, name)), os.stat(folder).st_mtime_ns)
        for folder, _, names in os.walk(path)
        for name in names
    }


def test_the_same_config_and_data_may_go_on(workdir):
    workdir.check(default.get_config())
    workdir.check_data(DESCRIPTION)
    assert workdir.load_config() == default.get_config()


def test_another_config_is_refused_with_each_change(workdir):
    with pytest.raises(ConfigError) as refused:
        workdir.check(changed(seed=1, model__hidden_sizes=(32,), train__num_epochs=20))
    assert "config.model.hidden_sizes: () → (32,); config.seed: 0 → 1)" in str(refused.value)
    assert workdir.path in str(refused.value)
    assert "num_epochs" not in str(refused.value)


def test_a_refusal_touches_nothing(tmp_path):
    workdir = Workdir(str(tmp_path))
    workdir.save_run(default.get_config(), DESCRIPTION)
    before = contents(tmp_path)
    with pytest.raises(ConfigError):
        workdir.check(changed(seed=1))
    with pytest.raises(ConfigError):
        workdir.check_data({"fingerprints": {"vocabulary": "c"}})
    assert contents(tmp_path) == before


def test_what_changes_no_step_may_change(workdir):
    workdir.check(changed(data__data_dir="elsewhere", train__steps_per_execution=7, train__keep_checkpoints=1))


def test_other_data_is_refused(workdir):
    other = {"fingerprints": {"vocabulary": "a" * 64, "train lists": "0123456789abcdef"}}
    with pytest.raises(ConfigError, match=r"its train lists had the fingerprint b{12}, now it has 0123456789ab"):
        workdir.check_data(other)


def test_data_of_which_nothing_was_known_is_refused(workdir):
    with pytest.raises(ConfigError, match="its test lists had the fingerprint None"):
        workdir.check_data({"fingerprints": {**DESCRIPTION["fingerprints"], "test lists": "d" * 64}})


def test_a_new_folder_is_accepted_and_not_made(tmp_path):
    workdir = Workdir(str(tmp_path / "new" / "run"))
    workdir.check(default.get_config())
    workdir.check_data(DESCRIPTION)
    assert workdir.load_result() == {}
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("character", ["*", "?", "[", "\\"])
def test_a_name_that_is_a_pattern_is_refused(tmp_path, character):
    path = f"{tmp_path}/run{character}1]"
    with pytest.raises(ConfigError, match=f"must not hold {re.escape(character)}\\."):
        Workdir(path).check(default.get_config())


@pytest.mark.parametrize("name", ["run", "new/run"])
def test_what_this_user_cannot_write_is_refused_and_nothing_made(tmp_path, monkeypatch, name):
    # Not by the folder's mode, which root may ignore.
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
    with pytest.raises(StorageError, match=f"{tmp_path}/{name} cannot be written: {tmp_path} is not writable"):
        Workdir(str(tmp_path / name)).check(default.get_config())
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write wherever the mode forbids it")
def test_a_mode_that_forbids_writing_is_heeded(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(StorageError, match="is not writable"):
        Workdir(str(tmp_path / "run")).check(default.get_config())


def test_a_disk_mounted_read_only_is_refused(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a disk takes root")
    try:
        with pytest.raises(StorageError, match=f"cannot be written: {disk} is not writable"):
            Workdir(str(disk / "run")).check(default.get_config())
        unmade = pytest.raises(StorageError, match=r"run cannot be written: .*Read-only file system")
        with unmade, Workdir(str(disk / "run")).locked():
            pass
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_is_no_folder(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "file").chmod(0o777)
    with pytest.raises(StorageError, match=f"--workdir={tmp_path}/{name} cannot be a folder, since {tmp_path}/file"):
        Workdir(str(tmp_path / name)).check(default.get_config())
    with (
        pytest.raises(StorageError, match=f"{tmp_path}/{name}.* cannot be written"),
        Workdir(str(tmp_path / name)).locked(),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_lock_that_cannot_be_made_is_named(tmp_path):
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


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"5", b"null", b'"text"'])
def test_a_broken_file_of_a_run_is_named(workdir, content):
    for path, read in [
        (workdir.config, lambda: workdir.check(default.get_config())),
        (workdir.config, workdir.load_config),
        (workdir.data, lambda: workdir.check_data(DESCRIPTION)),
        (workdir.result, workdir.load_result),
    ]:
        if content == b"[1]" and path == workdir.result:
            continue
        storage.write_bytes(path, content)
        with pytest.raises(
            StorageError, match=rf"^{path} cannot be read as the JSON that a run leaves there: .+ Restore"
        ):
            read()


@pytest.mark.parametrize("content", [b"{}", b'{"fingerprints": 5}', b'{"fingerprints": null}'])
def test_a_description_without_fingerprints_is_broken(workdir, content):
    storage.write_bytes(workdir.data, content)
    with pytest.raises(StorageError, match=r"data.json cannot be read"):
        workdir.check_data(DESCRIPTION)


def test_a_folder_without_a_run_has_no_config(tmp_path):
    with pytest.raises(ConfigError, match=f"--workdir={tmp_path} holds no run: there is no config.json in it"):
        Workdir(str(tmp_path)).load_config()


def test_the_result_is_what_was_saved(workdir):
    workdir.save_json(workdir.result, {"step": 480, "train": {"loss": 0.1}})
    assert workdir.load_result() == {"step": 480, "train": {"loss": 0.1}}


def test_the_data_is_described_in_plain_json(workdir):
    assert json.loads(storage.read_bytes(workdir.data)) == DESCRIPTION
