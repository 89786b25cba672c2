"""One run per workdir: a lock of the kernel on a local folder, and a lease on gs://.

A lease is an object, `.lock`, that names the run that holds it. The run writes it again every RENEW_SECONDS. Another
run may take it over when it is LEASE_SECONDS old by the clock of the storage, and at once if its holder is a dead
process of this machine, or an earlier start of the same job.

TensorFlow's file system cannot write an object on the condition that nobody else has written it. So a run that takes a
lease reads it again a moment later, and before each checkpoint. If another run has taken it, the run stops.
"""

import contextlib
import fcntl
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from absl import logging

from settings.errors import ConfigError, UserError
from trainer import storage

NAME = ".lock"
LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0
SETTLE_SECONDS = 1.5
"""How long after writing a lease it is read again."""


# What `Lease` writes to ask the storage for the time. A run that was killed meanwhile has left it.
_PROBE = re.compile(rf"{re.escape(NAME)}\.[0-9a-f]{{32}}(\.\d+\.tmp)?")


class Lock(Protocol):
    """What a run holds while it writes a workdir."""

    def check(self) -> None:
        """Raises ConfigError if another run has taken the workdir over."""


@contextlib.contextmanager
def locked(folder: str, *, job: str = "") -> Iterator[Lock]:
    """Holds the lock of a folder, which exists, while the body runs. A killed process frees it.

    Args:
      job: a name that all starts of the same job share, and no other job has; "" for none.

    Raises:
      ConfigError: another run holds it. The message names that run.
      StorageError: the lock cannot be made.
    """
    if "://" not in folder:
        with _open_lock(folder, os.O_RDWR | os.O_CREAT) as descriptor:
            _lock_file(folder, descriptor)
            yield _FileLock()
        return
    lease = Lease(folder, this_process(job))
    lease.take()
    with lease.renewing():
        yield lease


def check_free(folder: str, *, job: str = "") -> None:
    """Checks early that no other run holds the lock of a folder. Only `locked` guarantees it.

    Raises:
      ConfigError: another run holds it. The message names that run.
    """
    if "://" in folder:
        Lease(folder, this_process(job)).check_free()
    elif os.path.exists(storage.join(folder, NAME)):
        with _open_lock(folder, os.O_RDWR) as descriptor:
            _lock_file(folder, descriptor)


class _FileLock:
    """The kernel gives the lock to no other process before it is freed."""

    def check(self) -> None:
        pass


@contextlib.contextmanager
def _open_lock(folder: str, flags: int) -> Iterator[int]:
    path = storage.join(folder, NAME)
    with storage.writing(path):
        descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_file(folder: str, descriptor: int) -> None:
    """Locks an open file until it is closed, and writes the process id into it."""
    with storage.writing(storage.join(folder, NAME)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            raise ConfigError(
                f"--workdir={folder} is in use by another run, process {holder or 'unknown'}. "
                "Wait for it, stop it, or use another --workdir."
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())


@dataclass(frozen=True)
class Holder:
    """The run that holds a lease.

    Attributes:
      host: the name of its machine.
      machine: the boot of the machine, and the namespace of its process ids. Empty if unknown.
      process: its process id there.
      started: when the process started, in ticks since the boot. Process ids are used again; this tells them apart.
      job: see `locked`.
      token: another one for each lease that is taken.
    """

    host: str = "unknown"
    machine: str = ""
    process: int = 0
    started: str = ""
    job: str = ""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __str__(self) -> str:
        of_job = f" of job {self.job}" if self.job else ""
        return f"process {self.process} on {self.host}{of_job}"

    def may_be_replaced_by(self, other: "Holder") -> bool:
        """Whether this run has certainly ended, or is an earlier start of the same job."""
        if self.job and self.job == other.job:
            return True
        is_here = bool(self.machine) and self.machine == other.machine
        return is_here and self.started != _start_of(self.process)


def this_process(job: str = "") -> Holder:
    """Returns this process as a holder."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            machine = f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # Not on Linux.
        machine = ""
    return Holder(socket.gethostname(), machine, os.getpid(), _start_of(os.getpid()), job)


def _start_of(process: int) -> str:
    """When a process of this machine started; "" if there is none."""
    try:
        with open(f"/proc/{process}/stat") as file:
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]


class Lease:
    """The lease of one run on a remote folder."""

    def __init__(
        self,
        folder: str,
        holder: Holder,
        *,
        modified: Callable[[str], float] = storage.modified,
        sleep: Callable[[float], object] = time.sleep,
    ):
        """`modified` tells when a file was written, in seconds by the clock of the storage; `sleep` waits."""
        self._folder = folder
        self._path = storage.join(folder, NAME)
        self._holder = holder
        self._modified = modified
        self._sleep = sleep
        self._ends = threading.Event()
        # The thread that renews the lease, and the one that saves checkpoints.
        self._mutex = threading.Lock()

    def check_free(self) -> None:
        """Raises ConfigError if another run holds the lease."""
        with storage.writing(self._path):
            holder = self._read()
            if holder is None or holder.token == self._holder.token or holder.may_be_replaced_by(self._holder):
                return
            renewed = self._modified(self._path)
            age = max(0.0, self._now() - renewed)
        if age < LEASE_SECONDS:
            self._refuse(holder, renewed, age)

    def take(self) -> None:
        """Takes the lease.

        Raises:
          ConfigError: another run holds it, or takes it in the same moment.
        """
        self.check_free()
        self._write()
        self._sleep(SETTLE_SECONDS)
        with storage.writing(self._path):
            holder = self._read()
            if holder is not None and holder.token != self._holder.token:
                self._refuse(holder, self._modified(self._path), 0.0)
            for name in filter(_PROBE.fullmatch, storage.list_folder(self._folder)):
                storage.remove(storage.join(self._folder, name))

    def check(self) -> None:
        """Raises ConfigError if another run has taken the lease over. Then this run must not write any more."""
        with self._mutex:
            self._check()

    def renew(self) -> None:
        """Writes the lease again.

        Raises:
          ConfigError: another run has taken it over.
        """
        with self._mutex:
            self._check()
            self._write()

    def release(self) -> None:
        """Deletes the lease, if it is still this run's."""
        with self._mutex, contextlib.suppress(UserError):
            self._check()
            with storage.writing(self._path):
                storage.remove(self._path)

    @contextlib.contextmanager
    def renewing(self) -> Iterator[None]:
        """Renews the lease in the background while the body runs. Then releases it."""
        thread = threading.Thread(target=self._renew_until_the_end, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ends.set()
            thread.join()
            self.release()

    def _renew_until_the_end(self) -> None:
        while not self._ends.wait(RENEW_SECONDS):
            try:
                self.renew()
            except ConfigError:
                return  # `check` finds it too, before the next checkpoint.
            except UserError as error:
                logging.warning("The lease was not renewed. %s", error)

    def _check(self) -> None:
        with storage.writing(self._path):
            holder = self._read()
        if holder is None or holder.token != self._holder.token:
            raise ConfigError(
                f"--workdir={self._folder} was taken over by {holder or 'another run, which has ended'}, because this "
                f"run did not renew its lease for {LEASE_SECONDS:g} s. This run ends and writes nothing more. Start it "
                "again when the other one has ended, or use another --workdir."
            )

    def _read(self) -> Holder | None:
        try:
            fields: dict[str, Any] = json.loads(storage.read_bytes(self._path))
            return Holder(**{name: fields[name] for name in Holder.__dataclass_fields__})
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):
            # Not what a run writes. It counts until it is as old as a lease may be.
            return Holder(token="")

    def _write(self) -> None:
        storage.write_bytes(self._path, json.dumps(asdict(self._holder)).encode())

    def _now(self) -> float:
        """What the clock of the storage says: clocks of machines may differ."""
        probe = f"{self._path}.{self._holder.token}"
        try:
            storage.write_bytes(probe, b"time")
            return self._modified(probe)
        finally:
            storage.remove(probe)

    def _refuse(self, holder: Holder, renewed: float, age: float) -> None:
        when = datetime.fromtimestamp(renewed, timezone.utc)
        raise ConfigError(
            f"--workdir={self._folder} is in use by another run, {holder}, which renewed its lease {age:.0f} s ago, at "
            f"{when:%Y-%m-%d %H:%M:%S} UTC. Wait for it, stop it, or use another "
            f"--workdir. If it was killed, its lease ends in {LEASE_SECONDS - age:.0f} s."
        )
