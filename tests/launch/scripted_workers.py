"""Workers that are small scripts without TensorFlow."""

import os
import pathlib
import signal
import sys
import time

# Each worker reads its index, and can write its process id to a file.
PREAMBLE = """
import json, os, pathlib, signal, socket, subprocess, sys, time
task = json.loads(os.environ["TF_CONFIG"])
index = task["task"]["index"]
def say_started(): (pathlib.Path(sys.argv[1]) / f"{index}.pid.tmp").write_text(str(os.getpid())); os.rename(
    f"{sys.argv[1]}/{index}.pid.tmp", f"{sys.argv[1]}/{index}.pid")
"""
SLEEPS = "say_started(); time.sleep(60)"
IGNORES_SIGTERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPS


def command(body: str, folder: pathlib.Path) -> list[str]:
    return [sys.executable, "-S", "-c", PREAMBLE + body, str(folder)]


def numbers(folder: pathlib.Path, count: int) -> list[int]:
    """Waits until that many workers have started, and returns their process ids."""
    deadline = time.monotonic() + 30
    while len(paths := sorted(folder.glob("*.pid"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.read_text()) for path in paths]


def is_running(number: int) -> bool:
    """Whether a process runs. A zombie does not."""
    try:
        return pathlib.Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def all_end(processes: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [number for number in processes if is_running(number)]
    for number in left:
        os.kill(number, signal.SIGKILL)
    return not left
