"""Here the workers are small scripts without TensorFlow. tests/training/multi_worker_test.py starts real ones."""

import json
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import sys

import pytest

from launch import local
from settings.cluster import parse_tf_config
from settings.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.launch.scripted_workers import IGNORES_SIGTERM, SLEEPS, all_end, command, is_running, numbers


def test_each_worker_has_its_own_index_in_one_cluster(tmp_path):
    body = "(pathlib.Path(sys.argv[1]) / f'{index}.json').write_text(os.environ['TF_CONFIG'])"
    assert local.train(command(body, tmp_path), 3) == 0
    read = [parse_tf_config((tmp_path / f"{index}.json").read_text()) for index in range(3)]
    assert len({json.dumps(cluster.addresses) for cluster, _ in read}) == 1
    assert [str(task) for _, task in read] == ["worker 0", "worker 1", "worker 2"]
    addresses = read[0][0].addresses["worker"]
    assert len(set(addresses)) == 3 and all(address.startswith("127.0.0.1:") for address in addresses)


def test_lines_are_whole_and_have_the_name_of_the_worker(tmp_path, capfd):
    body = """
for line in range(200):
    sys.stdout.write(f"{index}:"); sys.stdout.flush(); sys.stdout.write(f"{line}\\n")
print("to stderr", file=sys.stderr)
sys.stdout.buffer.write(b"\\xff without an end")
"""
    assert local.train(command(body, tmp_path), 2) == 0
    lines = capfd.readouterr().out.splitlines()
    for index in range(2):
        own = [line for line in lines if line.startswith(f"worker {index} | ")]
        assert own == [
            *(f"worker {index} | {index}:{line}" for line in range(200)),
            f"worker {index} | to stderr",
            f"worker {index} | � without an end",
        ]
    assert len(lines) == 2 * 202


def test_a_line_is_printed_at_once(launch, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    launcher = launch("print('now'); time.sleep(60)")
    lines = sorted(launcher.stdout.readline() for _ in range(2))
    assert lines == ["worker 0 | now\n", "worker 1 | now\n"]
    assert launcher.poll() is None
    launcher.terminate()
    assert launcher.wait(timeout=10) == 143


def test_names_have_colours_on_a_terminal_only(launch, tmp_path):
    terminal, end = pty.openpty()
    launcher = launch("print('hello')", stdout=end, text=False)
    assert launcher.wait(timeout=20) == 0
    os.close(end)
    output = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert len(set(re.findall(r"\x1b\[(\d+)mworker \d \|\x1b\[0m hello", output))) == 2


@pytest.mark.parametrize(
    ("ending", "code", "how"),
    [("sys.exit(65)", 65, "failed (65)"), ("os.kill(os.getpid(), signal.SIGSEGV)", 139, "was killed (SIGSEGV)")],
)
def test_the_first_failure_ends_all_and_is_the_exit_code(tmp_path, capfd, ending, code, how):
    # The other worker fails later, at SIGTERM. Its exit code does not count.
    body = f"""
if index == 1:
    while not pathlib.Path(sys.argv[1], "0.pid").exists(): time.sleep(0.01)
    {ending}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
{SLEEPS}
"""
    assert local.train(command(body, tmp_path), 2) == code
    assert not any(map(is_running, numbers(tmp_path, 1)))
    assert f"launch   | worker 1 {how}: ending 1 of 2 workers.\n" in capfd.readouterr().out


def test_a_worker_that_succeeds_does_not_end_the_others(tmp_path):
    body = "index and time.sleep(1); (pathlib.Path(sys.argv[1]) / str(index)).touch()"
    assert local.train(command(body, tmp_path), 2) == 0
    assert (tmp_path / "1").exists()


@pytest.mark.parametrize("hangs", [IGNORES_SIGTERM, "say_started(); os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_worker_that_hangs_after_another_failed_is_killed(tmp_path, hangs):
    body = f"""
if index == 0:
    while not pathlib.Path(sys.argv[1], "1.pid").exists(): time.sleep(0.01)
    sys.exit(3)
{hangs}
"""
    assert local.train(command(body, tmp_path), 2, grace_seconds=0.3) == 3
    assert not any(map(is_running, numbers(tmp_path, 1)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_as_sigterm(launch, tmp_path, number):
    launcher = launch("signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143)));" + SLEEPS)
    workers = numbers(tmp_path, 2)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=10)
    assert launcher.returncode == 128 + number
    assert sorted(line for line in output.splitlines() if "saved" in line) == ["worker 0 | saved", "worker 1 | saved"]
    assert not any(map(is_running, workers))


def test_a_second_signal_ends_the_workers_at_once(launch, tmp_path):
    launcher = launch(IGNORES_SIGTERM)
    workers = numbers(tmp_path, 2)
    launcher.send_signal(signal.SIGINT)
    assert "SIGINT: ending 2 of 2 workers." in launcher.stdout.readline()
    assert all(map(is_running, workers))
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=10) == 130
    assert not any(map(is_running, workers))


def test_nothing_survives_the_launcher(launch, tmp_path):
    """This includes the processes that a worker started."""
    launcher = launch(f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);{IGNORES_SIGTERM}")
    workers = numbers(tmp_path, 2)
    children = [
        int(number)
        for worker in workers
        for number in pathlib.Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    ]
    assert len(children) == 2
    launcher.kill()
    assert all_end([*workers, *children])


def test_nothing_survives_a_worker(tmp_path):
    body = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(pathlib.Path(sys.argv[1]) / f"{index}.pid").write_text(str(child.pid))
"""
    assert local.train(command(body, tmp_path), 2) == 0
    assert all_end(numbers(tmp_path, 2))


def test_all_workers_end_when_the_output_is_closed(launch, tmp_path):
    launcher = launch("say_started()\nwhile True: print('more'); time.sleep(0.01)")
    workers = numbers(tmp_path, 2)
    launcher.stdout.close()
    assert launcher.wait(timeout=10) == 141
    assert all_end(workers)


TAKES_ITS_PORT = """
host, port = task["cluster"]["worker"][index].split(":")
try:
    listening = socket.create_server(("", int(port)))
except OSError:
    sys.exit(1)
print("has its port")
"""


def test_taken_ports_are_replaced_once(tmp_path, capfd, monkeypatch):
    free = local._free_ports
    with socket.create_server(("127.0.0.1", 0)) as thief:
        taken = thief.getsockname()[1]
        attempts = [[free(1)[0], taken], free(2)]
        monkeypatch.setattr(local, "_free_ports", lambda number: attempts.pop(0))
        assert local.train(command(TAKES_ITS_PORT, tmp_path), 2) == 0
        assert f"Another program took port {taken}." in capfd.readouterr().out
        attempts = [[free(1)[0], taken], [free(1)[0], taken], free(2)]
        assert local.train(command(TAKES_ITS_PORT, tmp_path), 2) == 1
        assert len(attempts) == 1


def test_other_failures_are_not_tried_again(tmp_path):
    body = "open(f'{sys.argv[1]}/{index}', 'a').write('x')\nsys.exit(9)"
    assert local.train(command(body, tmp_path), 2) == 9
    assert (tmp_path / "0").read_text() == "x"


@pytest.mark.parametrize("flag", [["--strategy=mirrored"], ["-strategy=tpu"], ["--strategy", "default"]])
def test_a_strategy_of_one_process_is_refused(flag):
    with pytest.raises(ConfigError, match="Leave --strategy out"):
        local.main(["--workdir=never_made", *flag])


@pytest.mark.parametrize(
    "strategy", [["--strategy=multi_worker_mirrored"], ["--strategy", "multi_worker_mirrored"], []]
)
def test_the_trainer_is_started_with_the_flags_behind_the_dashes(monkeypatch, strategy):
    monkeypatch.setattr(local, "train", lambda command, num_workers, **options: command)
    for name, value in {"_NUM_WORKERS": 2, "_MAX_RESTARTS": 0, "_SHARE_NETWORK": True}.items():
        monkeypatch.setattr(local, name, type("Flag", (), {"value": value}))
    flags = [*strategy, "--workdir=runs/mine"]
    assert local.main(flags)[1:] == ["-m", "trainer.main", "--strategy=multi_worker_mirrored", *flags]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--num_workers=0"], "num_workers"),
        (["--num_workers=two"], "num_workers"),
        (["--max_restarts=-1"], "max_restarts"),
        (["--", "--workdir=gs://bucket/run"], "--workdir=gs://bucket/run needs a network"),
        (["--", "--workdir=a", "--config.data.source=movielens/100k"], "config.data.source=movielens/100k needs a"),
        (["--workdir=never_made"], "trainer's flags after --"),
        (["stray", "--"], "'stray' is not a flag. Write the trainer's flags after --"),
        (["stray"], "'stray' is not a flag. Write the trainer's flags after --"),
        (["--", "--strategy=mirrored"], "--strategy=mirrored trains in one process"),
        (["--", "--config.train.num_epochs=-1"], "In the trainer's flags, which follow --: config.train.num_epochs=-1"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_paragraph(arguments, says):
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "launch.local", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    imports = [line for line in answer.stderr.splitlines() if line.startswith("import time:")]
    (paragraph,) = [line for line in answer.stderr.splitlines() if line not in imports]
    assert answer.returncode == 78
    assert paragraph.startswith("error: ") and says in paragraph
    assert imports and not any(line.endswith((" tensorflow", " numpy")) for line in imports)
