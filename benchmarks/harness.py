"""What all benchmarks share: a process for each side, its time and peak memory, one table and one JSON line.

A side is a function that takes and returns plain values. It runs in a process of its own, so that the memory, threads
and flags of one side have no effect on another.
"""

import importlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

INSTALL = "`make bench`, or .venv/bin/pip install --constraint constraints.txt --editable '.[peers]'"
"""What installs the packages that we are compared with."""


@dataclass(frozen=True)
class Outcome:
    """What a side returned, and its process.

    Attributes:
      value: the value of the function.
      peak_bytes: the largest resident memory of the process.
      seconds: the time of the function with its imports, without the start of Python.
    """

    value: Any
    peak_bytes: int
    seconds: float


class SideFailed(Exception):
    """A side raised an error, or its process ended without a result."""


def run_side(side: str, *, environment: Mapping[str, str] | None = None, **arguments: Any) -> Outcome:
    """Runs a function in a process of its own.

    Args:
      side: "package.module:function".
      environment: variables that are set before the module is imported.
      arguments: of the function. They and its value have to be picklable.

    Raises:
      SideFailed: with the traceback of the side.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(side, dict(environment or {}), arguments, sender))
    process.start()
    sender.close()
    try:
        outcome, error = receiver.recv()
    except EOFError:
        outcome, error = None, "its process ended without a result"
    process.join()
    if error:
        raise SideFailed(f"{side} failed: {error}")
    return outcome


def _run(side: str, environment: Mapping[str, str], arguments: Mapping[str, Any], sender: Connection) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.update(environment)
    # A side may print, as Keras and compilers do. The output of a benchmark is its table and its line.
    os.dup2(2, 1)
    module, function = side.split(":")
    try:
        started = time.perf_counter()
        value = getattr(importlib.import_module(module), function)(**arguments)
        sender.send((Outcome(value, peak_bytes(), time.perf_counter() - started), ""))
    except BaseException:
        sender.send((None, traceback.format_exc()))
    sender.close()
    # Python waits at its end for the threads of a tf.data iterator, which wait for Python.
    os._exit(0)


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def time_repeatedly(run: Callable[[], Any], *, seconds: float = 1.0, at_least: int = 3) -> float:
    """The seconds of the fastest call of `run`, which is called for `seconds` and at least `at_least` times.

    The fastest, because other processes can only slow a call down.
    """
    times: list[float] = []
    while sum(times) < seconds or len(times) < at_least:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def is_installed(*packages: str) -> bool:
    """Whether all packages can be imported. They are not imported."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


def device_name(proc: pathlib.Path = pathlib.Path("/proc")) -> str:
    """The processor of this machine with its number of cores, and its NVIDIA GPUs, as Linux names them in `proc`."""
    cpus = _values(proc / "cpuinfo", "model name") or [platform.processor() or platform.machine()]
    gpus = [_values(path, "Model")[0] for path in sorted((proc / "driver/nvidia/gpus").glob("*/information"))]
    return " and ".join([f"{cpus[0]}, {os.cpu_count()} cores", *gpus])


def _values(path: pathlib.Path, name: str) -> list[str]:
    """The values of this name in a file with lines `name: value`."""
    pairs = [line.partition(":") for line in path.read_text().splitlines()] if path.exists() else []
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def report(
    name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, notes: Sequence[str] = (), **values: Any
) -> None:
    """Prints a table, its notes, and one JSON line with the same values unrounded.

    Args:
      name: of the benchmark.
      columns: The first one is aligned to the left, the others to the right.
      rows: one cell for each column.
      notes: what a reader has to know of this run, such as the sides that are left out.
      values: of the JSON line.
    """
    device = device_name()
    table = Table(title=f"{name} on {device}", title_justify="left", box=None)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 160  # A file has no width, and a table should not be cut to one.
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    print(json.dumps({"benchmark": name, "device": device, **values}))
    sys.stdout.flush()


def why_not_installed(*packages: str) -> str:
    """Why a side is left out that needs these packages, and how they are installed. Empty if they are."""
    if is_installed(*packages):
        return ""
    return f"{' or '.join(packages)} is not installed. This installs it: {INSTALL}"
