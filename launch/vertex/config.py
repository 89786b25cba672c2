"""The launch config as typed sections, with the rules that concern the config alone.

configs/launch/default.py explains each field and holds its default.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict
from pydantic import Field, field_validator, model_validator

from configs.launch import default
from launch.vertex import machines
from launch.vertex.names import IMAGE
from settings.errors import ConfigError
from settings.search_space import FORM, SearchParameter, check_unique
from settings.sections import Section, build_section, cannot_be_used

DEFAULTS_FILE = "configs/launch/default.py"

_SERVICE_ACCOUNT = re.compile(r"[\w.-]+@[\w.-]+\.gserviceaccount\.com")
_NETWORK = re.compile(r"projects/\d+/global/networks/[a-z]([a-z0-9-]*[a-z0-9])?")
_TENSORBOARD = re.compile(r"projects/[^/]+/locations/(?P<region>[^/]+)/tensorboards/\d+")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Vertex AI sets these variables in each container.
_RESERVED_VARIABLE = re.compile(r"AIP_.*|CLOUD_ML_.*|CLUSTER_SPEC|TF_CONFIG|TPU_CONFIG")

# "Dynamic Workload Scheduler": a job with FLEX_START runs for at most 7 days, on GPUs from the L4 on.
# https://cloud.google.com/vertex-ai/docs/training/schedule-jobs-dws
_MAX_FLEX_START_HOURS = 7 * 24

# How often Vertex AI restarts a job whose machines fail. The request has no number for it.
# https://cloud.google.com/vertex-ai/docs/training/understanding-training-service
# https://cloud.google.com/vertex-ai/docs/training/use-spot-vms
_MAX_RESTARTS = {"standard": 3, "flex_start": 3, "spot": 6}


class ReductionServer(Section):
    """Machines that add up the gradients of the workers."""

    num_machines: int = Field(ge=0)
    machine_type: str
    image_uri: str


class Scheduling(Section):
    """When a job runs, and for how long."""

    strategy: Literal["standard", "spot", "flex_start"]
    timeout_hours: float = Field(gt=0)
    max_wait_hours: float = Field(ge=0)
    max_restarts: int

    @field_validator("timeout_hours")
    @classmethod
    def _check_timeout(cls, hours: float) -> float:
        # Vertex AI takes whole seconds, and 0 seconds means the default of 7 days.
        if round(hours * 3600) < 1:
            raise cannot_be_used("config.scheduling.timeout_hours", hours, "at least one second, 1/3600")
        return hours


class Study(Section):
    """A hyperparameter-tuning job."""

    metric: str
    goal: Literal["max", "min"]
    parameters: tuple[SearchParameter, ...] = Field(description=f"a tuple of parameters, each {FORM}")
    max_trials: int = Field(ge=1)
    parallel_trials: int
    max_failed_trials: int
    algorithm: Literal["bayesian", "random", "grid"]

    @model_validator(mode="after")
    def _check_trials(self) -> "Study":
        for field, value, least in (
            ("parallel_trials", self.parallel_trials, 1),
            ("max_failed_trials", self.max_failed_trials, 0),
        ):
            if not least <= value <= self.max_trials:
                raise cannot_be_used(
                    f"config.study.{field}", value, f"from {least} to config.study.max_trials={self.max_trials}"
                )
        check_unique(self.parameters, "config.study.parameters")
        return self

    @model_validator(mode="after")
    def _check_grid(self) -> "Study":
        for parameter in self.parameters:
            has_fractions = any(isinstance(end, float) for end in parameter.range or ())
            if self.algorithm == "grid" and has_fractions:
                raise cannot_be_used(
                    "config.study.parameters",
                    parameter.model_dump(exclude_unset=True),
                    "a range of whole numbers, or values, with config.study.algorithm='grid'",
                )
        return self


class JobConfig(Section):
    """All fields of a Vertex AI job."""

    display_name: str = Field(min_length=1, max_length=128, description="from 1 to 128 characters long")
    labels: tuple[str, ...] = Field(max_length=64, description="a tuple of at most 64 strings KEY=VALUE")
    environment: tuple[str, ...] = Field(description="a tuple of strings NAME=VALUE")
    service_account: str
    network: str
    tensorboard: str
    num_machines: int = Field(ge=1)
    machine_type: str = Field(min_length=1, description="a machine type of Vertex AI, such as n1-standard-8")
    accelerator_type: str
    accelerator_count: int = Field(ge=0)
    tpu_topology: str = Field(
        pattern=r"^([1-9]\d*(x[1-9]\d*)+)?$",
        description="empty, or the numbers of chips in each direction, such as 2x2",
    )
    boot_disk_type: Literal["pd-ssd", "pd-standard", "hyperdisk-balanced"]
    boot_disk_size_gb: int = Field(ge=100, le=64_000, description="from 100 to 64000")
    reduction_server: ReductionServer
    scheduling: Scheduling
    study: Study

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for key, value in _checked_pairs("config.labels", labels).items():
            if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
                raise cannot_be_used(
                    "config.labels",
                    f"{key}={value}",
                    "KEY=VALUE with at most 63 lower-case letters, digits, _ and - in each, and a letter first in KEY",
                )
        return labels

    @field_validator("environment")
    @classmethod
    def _check_environment(cls, environment: tuple[str, ...]) -> tuple[str, ...]:
        for name in _checked_pairs("config.environment", environment):
            if not _VARIABLE.fullmatch(name):
                raise cannot_be_used("config.environment", name, "NAME=VALUE with a name of letters, digits and _")
            if _RESERVED_VARIABLE.fullmatch(name):
                raise ConfigError(f"config.environment sets {name}, but Vertex AI sets it. Remove it.")
        return environment

    @model_validator(mode="after")
    def _check_names(self) -> "JobConfig":
        if self.service_account and not _SERVICE_ACCOUNT.fullmatch(self.service_account):
            raise cannot_be_used(
                "config.service_account", self.service_account, "empty, or NAME@PROJECT.iam.gserviceaccount.com"
            )
        if self.network and not _NETWORK.fullmatch(self.network):
            raise cannot_be_used(
                "config.network",
                self.network,
                "empty, or projects/NUMBER/global/networks/NAME, with the project's number",
            )
        if self.tensorboard and not _TENSORBOARD.fullmatch(self.tensorboard):
            raise cannot_be_used(
                "config.tensorboard",
                self.tensorboard,
                "empty, or projects/PROJECT/locations/REGION/tensorboards/NUMBER",
            )
        if self.tensorboard and not self.service_account:
            raise ConfigError(
                f"config.tensorboard={self.tensorboard!r} needs config.service_account. Set it to an account that may "
                "write to this TensorBoard: Vertex AI uploads the logs with it."
            )
        return self

    @model_validator(mode="after")
    def _check_machines(self) -> "JobConfig":
        machines.check_machine(self.machine_type, self.accelerator_type, self.accelerator_count, self.tpu_topology)
        if machines.is_tpu(self.machine_type) and self.num_machines > 1:
            raise cannot_be_used(
                "config.num_machines",
                self.num_machines,
                "1 for a TPU, even when its slice has several hosts: config.tpu_topology sets the size of the slice",
            )
        return self

    @model_validator(mode="after")
    def _check_reduction_server(self) -> "JobConfig":
        reducers = self.reduction_server
        if not reducers.num_machines:
            return self
        if self.num_machines < 2 or not self.accelerator_type.startswith("NVIDIA_"):
            raise cannot_be_used(
                "config.reduction_server.num_machines",
                reducers.num_machines,
                "0 unless config.num_machines is above 1 and the machines have GPUs: it adds up their gradients",
            )
        machines.check_cpu_machine("config.reduction_server.machine_type", reducers.machine_type)
        if not IMAGE.fullmatch(reducers.image_uri):
            raise cannot_be_used("config.reduction_server.image_uri", reducers.image_uri, "an image in a registry")
        return self

    @model_validator(mode="after")
    def _check_scheduling(self) -> "JobConfig":
        strategy = self.scheduling.strategy
        if strategy == "standard" and self.machine_type in machines.NOT_STANDARD_MACHINES:
            raise cannot_be_used("config.scheduling.strategy", strategy, f"spot or flex_start for {self.machine_type}")
        if strategy == "spot" and machines.is_tpu_pod(self.machine_type, self.accelerator_count, self.tpu_topology):
            raise cannot_be_used("config.scheduling.strategy", strategy, "standard for a TPU slice with several hosts")
        if strategy != "flex_start":
            return self
        if machines.is_known(self.machine_type) and not machines.has_built_in_gpus(self.machine_type):
            raise cannot_be_used(
                "config.scheduling.strategy",
                strategy,
                f"standard or spot for {self.machine_type}: flex_start is only for GPUs from the L4 on",
            )
        if self.reduction_server.num_machines:
            raise cannot_be_used(
                "config.scheduling.strategy",
                strategy,
                "standard or spot with a reduction server: flex_start needs machines of one kind",
            )
        if self.scheduling.timeout_hours > _MAX_FLEX_START_HOURS:
            raise cannot_be_used(
                "config.scheduling.timeout_hours",
                self.scheduling.timeout_hours,
                f"at most {_MAX_FLEX_START_HOURS}, which is 7 days, with flex_start",
            )
        return self

    @model_validator(mode="after")
    def _check_restarts(self) -> "JobConfig":
        strategy, restarts = self.scheduling.strategy, self.scheduling.max_restarts
        most = _MAX_RESTARTS[strategy]
        if restarts not in (0, most):
            raise cannot_be_used(
                "config.scheduling.max_restarts",
                restarts,
                f"{most}, or 0 for no restart: Vertex AI takes no number, and restarts a {strategy} job at most {most} "
                "times",
            )
        return self


def load_job_config(config: ConfigDict | Mapping[str, Any]) -> JobConfig:
    """Checks all fields of a launch config.

    Raises:
      ConfigError: It names the field, its value and what is allowed.
    """
    return build_section(JobConfig, config, defaults=default.get_config(), defaults_file=DEFAULTS_FILE)


def split_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """Converts ("NAME=VALUE", ...) to a dictionary."""
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def tensorboard_region(tensorboard: str) -> str:
    """Returns the region of a managed TensorBoard from its resource name."""
    return tensorboard.split("/")[3]


def _checked_pairs(field: str, pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise cannot_be_used(field, pair, "NAME=VALUE")
    split = split_pairs(pairs)
    if len(split) < len(pairs):
        raise ConfigError(f"{field} has a name twice. Its names are {', '.join(pair.split('=')[0] for pair in pairs)}.")
    return split
