"""Checks everything about a job that can be checked without the service, before it costs money."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from launch.trainer_flags import TrainerFlags, read_trainer_flags
from launch.vertex import machines
from launch.vertex.config import JobConfig, load_job_config, tensorboard_region
from launch.vertex.job import Destination
from launch.vertex.names import IMAGE, check_bucket_path, check_place
from launch.vertex.paths import check_config_file, check_sources
from launch.vertex.secrets import check_no_secret_variables, check_no_secrets
from settings.errors import ConfigError
from settings.search_space import sample_trials
from settings.sections import cannot_be_used
from settings.trainer_config import load_trainer_config


def check_job(
    config: ConfigDict, destination: Destination, trainer_flags: Sequence[str], *, tuning: bool = False
) -> tuple[JobConfig, list[str]]:
    """Checks all values of a job, and the trainer's flags against its machines.

    Args:
      config: The launch config.
      destination: Where the job runs.
      trainer_flags: The arguments of `trainer.main`.
      tuning: Whether the job is a study.

    Returns:
      The typed config, and warnings about names and paths that may not exist.

    Raises:
      ConfigError: It names the flag or field, its value and what is allowed.
    """
    # This check comes first, so that no other message repeats a secret.
    environment = config.get("environment", ())
    check_no_secrets(trainer_flags, "The trainer's argument")
    if isinstance(environment, tuple | list):
        check_no_secret_variables(list(map(str, environment)))
    job = load_job_config(config)
    _check_destination(destination)
    if job.tensorboard and tensorboard_region(job.tensorboard) != destination.place.region:
        raise cannot_be_used(
            "config.tensorboard", job.tensorboard, f"a TensorBoard in the region of the job, {destination.place.region}"
        )
    trainer = read_trainer_flags(trainer_flags)
    if trainer.config_file:
        check_config_file(trainer.config_file)
    warnings = check_sources(trainer.config)
    _check_strategy(job, trainer)
    if tuning:
        warnings += _check_study(job, trainer)
    elif job.study.parameters:
        raise ConfigError(
            "config.study.parameters describes a study, but `submit` runs a single job. Use "
            "`python -m launch.vertex tune`, or a config without parameters."
        )
    reducers = [job.reduction_server.machine_type] if job.reduction_server.num_machines else []
    warnings += machines.find_unknown_names(
        region=destination.place.region,
        machine_types=[job.machine_type, *reducers],
        accelerator_type=job.accelerator_type,
    )
    # The trials of a study repeat the warnings of the first one.
    return job, list(dict.fromkeys(warnings))


def _check_destination(destination: Destination) -> None:
    check_place(destination.place)
    if not IMAGE.fullmatch(destination.image_uri):
        raise cannot_be_used(
            "--image_uri", destination.image_uri, "an image in a registry, such as REGION-docker.pkg.dev/P/R/IMAGE:TAG"
        )
    check_bucket_path("--base_output_dir", destination.base_output_dir)


def _check_strategy(job: JobConfig, trainer: TrainerFlags) -> None:
    """Checks the trainer's flags against the machines."""
    if trainer.workdir:
        raise ConfigError(
            f"--workdir={trainer.workdir} cannot be used on Vertex AI. Leave it out: the trainer then writes to "
            "--base_output_dir, where Vertex AI expects the output."
        )
    strategy, on_tpu = trainer.strategy, machines.is_tpu(job.machine_type)
    if on_tpu and strategy != "tpu":
        raise cannot_be_used("--strategy", strategy, f"tpu, because config.machine_type={job.machine_type!r} is a TPU")
    if strategy == "tpu" and machines.is_known(job.machine_type) and not on_tpu:
        raise ConfigError(
            f"--strategy=tpu needs a TPU, but config.machine_type={job.machine_type!r} has none. Use cloud-tpu or "
            "ct5lp-hightpu-4t, as in configs/launch/tpu_v5e.py, or --strategy=mirrored."
        )
    if strategy == "multi_worker_mirrored" and job.num_machines == 1:
        raise ConfigError(
            "--strategy=multi_worker_mirrored needs several machines, but config.num_machines=1. Raise it, or use "
            "--strategy=mirrored for all GPUs of one machine."
        )
    if strategy in ("default", "mirrored") and job.num_machines > 1:
        raise ConfigError(
            f"--strategy={strategy} uses one machine, but config.num_machines={job.num_machines}, and each machine "
            "would train its own model. Use --strategy=multi_worker_mirrored, or set config.num_machines to 1."
        )
    if strategy == "default" and job.accelerator_count > 1:
        raise ConfigError(
            f"--strategy=default uses one GPU, but config.accelerator_count={job.accelerator_count}. Use "
            "--strategy=mirrored, or one GPU."
        )
    _check_batch_size(job, trainer.config.train.global_batch_size)


def _check_batch_size(job: JobConfig, global_batch_size: int) -> None:
    num_replicas = job.num_machines * machines.num_accelerators(job.accelerator_count, job.tpu_topology)
    if global_batch_size % num_replicas:
        raise ConfigError(
            f"The trainer's config.train.global_batch_size={global_batch_size} cannot be divided among the "
            f"{num_replicas} accelerators of this job. Use a multiple of {num_replicas}."
        )


def _check_study(job: JobConfig, trainer: TrainerFlags) -> list[str]:
    """Checks the study against the metrics and fields of the trainer. Returns the warnings of its trials."""
    study = job.study
    measured, split = trainer.config.eval.measured, trainer.config.split
    if study.metric not in measured:
        raise cannot_be_used(
            "config.study.metric",
            study.metric,
            f"a validation metric of the trainer: {', '.join(measured)}. Or add it to its config.eval.metrics",
        )
    if split.method == "none" or not (split.validation_fraction or split.validation_source):
        raise ConfigError(
            f"config.study.metric={study.metric!r} is measured on the validation split, but the trainer's config has "
            "none. Set its config.split.method and config.split.validation_fraction."
        )
    if not study.parameters:
        raise ConfigError(
            "config.study.parameters is empty. A study needs parameters to try, as in configs/launch/tune.py."
        )
    warnings: list[str] = []
    for tried, fields in sample_trials(study.parameters, trainer.config_dict.to_dict(), "config.study.parameters"):
        try:
            config = load_trainer_config(fields)
            warnings += check_sources(config)
        except ConfigError as error:
            raise ConfigError(f"config.study.parameters: with {tried}, a trial would fail: {error}") from error
        _check_batch_size(job, config.train.global_batch_size)
    return warnings
