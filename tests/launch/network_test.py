"""Who can connect to the workers of this machine."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from launch import local, network
from launch.trainer_flags import read_trainer_flags
from settings.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.launch.jobs import listening_ports
from tests.launch.scripted_workers import numbers

# As TensorFlow's server does, on all interfaces. Then the other worker is reached over the address in TF_CONFIG.
LISTENS = """
addresses = [address.split(":") for address in task["cluster"]["worker"]]
server = socket.create_server(("", int(addresses[index][1])))
while True:
    try:
        socket.create_connection(addresses[1 - index])
        break
    except ConnectionRefusedError:
        time.sleep(0.01)
(pathlib.Path(sys.argv[1]) / f"{index}.port").write_text(addresses[index][1])
say_started()
time.sleep(60)
"""

# Leaves the network, and says what has changed.
LEAVES = """
import os, pathlib, sys
from launch import network
def seen(): return [line.split(":")[0].strip() for line in open("/proc/self/net/dev").read().splitlines()[2:]]
def facts(): return os.getuid(), os.getgid(), os.stat(sys.argv[1]).st_uid
before, facts_before = seen(), facts()
{change}
try:
    network.leave()
except OSError as error:
    assert seen() == before
    print("refused:", error.strerror)
else:
    assert seen() == ["lo"]
    pathlib.Path(sys.argv[1], "file").touch()
    assert os.stat(os.path.join(sys.argv[1], "file")).st_uid == os.getuid()
    import socket
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    print("left")
assert facts() == facts_before, facts()
"""


def leave(folder: pathlib.Path, change: str = "") -> str:
    """Leaves the network in a process of its own, and returns what it says of it."""
    process = subprocess.run(
        [sys.executable, "-c", LEAVES.format(change=change), str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.fixture
def needs_namespaces(tmp_path):
    """Skips a test where this machine gives no process a network of its own."""
    if (answer := leave(tmp_path)) != "left":
        pytest.skip(f"this machine allows no network namespaces ({answer})")


def ports_of_workers(folder: pathlib.Path) -> set[int]:
    numbers(folder, 2)
    return {int((folder / f"{index}.port").read_text()) for index in range(2)}


def test_nothing_listens_on_the_network_of_this_machine(launch, tmp_path, needs_namespaces):
    launch(LISTENS, before="network.leave()")
    assert not ports_of_workers(tmp_path) & listening_ports()


def test_a_shared_network_is_said_with_its_ports(launch, tmp_path):
    launcher = launch(LISTENS, arguments="warn_of_ports=True")
    ports = ports_of_workers(tmp_path)
    assert ports <= listening_ports()
    warning = launcher.stdout.readline()
    assert warning.startswith("launch | WARNING: the workers listen on the ports ")
    assert all(str(port) in warning for port in ports) and "ask for no password" in warning


# Not root, whom only a user namespace helps; and not 65534, as which a user namespace shows a user it does not know.
BECOMES_ANOTHER_USER = """
import ctypes, encodings.idna, socket
os.chown(sys.argv[1], 12345, 12345)
os.setgroups([]); os.setgid(12345); os.setuid(12345)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as after the start of a program.
facts_before = facts()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_users_and_files_stay_the_same_for_a_user_who_is_not_root(needs_namespaces):
    with tempfile.TemporaryDirectory() as folder:  # The parents of tmp_path are closed to others.
        assert leave(pathlib.Path(folder), BECOMES_ANOTHER_USER) == "left"


# What a machine can refuse: all of it; or, after the first step, to set up what was made.
REFUSALS = {
    "all": "def refuse(*_): raise PermissionError(1, 'Operation not permitted')\nnetwork._unshare = refuse",
    "the interface": "def refuse(*_): raise OSError(1, '')\nnetwork.fcntl.ioctl = refuse",
    "system": "network.ctypes.CDLL = lambda *_, **__: object()",
}


@pytest.mark.parametrize("change", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_changes_nothing(tmp_path, change):
    assert leave(tmp_path, change).startswith("refused: ")


@pytest.fixture
def flags_of_launcher(monkeypatch):
    """Sets the flags of launch.local, and gives what is passed to its `train`."""
    passed = {}
    monkeypatch.setattr(local, "train", lambda *_, **options: passed.update(options) or 0)

    def set_flags(*, share_network):
        for name, value in {"_NUM_WORKERS": 2, "_MAX_RESTARTS": 0, "_SHARE_NETWORK": share_network}.items():
            monkeypatch.setattr(local, name, type("Flag", (), {"value": value}))
        return passed

    return set_flags


def test_a_machine_that_allows_no_other_network_is_asked_about(monkeypatch, flags_of_launcher):
    def refuse():
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(network, "leave", refuse)
    flags_of_launcher(share_network=False)
    with pytest.raises(ConfigError) as caught:
        local.main(["--workdir=never_made"])
    for text in ("does not allow it (network namespace: Operation not permitted)", "no password", "--share_network"):
        assert text in str(caught.value)
    passed = flags_of_launcher(share_network=True)
    assert local.main(["--workdir=never_made"]) == 0
    assert passed["warn_of_ports"]


def test_a_run_that_needs_the_network_starts_when_it_may(monkeypatch, flags_of_launcher):
    monkeypatch.setattr(network, "leave", lambda: pytest.fail("left"))
    flags_of_launcher(share_network=False)
    with pytest.raises(ConfigError, match=r"--workdir=gs://bucket/run needs a network.*add --share_network"):
        local.main(["--workdir=gs://bucket/run"])
    passed = flags_of_launcher(share_network=True)
    assert local.main(["--workdir=gs://bucket/run"]) == 0
    assert passed["warn_of_ports"]


def test_otherwise_it_leaves_without_a_word(monkeypatch, flags_of_launcher):
    left = []
    monkeypatch.setattr(network, "leave", lambda: left.append(True))
    passed = flags_of_launcher(share_network=False)
    assert local.main(["--workdir=never_made"]) == 0
    assert left == [True] and not passed["warn_of_ports"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--workdir=runs/a"], ""),
        (["--workdir=runs/a", "--config.data.source=ratings.csv", "--config.data.data_dir=data"], ""),
        (["--workdir=gs://b/run"], "--workdir=gs://b/run"),
        (["--workdir=runs/a", "--config.data.source=gs://b/r.csv"], "config.data.source=gs://b/r.csv"),
        (["--workdir=runs/a", "--config.data.source=movielens/1m"], "config.data.source=movielens/1m"),
        (["--workdir=runs/a", "--config.data.data_dir=gs://b"], "config.data.data_dir=gs://b"),
        (
            ["--workdir=runs/a", "--config.split.method=given", "--config.split.test_source=gs://b/t.csv"],
            "config.split.test_source=gs://b/t.csv",
        ),
    ],
)
def test_a_network_is_needed_for_remote_paths_and_downloads(flags, reason):
    assert network.reason_to_share(read_trainer_flags(flags, default_strategy="multi_worker_mirrored")) == reason


def test_the_default_workdir_of_vertex_ai_is_remote(monkeypatch):
    monkeypatch.setenv("AIP_MODEL_DIR", "gs://b/run/model/")
    assert network.reason_to_share(read_trainer_flags([])) == "--workdir=gs://b/run/model/"
