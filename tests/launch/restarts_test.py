"""Which failures `launch.local --max_restarts` mends, and how often."""

import os
import signal

import pytest

from launch import local
from tests.launch.scripted_workers import IGNORES_SIGTERM, command, is_running, numbers

# Each start of a worker adds a letter to its file. `start` is the number of the start, from 1.
COUNTS = """
path = pathlib.Path(sys.argv[1]) / f"{index}.starts"
start = len(path.read_text()) + 1 if path.exists() else 1
path.write_text("x" * start)
"""
# Worker 1 fails in the first start, while worker 0 waits for it.
FAILS_ONCE = """
if start == 1:
    if index == 0:
        say_started(); time.sleep(60)
    while not pathlib.Path(sys.argv[1], "0.pid").exists(): time.sleep(0.01)
    {ending}
"""


def num_starts(folder) -> list[int]:
    return [len((folder / f"{index}.starts").read_text()) for index in range(2)]


def kill(name: str) -> str:
    return f"os.kill(os.getpid(), signal.{name})"


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (kill("SIGKILL"), "was killed (SIGKILL)"),
        (kill("SIGSEGV"), "was killed (SIGSEGV)"),
        (kill("SIGBUS"), "was killed (SIGBUS)"),
        ("os.abort()", "was killed (SIGABRT)"),
        ("sys.exit(75)", "failed (75)"),
    ],
)
def test_all_workers_are_started_again_after_what_may_be_gone(tmp_path, capfd, ending, reason):
    body = COUNTS + FAILS_ONCE.format(ending=ending)
    assert local.train(command(body, tmp_path), 2, max_restarts=3) == 0
    assert num_starts(tmp_path) == [2, 2]
    assert f"launch | worker 1 {reason}. Restart 1 of 3.\n" in capfd.readouterr().out
    assert not any(map(is_running, numbers(tmp_path, 1)))


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        *((f"sys.exit({code})", code) for code in (1, 2, 65, 69, 70, 74, 77, 78, 130, 143)),
        (kill("SIGTERM"), 143),
        (kill("SIGINT"), 130),
        (kill("SIGILL"), 132),
    ],
)
def test_nothing_is_started_again_after_what_needs_a_person(tmp_path, capfd, ending, code):
    body = COUNTS + FAILS_ONCE.format(ending=ending)
    assert local.train(command(body, tmp_path), 2, max_restarts=3) == code
    assert num_starts(tmp_path) == [1, 1]
    assert "A restart would not help.\n" in capfd.readouterr().out


def test_a_spent_budget_is_a_failure(tmp_path, capfd):
    body = COUNTS + f"sys.exit(75) if index else time.sleep(60)\n{kill('SIGKILL')}"
    assert local.train(command(body, tmp_path), 2, max_restarts=2) == 75
    assert num_starts(tmp_path) == [3, 3]
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("launch |")]
    assert lines == [
        "launch | worker 1 failed (75). Restart 1 of 2.",
        "launch | worker 1 failed (75). Restart 2 of 2.",
        "launch | worker 1 failed (75). No restart of 2 is left.",
    ]


def test_without_a_budget_nothing_is_started_again(tmp_path, capfd):
    assert local.train(command(COUNTS + "sys.exit(75)", tmp_path), 2) == 75
    assert num_starts(tmp_path) == [1, 1]
    assert "launch | " not in capfd.readouterr().out


@pytest.mark.parametrize(("code", "starts"), [(74, 1), (75, 2)])
def test_the_worker_that_was_lost_explains_the_one_that_lost_it(tmp_path, capfd, code, starts):
    """Worker 0 ends first. What happened is known from worker 1, which ends after it."""
    body = (
        COUNTS
        + f"""
def end(*_): sys.exit({code} if index else 75)
signal.signal(signal.SIGTERM, end)
if index:
    say_started(); time.sleep(60)
while not pathlib.Path(sys.argv[1], "1.pid").exists(): time.sleep(0.01)
end()
"""
    )
    assert local.train(command(body, tmp_path), 2, max_restarts=1) == code
    assert num_starts(tmp_path) == [starts, starts]
    assert f"worker {int(code == 74)} failed ({code})" in capfd.readouterr().out.splitlines()[-1]


def test_a_worker_that_the_launcher_ended_explains_nothing(tmp_path, capfd):
    body = (
        COUNTS
        + f"""
if index == 0 and start == 2: sys.exit(0)
if index == 0:
    while not pathlib.Path(sys.argv[1], "1.pid").exists(): time.sleep(0.01)
    sys.exit(75)
if start == 1:
    {IGNORES_SIGTERM}
"""
    )
    assert local.train(command(body, tmp_path), 2, max_restarts=1, grace_seconds=0.3) == 0
    assert num_starts(tmp_path) == [2, 2]
    assert "launch | worker 0 failed (75). Restart 1 of 1.\n" in capfd.readouterr().out


def test_whoever_ends_the_launcher_gets_no_restart(launch, tmp_path):
    launcher = launch(COUNTS + "say_started(); time.sleep(60)", arguments="max_restarts=9")
    numbers(tmp_path, 2)
    launcher.terminate()
    assert launcher.wait(timeout=10) == 143
    assert num_starts(tmp_path) == [1, 1]


def test_also_not_while_the_other_workers_are_being_ended(launch, tmp_path):
    launcher = launch(COUNTS + f"sys.exit(75) if index else None\n{IGNORES_SIGTERM}", arguments="max_restarts=9")
    (worker,) = numbers(tmp_path, 1)
    assert "worker 1 failed (75)" in launcher.stdout.readline()
    launcher.send_signal(signal.SIGTERM)
    os.kill(worker, signal.SIGKILL)
    assert launcher.wait(timeout=10) == 75
    assert num_starts(tmp_path) == [1, 1]
