"""Starts the trainer in processes that have TensorFlow imported already, by fork.

Importing TensorFlow takes six seconds, which a test of a hundred runs cannot pay a hundred times. This server imports it
once and takes no step itself, so it has no threads of TensorFlow. It forks one child for each run. A child is a process
like any other: it has its own session, output, environment and signals, and it can be killed.
"""

import contextlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent


@dataclass
class Child:
    """A process that the server has forked.

    Attributes:
      pid: its process id.
      output: the file with what it has printed.
    """

    pid: int
    output: pathlib.Path
    _server: "ForkServer"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends it a signal. One that has ended gets none."""
        if self.exit_code is None:
            os.kill(self.pid, number)

    @property
    def exit_code(self) -> int | None:
        """As in a shell, 128 + the signal that ended it; None while it runs."""
        return self._server.exit_code(self.pid)

    def wait(self, seconds: float = 240.0) -> int:
        """Waits until it has ended, and returns its exit code."""
        deadline = time.monotonic() + seconds
        while (code := self.exit_code) is None:
            assert time.monotonic() < deadline, f"still running after {seconds} s:\n{self.text}"
            time.sleep(0.01)
        return code

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace")


class ForkServer:
    """Forks processes that run a module of this project."""

    def __init__(self, process: subprocess.Popen[str], folder: pathlib.Path):
        self._process = process
        self._folder = folder
        self._number = 0

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Starts `python -m module arguments`, with more variables in its environment."""
        self._number += 1
        output = self._folder / f"output-{self._number}"
        pid = self._ask(
            {"module": module, "arguments": [*arguments], "environment": environment or {}, "output": str(output)}
        )
        return Child(int(pid), output, self)

    def exit_code(self, pid: int) -> int | None:
        """The exit code of a child; None while it runs."""
        code = self._ask({"exit_code_of": pid})
        return None if code is None else int(code)

    def _ask(self, request: Mapping[str, object]) -> int | None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the fork server has ended"
        return json.loads(answer)


@contextlib.contextmanager
def fork_server(folder: pathlib.Path) -> Iterator[ForkServer]:
    """Starts a server. Its children end with it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.fork_server"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield ForkServer(process, folder)
        finally:
            assert process.stdin
            process.stdin.close()


def _serve() -> None:
    import trainer.training.run  # noqa: F401  What a run needs, with TensorFlow.

    answers = os.dup(1)
    os.dup2(2, 1)
    children: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "exit_code_of" in request:
            pid = request["exit_code_of"]
            if children[pid] is None:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    code = os.waitstatus_to_exitcode(status)
                    children[pid] = code if code >= 0 else 128 - code
            answer = children[pid]
        else:
            answer = os.fork()
            if answer == 0:
                os.close(answers)
                _run(**request)
            children[answer] = None
        os.write(answers, (json.dumps(answer) + "\n").encode())
    for pid, code in children.items():
        if code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _run(module: str, arguments: list[str], environment: dict[str, str], output: str) -> None:
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, file), (2, file)):
        os.dup2(source, descriptor)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", buffering=1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    os.environ.update(environment)
    sys.argv = ["-m", *arguments]
    code: object = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    _serve()
