"""The job that a command describes, compared with the golden files."""

import subprocess
import sys

import pytest
import yaml

from launch.vertex import __main__ as vertex
from tests.conftest import REPOSITORY
from tests.launch.vertex.commands import COMMANDS, DESTINATION, GOLDEN, dry


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_prints_the_golden_job(name, capsys, no_network):
    assert vertex.main(dry(COMMANDS[name])) == 0
    assert capsys.readouterr().out == (GOLDEN / f"{name}.yaml").read_text()


def test_every_golden_file_has_a_command():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(COMMANDS)


def test_a_dry_run_works_without_the_client_library(capsys, monkeypatch, no_network):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    assert vertex.main(dry(COMMANDS["single_gpu"])) == 0
    captured = capsys.readouterr()
    assert captured.out == (GOLDEN / "single_gpu.yaml").read_text()
    assert "not checked against it" in captured.err
    # Submitting needs the library.
    assert vertex.main(COMMANDS["single_gpu"]) == 78
    assert "'.[vertex]'" in capsys.readouterr().err


def test_the_pools_are_in_the_order_of_vertex_ai():
    pools = yaml.safe_load((GOLDEN / "four_machines.yaml").read_text())["custom_job"]["job_spec"]["worker_pool_specs"]
    chief, workers, reducers = pools
    assert [pool["replica_count"] for pool in pools] == [1, 3, 8]
    assert {**chief, "replica_count": 3} == workers
    assert chief["machine_spec"]["accelerator_count"] == 8
    assert "accelerator_type" not in reducers["machine_spec"] and "args" not in reducers["container_spec"]


def test_only_flex_start_has_a_maximum_wait():
    def scheduling(name):
        return yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())["custom_job"]["job_spec"]["scheduling"]

    assert scheduling("everything")["max_wait_duration"] == "172800s"
    assert all("max_wait_duration" not in scheduling(name) for name in ("single_gpu", "spot", "tpu_v5e"))


def test_overrides_of_the_trainer_and_the_launcher_are_kept_apart(capsys):
    """Both have a --config, and ml_collections would look for the fields of one among those of the other."""
    own = [f"{flag}={value}" for flag, value in DESTINATION.items()]
    flags = ["--config=configs/tutorial.py", "--config.train.num_epochs=7", "--strategy=mirrored"]
    assert vertex.main(dry([*own, "--config.scheduling.timeout_hours=3", "--", *flags])) == 0
    spec = yaml.safe_load(capsys.readouterr().out)["custom_job"]["job_spec"]
    assert spec["scheduling"]["timeout"] == "10800s"
    assert spec["worker_pool_specs"][0]["container_spec"]["args"] == flags


def test_slow_modules_are_imported_only_when_they_are_needed():
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
