"""The machine types of Vertex AI, and the accelerators of each.

Refuse only what the documentation rules out. A name that is not in these tables may be newer than they are: it gets a
warning.
Sources: "Configure compute resources" and "Training with TPU accelerators" of the Vertex AI documentation, and "GPU
machine types" of the Compute Engine documentation.
"""

import math
import re
from collections.abc import Sequence

from settings.errors import ConfigError
from settings.sections import cannot_be_used

REGIONS = """
    africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1 asia-south2
    asia-southeast1 asia-southeast2 australia-southeast1 australia-southeast2 europe-central2 europe-north1
    europe-north2 europe-southwest1 europe-west1 europe-west2 europe-west3 europe-west4 europe-west6 europe-west8
    europe-west9 europe-west12 me-central1 me-central2 me-west1 northamerica-northeast1 northamerica-northeast2
    southamerica-east1 southamerica-west1 us-central1 us-east1 us-east4 us-east5 us-east7 us-south1 us-west1
    us-west2 us-west3 us-west4 us-west8
""".split()  # noqa: SIM905 - a list would be a page long

# Machines without built-in accelerators: series → the numbers of virtual CPUs.
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
# "Configure compute resources for prediction": smaller machines, which can serve a model but not train one.
_SERVING_MACHINES = {
    "e2-highcpu-2": 2,
    "e2-highcpu-4": 4,
    "e2-highcpu-8": 8,
    "e2-standard-2": 2,
    "n1-highcpu-4": 4,
    "n1-highcpu-8": 8,
    "n1-standard-2": 2,
}

# GPUs that can be attached to an n1 machine: number of GPUs → the most virtual CPUs that the machine can have.
_ATTACHED_GPUS = {
    "NVIDIA_TESLA_P4": {1: 24, 2: 48, 4: 96},
    "NVIDIA_TESLA_P100": {1: 16, 2: 32, 4: 96},
    "NVIDIA_TESLA_T4": {1: 24, 2: 48, 4: 96},
    "NVIDIA_TESLA_V100": {1: 12, 2: 24, 4: 48, 8: 96},
}

# Machines with built-in GPUs: machine type → type and number of the GPUs.
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

_BUILT_IN_GPUS = {accelerator_type for accelerator_type, _ in _GPU_MACHINES.values()}

# "GPU machine types" of Compute Engine: these can only be had with spot or flex-start provisioning.
NOT_STANDARD_MACHINES = {f"a3-highgpu-{count}g" for count in (1, 2, 4)}

# TPU v2 and v3 are the machine type cloud-tpu with accelerators: accelerator type → the numbers of cores of a slice.
_TPU_CORES = {
    "TPU_V2": (8, 32, 128, 256, 512),
    "TPU_V3": (8, 32, 64, 128, 256, 512, 1024, 2048),
}
# TPU v5e machine types → the topologies of a slice.
_TPU_TOPOLOGIES = {
    "ct5lp-hightpu-1t": ("1x1",),
    "ct5lp-hightpu-4t": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "ct5lp-hightpu-8t": ("2x4",),
}
# A host of a TPU v2 or v3 has 4 chips with 2 cores each.
_CLOUD_TPU_HOST_CORES = 8

_KNOWN_MACHINES = {*_CPU_MACHINES, *_GPU_MACHINES, "cloud-tpu", *_TPU_TOPOLOGIES}

# A TPU host of any version: its name ends in the number of its chips, as in ct6e-standard-4t.
_TPU_HOST = re.compile(r"ct\d\w*-\w+-(?P<chips>\d+)t")


def is_known(machine_type: str, *, serving: bool = False) -> bool:
    """Whether the tables of this module have the machine type. `serving`: for a model, not for training."""
    return machine_type in _KNOWN_MACHINES or (serving and machine_type in _SERVING_MACHINES)


def is_tpu(machine_type: str) -> bool:
    """Whether the accelerators of a machine are TPUs."""
    return machine_type == "cloud-tpu" or _TPU_HOST.fullmatch(machine_type) is not None


def num_accelerators(accelerator_count: int, tpu_topology: str) -> int:
    """Returns the number of replicas on a machine or a TPU slice. It is 1 on a CPU."""
    if tpu_topology:
        return math.prod(int(extent) for extent in tpu_topology.split("x"))
    return max(accelerator_count, 1)


def is_tpu_pod(machine_type: str, accelerator_count: int, tpu_topology: str) -> bool:
    """Whether the machine is a TPU slice with several hosts."""
    if not is_tpu(machine_type):
        return False
    host = _TPU_HOST.fullmatch(machine_type)
    host_size = int(host["chips"]) if host else _CLOUD_TPU_HOST_CORES
    return num_accelerators(accelerator_count, tpu_topology) > host_size


def has_built_in_gpus(machine_type: str) -> bool:
    """Whether the machine type includes its GPUs. All GPUs from the L4 on are built in; older ones are attached."""
    return machine_type in _GPU_MACHINES


def check_cpu_machine(field: str, machine_type: str) -> None:
    """Checks that a machine type has no accelerators. Unknown machine types pass.

    Raises:
      ConfigError: The machine type has accelerators.
    """
    if is_tpu(machine_type) or has_built_in_gpus(machine_type):
        raise cannot_be_used(field, machine_type, "a machine without accelerators, such as n1-highcpu-16")


def check_machine(machine_type: str, accelerator_type: str, accelerator_count: int, tpu_topology: str) -> None:
    """Refuses accelerators that the documentation rules out for a machine type. Unknown names pass.

    Raises:
      ConfigError: It names the field, its value and what is allowed.
    """
    _check_pair("config.", accelerator_type, accelerator_count)
    if not is_known(machine_type):
        return
    if tpu_topology and machine_type not in _TPU_TOPOLOGIES:
        # "Training with TPU accelerators": only the ct5lp machine types have a topology; cloud-tpu has a count.
        raise ConfigError(
            f"config.tpu_topology={tpu_topology!r} is only for {', '.join(_TPU_TOPOLOGIES)}. Leave it empty for "
            f"config.machine_type={machine_type!r}."
        )
    if machine_type in _TPU_TOPOLOGIES:
        _require("config.tpu_topology", tpu_topology, _TPU_TOPOLOGIES[machine_type], machine_type)
        _require("config.accelerator_type", accelerator_type, [""], machine_type)
    elif machine_type == "cloud-tpu":
        if not accelerator_type.startswith("TPU_"):
            _require("config.accelerator_type", accelerator_type, list(_TPU_CORES), machine_type)
        if accelerator_type in _TPU_CORES:
            _require("config.accelerator_count", accelerator_count, _TPU_CORES[accelerator_type], accelerator_type)
    else:
        _check_gpus("config.", machine_type, accelerator_type, accelerator_count)


def check_serving_machine(machine_type: str, accelerator_type: str, accelerator_count: int) -> None:
    """Does the same for a machine that serves a model, and is described by flags.

    Raises:
      ConfigError: It names the flag, its value and what is allowed.
    """
    _check_pair("--", accelerator_type, accelerator_count)
    if is_tpu(machine_type):
        raise cannot_be_used(
            "--machine_type", machine_type, "a machine without a TPU: the exported model is for CPUs and GPUs"
        )
    if is_known(machine_type, serving=True):
        _check_gpus("--", machine_type, accelerator_type, accelerator_count)


def find_unknown_names(
    *, region: str, machine_types: Sequence[str], accelerator_type: str, serving: bool = False
) -> list[str]:
    """Returns a warning for each name that the tables of this module do not have. It may be newer than they are.

    Args:
      serving: Whether the machines serve a model. Flags describe them, not fields of a config.
    """
    warnings = []
    if region not in REGIONS:
        warnings.append(f"--region={region!r} is not in this version's list of regions of Vertex AI.")
    for machine_type in machine_types:
        if machine_type.startswith("ct6e-"):
            # Google's page on TPU training lists only JAX and PyTorch for v6e, but the public continuous integration
            # of keras-rs runs TensorFlow 2.19 on it.
            warnings.append(
                f"config.machine_type={machine_type!r} is a TPU v6e. Google documents it for JAX and PyTorch, so "
                "TensorFlow may not run on it. TPU v5e, such as ct5lp-hightpu-4t, is documented for TensorFlow."
            )
        elif not is_known(machine_type, serving=serving):
            warnings.append(
                f"The machine type {machine_type!r} is not in this version's tables, so its accelerators were not "
                "checked."
            )
    known_accelerators = {"", *_ATTACHED_GPUS, *_BUILT_IN_GPUS, *_TPU_CORES}
    if accelerator_type not in known_accelerators:
        prefix = "--" if serving else "config."
        warnings.append(f"{prefix}accelerator_type={accelerator_type!r} is not in this version's tables.")
    return warnings


def _check_pair(prefix: str, accelerator_type: str, accelerator_count: int) -> None:
    if bool(accelerator_type) != bool(accelerator_count):
        raise ConfigError(
            f"{prefix}accelerator_type={accelerator_type!r} and {prefix}accelerator_count={accelerator_count!r} "
            "contradict each other. Set both, or neither."
        )


def _check_gpus(prefix: str, machine_type: str, accelerator_type: str, accelerator_count: int) -> None:
    """Checks the accelerators of a known machine without TPUs. `prefix`: what the names of its fields start with."""
    if machine_type in _GPU_MACHINES:
        # "GPU machine types" of Compute Engine: the type and the number of GPUs are fixed by the machine type.
        built_in_type, built_in_count = _GPU_MACHINES[machine_type]
        _require(f"{prefix}accelerator_type", accelerator_type, [built_in_type], machine_type)
        _require(f"{prefix}accelerator_count", accelerator_count, [built_in_count], machine_type)
    elif accelerator_type in _BUILT_IN_GPUS or accelerator_type in _TPU_CORES:
        # The same page: these accelerators come only with machine types of their own.
        raise cannot_be_used(
            f"{prefix}accelerator_type",
            accelerator_type,
            f"empty for {machine_type}, or one of {', '.join(_ATTACHED_GPUS)} for an n1 machine",
        )
    elif accelerator_type and not machine_type.startswith("n1-"):
        # The same page: GPUs can be attached to N1 machines only.
        raise cannot_be_used(
            f"{prefix}accelerator_type", accelerator_type, f"empty for {machine_type}: GPUs can be attached only to n1"
        )
    elif accelerator_type in _ATTACHED_GPUS:
        num_cpus = (_CPU_MACHINES | _SERVING_MACHINES)[machine_type]
        most_cpus = _ATTACHED_GPUS[accelerator_type]
        counts = [count for count, most in most_cpus.items() if num_cpus <= most]
        _require(f"{prefix}accelerator_count", accelerator_count, counts, f"{machine_type} with {accelerator_type}")


def _require(field: str, value: str | int, allowed: Sequence[str | int], machine: str) -> None:
    if value not in allowed:
        choice = repr(allowed[0]) if len(allowed) == 1 else f"one of {', '.join(map(repr, allowed))}"
        raise ConfigError(f"{field}={value!r} cannot be used: for {machine} it has to be {choice}.")
