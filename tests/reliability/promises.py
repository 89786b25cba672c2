"""Counts the cases of each promise, and prints one line for each at the end of the tests.

`@pytest.mark.promise(1, "resume", "runs equal")` marks a test as a case of the first promise. If all sixty cases pass,
the line is `promise 1, resume: 60 of 60 runs equal`.
"""

import collections

import pytest

_PROPERTY = "promise"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("promise"):
            number, subject, outcome = marker.args
            item.user_properties.append((_PROPERTY, (number, subject, outcome)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: dict[tuple[int, str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            # The call of a test counts, and a set-up that failed or skipped it.
            if report.when == "call" or outcome != "passed":
                # A file that could not be imported has none.
                for name, promise in getattr(report, "user_properties", []):
                    if name == _PROPERTY:
                        counts[tuple(promise)][outcome] += 1
    if counts:
        terminalreporter.section("promises")
    for (number, subject, outcome), of_promise in sorted(counts.items()):
        total = of_promise.total() - of_promise["skipped"]
        skipped = f" ({of_promise['skipped']} skipped)" if of_promise["skipped"] else ""
        line = f"promise {number}, {subject}: {of_promise['passed']} of {total} {outcome}{skipped}"
        terminalreporter.write_line(line, red=of_promise["passed"] < total)
