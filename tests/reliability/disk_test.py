"""Full and read-only disks: they are named, nothing is lost, and the run goes on once there is room."""

import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.reliability.runs import digest_of_tensors, logged, steps_saved

pytestmark = pytest.mark.reliability

DISK_BYTES = 16 << 20

# Mounts a disk in a namespace of its own, says so, and holds the namespace until its input ends.
_HOLDER = """
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[2]}", "tmpfs", sys.argv[1]], check=True)
print("mounted", flush=True)
sys.stdin.read()
"""


class Disk:
    """A file system of 16 MiB in memory. This process sees its folder through /proc."""

    def __init__(self, folder: pathlib.Path, holder: subprocess.Popen[str]):
        self.folder = pathlib.Path(f"/proc/{holder.pid}/root{folder}")
        self._mounted = folder
        self._holder = holder
        self._filler = self.folder / "filler"

    def fill(self, free_bytes: int) -> None:
        """Fills the disk up to `free_bytes`."""
        with open(self._filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        size = self._filler.stat().st_size
        with open(self._filler, "r+b") as file:
            file.truncate(size - free_bytes)

    def empty(self) -> None:
        """Makes room again."""
        self._filler.unlink()

    def remount(self, options: str) -> None:
        """Changes the options of the mount, for example to `ro`."""
        subprocess.run(
            [
                *("nsenter", "--preserve-credentials", "-U", "-m", "-t", str(self._holder.pid)),
                *("mount", "-o", f"remount,{options}", str(self._mounted)),
            ],
            check=True,
        )


@contextlib.contextmanager
def mounted_disk(folder: pathlib.Path) -> Iterator[Disk]:
    with subprocess.Popen(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            sys.executable,
            "-c",
            _HOLDER,
            str(folder),
            str(DISK_BYTES),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as holder:
        assert holder.stdin and holder.stdout
        try:
            if holder.stdout.readline() != "mounted\n":
                pytest.skip("this machine does not allow disks in a user namespace")
            yield Disk(folder, holder)
        finally:
            holder.stdin.close()


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted_disk(folder) as disk:
        yield disk


@pytest.mark.promise(10, "disks", "lost nothing")
@pytest.mark.parametrize("free_kibibytes", [4, 16, 48, 96, 128])
def test_a_run_on_a_full_disk_goes_on_once_there_is_room(runs, uninterrupted, disk, free_kibibytes):
    workdir = disk.folder / "run"
    disk.fill(free_kibibytes << 10)
    job = runs.start(workdir, "default")
    assert job.wait() == [74], job.text
    assert "No space left on device" in job.text and "Traceback" not in job.text
    disk.empty()
    runs.finish(workdir, "default")
    assert digest_of_tensors(workdir) == digest_of_tensors(uninterrupted("default"))
    assert logged(workdir) == logged(uninterrupted("default"))


@pytest.mark.promise(10, "disks", "lost nothing")
def test_a_read_only_disk_is_refused_and_the_old_checkpoint_still_loads(runs, disk):
    workdir = disk.folder / "run"
    runs.finish(workdir, "default", fields={"optimizer.schedule": "constant"})
    before = digest_of_tensors(workdir)
    disk.remount("ro")
    longer: dict[str, object] = {"optimizer.schedule": "constant", "train.num_epochs": 45}
    job = runs.start(workdir, "default", fields=longer)
    assert job.wait() == [74], job.text
    assert "write" in job.text and "Traceback" not in job.text and "step " not in job.text
    assert digest_of_tensors(workdir) == before
    disk.remount("rw")
    assert "Resuming after step 400" in runs.finish(workdir, "default", fields=longer).text
    assert steps_saved(workdir)[-1] == 450
