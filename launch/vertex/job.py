"""Builds the request for Vertex AI from a launch config, as plain dictionaries. It does not read the environment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launch.vertex.config import JobConfig, Scheduling, split_pairs
from launch.vertex.names import Place
from settings.search_space import SearchParameter

_STRATEGIES = {"standard": "STANDARD", "spot": "SPOT", "flex_start": "FLEX_START"}
_GOALS = {"max": "MAXIMIZE", "min": "MINIMIZE"}
_SCALES = {"linear": "UNIT_LINEAR_SCALE", "log": "UNIT_LOG_SCALE", "reverse_log": "UNIT_REVERSE_LOG_SCALE"}
# Vertex AI's default algorithm is the Bayesian one. It has no name of its own.
_ALGORITHMS = {"bayesian": "ALGORITHM_UNSPECIFIED", "random": "RANDOM_SEARCH", "grid": "GRID_SEARCH"}


@dataclass(frozen=True)
class Destination:
    """Where a job runs, its image, and its output folder."""

    place: Place
    image_uri: str
    base_output_dir: str


def build_custom_job_request(
    config: JobConfig, destination: Destination, trainer_flags: Sequence[str]
) -> dict[str, Any]:
    """Builds the CreateCustomJobRequest of one run.

    Args:
      config: The checked config.
      destination: Where the job runs.
      trainer_flags: The arguments of `trainer.main`, which the image starts.
    """
    job = {**_name(config), "job_spec": _job_spec(config, destination, trainer_flags)}
    return {"parent": str(destination.place), "custom_job": job}


def build_tuning_job_request(
    config: JobConfig, destination: Destination, trainer_flags: Sequence[str]
) -> dict[str, Any]:
    """Builds the CreateHyperparameterTuningJobRequest of a study. Its trials are runs of `build_custom_job_request`.

    Vertex AI appends each parameter to the arguments of a trial, as --config.FIELD=VALUE.
    """
    study = config.study
    job = {
        **_name(config),
        "study_spec": {
            "metrics": [{"metric_id": study.metric, "goal": _GOALS[study.goal]}],
            "parameters": [_parameter_spec(parameter) for parameter in study.parameters],
            "algorithm": _ALGORITHMS[study.algorithm],
            # The trainer exports the best checkpoint, not the last one.
            "measurement_selection_type": "BEST_MEASUREMENT",
        },
        "max_trial_count": study.max_trials,
        "parallel_trial_count": study.parallel_trials,
        "max_failed_trial_count": study.max_failed_trials,
        "trial_job_spec": _job_spec(config, destination, trainer_flags),
    }
    return {"parent": str(destination.place), "hyperparameter_tuning_job": job}


def _name(config: JobConfig) -> dict[str, Any]:
    return _without_empty({"display_name": config.display_name, "labels": split_pairs(config.labels)})


def _job_spec(config: JobConfig, destination: Destination, trainer_flags: Sequence[str]) -> dict[str, Any]:
    return _without_empty(
        {
            "worker_pool_specs": _worker_pool_specs(config, destination.image_uri, trainer_flags),
            "scheduling": _scheduling(config.scheduling),
            "service_account": config.service_account,
            "network": config.network,
            "base_output_directory": {"output_uri_prefix": destination.base_output_dir},
            "tensorboard": config.tensorboard,
        }
    )


def _worker_pool_specs(config: JobConfig, image_uri: str, trainer_flags: Sequence[str]) -> list[dict[str, Any]]:
    """Builds the pools of the chief, the workers and the reduction server. Vertex AI knows a pool by its position."""

    def trainers(num_machines: int) -> dict[str, Any]:
        return {
            "machine_spec": _without_empty(
                {
                    "machine_type": config.machine_type,
                    "accelerator_type": config.accelerator_type,
                    "accelerator_count": config.accelerator_count,
                    "tpu_topology": config.tpu_topology,
                }
            ),
            "replica_count": num_machines,
            "disk_spec": {"boot_disk_type": config.boot_disk_type, "boot_disk_size_gb": config.boot_disk_size_gb},
            "container_spec": _without_empty(
                {
                    "image_uri": image_uri,
                    "args": list(trainer_flags),
                    "env": [{"name": n, "value": v} for n, v in split_pairs(config.environment).items()],
                }
            ),
        }

    pools = [trainers(1)]
    if config.num_machines > 1:
        pools.append(trainers(config.num_machines - 1))
    if config.reduction_server.num_machines:
        pools.append(
            {
                "machine_spec": {"machine_type": config.reduction_server.machine_type},
                "replica_count": config.reduction_server.num_machines,
                "container_spec": {"image_uri": config.reduction_server.image_uri},
            }
        )
    return pools


def _scheduling(scheduling: Scheduling) -> dict[str, Any]:
    spec = {"strategy": _STRATEGIES[scheduling.strategy], "timeout": _seconds(scheduling.timeout_hours)}
    if scheduling.strategy == "flex_start":
        spec["max_wait_duration"] = _seconds(scheduling.max_wait_hours)
    # A cluster cannot go on without one of its machines, so all of them restart, or none.
    restarts = scheduling.max_restarts > 0
    return {**spec, "restart_job_on_worker_restart": restarts, "disable_retries": not restarts}


def _seconds(hours: float) -> str:
    return f"{round(hours * 3600)}s"


def _parameter_spec(parameter: SearchParameter) -> dict[str, Any]:
    spec: dict[str, Any] = {"parameter_id": f"config.{parameter.field}"}
    values = parameter.tried
    if parameter.range is not None:
        kind = "integer_value_spec" if all(isinstance(end, int) for end in values) else "double_value_spec"
        spec[kind] = {"min_value": values[0], "max_value": values[1]}
    elif not parameter.is_numeric:
        # As on the command line of a trial: --config.model.hidden_sizes="(64, 32)".
        return {**spec, "categorical_value_spec": {"values": list(map(str, values))}}
    else:
        spec["discrete_value_spec"] = {"values": list(values)}
    return {**spec, "scale_type": _SCALES[parameter.scale]}


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    """Leaves out empty fields, so that Vertex AI uses its defaults."""
    return {name: value for name, value in fields.items() if value}
