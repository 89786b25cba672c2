"""The lease of a run on a folder that the kernel cannot lock.

A local folder stands for the remote one, so that several processes share it.
"""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from absl import logging

from settings.errors import ConfigError, StorageError
from tests.conftest import REPOSITORY
from trainer import storage, workdir_lock
from trainer.workdir_lock import LEASE_SECONDS, Holder, Lease, this_process

ELSEWHERE = Holder(host="elsewhere", machine="another boot", process=41, started="7")

# Takes a lease as a run does, says so, and waits.
RUN = """
import sys, time
from trainer.workdir_lock import Lease, this_process
lease = Lease(sys.argv[1], this_process(), sleep=lambda seconds: None)
lease.take()
with lease.renewing():
    print("taken", flush=True)
    time.sleep(240)
"""


class Clock:
    """The clock of the storage. It stands still until it is set."""

    def __init__(self):
        self.now = 1_800_000_000.0
        self._written = {}

    def modified(self, path):
        content = storage.read_bytes(path)
        before, written = self._written.get(path, (None, 0.0))
        if content != before:
            written = self.now
            self._written[path] = content, written
        return written

    def touch(self, path):
        """Notes that a file has been written now."""
        self._written.pop(path, None)
        self.modified(path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lease_of(tmp_path, clock):
    """Builds the lease of a holder."""

    def build(holder=None, sleep=lambda seconds: None):
        return Lease(str(tmp_path), holder or this_process(), modified=clock.modified, sleep=sleep)

    return build


def lease_in(folder):
    return json.loads((folder / ".lock").read_text())


def test_a_run_takes_the_lease_and_releases_it(tmp_path, lease_of):
    holder = this_process("job-7")
    lease = lease_of(holder)
    lease.check_free()
    lease.take()
    assert lease_in(tmp_path) == dataclasses.asdict(holder)
    assert (holder.process, holder.job) == (os.getpid(), "job-7")
    with lease.renewing():
        lease.check()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("age", [0, 5, LEASE_SECONDS - 1])
@pytest.mark.parametrize("ask", ["take", "check_free"])
def test_a_second_run_is_refused_and_told_who_holds_it_and_since_when(tmp_path, lease_of, clock, ask, age):
    lease_of(dataclasses.replace(ELSEWHERE, job="job-7")).take()
    clock.modified(str(tmp_path / ".lock"))
    before = (tmp_path / ".lock").read_bytes()
    clock.now += age
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(1_800_000_000))
    with pytest.raises(
        ConfigError,
        match=rf"{tmp_path} is in use by another run, process 41 on elsewhere of job job-7, which renewed its lease "
        rf"{age:.0f} s ago, at {when} UTC\. .* its lease ends in {LEASE_SECONDS - age:.0f} s",
    ):
        getattr(lease_of(), ask)()
    assert (tmp_path / ".lock").read_bytes() == before and os.listdir(tmp_path) == [".lock"]


def test_an_expired_lease_is_taken_over_and_the_old_run_writes_nothing_more(tmp_path, lease_of, clock):
    old, new = lease_of(ELSEWHERE), lease_of()
    old.take()
    clock.modified(str(tmp_path / ".lock"))
    clock.now += LEASE_SECONDS
    new.check_free()
    new.take()
    taken = lease_in(tmp_path)
    assert taken["process"] == os.getpid()
    for action in (old.check, old.renew):
        with pytest.raises(ConfigError, match=rf"was taken over by process {os.getpid()} on .* writes nothing more"):
            action()
    old.release()
    assert lease_in(tmp_path) == taken
    new.check()
    new.release()
    with pytest.raises(ConfigError, match="taken over by another run, which has ended"):
        old.check()


def test_a_lease_that_is_renewed_does_not_expire(tmp_path, lease_of, clock):
    old = lease_of(ELSEWHERE)
    old.take()
    clock.modified(str(tmp_path / ".lock"))
    for _ in range(3):
        clock.now += LEASE_SECONDS - 10
        old.renew()
        clock.touch(str(tmp_path / ".lock"))
        with pytest.raises(ConfigError, match="in use"):
            lease_of().take()
    old.check()


HERE = this_process()
WITHOUT_PROC = dataclasses.replace(HERE, machine="")
REPLACED = {
    "the same job again": (dataclasses.replace(ELSEWHERE, job="job-7"), this_process("job-7"), True),
    "another job": (dataclasses.replace(ELSEWHERE, job="job-6"), this_process("job-7"), False),
    "no jobs": (ELSEWHERE, HERE, False),
    "a living process of this machine": (HERE, this_process(), False),
    "its number is used again": (dataclasses.replace(HERE, started="7"), this_process(), True),
    "a process that has ended": (dataclasses.replace(HERE, process=4_194_305), this_process(), True),
    "the same number elsewhere": (
        dataclasses.replace(HERE, machine="another boot", started="7"),
        this_process(),
        False,
    ),
    "unknown machines": (
        dataclasses.replace(HERE, machine="", started="7"),
        dataclasses.replace(HERE, machine=""),
        False,
    ),
}


@pytest.mark.parametrize("case", REPLACED)
def test_only_a_run_that_has_certainly_ended_is_replaced_at_once(lease_of, case):
    holder, other, is_replaced = REPLACED[case]
    lease_of(holder).take()
    other = lease_of(dataclasses.replace(other, token="t" * 32))
    if is_replaced:
        other.check_free()
        other.take()
        other.check()
    else:
        with pytest.raises(ConfigError, match="in use by another run"):
            other.take()


def test_of_two_runs_that_start_at_once_one_goes_on(tmp_path, lease_of):
    """Both find no lease and write theirs. The one that was written last counts."""
    last = lease_of(ELSEWHERE)
    content = json.dumps(dataclasses.asdict(ELSEWHERE))
    first = lease_of(sleep=lambda seconds: (tmp_path / ".lock").write_text(content))
    with pytest.raises(ConfigError, match="in use by another run, process 41 on elsewhere"):
        first.take()
    last.check()


@pytest.mark.parametrize("content", ["", "{}", "[]", "no JSON", '{"host": 5}'])
def test_what_is_no_lease_counts_until_it_expires(tmp_path, lease_of, clock, content):
    (tmp_path / ".lock").write_text(content)
    with pytest.raises(ConfigError, match="in use by another run, process 0 on unknown"):
        lease_of().take()
    clock.now += LEASE_SECONDS
    lease_of().take()


def test_what_a_killed_run_left_of_asking_for_the_time_is_deleted(tmp_path, lease_of):
    token = "0123456789abcdef" * 2
    for name in (f".lock.{token}", f".lock.{token}.12.tmp"):
        (tmp_path / name).touch()
    kept = [".lock.notes", f".lock.{token}.txt", "notes"]
    for name in kept:
        (tmp_path / name).touch()
    lease_of().take()
    assert sorted(os.listdir(tmp_path)) == sorted([".lock", *kept])


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_lease_is_renewed_in_the_background_until_it_is_lost(tmp_path, lease_of, monkeypatch):
    monkeypatch.setattr(workdir_lock, "RENEW_SECONDS", 0.01)
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: warnings.append(message % values))
    written, fails = [], threading.Event()
    write_bytes = storage.write_bytes

    def write(path, content):
        if fails.is_set():
            fails.clear()
            raise StorageError("the service is away")
        written.append(path)
        write_bytes(path, content)

    monkeypatch.setattr(storage, "write_bytes", write)
    lease = lease_of()
    lease.take()
    with lease.renewing():
        wait_until(lambda: len(written) > 3)
        fails.set()
        wait_until(lambda: warnings)
        seen = len(written)
        wait_until(lambda: len(written) > seen + 1)
        # Another process does not write between the reading and the writing of a renewal, or that would not be noticed.
        with lease._mutex:
            write_bytes(str(tmp_path / ".lock"), json.dumps(dataclasses.asdict(ELSEWHERE)).encode())

        def is_lost():
            try:
                lease.check()
            except ConfigError:
                return True
            return False

        wait_until(is_lost)
    assert warnings == ["The lease was not renewed. the service is away"]
    assert lease_in(tmp_path)["host"] == "elsewhere"


@pytest.mark.slow
def test_the_lease_of_a_killed_process_is_taken_at_once(tmp_path):
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout.readline() == "taken\n"
            lease = Lease(str(tmp_path), this_process(), sleep=lambda seconds: None)
            with pytest.raises(ConfigError, match=rf"in use by another run, process {run.pid} on .* [0-5] s ago"):
                lease.take()
            run.kill()
            # Also before its parent has asked how it ended.
            wait_until(lambda: not lease_is_held(lease))
            run.wait()
            lease.take()
            assert lease_in(tmp_path)["process"] == os.getpid()
        finally:
            run.kill()


def lease_is_held(lease):
    try:
        lease.check_free()
    except ConfigError:
        return True
    return False
