"""Jobs of two real workers on the planted ratings, to which something happens while they train."""

import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.conftest import REPOSITORY

# Steps of a few milliseconds, for some seconds: long enough to be interrupted. A checkpoint every 50 steps.
FIELDS: Mapping[str, Any] = {
    "list_size": 12,
    "model.embedding_size": 8,
    "train.global_batch_size": 8,
    "train.num_epochs": 40,
    "train.steps_per_execution": 5,
    "train.log_every_steps": 10,
    "train.eval_every_steps": 50,
    "train.checkpoint_every_steps": 50,
    "optimizer.schedule": "constant",
    "eval.metrics": ("ndcg@5",),
    "eval.best_metric": "ndcg@5",
    "eval.num_validation_users": 0,
    "eval.num_sample_users": 0,
}

_DEADLINE_SECONDS = 120.0


@dataclass(frozen=True)
class End:
    """How a job ended.

    Attributes:
      exit_code: The exit code of the launcher.
      seconds: The time from the last signal, or else from the start, to the end of the launcher.
      output: What the launcher and the workers printed.
    """

    exit_code: int
    seconds: float
    output: str


class Job:
    """A running job."""

    def __init__(self, process: subprocess.Popen[bytes], workdir: pathlib.Path, log: pathlib.Path):
        self.process = process
        self._workdir = workdir
        self._log = log
        self._since = time.monotonic()

    @property
    def output(self) -> str:
        """What was printed so far."""
        return self._log.read_text(errors="replace")

    def wait_for_step(self, step: int) -> None:
        """Waits until metrics.jsonl has a line of this step or a later one."""
        self.wait_for(lambda: last_step(self._workdir) >= step, f"step {step}")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Waits for a condition, and fails if the job ends before, or if it takes minutes."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not condition():
            assert self.process.poll() is None, f"the job ended before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {what} in {_DEADLINE_SECONDS:.0f} s:\n{self.output}"
            time.sleep(0.01)

    def wait_for_output(self, text: str) -> float:
        """Waits until a text was printed, and returns the seconds since the last signal."""
        self.wait_for(lambda: text in self.output, repr(text))
        return time.monotonic() - self._since

    def worker(self, index: int) -> int:
        """The process id of a worker."""
        return self.workers()[index]

    def workers(self) -> list[int]:
        """The process ids of the workers that are running, in the order of their index."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        indices = {}
        for child in map(int, children):
            index = _index_of(child)
            if index is not None:
                indices[index] = child
        return [indices[index] for index in sorted(indices)]

    def send(self, index: int, number: signal.Signals) -> None:
        """Sends a signal to one worker."""
        os.kill(self.worker(index), number)
        self._since = time.monotonic()

    def wait(self, timeout: float = _DEADLINE_SECONDS) -> End:
        """Waits until the launcher has ended."""
        self.process.wait(timeout)
        return End(self.process.returncode, time.monotonic() - self._since, self.output)


@functools.cache
def network_flags() -> tuple[str, ...]:
    """The flags of launch.local that a job without remote paths needs here: none, if this machine has namespaces."""
    program = "from launch import network; network.leave()"
    tried = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=False)
    return ("--share_network",) if tried.returncode else ()


@contextlib.contextmanager
def job(
    workdir: pathlib.Path | str,
    ratings: str,
    *launcher_flags: str,
    num_workers: int = 2,
    fields: Mapping[str, Any] | None = None,
) -> Iterator[Job]:
    """Starts a job, and ends it after the body.

    Args:
      workdir: The workdir of the run.
      ratings: The file with the ratings.
      launcher_flags: Flags of launch.local.
      num_workers: The number of workers.
      fields: Fields of the trainer's config, in addition to FIELDS.
    """
    settings = {"data.source": ratings, **FIELDS, **(fields or {})}
    command = [
        *(
            sys.executable,
            "-m",
            "launch.local",
            f"--num_workers={num_workers}",
            *network_flags(),
            *launcher_flags,
            "--",
        ),
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in settings.items()),
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "output")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield Job(process, pathlib.Path(workdir), log)
        finally:
            # The workers end with the launcher.
            process.kill()
            process.wait()


def last_step(workdir: pathlib.Path | str) -> int:
    """The step of the last line of metrics.jsonl; 0 without one."""
    path = pathlib.Path(workdir, "metrics.jsonl")
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return json.loads(whole[-1])["step"] if whole else 0


def listening_ports(process: int | str = "self") -> set[int]:
    """The ports on which something listens in the network of a process."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in pathlib.Path(f"/proc/{process}/net/{name}").read_text().splitlines()[1:]
    ]
    is_listening = "0A"
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == is_listening}


def _index_of(process: int) -> int | None:
    """The index of the worker that a process is; None for another process."""
    try:
        environment = pathlib.Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    configs = [variable.partition(b"=")[2] for variable in environment if variable.startswith(b"TF_CONFIG=")]
    return json.loads(configs[0])["task"]["index"] if configs else None
