"""Which machines Vertex AI trains on, and which accelerators each of them takes.

What is refused here would be refused by the service as well, only later and in fewer words.
Source: "Configure compute resources" and "Training with TPU accelerators" of the Vertex AI documentation.
"""

import math
from collections.abc import Iterable, Sequence

from settings.errors import ConfigError

REGIONS = """
    africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1 asia-south2
    asia-southeast1 asia-southeast2 australia-southeast1 australia-southeast2 europe-central2 europe-north1
    europe-north2 europe-southwest1 europe-west1 europe-west2 europe-west3 europe-west4 europe-west6 europe-west8
    europe-west9 europe-west12 me-central1 me-central2 me-west1 northamerica-northeast1 northamerica-northeast2
    southamerica-east1 southamerica-west1 us-central1 us-east1 us-east4 us-east5 us-east7 us-south1 us-west1
    us-west2 us-west3 us-west4 us-west8
""".split()  # noqa: SIM905 - as a list it would be a page long

# Machines without built-in accelerators: series → numbers of virtual CPUs.
_CPUS = {
    "c2-standard": (4, 8, 16, 30, 60),
    "e2-highcpu": (16, 32),
    "e2-highmem": (2, 4, 8, 16),
    "e2-standard": (4, 8, 16, 32),
    "m1-megamem": (96,),
    "m1-ultramem": (40, 80, 160),
    "n1-highcpu": (16, 32, 64, 96),
    "n1-highmem": (2, 4, 8, 16, 32, 64, 96),
    "n1-standard": (4, 8, 16, 32, 64, 96),
    "n2-highcpu": (16, 32, 48, 64, 80),
    "n2-highmem": (2, 4, 8, 16, 32, 48, 64, 80),
    "n2-standard": (4, 8, 16, 32, 48, 64, 80),
}
_CPU_MACHINES = {f"{series}-{num_cpus}": num_cpus for series, sizes in _CPUS.items() for num_cpus in sizes}

# GPUs that an n1 machine takes: how many → the most virtual CPUs the machine may then have.
_ATTACHED_GPUS = {
    "NVIDIA_TESLA_P4": {1: 24, 2: 48, 4: 96},
    "NVIDIA_TESLA_P100": {1: 16, 2: 32, 4: 96},
    "NVIDIA_TESLA_T4": {1: 24, 2: 48, 4: 96},
    "NVIDIA_TESLA_V100": {1: 12, 2: 24, 4: 48, 8: 96},
}

# Machines that are built around their GPUs, all of them from the L4 on.
_GPU_MACHINES = {
    **{f"g2-standard-{num_cpus}": ("NVIDIA_L4", 1) for num_cpus in (4, 8, 12, 16, 32)},
    **{f"g2-standard-{12 * count}": ("NVIDIA_L4", count) for count in (2, 4, 8)},
    **{f"g4-standard-{48 * count}": ("NVIDIA_RTX_PRO_6000", count) for count in (1, 2, 4, 8)},
    **{f"a2-highgpu-{count}g": ("NVIDIA_TESLA_A100", count) for count in (1, 2, 4, 8)},
    "a2-megagpu-16g": ("NVIDIA_TESLA_A100", 16),
    **{f"a2-ultragpu-{count}g": ("NVIDIA_A100_80GB", count) for count in (1, 2, 4, 8)},
    **{f"a3-highgpu-{count}g": ("NVIDIA_H100_80GB", count) for count in (1, 2, 4, 8)},
    "a3-megagpu-8g": ("NVIDIA_H100_MEGA_80GB", 8),
    "a3-ultragpu-8g": ("NVIDIA_H200_141GB", 8),
    "a4-highgpu-8g": ("NVIDIA_B200", 8),
}

# The parts of an a3-highgpu-8g, which are not sold at the standard rate.
NOT_STANDARD_MACHINES = {f"a3-highgpu-{count}g" for count in (1, 2, 4)}

# TPU v2 and v3 are a machine type with accelerators: the numbers of cores a slice may have.
_TPU_CORES = {
    "TPU_V2": (8, 32, 128, 256, 512),
    "TPU_V3": (8, 32, 64, 128, 256, 512, 1024, 2048),
}
# TPU v5e is a machine type with a topology.
_TPU_TOPOLOGIES = {
    "ct5lp-hightpu-1t": ("1x1",),
    "ct5lp-hightpu-4t": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "ct5lp-hightpu-8t": ("2x4",),
}
# How many of these one host holds.
_HOST_SIZES = {"cloud-tpu": 8, "ct5lp-hightpu-1t": 1, "ct5lp-hightpu-4t": 4, "ct5lp-hightpu-8t": 8}

_MACHINE_TYPES = {*_CPU_MACHINES, *_GPU_MACHINES, "cloud-tpu", *_TPU_TOPOLOGIES}


def is_tpu(machine_type: str) -> bool:
    """Whether the accelerators of a machine are TPUs."""
    return machine_type in _HOST_SIZES


def num_accelerators(accelerator_count: int, tpu_topology: str) -> int:
    """How many replicas train on a machine, or on a slice of a TPU; 1 where the CPU does."""
    if tpu_topology:
        return math.prod(int(extent) for extent in tpu_topology.split("x"))
    return max(accelerator_count, 1)


def is_tpu_pod(machine_type: str, accelerator_count: int, tpu_topology: str) -> bool:
    """Whether it is a slice of a TPU over several hosts."""
    return is_tpu(machine_type) and num_accelerators(accelerator_count, tpu_topology) > _HOST_SIZES[machine_type]


def has_built_in_gpus(machine_type: str) -> bool:
    """Whether it is a machine around GPUs, from the L4 on; to the others GPUs are attached."""
    return machine_type in _GPU_MACHINES


def check_cpu_machine(field: str, machine_type: str) -> None:
    """Checks that a machine exists and has no accelerators.

    Raises:
      ConfigError: names the field, its value and what is allowed.
    """
    if machine_type not in _CPU_MACHINES:
        raise ConfigError(f"{field}={machine_type!r} cannot be used: it has to be one of {_listed(_CPU_MACHINES)}.")


def check_machine(machine_type: str, accelerator_type: str, accelerator_count: int, tpu_topology: str) -> None:
    """Checks a machine against its accelerators.

    Raises:
      ConfigError: names the field, its value and what is allowed.
    """
    if machine_type.startswith("ct6e-"):
        raise ConfigError(
            f"config.machine_type={machine_type!r} cannot be used: TPU v6e runs JAX and PyTorch but not "
            f"TensorFlow. Use TPU v5e: {_listed(_TPU_TOPOLOGIES)}."
        )
    if machine_type not in _MACHINE_TYPES:
        raise ConfigError(
            f"config.machine_type={machine_type!r} is none that trains on Vertex AI: it has to be one of "
            f"{_listed(_MACHINE_TYPES)}."
        )
    if tpu_topology and machine_type not in _TPU_TOPOLOGIES:
        raise ConfigError(
            f"config.tpu_topology={tpu_topology!r} goes with {_listed(_TPU_TOPOLOGIES)} only; leave it empty for "
            f"config.machine_type={machine_type!r}."
        )
    if machine_type in _TPU_TOPOLOGIES:
        _require("tpu_topology", tpu_topology, _TPU_TOPOLOGIES[machine_type], machine_type)
        _require("accelerator_type", accelerator_type, [""], machine_type)
        _require("accelerator_count", accelerator_count, [0], machine_type)
    elif machine_type == "cloud-tpu":
        _require("accelerator_type", accelerator_type, list(_TPU_CORES), machine_type)
        _require("accelerator_count", accelerator_count, _TPU_CORES[accelerator_type], accelerator_type)
    elif machine_type in _GPU_MACHINES:
        built_in_type, built_in_count = _GPU_MACHINES[machine_type]
        _require("accelerator_type", accelerator_type, [built_in_type], machine_type)
        _require("accelerator_count", accelerator_count, [built_in_count], machine_type)
    elif machine_type.startswith("n1-"):
        _require("accelerator_type", accelerator_type, ["", *_ATTACHED_GPUS], machine_type)
        most_cpus = _ATTACHED_GPUS[accelerator_type] if accelerator_type else {0: 96}
        counts = [count for count, most in most_cpus.items() if _CPU_MACHINES[machine_type] <= most]
        _require("accelerator_count", accelerator_count, counts, f"{machine_type} with {accelerator_type or 'no GPU'}")
    else:
        _require("accelerator_type", accelerator_type, [""], machine_type)
        _require("accelerator_count", accelerator_count, [0], machine_type)


def _require(field: str, value: str | int, allowed: Sequence[str | int], what: str) -> None:
    if value not in allowed:
        choice = repr(allowed[0]) if len(allowed) == 1 else f"one of {', '.join(map(repr, allowed))}"
        raise ConfigError(f"config.{field}={value!r} cannot be used: for {what} it has to be {choice}.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
