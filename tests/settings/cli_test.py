"""How a command prints its output, and how it reports its errors."""

import os
import platform
import shlex
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from configs import default
from settings import cli
from settings.errors import ConfigError, DataError, NoRoomError, StorageError, UserError
from tests.conftest import REPOSITORY


def test_brackets_and_colons_of_a_title_are_printed(capsys):
    title = "[bold]Rec[/bold] :smile: 100% " + "x" * 200
    cli.build_console().print(title, soft_wrap=True)
    assert capsys.readouterr().out == title + "\n"


def test_a_quiet_console_prints_nothing(capsys):
    cli.build_console(quiet=True).print("metrics")
    assert capsys.readouterr().out == ""


def raises(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (UserError("It failed."), 1),
        (DataError("It failed."), 65),
        (StorageError("It failed."), 74),
        (NoRoomError("It failed."), 75),
        (ConfigError("It failed."), 78),
    ],
)
def test_an_error_becomes_one_paragraph_and_its_exit_code(error, exit_code, capsys):
    assert cli.report_errors(raises(error)) == exit_code
    assert capsys.readouterr().err == "error: It failed.\n"


def test_the_exit_code_of_a_command_is_returned(capsys):
    assert cli.report_errors(lambda: 3) == 3
    assert capsys.readouterr().err == ""


def test_a_bug_is_reported_with_its_traceback_and_what_reproduces_it(capsys, monkeypatch):
    given = ["--note=it's mine", "--password=hunter2", "--config.data.source=https://me:hunter2@example.com/r.csv"]
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-X", "dev", "-m", "trainer.main", *given])
    assert cli.report_errors(raises(ZeroDivisionError("planted"))) == 70
    *trace, empty, paragraph = capsys.readouterr().err.splitlines()
    assert trace[0].startswith("Traceback") and trace[-1] == "ZeroDivisionError: planted" and not empty
    assert any("in main" in line for line in trace)
    assert paragraph.startswith("error: This is a bug of Listwise. Please report it, with the lines above. Versions: ")
    assert f"Python {platform.python_version()}" in paragraph and "listwise " in paragraph
    command = shlex.split(paragraph.partition("Command: ")[2])
    assert command == [
        *("python", "-m", "trainer.main", "--note=it's mine"),
        *("--password=***", "--config.data.source=***"),
    ]


def test_a_bug_of_the_command_listwise_is_reported_with_that_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "/opt/bin/listwise", "compare", "runs/1"])
    assert cli.report_errors(raises(ZeroDivisionError())) == 70
    assert capsys.readouterr().err.endswith("Command: python /opt/bin/listwise compare runs/1\n")


def test_the_version_of_tensorflow_is_told_where_it_is_imported(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(__version__="1.2.3"))
    cli.report_errors(raises(ZeroDivisionError()))
    assert ", TensorFlow 1.2.3. Command" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "tensorflow")
    cli.report_errors(raises(ZeroDivisionError()))
    assert "TensorFlow" not in capsys.readouterr().err


def test_with_traceback_an_error_is_told_with_where_it_was_raised(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_shows_traceback", lambda: True)
    assert cli.report_errors(raises(DataError("It failed."))) == 65
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "error: It failed."


def test_a_stop_is_one_sentence(capsys):
    assert cli.report_errors(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert capsys.readouterr().err == (
        "Stopped by SIGTERM. No file is half-written, and the same command can be run again.\n"
    )


def test_exhausted_memory_of_the_machine_becomes_a_paragraph(capsys):
    assert cli.report_errors(lambda: np.zeros(1 << 57)) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("error: This machine is out of memory (Unable to allocate 1.00 EiB")
    assert captured.count("\n") == 1


def test_exhausted_memory_becomes_a_paragraph(capsys):
    from trainer.compat import tf

    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    assert cli.report_errors(raises(error)) == 1
    assert "Lower config.train.global_batch_size" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(capsys):
    assert cli.report_errors(raises(KeyboardInterrupt())) == 130
    assert "Interrupted." in capsys.readouterr().err


def test_the_default_config_is_added_only_where_none_is_given():
    assert cli.with_default_config(["--a=1"], "x.py") == ["--config=x.py", "--a=1"]
    assert cli.with_default_config(["--config=y.py"], "x.py") == ["--config=y.py"]
    assert cli.with_default_config(["--config.seed=1"], "x.py") == ["--config=x.py", "--config.seed=1"]
    assert cli.with_default_config(["--a=1"], "") == ["--a=1"]
    assert cli.with_default_config(["--", "--config=y.py"], "x.py") == ["--config=x.py", "--", "--config=y.py"]


@pytest.mark.parametrize("config", [["--config=y.py"], ["--config", "y.py"]])
def test_the_config_may_follow_its_overrides(config):
    arguments = ["--config.seed=1", *config, "--a=1", "--", "--b=2"]
    expected = [*config, "--config.seed=1", "--a=1", "--", "--b=2"]
    assert cli.with_default_config(arguments, "x.py") == expected


def test_an_override_in_front_of_the_config_counts():
    values, _ = parse(*cli.with_default_config(["--config.seed=7", f"--config={default.__file__}"], ""))
    assert values.config.seed == 7


COMMANDS = [
    *(f"trainer.{name}" for name in ("main", "recommend", "evaluate", "compare", "prepare", "tune", "doctor")),
    *("launch.local", "launch.vertex"),
]


def test_help_is_a_success():
    """In processes of their own, because absl defines the flags of help once in a process."""
    asked = [*((name, "--help") for name in COMMANDS), ("trainer.compare", "-h")]
    processes = [
        subprocess.Popen([sys.executable, "-m", name, flag], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for name, flag in asked
    ]
    answers = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(asked)
    for (name, _), answer in zip(asked, answers, strict=True):
        assert f"python -m {name}" in answer


def parse(*arguments):
    values = flags.FlagValues()
    flags.DEFINE_integer("number", 1, "", flag_values=values)
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=["", *arguments])
    rest = cli.parse_flags(values, arguments, defaults_file="configs/default.py")
    return values, rest


def test_flags_and_overrides_are_parsed():
    values, rest = parse(f"--config={default.__file__}", "--config.seed=7", "--number=3", "rest")
    assert (values.number, values.config.seed, rest) == (3, 7, ["rest"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--nope=3", "--nope is not a flag. --help lists the flags."),
        ("--numbr=3", "--numbr is not a flag; did you mean --number? --help lists the flags."),
        ("--number=x", "flag --number=x: invalid literal for int() with base 10: 'x'. --help lists the flags."),
        ("--config.nope=3", "config.nope is not a field. configs/default.py lists and explains all fields."),
        (
            "--config.train.num_epoch=3",
            "config.train.num_epoch is not a field; did you mean num_epochs? configs/default.py lists and explains all "
            "fields.",
        ),
    ],
)
def test_an_error_on_the_command_line_is_one_sentence_with_the_way_out(argument, message):
    with pytest.raises(ConfigError) as caught:
        parse(f"--config={default.__file__}", argument)
    assert str(caught.value) == message


def test_a_config_file_is_checked_before_the_flags(tmp_path):
    with pytest.raises(ConfigError, match=r"--config=configs/missing.py cannot be loaded: .*No such file"):
        parse("--config=configs/missing.py", "--nope=3")
