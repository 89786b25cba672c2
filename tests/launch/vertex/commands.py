"""The commands of the tests, and what they have to print."""

import importlib
import re
import shlex

from launch.vertex import __main__ as vertex
from tests.conftest import REPOSITORY

# A golden file is what --dry_run prints for the command in the docstring of a config in configs/launch.
GOLDEN = REPOSITORY / "tests" / "launch" / "golden"
IMAGE = "us-docker.pkg.dev/my-project/listwise/trainer:1"
DESTINATION = {
    "--project": "my-project",
    "--region": "us-central1",
    "--image_uri": IMAGE,
    "--base_output_dir": "gs://my-bucket/run",
}
CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs" / "launch").glob("[a-z]*.py"))

# All fields of a job except its machines.
EVERYTHING = [
    *(f"{flag}={value}" for flag, value in DESTINATION.items()),
    "--config=configs/launch/eight_gpus.py",
    "--config.display_name=Everything",
    "--config.labels=('team=ranking', 'empty=')",
    "--config.environment=('TF_CPP_MIN_LOG_LEVEL=1', 'OPTIONS=--a=1 --b=2')",
    "--config.service_account=trainer@my-project.iam.gserviceaccount.com",
    "--config.network=projects/123/global/networks/my-network",
    "--config.tensorboard=projects/my-project/locations/us-central1/tensorboards/456",
    "--config.boot_disk_type=pd-standard",
    "--config.boot_disk_size_gb=500",
    "--config.num_machines=2",
    "--config.scheduling.strategy=flex_start",
    "--config.scheduling.timeout_hours=1.5",
    "--config.scheduling.max_wait_hours=48",
    "--config.scheduling.max_restarts=0",
    "--",
    "--strategy=multi_worker_mirrored",
    "--config=configs/movielens_100k.py",
    "--config.data.source=gs://my-bucket/ml-100k",
]


def documented_command(name: str) -> list[str]:
    """The command in the docstring of a config, with the placeholders filled in."""
    docstring = importlib.import_module(f"configs.launch.{name}").__doc__ or ""
    _, _, command = docstring.replace("\\\n", " ").partition("python -m launch.vertex ")
    command = command.splitlines()[0]
    for placeholder, value in (("PROJECT", "my-project"), ("IMAGE", IMAGE), ("BUCKET", "my-bucket")):
        command = re.sub(rf"\b{placeholder}\b", value, command)
    return shlex.split(command)


def dry(arguments: list[str]) -> list[str]:
    """The same command with --dry_run."""
    if "--dry_run" in arguments:
        return arguments
    end = arguments.index("--")
    return [*arguments[:end], "--dry_run", *arguments[end:]]


COMMANDS = {name: documented_command(name) for name in CONFIGS} | {"everything": EVERYTHING}


def with_destination(own: list[str], trainer_flags: list[str]) -> list[str]:
    """A valid command, except for the given arguments."""
    command = [argument for argument in own[:1] if not argument.startswith("-")]
    given = own[len(command) :]
    names = {argument.partition("=")[0] for argument in given}
    rest = [f"{flag}={value}" for flag, value in DESTINATION.items() if flag not in names]
    return [*command, *rest, *given, "--dry_run", "--", *trainer_flags]


def refused(capsys, arguments: list[str]) -> str:
    """Runs a command that fails, and returns its error message."""
    assert vertex.main(arguments) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err
