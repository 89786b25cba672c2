"""How far long work is: a bar with the time left on a terminal, and otherwise a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

Advance = Callable[[int], None]
"""Tells that more of the work is done."""

Progress = Callable[[str, int], Advance]
"""Begins a piece of work. Takes what is counted, such as "users", and how many there are."""

SECONDS_BETWEEN_LINES = 30.0


def silent(what: str, total: int) -> Advance:
    """A `Progress` that shows nothing."""
    return lambda number: None


def build_bars(console: Console) -> progress.Progress:
    """The bars of a terminal. Each task has a text `rate`. Without a terminal they show nothing."""
    return progress.Progress(
        progress.TextColumn("{task.description} {task.completed:,.0f} of {task.total:,.0f}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def showing_progress(console: Console, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """Gives a `Progress` that shows work on a console while the body runs."""
    with build_bars(console) as bars:
        yield on_console(console, bars, clock=clock)


def on_console(console: Console, bars: progress.Progress, *, clock: Callable[[], float] = time.monotonic) -> Progress:
    """A `Progress` that adds a bar to bars that are shown. Without a terminal it prints lines.

    Work that takes less than SECONDS_BETWEEN_LINES has no line.

    Args:
      console: The console of the bars.
      bars: The result of `build_bars`.
      clock: Returns seconds.
    """

    def begin(what: str, total: int) -> Advance:
        task = bars.add_task(what, total=total, rate="")
        started = last_line = clock()
        num_done = 0

        def advance(number: int) -> None:
            nonlocal num_done, last_line
            num_done += number
            bars.update(task, completed=num_done)
            if num_done >= total:
                bars.remove_task(task)
            elif not console.is_terminal and (now := clock()) - last_line >= SECONDS_BETWEEN_LINES:
                last_line = now
                left = (now - started) / num_done * (total - num_done)
                console.print(f"{what} {num_done:,} of {total:,}, about {_duration(left)} left", soft_wrap=True)

        return advance

    return begin


def _duration(seconds: float) -> str:
    """`50 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
