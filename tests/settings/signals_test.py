"""How a signal ends a command, from its first import on."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from settings.errors import Stopped
from settings.signals import HANDLED, Listener, _is_command
from tests.conftest import REPOSITORY

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
SENTENCE = "Stopped by {}. No file is half-written, and the same command can be run again.\n"


def handlers():
    return [signal.getsignal(number) for number in HANDLED]


def stop_myself(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    raise AssertionError("the signal raised nothing")


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_raises_and_finally_blocks_run(number):
    before, seen = handlers(), []
    with pytest.raises(Stopped, match=f"Stopped by {number.name}") as stopped, Listener():
        try:
            stop_myself(number)
        except Exception:
            seen.append("caught by what handles errors")
        finally:
            seen.append("cleaned")
    assert stopped.value.exit_code == EXIT_CODES[number]
    assert seen == ["cleaned"] and handlers() == before


def test_a_listener_that_holds_raises_at_its_end():
    with pytest.raises(Stopped), Listener(holds=True) as listener:
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.arrived == signal.SIGTERM


def test_while_one_holds_the_outer_one_raises_nothing():
    reached = []
    with pytest.raises(Stopped, match=r"^inner SIGTERM$"), Listener("outer {}"):
        with Listener("inner {}", holds=True):
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append(True)
        pytest.fail("it did not raise at the end of the inner one")
    assert reached


def test_without_a_signal_each_listener_gives_back_what_it_found():
    before = handlers()
    with Listener() as outer:
        with Listener(holds=True):
            pass
        assert handlers() == [outer._handle, outer._handle]
    assert handlers() == before


@pytest.mark.parametrize("nested", [False, True])
def test_after_a_signal_the_next_one_is_not_handled_here(nested):
    """Neither in what follows the inner listener: the body is on its way out."""
    before = handlers()
    with pytest.raises(Stopped), Listener():
        try:
            if nested:
                with Listener(holds=True):
                    os.kill(os.getpid(), signal.SIGTERM)
            else:
                stop_myself()
        finally:
            assert handlers() == before


@pytest.mark.parametrize("error", [ValueError("a library made this of it"), SystemExit(0)])
def test_what_a_library_makes_of_it_is_a_stop_again(error):
    with pytest.raises(Stopped), Listener():
        try:
            stop_myself()
        except BaseException:
            raise error  # noqa: B904


def test_a_stop_that_a_library_drops_is_raised_at_the_end():
    with pytest.raises(Stopped), Listener(), contextlib.suppress(BaseException):
        stop_myself()


def test_an_error_after_a_signal_that_is_only_remembered_stays():
    with pytest.raises(ValueError), Listener(), Listener(holds=True):
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Listener():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_the_handlers_alone():
    before, found = handlers(), []

    def listen():
        with Listener():
            found.extend(handlers())

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == before


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["-m", "--a=1"], ["python", "-X", "dev", "-m", "trainer.main", "--a=1"], True),
        (["-m"], ["python", "-mtrainer.tune"], True),
        (["-m"], ["python", "-m", "trainers.main"], False),
        (["-m", "trainer.main"], ["python", "-m", "mine.app", "trainer.main"], False),
        (["/bin/listwise", "train"], ["python", "/bin/listwise", "train"], True),
        (["mine.py", "trainer.main"], ["python", "mine.py", "trainer.main"], False),
        ([""], ["python"], False),
    ],
)
def test_only_a_command_listens_from_its_first_import(monkeypatch, argv, orig_argv, expected):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert _is_command("trainer", "listwise") is expected


def test_importing_the_package_from_python_changes_nothing():
    code = (
        "import signal, sys; before = [signal.getsignal(15), signal.getsignal(2), sys.excepthook];"
        "import trainer, launch; assert before == [signal.getsignal(15), signal.getsignal(2), sys.excepthook]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


# Imported by each interpreter of the test before anything else.
HOOKS = """
import os, signal, sys, threading

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            {action}

sys.meta_path.insert(0, Finder())
"""
SEND = "os.kill(os.getpid(), signal.{})"
IN_DEL = "type('Late', (), dict(__del__=lambda self: os.kill(os.getpid(), signal.{})))()"


def command(tmp_path: pathlib.Path, module: str, action: str, *arguments: str) -> subprocess.CompletedProcess:
    (tmp_path / "sitecustomize.py").write_text(HOOKS.format(module=module, action=action))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("number", HANDLED)
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("rich", ("-m", "trainer.main")),
        ("absl", ("-m", "trainer.recommend")),
        ("optuna", ("-m", "trainer.tune")),
        ("ml_collections", ("-m", "launch.local")),
        ("yaml", ("-m", "launch.vertex")),
    ],
)
def test_during_the_imports_a_signal_is_one_sentence(tmp_path, number, module, arguments):
    found = command(tmp_path, module, SEND.format(number.name), *arguments)
    assert (found.returncode, found.stdout, found.stderr) == (EXIT_CODES[number], "", SENTENCE.format(number.name))


def test_the_command_listwise_listens_too(tmp_path):
    script = tmp_path / "listwise"
    script.write_text("import sys\nfrom trainer.command import main\nsys.exit(main())\n")
    found = command(tmp_path, "rich", SEND.format("SIGINT"), str(script), "train")
    assert (found.returncode, found.stderr) == (130, SENTENCE.format("SIGINT"))


def test_where_nothing_can_be_raised_the_command_ends_at_once(tmp_path):
    found = command(tmp_path, "rich", IN_DEL.format("SIGTERM"), "-m", "trainer.main")
    assert (found.returncode, found.stderr) == (143, SENTENCE.format("SIGTERM"))


def test_while_tensorflow_is_imported_nothing_of_it_is_printed(tmp_path):
    found = command(tmp_path, "tensorflow.python.ops", SEND.format("SIGTERM"), "-m", "trainer.doctor")
    assert (found.returncode, found.stderr) == (143, SENTENCE.format("SIGTERM"))


def test_a_second_signal_ends_the_command_at_once(tmp_path):
    """The first one is held up by a `finally` that takes long."""
    action = (
        "exec('try:\\n os.kill(os.getpid(), signal.SIGTERM)\\nfinally:\\n"
        " print(1, flush=True)\\n import time; time.sleep(60)')"
    )
    (tmp_path / "sitecustomize.py").write_text(HOOKS.format(module="rich", action=action))
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.main"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == -signal.SIGTERM
