"""What is shown of long work, with a clock that the test moves."""

import io

import pytest
from rich.console import Console

from settings.progress import build_bars, on_console, showing_progress, silent


def shown(work, *, terminal):
    """What `work(progress, clock)` prints, where `clock` is a list with the time in seconds."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100, highlight=False)
    clock = [0.0]
    with showing_progress(console, clock=lambda: clock[0]) as progress:
        work(progress, clock)
    return output.getvalue()


def take(seconds_per_step):
    def work(progress, clock):
        advance = progress("users", 1000)
        for _ in range(10):
            clock[0] += seconds_per_step
            advance(100)

    return work


@pytest.mark.parametrize(
    ("seconds_per_step", "lines"),
    [
        (2, []),
        (10, ["300 of 1,000, about 70 s", "600 of 1,000, about 40 s", "900 of 1,000, about 10 s"]),
        (300, [f"{100 * n} of 1,000, about {5 * (10 - n)} min" for n in range(1, 10)]),
        (3600, [f"{100 * n} of 1,000, about {10 - n}.0 h" for n in range(1, 9)] + ["900 of 1,000, about 60 min"]),
    ],
)
def test_without_a_terminal_long_work_prints_a_line_now_and_then(seconds_per_step, lines):
    printed = shown(take(seconds_per_step), terminal=False).splitlines()
    assert printed == [f"users {line} left" for line in lines]


def test_on_a_terminal_there_is_a_bar_and_no_line():
    def work(progress, clock):
        advance = progress("users", 1000)
        clock[0] += 100
        advance(250)

    output = shown(work, terminal=True)
    assert "users 250 of 1,000" in output
    assert "left" not in output
    # The cursor is shown again.
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_work_that_is_done_has_no_bar():
    console = Console(file=io.StringIO(), force_terminal=True)
    bars = build_bars(console)
    progress = on_console(console, bars)
    first, second = progress("users", 2), progress("lists", 3)
    first(1)
    second(3)
    assert [(task.description, task.completed) for task in bars.tasks] == [("users", 1)]
    first(1)
    assert not bars.tasks


def test_silent_progress_takes_any_work():
    assert silent("users", 3)(2) is None
