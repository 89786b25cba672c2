"""Small runs under each strategy: how they are started, killed, and compared."""

import hashlib
import json
import pathlib
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from settings.cluster import Cluster, format_tf_config
from tests.reliability.fork_server import Child, ForkServer
from trainer.compat import tf

CHECKPOINT_EVERY_STEPS = 20
NUM_EPOCHS, EPOCH_STEPS = 40, 10
TOTAL_STEPS = NUM_EPOCHS * EPOCH_STEPS

FIELDS = {
    "list_size": 12,
    "model.embedding_size": 8,
    "train.global_batch_size": 8,
    "train.num_epochs": NUM_EPOCHS,
    "train.steps_per_execution": 4,
    "train.log_every_steps": 50,
    "train.eval_every_steps": 100,
    "train.checkpoint_every_steps": CHECKPOINT_EVERY_STEPS,
    "eval.metrics": ("ndcg@5",),
    "eval.best_metric": "ndcg@5",
    "eval.num_validation_users": 0,
    "eval.num_sample_users": 0,
}

STRATEGIES: dict[str, tuple[list[str], int]] = {
    "default": (["--strategy=default"], 1),
    "mirrored": (["--strategy=mirrored", "--num_cpu_devices=2"], 1),
    "two workers": (["--strategy=multi_worker_mirrored"], 2),
}
"""The flags of the trainer and the number of processes."""


@dataclass
class Job:
    """The processes of a run that trains."""

    workers: list[Child] = field(default_factory=list)

    def kill(self) -> None:
        """Kills all of its processes at once."""
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.wait()

    def wait(self) -> list[int]:
        """Waits for the end of all processes. Returns their exit codes."""
        return [worker.wait() for worker in self.workers]

    @property
    def text(self) -> str:
        return "\n".join(worker.text for worker in self.workers)


class Runs:
    """Starts runs on the same ratings."""

    def __init__(self, forks: ForkServer, ratings_csv: str):
        self._forks = forks
        self._ratings_csv = ratings_csv

    def start(
        self,
        workdir: pathlib.Path,
        strategy: str,
        *,
        fields: dict[str, object] | None = None,
        num_workers: int | None = None,
        module: str = "tests.reliability.training_only",
        log: str = "lists",
    ) -> Job:
        """Starts a run. Its log of lists is WORKDIR.LOG-N, for worker N."""
        flags, num_processes = STRATEGIES[strategy]
        num_processes = num_workers or num_processes
        every_field = {"data.source": self._ratings_csv, **FIELDS, **(fields or {})}
        arguments = [
            *flags,
            f"--workdir={workdir}",
            *(f"--config.{name}={value}" for name, value in every_field.items()),
        ]
        job = Job()
        for number, tf_config in enumerate(_tf_configs(num_processes)):
            environment = {"LISTS_LOG": f"{workdir}.{log}-{number}", **tf_config}
            job.workers.append(self._forks.start(module, arguments, environment))
        return job

    def finish(self, workdir: pathlib.Path, strategy: str, **options: object) -> Job:
        """Starts a run, or resumes it, and waits until all its processes have ended well."""
        job = self.start(workdir, strategy, **options)  # type: ignore[arg-type]
        codes = job.wait()
        assert not any(codes), f"exit codes {codes}:\n{job.text}"
        return job


def _tf_configs(num_workers: int) -> Iterator[dict[str, str]]:
    if num_workers == 1:
        yield {}
        return
    sockets = [socket.create_server(("", 0)) for _ in range(num_workers)]
    cluster = Cluster({"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]})
    for each in sockets:
        each.close()
    for task in cluster.tasks:
        yield {"TF_CONFIG": format_tf_config(cluster, task)}


def steps_saved(workdir: pathlib.Path) -> list[int]:
    """The steps of the complete checkpoints."""
    return sorted(int(path.stem[5:]) for path in workdir.glob("checkpoints/step-*.json"))


def steps_begun(workdir: pathlib.Path, *, log: str = "lists") -> int:
    """The step after the last one that worker 0 has begun to take in any start with that log."""
    return max((step + 1 for step, _ in logged_steps(workdir, log=log)), default=0)


def logged_steps(workdir: pathlib.Path, worker: int = 0, *, log: str = "lists") -> list[tuple[int, list]]:
    """The steps that a worker has logged in all starts with that log, each with its lists."""
    path = pathlib.Path(f"{workdir}.{log}-{worker}")
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # The last line may still be on its way.
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(record["step"], record["lists"]) for record in records]


def num_replayed(workdir: pathlib.Path) -> int:
    """How many steps worker 0 has taken again."""
    logged_by_worker = [step for step, _ in logged_steps(workdir)]
    return len(logged_by_worker) - len(set(logged_by_worker))


def lists_by_step(workdir: pathlib.Path, num_workers: int = 1, *, log: str = "lists") -> dict[int, list[list]]:
    """The lists of each step in the order of the global batch. Asserts that a step has the same ones in each start."""
    by_step: dict[int, list[list]] = {}
    for worker in range(num_workers):
        of_worker: dict[int, list[list]] = {}
        for step, lists in logged_steps(workdir, worker, log=log):
            assert of_worker.setdefault(step, lists) == lists, f"step {step} was taken again with other lists"
        for step, lists in of_worker.items():
            by_step[step] = sorted(by_step.get(step, []) + lists)
    return by_step


def wait_until(condition: Callable[[], bool], job: Job, seconds: float = 240.0) -> None:
    """Returns when the condition holds, or when the first process of the job has ended."""
    deadline = time.monotonic() + seconds
    while not condition() and job.workers[0].exit_code is None:
        assert time.monotonic() < deadline, job.text
        time.sleep(0.002)


def wait_for_a_random_moment(workdir: pathlib.Path, job: Job, seed: int) -> None:
    """Returns at a random moment of a run: some time before the first step, or after a random one."""
    rng = random.Random(seed)
    step = rng.randrange(-TOTAL_STEPS // 4, TOTAL_STEPS)
    if step >= 0:
        wait_until(lambda: steps_begun(workdir) > step, job)
    delay = time.monotonic() + rng.uniform(0.0, 0.05 if step >= 0 else 2.0)
    wait_until(lambda: time.monotonic() > delay, job)


def digest_of_tensors(workdir: pathlib.Path) -> tuple[int, str]:
    """The step of the last checkpoint, and the SHA-256 of all its tensors: weights, optimizer slots and iterations."""
    step = steps_saved(workdir)[-1]
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"step-{step:08d}"))
    sha = hashlib.sha256()
    names = sorted(name for name in reader.get_variable_to_shape_map() if not name.startswith("_"))
    assert len(names) > 5
    for name in names:
        sha.update(name.encode() + np.ascontiguousarray(reader.get_tensor(name)).tobytes())
    return step, sha.hexdigest()


def logged(workdir: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl without what a clock has measured."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["metrics"].pop("lists_per_second", None)
    return lines
