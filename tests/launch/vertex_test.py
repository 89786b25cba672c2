"""A job as it is described, checked, sent, followed and refused, without a cloud.

A golden file is what --dry_run prints for the command in the docstring of a config of configs/launch.
"""

import concurrent.futures
import importlib
import re
import shlex
import socket
import subprocess
import sys

import pytest
import yaml

from launch.vertex import __main__ as vertex
from launch.vertex import machines, secrets, service
from settings.errors import ConfigError, UserError
from tests.conftest import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "launch" / "golden"
IMAGE = "us-docker.pkg.dev/my-project/listwise/trainer:1"
DESTINATION = {
    "--project": "my-project",
    "--region": "us-central1",
    "--image_uri": IMAGE,
    "--base_output_dir": "gs://my-bucket/run",
}
CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs" / "launch").glob("[a-z]*.py"))

# All that a job can be told beside its machines.
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
    "--config.scheduling.restart_on_worker_restart",
    "--",
    "--strategy=multi_worker_mirrored",
    "--config=configs/movielens_100k.py",
    "--config.data.source=gs://my-bucket/ml-100k",
]


def documented_command(name: str) -> list[str]:
    """The command that a config's docstring gives, with names filled in."""
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


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def no_network(monkeypatch):
    """Nothing can be reached."""

    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# ---- what is described


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_prints_the_golden_job(name, capsys, no_network):
    assert vertex.main(dry(COMMANDS[name])) == 0
    assert capsys.readouterr().out == (GOLDEN / f"{name}.yaml").read_text()


def test_every_golden_file_is_of_a_command():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(COMMANDS)


def test_it_does_without_the_client_library_and_says_so(capsys, monkeypatch, no_network):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    assert vertex.main(dry(COMMANDS["single_gpu"])) == 0
    captured = capsys.readouterr()
    assert captured.out == (GOLDEN / "single_gpu.yaml").read_text()
    assert "not checked against it" in captured.err
    # Whatever cannot do without says how to get it.
    assert vertex.main(COMMANDS["single_gpu"]) == 78
    assert "'.[vertex]'" in capsys.readouterr().err


def test_the_pools_are_in_the_places_that_vertex_ai_knows_them_by():
    pools = yaml.safe_load((GOLDEN / "four_machines.yaml").read_text())["custom_job"]["job_spec"]["worker_pool_specs"]
    chief, workers, reducers = pools
    assert [pool["replica_count"] for pool in pools] == [1, 3, 8]
    assert {**chief, "replica_count": 3} == workers
    assert chief["machine_spec"]["accelerator_count"] == 8
    assert "accelerator_type" not in reducers["machine_spec"] and "args" not in reducers["container_spec"]


def test_only_flex_start_has_a_longest_wait():
    def scheduling(name):
        return yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())["custom_job"]["job_spec"]["scheduling"]

    assert scheduling("everything")["max_wait_duration"] == "172800s"
    assert all("max_wait_duration" not in scheduling(name) for name in ("single_gpu", "spot", "tpu_v5e"))


def test_the_trainers_overrides_are_not_the_launchers(capsys):
    """Both have a --config, and ml_collections would look for the fields of one among those of the other."""
    own = [f"{flag}={value}" for flag, value in DESTINATION.items()]
    flags = ["--config=configs/tutorial.py", "--config.train.num_epochs=7", "--strategy=mirrored"]
    assert vertex.main(dry([*own, "--config.scheduling.timeout_hours=3", "--", *flags])) == 0
    spec = yaml.safe_load(capsys.readouterr().out)["custom_job"]["job_spec"]
    assert spec["scheduling"]["timeout"] == "10800s"
    assert spec["worker_pool_specs"][0]["container_spec"]["args"] == flags


def test_nothing_slow_is_imported_before_it_is_needed():
    output = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import launch.vertex.__main__"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    ).stderr
    imported = {line.split("|")[-1].strip() for line in output.splitlines()}
    assert "yaml" in imported
    assert not {name for name in imported if name.split(".")[0] in ("tensorflow", "trainer", "google", "grpc")}


# ---- what is refused

TWO_MACHINES = ["--config.num_machines=2"]
MWMS = ["--strategy=multi_worker_mirrored"]
GPU = ["--config=configs/launch/single_gpu.py"]
TPU = ["--config=configs/launch/tpu_v5e.py"]
FOUR = ["--config=configs/launch/four_machines.py"]
STUDY = ["tune", "--config=configs/launch/tune.py"]
TENSORBOARD = "--config.tensorboard=projects/p/locations/{}/tensorboards/1"

# (the launcher's flags, the trainer's, what the paragraph has to say)
MISTAKES = [
    # Where.
    (["--project="], [], "--project is missing"),
    (["--project=My_Project"], [], "--project='My_Project' cannot be used"),
    (["--region=us-centre1"], [], "--region='us-centre1' cannot be used: it has to be one of africa-south1, "),
    (["--region=global"], [], "--region='global'"),
    (["--image_uri=My Image"], [], "--image_uri='My Image' cannot be used"),
    (["--image_uri=trainer"], [], "an image in a registry"),
    (["--base_output_dir=/tmp/run"], [], "it has to be gs://BUCKET/FOLDER"),
    (["--base_output_dir=gs://My_Bucket/run"], [], "--base_output_dir='gs://My_Bucket/run'"),
    (["--base_output_dir=gs://bucket//run"], [], "empty parts"),
    (["--base_output_dir=gs://bucket/run[1]"], [], "the characters * ? ["),
    # The command line itself.
    (["launch"], [], "'launch' is no command: it has to be one of submit, tune, status, logs, cancel"),
    (["stray"], [], "'stray' is no command"),
    (["--nope=3"], [], "nope"),
    (["--config.nope=3"], [], "'nope' is not a field of the config"),
    (["--config.num_machine=3"], [], 'Did you mean "num_machines"'),
    (["--config.num_machines=few"], [], "--config.num_machines=few"),
    (["--config=missing.py"], [], "--config cannot be loaded: [Errno 2] No such file"),
    (["--config=configs/tutorial.py"], [], "config.data is not a field"),
    ([], ["--config.train.num_epoch=3"], 'Did you mean "num_epochs"'),
    ([], ["--config.train.num_epochs=x"], "which follow the `--`: flag --config.train.num_epochs=x"),
    ([], ["--config=missing.py"], "The trainer would end at its flags"),
    ([], ["--config=configs/launch/spot.py"], "The trainer's config has no data"),
    # Names.
    (["--config.display_name="], [], "config.display_name='' cannot be used: it has to be from 1 to 128"),
    (["--config.display_name=" + 129 * "x"], [], "from 1 to 128"),
    (["--config.labels=('Team=a',)"], [], "config.labels='Team=a' cannot be used"),
    (["--config.labels=('team=A b',)"], [], "config.labels='team=A b'"),
    (["--config.labels=('team',)"], [], "config.labels='team' cannot be used: it has to be NAME=VALUE"),
    (["--config.labels=('a=1', 'a=2')"], [], "two of one name"),
    ([f"--config.labels={tuple(f'l{n}=x' for n in range(65))}"], [], "at most 64 labels"),
    (["--config.environment=('1A=b',)"], [], "config.environment='1A' cannot be used"),
    (["--config.environment=('TF_CONFIG={}',)"], [], "TF_CONFIG, which Vertex AI sets itself"),
    (["--config.environment=('AIP_MODEL_DIR=gs://b',)"], [], "AIP_MODEL_DIR, which Vertex AI sets itself"),
    (["--config.service_account=me@gmail.com"], [], "config.service_account='me@gmail.com' cannot be used"),
    (["--config.network=default"], [], "projects/NUMBER/global/networks/NAME"),
    (["--config.network=projects/name/global/networks/n"], [], "by the project's number"),
    ([TENSORBOARD.format("us-east1")], [], "in the region of the job"),
    ([TENSORBOARD.format("us-central1")], [], "needs config.service_account"),
    # Machines and accelerators.
    (["--config.machine_type=n1-standard-5"], [], "config.machine_type='n1-standard-5' is none that trains"),
    (["--config.machine_type=ct6e-standard-4t"], ["--strategy=tpu"], "TPU v6e runs JAX and PyTorch but not TensorFlow"),
    (["--config.accelerator_count=1"], [], "for n1-standard-8 with no GPU it has to be 0"),
    ([*GPU, "--config.accelerator_count=3"], [], "config.accelerator_count=3 cannot be used"),
    ([*GPU, "--config.accelerator_count=0"], [], "config.accelerator_count=0 cannot be used"),
    ([*GPU, "--config.machine_type=n1-standard-32"], [], "has to be one of 2, 4"),
    ([*GPU, "--config.machine_type=e2-standard-8"], [], "config.accelerator_type='NVIDIA_TESLA_T4' cannot be used"),
    ([*GPU, "--config.accelerator_type=NVIDIA_L4"], [], "config.accelerator_type='NVIDIA_L4' cannot be used"),
    ([*GPU, "--config.machine_type=g2-standard-24"], [], "it has to be 'NVIDIA_L4'"),
    ([*FOUR, "--config.accelerator_count=4"], MWMS, "for a2-highgpu-8g it has to be 8"),
    (["--config.tpu_topology=2x2"], [], "config.tpu_topology='2x2' goes with ct5lp-hightpu-1t"),
    ([*TPU, "--config.tpu_topology=3x3"], ["--strategy=tpu"], "one of '2x2', '2x4', '4x4'"),
    ([*TPU, "--config.tpu_topology="], ["--strategy=tpu"], "config.tpu_topology='' cannot be used"),
    ([*TPU, "--config.accelerator_type=TPU_V3"], ["--strategy=tpu"], "config.accelerator_type='TPU_V3'"),
    (["--config.machine_type=cloud-tpu"], ["--strategy=tpu"], "one of 'TPU_V2', 'TPU_V3'"),
    (
        ["--config.machine_type=cloud-tpu", "--config.accelerator_type=TPU_V2", "--config.accelerator_count=64"],
        ["--strategy=tpu"],
        "for TPU_V2 it has to be one of 8, 32, 128",
    ),
    ([*TPU, *TWO_MACHINES], ["--strategy=tpu"], "1 for a TPU"),
    (["--config.num_machines=0"], [], "config.num_machines=0 cannot be used: it has to be at least 1"),
    (["--config.boot_disk_type=floppy"], [], "config.boot_disk_type='floppy'"),
    (["--config.boot_disk_size_gb=99"], [], "config.boot_disk_size_gb=99 cannot be used: it has to be from 100"),
    (["--config.reduction_server.num_machines=-1"], [], "at least 0"),
    ([*GPU, "--config.reduction_server.num_machines=1"], [], "unless config.num_machines is above 1"),
    ([*TWO_MACHINES, "--config.reduction_server.num_machines=1"], MWMS, "and the machines have GPUs"),
    ([*FOUR, "--config.reduction_server.machine_type=g2-standard-4"], MWMS, "reduction_server.machine_type='g2-"),
    ([*FOUR, "--config.reduction_server.image_uri=x"], MWMS, "config.reduction_server.image_uri='x'"),
    # Scheduling.
    (["--config.scheduling.strategy=cheap"], [], "it has to be standard, spot or flex_start"),
    (["--config.scheduling.timeout_hours=0"], [], "config.scheduling.timeout_hours=0.0 cannot be used"),
    (["--config.scheduling.timeout_hours=inf"], [], "a finite number"),
    (["--config.scheduling.max_wait_hours=-1"], [], "config.scheduling.max_wait_hours=-1.0"),
    ([*GPU, "--config.scheduling.strategy=flex_start"], [], "flex_start is for GPUs from the L4 on"),
    ([*TPU, "--config.scheduling.strategy=flex_start"], ["--strategy=tpu"], "flex_start is for GPUs"),
    ([*FOUR, "--config.scheduling.strategy=flex_start"], MWMS, "all machines to be of one kind"),
    (
        [
            "--config=configs/launch/eight_gpus.py",
            "--config.scheduling.strategy=flex_start",
            "--config.scheduling.timeout_hours=169",
        ],
        ["--strategy=mirrored"],
        "at most 168, which is 7 days",
    ),
    (
        [
            "--config.machine_type=a3-highgpu-1g",
            "--config.accelerator_type=NVIDIA_H100_80GB",
            "--config.accelerator_count=1",
        ],
        [],
        "spot or flex_start for a3-highgpu-1g",
    ),
    (
        [*TPU, "--config.tpu_topology=4x4", "--config.scheduling.strategy=spot"],
        ["--strategy=tpu"],
        "standard for a slice of a TPU over several hosts",
    ),
    # The trainer's flags against the machines.
    ([], ["--workdir=runs/mine"], "--workdir=runs/mine is not for a job on Vertex AI"),
    ([], ["--strategy=fast"], "--strategy='fast' cannot be used"),
    ([], ["--strategy", "tpu"], "--strategy=tpu needs a TPU"),
    (TPU, ["--strategy=mirrored"], "is a TPU"),
    (TPU, [], "--strategy='default' cannot be used: it has to be tpu"),
    (GPU, MWMS, "--strategy=multi_worker_mirrored needs more than one machine"),
    (TWO_MACHINES, ["--strategy=mirrored"], "--strategy=mirrored uses one machine, and config.num_machines=2"),
    (TWO_MACHINES, [], "--strategy=default uses one machine"),
    ([*GPU, "--config.accelerator_count=2"], [], "--strategy=default uses one GPU"),
    (FOUR, [*MWMS, "--config.train.global_batch_size=1000"], "among the 32 accelerators"),
    (TPU, ["--strategy=tpu", "--config.train.global_batch_size=30"], "among the 4 accelerators"),
    # Studies.
    (["--config=configs/launch/tune.py"], [], "use `python -m launch.vertex tune`"),
    (["tune"], [], "config.study.parameters is empty"),
    ([*STUDY, "--config.study.metric=map"], [], "a figure of the trainer's validation: loss, ndcg, ndcg@10, mrr"),
    (STUDY, ["--config.eval.metrics=('mrr',)"], "config.study.metric='ndcg@10'"),
    (STUDY, ["--config.split.method=none"], "holds none out"),
    (STUDY, ["--config.split.validation_fraction=0"], "holds none out"),
    ([*STUDY, "--config.study.goal=up"], [], "config.study.goal='up'"),
    ([*STUDY, "--config.study.algorithm=luck"], [], "config.study.algorithm='luck'"),
    ([*STUDY, "--config.study.algorithm=grid"], [], "whole numbers or values with config.study.algorithm='grid'"),
    ([*STUDY, "--config.study.max_trials=0"], [], "config.study.max_trials=0"),
    ([*STUDY, "--config.study.parallel_trials=17"], [], "from 1 to config.study.max_trials=16"),
    ([*STUDY, "--config.study.max_failed_trials=-1"], [], "config.study.max_failed_trials=-1"),
]


def with_destination(own: list[str], trainer_flags: list[str]) -> list[str]:
    """A command that is right but for what is given."""
    command = [argument for argument in own[:1] if not argument.startswith("-")]
    given = own[len(command) :]
    names = {argument.partition("=")[0] for argument in given}
    rest = [f"{flag}={value}" for flag, value in DESTINATION.items() if flag not in names]
    return [*command, *rest, *given, "--dry_run", "--", *trainer_flags]


def refused(capsys, arguments: list[str]) -> str:
    """The one paragraph that a command ends with."""
    assert vertex.main(arguments) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("own", "trainer_flags", "says"), MISTAKES, ids=[" ".join([*m[0], "--", *m[1]])[:90] for m in MISTAKES]
)
def test_a_mistake_is_one_paragraph_that_names_it(own, trainer_flags, says, capsys, no_network):
    assert says in refused(capsys, with_destination(own, trainer_flags))


PARAMETER_MISTAKES = [
    ("learning_rate", "of the form"),
    ({"field": "optimizer.learning_rate"}, "of the form"),
    ({"field": "optimizer.learning_rate", "range": (0.1, 1.0), "values": (1.0,)}, "of the form"),
    ({"field": "optimizer.rate", "range": (0.1, 1.0)}, "config.optimizer.rate is not a field of the trainer's"),
    ({"field": "optimizer", "range": (0.1, 1.0)}, "config.optimizer is not a field"),
    ({"field": "optimizer.learning_rate", "range": (1.0, 0.1)}, "the lowest first"),
    ({"field": "optimizer.learning_rate", "range": (0.0, 1.0), "scale": "log"}, "above 0"),
    ({"field": "optimizer.learning_rate", "range": (0.1, 1.0), "scale": "cubic"}, "linear, log or reverse_log"),
    ({"field": "optimizer.learning_rate", "range": (0.1, float("inf"))}, "a tuple of numbers"),
    ({"field": "optimizer.learning_rate", "values": ()}, "a tuple of numbers"),
    ({"field": "model.embedding_size", "range": (8.5, 64)}, "a tuple of whole numbers"),
    ({"field": "model.embedding_size", "values": (64, 32)}, "in ascending order"),
    ({"field": "loss.key", "values": (1, 2)}, "a tuple of strings"),
    ({"field": "loss.key", "range": ("a", "b")}, "two numbers"),
    ({"field": "loss.key", "values": ("a", "b"), "scale": "log"}, "linear"),
]


@pytest.mark.parametrize(("parameter", "says"), PARAMETER_MISTAKES)
def test_a_parameter_that_cannot_be_tried_is_refused(parameter, says, capsys, tmp_path):
    path = tmp_path / "study.py"
    path.write_text(
        "from configs.launch import tune\ninf = float('inf')\ndef get_config():\n"
        f"    config = tune.get_config()\n    config.study.parameters = ({parameter!r},)\n    return config\n"
    )
    assert says in refused(capsys, with_destination(["tune", f"--config={path}"], []))


def test_two_parameters_of_one_field_are_refused(capsys, tmp_path):
    path = tmp_path / "study.py"
    path.write_text(
        "from configs.launch import tune\ndef get_config():\n    config = tune.get_config()\n"
        "    config.study.parameters = 2 * config.study.parameters[:1]\n    return config\n"
    )
    assert "two of one field" in refused(capsys, with_destination(["tune", f"--config={path}"], []))


def test_a_field_that_a_config_lacks_or_has_of_another_type_is_refused(capsys, tmp_path):
    path = tmp_path / "launch.py"
    start = "from configs.launch import default\ndef get_config():\n    config = default.get_config()\n"
    for line, says in (
        ("del config.scheduling.timeout_hours", "config.scheduling.timeout_hours is missing"),
        ("config.scheduling.patience = 3", "config.scheduling.patience is not a field"),
        ("del config.num_machines; config.num_machines = '3'", "config.num_machines='3' cannot be used"),
    ):
        path.write_text(f"{start}    {line}\n    return config\n")
        assert says in refused(capsys, with_destination([f"--config={path}"], []))


# Rows of the documentation's table of n1 machines: how many GPUs each takes.
@pytest.mark.parametrize(
    ("machine_type", "accelerator_type", "counts"),
    [
        ("n1-standard-4", "NVIDIA_TESLA_T4", {1, 2, 4}),
        ("n1-standard-16", "NVIDIA_TESLA_T4", {1, 2, 4}),
        ("n1-standard-32", "NVIDIA_TESLA_T4", {2, 4}),
        ("n1-highmem-96", "NVIDIA_TESLA_T4", {4}),
        ("n1-standard-16", "NVIDIA_TESLA_P100", {1, 2, 4}),
        ("n1-highcpu-64", "NVIDIA_TESLA_P100", {4}),
        ("n1-standard-8", "NVIDIA_TESLA_V100", {1, 2, 4, 8}),
        ("n1-standard-16", "NVIDIA_TESLA_V100", {2, 4, 8}),
        ("n1-standard-96", "NVIDIA_TESLA_V100", {8}),
        ("n1-standard-8", "", {0}),
        ("g2-standard-96", "NVIDIA_L4", {8}),
        ("g2-standard-32", "NVIDIA_L4", {1}),
        ("a2-megagpu-16g", "NVIDIA_TESLA_A100", {16}),
        ("a2-ultragpu-4g", "NVIDIA_A100_80GB", {4}),
        ("a3-ultragpu-8g", "NVIDIA_H200_141GB", {8}),
        ("cloud-tpu", "TPU_V3", {8, 32, 64, 128, 256, 512, 1024, 2048}),
        ("n2-standard-8", "", {0}),
    ],
)
def test_a_machine_takes_the_accelerators_of_the_documentation(machine_type, accelerator_type, counts):
    def is_taken(count):
        try:
            machines.check_machine(machine_type, accelerator_type, count, "")
        except ConfigError:
            return False
        return True

    assert {count for count in range(2049) if is_taken(count)} == counts


@pytest.mark.parametrize(
    ("machine_type", "count", "topology", "replicas", "is_pod"),
    [
        ("ct5lp-hightpu-1t", 0, "1x1", 1, False),
        ("ct5lp-hightpu-4t", 0, "2x2", 4, False),
        ("ct5lp-hightpu-4t", 0, "2x4", 8, True),
        ("ct5lp-hightpu-8t", 0, "2x4", 8, False),
        ("ct5lp-hightpu-4t", 0, "16x16", 256, True),
        ("cloud-tpu", 8, "", 8, False),
        ("cloud-tpu", 32, "", 32, True),
        ("n1-standard-8", 0, "", 1, False),
        ("a2-highgpu-8g", 8, "", 8, False),
    ],
)
def test_a_slice_has_its_replicas_on_one_host_or_more(machine_type, count, topology, replicas, is_pod):
    assert machines.num_accelerators(count, topology) == replicas
    assert machines.is_tpu_pod(machine_type, count, topology) == is_pod


# ---- secrets

CANARY = "c4n4ry" * 6
SECRET_ARGUMENTS = [
    f"--password={CANARY}",
    f"--db_password={CANARY}",
    f"--dbPassword={CANARY}",
    f"--api-key={CANARY}",
    f"--apikey={CANARY}",
    f"--config.data.access_key={CANARY}",
    f"--HF_TOKEN={CANARY}",
    f"--config.data.source=https://me:{CANARY}@example.com/ratings.csv",
    f"--note=ghp_{CANARY}",
    f"--note=AIza{CANARY}",
    f"--note=hf_{CANARY}",
    f"--note=sk-{CANARY}",
    f"--note=ya29.{CANARY}",
    f"--note=eyJ{CANARY}.eyJ{CANARY}.{CANARY}",
    "--note=AKIA" + "C4N4RY" * 2 + "ABCD",
    f"--note=-----BEGIN RSA PRIVATE KEY-----{CANARY}",
    f'--note={{"private_key": "{CANARY}"}}',
    f"ghp_{CANARY}",
    f"--ghp_{CANARY}",
]


@pytest.mark.parametrize("argument", SECRET_ARGUMENTS)
def test_what_looks_like_a_secret_is_refused_and_not_repeated(argument, capsys, no_network):
    variable = argument.lstrip("-")
    for own, flags in (([], [argument]), ([f"--config.environment={(variable,)!r}"], [])):
        message = refused(capsys, with_destination(own, flags))
        assert "looks like a secret" in message
        assert "c4n4ry" not in message.lower()


@pytest.mark.parametrize(
    "name",
    ["--config.tokenizer", "--num_tokens", "--keyboard", "--config.loss.key", "--secretary", "--compass", "TF_MONKEY"],
)
def test_a_harmless_name_is_no_secret(name):
    assert not secrets.is_secret_name(name)


def test_nothing_of_the_shells_environment_gets_into_a_job(capsys, monkeypatch):
    for name in ("PASSWORD", "HF_TOKEN", "TF_CONFIG", "AIP_MODEL_DIR", "PROJECT", "CLOUD_ML_PROJECT_ID"):
        monkeypatch.setenv(name, CANARY)
    for name, command in COMMANDS.items():
        assert vertex.main(dry(command)) == 0, name
    captured = capsys.readouterr()
    assert "parent: projects/my-project" in captured.out
    assert CANARY not in captured.out + captured.err


# ---- what is sent, to a JobService on loopback


@pytest.fixture(scope="session")
def aiplatform_v1():
    """The official client library."""
    return pytest.importorskip(
        "google.cloud.aiplatform_v1", reason="google-cloud-aiplatform is not installed: make test-launch"
    )


class JobService:
    """Vertex AI's JobService on loopback: keeps what it gets, and answers or refuses as it is told to."""

    NUMBER = "9876543210"

    def __init__(self, aiplatform_v1):
        import grpc

        self.requests = []
        self.refusal = None
        self.answers = {}
        methods = {}
        for method, request_type, answer_type in (
            ("CreateCustomJob", aiplatform_v1.CreateCustomJobRequest, aiplatform_v1.CustomJob),
            ("GetCustomJob", aiplatform_v1.GetCustomJobRequest, aiplatform_v1.CustomJob),
            ("CancelCustomJob", aiplatform_v1.CancelCustomJobRequest, None),
            (
                "CreateHyperparameterTuningJob",
                aiplatform_v1.CreateHyperparameterTuningJobRequest,
                aiplatform_v1.HyperparameterTuningJob,
            ),
            (
                "GetHyperparameterTuningJob",
                aiplatform_v1.GetHyperparameterTuningJobRequest,
                aiplatform_v1.HyperparameterTuningJob,
            ),
            ("CancelHyperparameterTuningJob", aiplatform_v1.CancelHyperparameterTuningJobRequest, None),
        ):
            methods[method] = grpc.unary_unary_rpc_method_handler(
                self._handler(method, answer_type),
                request_deserializer=request_type.deserialize,
                response_serializer=answer_type.serialize if answer_type else lambda _: b"",
            )
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("google.cloud.aiplatform.v1.JobService", methods)]
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _handler(self, method, answer_type):
        def handle(request, context):
            self.requests.append((method, request))
            if self.refusal:
                context.abort(*self.refusal)
            if method.startswith("Create"):
                kind = "customJobs" if "Custom" in method else "hyperparameterTuningJobs"
                return answer_type(name=f"projects/123/locations/us-central1/{kind}/{self.NUMBER}")
            return self.answers.get(method)

        return handle

    def stop(self):
        self._server.stop(None).wait()


def build_client(aiplatform_v1, port: int):
    import grpc
    from google.cloud.aiplatform_v1.services.job_service.transports import JobServiceGrpcTransport

    # A proxy of the environment has no way to loopback.
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
    return aiplatform_v1.JobServiceClient(transport=JobServiceGrpcTransport(channel=channel))


@pytest.fixture
def job_service(aiplatform_v1, monkeypatch):
    server = JobService(aiplatform_v1)
    client = build_client(aiplatform_v1, server.port)
    monkeypatch.setattr(service, "build_client", lambda region: client)
    yield server
    server.stop()


def leaves(tree, path: str = "") -> dict[str, str | float]:
    """Dotted path → value, of all that is not at its default: how a message tells absent from zero."""
    if isinstance(tree, dict):
        children = [(f"{path}.{name}", child) for name, child in tree.items()]
    elif isinstance(tree, list):
        children = [(f"{path}[{place}]", child) for place, child in enumerate(tree)]
    elif tree in (0, "", False, "ALGORITHM_UNSPECIFIED"):
        return {}
    elif path.endswith("env[1].value") or not str(tree).replace(".", "", 1).isdigit():
        return {path: tree}
    else:
        return {path: float(tree)}  # JSON has its 64-bit numbers as strings.
    return {key: value for child_path, child in children for key, value in leaves(child, child_path).items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_service_gets_the_golden_job_field_by_field(name, aiplatform_v1, job_service, capsys, monkeypatch):
    from google.protobuf.json_format import MessageToDict

    monkeypatch.setenv("HF_TOKEN", CANARY)
    command = [argument for argument in COMMANDS[name] if argument != "--dry_run"]
    assert vertex.main(command) == 0
    ((method, request),) = job_service.requests
    assert method == ("CreateHyperparameterTuningJob" if name == "tune" else "CreateCustomJob")
    received = MessageToDict(type(request).pb(request), preserving_proto_field_name=True)
    golden = leaves(yaml.safe_load((GOLDEN / f"{name}.yaml").read_text()))
    assert leaves(received) == golden
    assert len(golden) > 8 and CANARY not in str(request)


def test_after_submitting_it_tells_how_to_follow_and_to_end_the_job(job_service, capsys):
    assert vertex.main(COMMANDS["single_gpu"]) == 0
    name = f"projects/123/locations/us-central1/customJobs/{JobService.NUMBER}"
    output = capsys.readouterr().out
    assert f"Submitted:    {name}\n" in output
    assert (
        f"https://console.cloud.google.com/agent-platform/locations/us-central1/training/{JobService.NUMBER}" in output
    )
    assert "tensorboard --logdir=gs://my-bucket/run/logs\n" in output
    assert f"python -m launch.vertex cancel --job={name}\n" in output
    assert "managed" not in output

    assert vertex.main(EVERYTHING) == 0
    assert (
        "https://us-central1.tensorboard.googleusercontent.com/experiment/projects+my-project+locations+us-central1"
        f"+tensorboards+456+experiments+{JobService.NUMBER}\n"
    ) in capsys.readouterr().out

    assert vertex.main(COMMANDS["tune"]) == 0
    assert "tensorboard --logdir=gs://my-bucket/study\n" in capsys.readouterr().out


JOB = f"projects/123/locations/us-central1/customJobs/{JobService.NUMBER}"
STUDY_JOB = JOB.replace("customJobs", "hyperparameterTuningJobs")


def test_status_tells_state_times_and_error(aiplatform_v1, job_service, capsys):
    job_service.answers["GetCustomJob"] = aiplatform_v1.CustomJob(
        display_name="mine",
        state="JOB_STATE_FAILED",
        create_time="2026-01-02T03:04:05Z",
        error={"code": 3, "message": "The replica exited with a non-zero status of 78."},
    )
    assert vertex.main(["status", f"--job={JOB}"]) == 0
    ((method, request),) = job_service.requests
    assert (method, request.name) == ("GetCustomJob", JOB)
    output = capsys.readouterr().out.splitlines()
    assert output[:3] == [
        "mine: JOB_STATE_FAILED",
        "created  2026-01-02 03:04:05 UTC",
        "error    The replica exited with a non-zero status of 78.",
    ]


def test_status_of_a_study_has_its_trials(aiplatform_v1, job_service, capsys):
    job_service.answers["GetHyperparameterTuningJob"] = aiplatform_v1.HyperparameterTuningJob(
        display_name="study",
        state="JOB_STATE_RUNNING",
        trials=[
            {
                "id": "1",
                "state": "SUCCEEDED",
                "parameters": [{"parameter_id": "config.optimizer.learning_rate", "value": 0.5}],
                "final_measurement": {"metrics": [{"metric_id": "ndcg@10", "value": 0.25}]},
            },
            {"id": "2", "state": "ACTIVE"},
        ],
    )
    assert vertex.main(["status", f"--job={STUDY_JOB}"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[1:3] == [
        "trial 1: SUCCEEDED  config.optimizer.learning_rate=0.5  ndcg@10 0.2500",
        "trial 2: ACTIVE",
    ]


@pytest.mark.parametrize(("job", "method"), [(JOB, "CancelCustomJob"), (STUDY_JOB, "CancelHyperparameterTuningJob")])
def test_cancel_names_the_job(job, method, job_service, capsys):
    assert vertex.main(["cancel", f"--job={job}"]) == 0
    ((sent, request),) = job_service.requests
    assert (sent, request.name) == (method, job)
    assert f"--job={job}" in capsys.readouterr().out


def test_logs_tells_where_they_are_without_the_client(capsys, no_network, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    assert vertex.main(["logs", f"--job={JOB}"]) == 0
    output = capsys.readouterr().out
    assert f"resource.labels.job_id%3D%22{JobService.NUMBER}%22?project=123\n" in output
    assert f"gcloud ai custom-jobs stream-logs {JobService.NUMBER} --project=123 --region=us-central1\n" in output
    assert vertex.main(["logs", f"--job={STUDY_JOB}"]) == 0
    assert "gcloud ai hp-tuning-jobs stream-logs" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
@pytest.mark.parametrize(
    "job", ["", "123", JOB.replace("customJobs", "models"), JOB + "/x", JOB.replace("us-", "a.b#")]
)
def test_a_job_is_named_in_full(command, job, capsys):
    assert f"--job={job!r} cannot be used" in refused(capsys, [command, f"--job={job}"])


REFUSALS = {
    403: ("PERMISSION_DENIED", 77, "roles/aiplatform.user"),
    404: ("NOT_FOUND", 78, "spelling of --project, --region and --job"),
    429: ("RESOURCE_EXHAUSTED", 75, "Quotas"),
    400: ("INVALID_ARGUMENT", 78, "--dry_run prints what was sent"),
    401: ("UNAUTHENTICATED", 77, "gcloud auth application-default login"),
    503: ("UNAVAILABLE", 69, "cannot be reached at us-central1-aiplatform.googleapis.com"),
    500: ("INTERNAL", 69, "try again in a few minutes"),
}


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("command", ["submit", "tune", "status", "cancel"])
def test_what_the_service_refuses_is_one_paragraph(command, status, job_service, capsys):
    import grpc

    code, exit_code, says = REFUSALS[status]
    job_service.refusal = (getattr(grpc.StatusCode, code), "The service's\nown reason.")
    arguments = {"submit": COMMANDS["single_gpu"], "tune": COMMANDS["tune"]}.get(command, [command, f"--job={JOB}"])
    assert vertex.main(arguments) == exit_code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert says in captured.err and "(The service's own reason)" in captured.err
    assert len(job_service.requests) == 1, "it was tried more than once"


def test_a_service_that_does_not_answer_is_one_paragraph(aiplatform_v1, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound but not listening: nobody answers here.
        client = build_client(aiplatform_v1, taken.getsockname()[1])
        monkeypatch.setattr(service, "build_client", lambda region: client)
        assert vertex.main(COMMANDS["single_gpu"]) == 69
    error = capsys.readouterr().err
    assert "Vertex AI cannot be reached at us-central1-aiplatform.googleapis.com" in error
    assert "see with the console whether the job was taken" in error and error.count("\n") == 1


@pytest.mark.parametrize("key_file", ["", "missing.json"])
def test_without_credentials_it_says_how_to_get_some(
    aiplatform_v1, key_file, capsys, monkeypatch, tmp_path, no_network
):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    if key_file:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / key_file))
    assert vertex.main(COMMANDS["single_gpu"]) == 77
    error = capsys.readouterr().err
    assert "No Google Cloud credentials are found" in error and error.count("\n") == 1


def test_credentials_that_have_expired_say_so(aiplatform_v1):
    from google.auth import exceptions

    with pytest.raises(UserError, match=r"does not accept this machine's credentials \(expired\)"), service._told("r"):
        raise exceptions.RefreshError("expired")
    with pytest.raises(UserError, match="cannot be reached"), service._told("r"):
        raise exceptions.TransportError("no route")


def test_a_request_that_the_library_does_not_know_is_refused(aiplatform_v1):
    assert service.check_request({"parent": "p", "custom_job": {"display_name": "x"}})
    with pytest.raises(ConfigError, match="cannot describe this job"):
        service.check_request({"parent": "p", "custom_job": {"name_of_display": "x"}})
    with pytest.raises(ConfigError, match="cannot describe this job"):
        service.check_request({"custom_job": {"job_spec": {"scheduling": {"strategy": "CHEAP"}}}})
