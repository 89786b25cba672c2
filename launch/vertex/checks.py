"""Everything about a job that can be found wrong without asking the service, so that nothing is paid for it."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs.launch import default
from launch.vertex import machines
from launch.vertex.command_line import TrainerFlags, read_trainer_flags
from launch.vertex.job import Destination, split_pairs
from launch.vertex.secrets import check_no_secrets
from settings.errors import ConfigError

_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]|\d+")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)+(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?")
# Of the characters that a path may have, TensorFlow takes *, ?, [ and \ for a pattern of checkpoints.
_BUCKET_PATH = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/\s*?\[\\]+)*/?")
_SERVICE_ACCOUNT = re.compile(r"[\w.-]+@[\w.-]+\.gserviceaccount\.com")
_NETWORK = re.compile(r"projects/\d+/global/networks/[a-z]([a-z0-9-]*[a-z0-9])?")
_TENSORBOARD = re.compile(r"projects/[^/]+/locations/(?P<region>[^/]+)/tensorboards/\d+")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What Vertex AI itself tells a container.
_RESERVED_VARIABLE = re.compile(r"AIP_.*|CLOUD_ML_.*|CLUSTER_SPEC|TF_CONFIG|TPU_CONFIG")

_MAX_FLEX_START_HOURS = 7 * 24


def check_job(
    config: ConfigDict, destination: Destination, trainer_flags: Sequence[str], *, tuning: bool = False
) -> None:
    """Checks every value of a job, and the trainer's flags against its machines.

    Args:
      config: as in configs/launch/default.py.
      trainer_flags: the arguments of `trainer.main`.
      tuning: whether the job is a study.

    Raises:
      ConfigError: names the flag or field, its value and what is allowed.
    """
    # First, so that no other message repeats a secret.
    check_no_secrets(trainer_flags, [str(pair) for pair in config.get("environment", ())])
    _check_fields(config.to_dict(), default.get_config().to_dict())
    _check_destination(destination)
    _check_names(config, destination.region)
    _check_machines(config)
    _check_scheduling(config)
    trainer = read_trainer_flags(trainer_flags)
    _check_strategy(config, trainer)
    if tuning:
        _check_study(config.study, trainer.config)
    elif config.study.parameters:
        raise ConfigError(
            "config.study.parameters describes a study, of which `submit` would run nothing: use "
            "`python -m launch.vertex tune`, or a config without them."
        )


def _refuse(field: str, value: Any, allowed: str) -> ConfigError:
    return ConfigError(f"{field}={value!r} cannot be used: it has to be {allowed}.")


def _check_fields(fields: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "config.") -> None:
    for name in sorted(fields.keys() - known.keys()):
        raise ConfigError(f"{prefix}{name} is not a field; configs/launch/default.py lists all there are.")
    for name in known:
        if name not in fields:
            raise ConfigError(
                f"{prefix}{name} is missing: start from configs.launch.default.get_config() and change what differs."
            )
        value, wanted = fields[name], known[name]
        if isinstance(wanted, Mapping) and isinstance(value, Mapping):
            _check_fields(value, wanted, f"{prefix}{name}.")
        elif isinstance(wanted, float) and type(value) is int:
            continue
        elif type(value) is not type(wanted):
            raise _refuse(prefix + name, value, f"a {type(wanted).__name__}, like its default {wanted!r}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise _refuse(prefix + name, value, "a finite number")


def _check_destination(destination: Destination) -> None:
    if not _PROJECT.fullmatch(destination.project):
        raise _refuse("--project", destination.project, "the ID of a project, such as my-project-1")
    if destination.region not in machines.REGIONS:
        raise _refuse("--region", destination.region, f"one of {', '.join(machines.REGIONS)}")
    if not _IMAGE.fullmatch(destination.image_uri):
        raise _refuse(
            "--image_uri", destination.image_uri, "an image in a registry, such as REGION-docker.pkg.dev/P/R/IMAGE:TAG"
        )
    if not _BUCKET_PATH.fullmatch(destination.base_output_dir):
        raise _refuse(
            "--base_output_dir",
            destination.base_output_dir,
            "gs://BUCKET/FOLDER, the bucket in lower case, without spaces, empty parts and the characters * ? [ \\",
        )


def _check_names(config: ConfigDict, region: str) -> None:
    if not 1 <= len(config.display_name) <= 128:
        raise _refuse("config.display_name", config.display_name, "from 1 to 128 characters long")
    _check_pairs("config.labels", config.labels)
    if len(config.labels) > 64:
        raise _refuse("config.labels", config.labels, "of at most 64 labels")
    for key, value in split_pairs(config.labels).items():
        if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
            raise _refuse(
                "config.labels",
                f"{key}={value}",
                "KEY=VALUE of at most 63 lower-case letters, digits, _ and - each, the key beginning with a letter",
            )
    _check_pairs("config.environment", config.environment)
    for name in split_pairs(config.environment):
        if not _VARIABLE.fullmatch(name):
            raise _refuse("config.environment", name, "NAME=VALUE with a name of letters, digits and _")
        if _RESERVED_VARIABLE.fullmatch(name):
            raise ConfigError(f"config.environment sets {name}, which Vertex AI sets itself: leave it out.")
    if config.service_account and not _SERVICE_ACCOUNT.fullmatch(config.service_account):
        raise _refuse(
            "config.service_account", config.service_account, "empty, or NAME@PROJECT.iam.gserviceaccount.com"
        )
    if config.network and not _NETWORK.fullmatch(config.network):
        raise _refuse(
            "config.network", config.network, "empty, or projects/NUMBER/global/networks/NAME, by the project's number"
        )
    if config.tensorboard:
        match = _TENSORBOARD.fullmatch(config.tensorboard)
        if not match or match["region"] != region:
            raise _refuse(
                "config.tensorboard",
                config.tensorboard,
                f"empty, or projects/PROJECT/locations/{region}/tensorboards/NUMBER, in the region of the job",
            )
        if not config.service_account:
            raise ConfigError(
                f"config.tensorboard={config.tensorboard!r} needs config.service_account, an account that may write "
                "to it: Vertex AI uploads the logs in its name."
            )


def _check_pairs(field: str, pairs: Sequence[Any]) -> None:
    for pair in pairs:
        if not isinstance(pair, str) or "=" not in pair:
            raise _refuse(field, pair, "NAME=VALUE")
    if len(split_pairs(pairs)) < len(pairs):
        raise _refuse(field, tuple(split_pairs(pairs)), "without two of one name")


def _check_machines(config: ConfigDict) -> None:
    machines.check_machine(config.machine_type, config.accelerator_type, config.accelerator_count, config.tpu_topology)
    if config.num_machines < 1:
        raise _refuse("config.num_machines", config.num_machines, "at least 1")
    if machines.is_tpu(config.machine_type) and config.num_machines > 1:
        raise _refuse(
            "config.num_machines",
            config.num_machines,
            "1 for a TPU, also for a slice over several hosts: its size is that of the slice",
        )
    if config.boot_disk_type not in ("pd-ssd", "pd-standard", "hyperdisk-balanced"):
        raise _refuse("config.boot_disk_type", config.boot_disk_type, "pd-ssd, pd-standard or hyperdisk-balanced")
    if not 100 <= config.boot_disk_size_gb <= 64_000:
        raise _refuse("config.boot_disk_size_gb", config.boot_disk_size_gb, "from 100 to 64000")
    reducers = config.reduction_server
    if reducers.num_machines < 0:
        raise _refuse("config.reduction_server.num_machines", reducers.num_machines, "at least 0")
    if not reducers.num_machines:
        return
    if config.num_machines < 2 or not config.accelerator_type.startswith("NVIDIA_"):
        raise _refuse(
            "config.reduction_server.num_machines",
            reducers.num_machines,
            "0, unless config.num_machines is above 1 and the machines have GPUs: it adds up their gradients",
        )
    machines.check_cpu_machine("config.reduction_server.machine_type", reducers.machine_type)
    if not _IMAGE.fullmatch(reducers.image_uri):
        raise _refuse("config.reduction_server.image_uri", reducers.image_uri, "an image in a registry")


def _check_scheduling(config: ConfigDict) -> None:
    scheduling = config.scheduling
    if scheduling.strategy not in ("standard", "spot", "flex_start"):
        raise _refuse("config.scheduling.strategy", scheduling.strategy, "standard, spot or flex_start")
    # Durations are sent in whole seconds, and one of 0 means something else.
    if round(scheduling.timeout_hours * 3600) < 1:
        raise _refuse("config.scheduling.timeout_hours", scheduling.timeout_hours, "above 0")
    if scheduling.max_wait_hours < 0:
        raise _refuse("config.scheduling.max_wait_hours", scheduling.max_wait_hours, "at least 0")
    if scheduling.strategy == "standard" and config.machine_type in machines.NOT_STANDARD_MACHINES:
        raise _refuse(
            "config.scheduling.strategy", scheduling.strategy, f"spot or flex_start for {config.machine_type}"
        )
    if scheduling.strategy == "spot" and machines.is_tpu_pod(
        config.machine_type, config.accelerator_count, config.tpu_topology
    ):
        raise _refuse(
            "config.scheduling.strategy", scheduling.strategy, "standard for a slice of a TPU over several hosts"
        )
    if scheduling.strategy != "flex_start":
        return
    if not machines.has_built_in_gpus(config.machine_type):
        raise _refuse(
            "config.scheduling.strategy",
            scheduling.strategy,
            f"standard or spot for {config.machine_type}: flex_start is for GPUs from the L4 on",
        )
    if config.reduction_server.num_machines:
        raise _refuse(
            "config.scheduling.strategy",
            scheduling.strategy,
            "standard or spot with a reduction server: flex_start needs all machines to be of one kind",
        )
    if scheduling.timeout_hours > _MAX_FLEX_START_HOURS:
        raise _refuse(
            "config.scheduling.timeout_hours",
            scheduling.timeout_hours,
            f"at most {_MAX_FLEX_START_HOURS}, which is 7 days, with flex_start",
        )


def _check_strategy(config: ConfigDict, trainer: TrainerFlags) -> None:
    """The trainer's flags against the machines."""
    if trainer.workdir:
        raise ConfigError(
            f"--workdir={trainer.workdir} is not for a job on Vertex AI: leave it out, and the trainer writes to "
            "--base_output_dir, where Vertex AI looks for what a run leaves."
        )
    strategy, on_tpu = trainer.strategy, machines.is_tpu(config.machine_type)
    if strategy not in ("default", "mirrored", "multi_worker_mirrored", "tpu"):
        raise _refuse("--strategy", strategy, "default, mirrored, multi_worker_mirrored or tpu")
    if on_tpu and strategy != "tpu":
        raise _refuse("--strategy", strategy, f"tpu, since config.machine_type={config.machine_type!r} is a TPU")
    if strategy == "tpu" and not on_tpu:
        raise ConfigError(
            f"--strategy=tpu needs a TPU, and config.machine_type={config.machine_type!r} is none: use cloud-tpu or "
            "ct5lp-hightpu-4t, as in configs/launch/tpu_v5e.py, or --strategy=mirrored."
        )
    if strategy == "multi_worker_mirrored" and config.num_machines == 1:
        raise ConfigError(
            "--strategy=multi_worker_mirrored needs more than one machine, and config.num_machines=1: raise it, or "
            "use --strategy=mirrored for all GPUs of one machine."
        )
    if strategy in ("default", "mirrored") and config.num_machines > 1:
        raise ConfigError(
            f"--strategy={strategy} uses one machine, and config.num_machines={config.num_machines} would each train "
            "a model of their own: use --strategy=multi_worker_mirrored, or config.num_machines=1."
        )
    if strategy == "default" and config.accelerator_count > 1:
        raise ConfigError(
            f"--strategy=default uses one GPU, and config.accelerator_count={config.accelerator_count} are paid for: "
            "use --strategy=mirrored, or one GPU."
        )
    num_replicas = config.num_machines * machines.num_accelerators(config.accelerator_count, config.tpu_topology)
    global_batch_size = trainer.config.train.global_batch_size
    if global_batch_size % num_replicas:
        raise ConfigError(
            f"The trainer's config.train.global_batch_size={global_batch_size} cannot be divided among the "
            f"{num_replicas} accelerators of this job: use a multiple of {num_replicas}."
        )


def _check_study(study: ConfigDict, trainer_config: ConfigDict) -> None:
    """The study against the figures and fields that the trainer has."""
    measured = ("loss", *trainer_config.eval.metrics)
    if study.metric not in measured:
        raise _refuse(
            "config.study.metric",
            study.metric,
            f"a figure of the trainer's validation: {', '.join(measured)}; or be added to its config.eval.metrics",
        )
    if trainer_config.split.method == "none" or not trainer_config.split.validation_fraction:
        raise ConfigError(
            f"config.study.metric={study.metric!r} is measured on validation ratings, and the trainer's config holds "
            "none out: set its config.split.method and config.split.validation_fraction."
        )
    if study.goal not in ("max", "min"):
        raise _refuse("config.study.goal", study.goal, "max or min")
    if study.algorithm not in ("bayesian", "random", "grid"):
        raise _refuse("config.study.algorithm", study.algorithm, "bayesian, random or grid")
    if study.max_trials < 1:
        raise _refuse("config.study.max_trials", study.max_trials, "at least 1")
    if not 1 <= study.parallel_trials <= study.max_trials:
        raise _refuse(
            "config.study.parallel_trials",
            study.parallel_trials,
            f"from 1 to config.study.max_trials={study.max_trials}",
        )
    if not 0 <= study.max_failed_trials <= study.max_trials:
        raise _refuse(
            "config.study.max_failed_trials",
            study.max_failed_trials,
            f"from 0 to config.study.max_trials={study.max_trials}",
        )
    if not study.parameters:
        raise ConfigError(
            "config.study.parameters is empty, and a study needs something to try: see configs/launch/tune.py."
        )
    for parameter in study.parameters:
        _check_parameter(parameter, trainer_config, study.algorithm)
    names = [parameter["field"] for parameter in study.parameters]
    if len(set(names)) < len(names):
        raise _refuse("config.study.parameters", tuple(names), "without two of one field")


def _check_parameter(parameter: Any, trainer_config: ConfigDict, algorithm: str) -> None:
    name = "config.study.parameters"
    shown = dict(parameter) if isinstance(parameter, Mapping | ConfigDict) else parameter
    if not isinstance(shown, dict) or set(shown) - {"scale"} not in ({"field", "range"}, {"field", "values"}):
        raise _refuse(name, shown, 'of the form {"field": ..., "range": (LOWEST, HIGHEST)} or {..., "values": (...)}')
    wanted = _field_type(trainer_config, shown["field"])
    if wanted is None:
        raise ConfigError(
            f"{name}: config.{shown['field']} is not a field of the trainer's config; configs/default.py lists all "
            "there are."
        )
    scale = shown.get("scale", "linear")
    if scale not in ("linear", "log", "reverse_log"):
        raise _refuse(name, shown, "of scale linear, log or reverse_log")
    values = shown.get("range", shown.get("values"))
    if not isinstance(values, tuple | list) or not values or not all(_fits(value, wanted) for value in values):
        kinds = {int: "whole numbers", float: "numbers"}.get(wanted, "strings")
        raise _refuse(name, shown, f"a tuple of {kinds}, as config.{shown['field']} takes them")
    numeric = wanted in (int, float)
    if "range" in shown:
        if not numeric or len(values) != 2 or not values[0] < values[1]:
            raise _refuse(name, shown, "a range of two numbers, the lowest first")
        if algorithm == "grid" and wanted is float:
            raise _refuse(name, shown, "whole numbers or values with config.study.algorithm='grid'")
    elif numeric and list(values) != sorted(set(values)):
        raise _refuse(name, shown, "values in ascending order, each of them once")
    if scale != "linear" and not (numeric and min(values) > 0):
        raise _refuse(name, shown, "numbers above 0, or of linear scale")


def _field_type(config: ConfigDict, dotted_name: Any) -> type | None:
    """The type of a field's value; None where there is no such field."""
    value: Any = config
    for part in str(dotted_name).split("."):
        if not isinstance(value, ConfigDict) or part not in value:
            return None
        value = value[part]
    return None if isinstance(value, ConfigDict) else type(value)


def _fits(value: Any, wanted: type) -> bool:
    if wanted is float:
        return type(value) in (int, float) and math.isfinite(value)
    # A field of several values is written as it is on a command line: "(64, 32)".
    return type(value) is (int if wanted is int else str)
