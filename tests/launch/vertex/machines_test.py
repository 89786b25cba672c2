"""Machines and accelerators: what the documentation rules out is refused, and unknown names get a warning."""

import pytest

from launch.vertex import __main__ as vertex
from launch.vertex import machines
from settings.errors import ConfigError
from tests.launch.vertex.commands import COMMANDS, dry, with_destination


# Rows of the table of n1 machines in the documentation, with the possible numbers of GPUs.
def machine_warnings(stderr: str) -> list[str]:
    """The lines of stderr, without the one that appears if the client library is not installed."""
    return [line for line in stderr.splitlines() if "The client library of Vertex AI is not installed" not in line]


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
def test_a_machine_accepts_the_accelerators_of_the_documentation(machine_type, accelerator_type, counts):
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
def test_the_replicas_and_hosts_of_a_slice_are_counted(machine_type, count, topology, replicas, is_pod):
    assert machines.num_accelerators(count, topology) == replicas
    assert machines.is_tpu_pod(machine_type, count, topology) == is_pod


@pytest.mark.parametrize(
    ("own", "trainer_flags", "warning"),
    [
        (["--region=mars-north1"], [], "--region='mars-north1' is not in this version's list"),
        (
            ["--config.machine_type=n9-standard-8"],
            [],
            "The machine type 'n9-standard-8' is not in this version's tables",
        ),
        (
            ["--config.accelerator_type=NVIDIA_GB200", "--config.accelerator_count=1"],
            [],
            "config.accelerator_type='NVIDIA_GB200' is not in this version's tables",
        ),
        (
            [
                "--config.machine_type=g9-standard-8",
                "--config.accelerator_type=NVIDIA_L4",
                "--config.accelerator_count=3",
                "--config.scheduling.strategy=flex_start",
            ],
            ["--strategy=mirrored", "--config.train.global_batch_size=33"],
            "The machine type 'g9-standard-8'",
        ),
        (
            ["--config.machine_type=ct6e-standard-4t", "--config.tpu_topology=2x2"],
            ["--strategy=tpu"],
            "'ct6e-standard-4t' is a TPU v6e. Google documents it for JAX and PyTorch, so TensorFlow may not run on it",
        ),
        (["--config.machine_type=tpu9-4t"], ["--strategy=tpu"], "The machine type 'tpu9-4t'"),
        (
            [
                "--config=configs/launch/four_machines.py",
                "--config.reduction_server.machine_type=n9-highcpu-16",
            ],
            ["--strategy=multi_worker_mirrored"],
            "The machine type 'n9-highcpu-16'",
        ),
    ],
)
def test_an_unknown_name_gets_a_warning(own, trainer_flags, warning, capsys):
    assert vertex.main(with_destination(own, trainer_flags)) == 0
    captured = capsys.readouterr()
    (line,) = machine_warnings(captured.err)
    assert line.startswith("warning: ") and warning in line
    assert "worker_pool_specs" in captured.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_machines_of_the_configs_get_no_warning(name, capsys):
    assert vertex.main(dry(COMMANDS[name])) == 0
    assert machine_warnings(capsys.readouterr().err) == []


def test_the_hosts_of_an_unknown_tpu_are_counted():
    assert machines.is_tpu_pod("ct6e-standard-4t", 0, "4x4")
    assert not machines.is_tpu_pod("ct6e-standard-4t", 0, "2x2")
