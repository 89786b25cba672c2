"""The commands about jobs: submit, tune, status, logs, cancel."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from absl import flags
from ml_collections import config_flags

from configs.launch import default
from launch.vertex import client, command_line, job_service
from launch.vertex.checks import check_job
from launch.vertex.config import tensorboard_region
from launch.vertex.job import Destination, build_custom_job_request, build_tuning_job_request
from launch.vertex.names import JobName, Place, parse_job_name
from settings import cli

_IMAGE_AND_OUTPUT = {
    "image_uri": "The trainer's image, built by `make image`, in a registry that the project can read.",
    "base_output_dir": "The output folder gs://BUCKET/FOLDER. It is the trainer's --workdir.",
}


def submit(arguments: Sequence[str], *, usage: str | None = None, tuning: bool = False) -> int:
    """Submits a run of the trainer, or with `tuning` a study of many runs."""
    # The flags behind -- are the trainer's. ml_collections must not see its --config.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own = cli.with_default_config(arguments[:end], default.__file__)
    trainer_flags = list(arguments[end + 1 :])

    values = flags.FlagValues()
    command_line.define_place(values)
    for flag, meaning in _IMAGE_AND_OUTPUT.items():
        flags.DEFINE_string(flag, None, meaning, flag_values=values)
    config_flags.DEFINE_config_file("config", None, "The launch config.", flag_values=values, sys_argv=["", *own])
    if command_line.is_help(usage, values, own):
        return 0
    command_line.parse(
        values,
        own,
        required=["project", "region", *_IMAGE_AND_OUTPUT],
        way_out=", and the trainer's flags after --.",
    )
    place = Place(values.project, values.region)
    destination = Destination(place, values.image_uri, values.base_output_dir.removesuffix("/"))
    config, warnings = check_job(values.config, destination, trainer_flags, tuning=tuning)
    command_line.print_warnings(warnings)
    if tuning:
        kind, message = "hyperparameterTuningJobs", "CreateHyperparameterTuningJobRequest"
        request = build_tuning_job_request(config, destination, trainer_flags)
    else:
        kind, message = "customJobs", "CreateCustomJobRequest"
        request = build_custom_job_request(config, destination, trainer_flags)

    if values.dry_run:
        command_line.print_requests({message: request})
        return 0
    name = job_service.create_job(client.build_client("Job", place.region), kind, request, place.region)
    print(_next_commands(name, base_output_dir=destination.base_output_dir, tensorboard=config.tensorboard))
    return 0


def on_job(arguments: Sequence[str], act: Callable[[JobName], None], *, usage: str | None = None) -> int:
    """Does something with the job that --job names."""
    values = flags.FlagValues()
    flags.DEFINE_string("job", "", "The full name of the job, as it was printed.", flag_values=values)
    if command_line.is_help(usage, values, arguments):
        return 0
    command_line.parse(values, arguments, required=())
    act(parse_job_name(values.job))
    return 0


def print_status(name: JobName) -> None:
    """Prints the state of a job, and what it has done."""
    job = job_service.load_job(client.build_client("Job", name.place.region), name)
    print(f"{job.display_name}: {job.state.name}")
    for what, moment in (("created", job.create_time), ("started", job.start_time), ("ended", job.end_time)):
        if moment:
            print(f"{what:8} {moment:%Y-%m-%d %H:%M:%S} UTC")
    if job.error.message:
        print(f"error    {job.error.message}")
    if name.kind == "hyperparameterTuningJobs":
        _print_trials(job)
    if name.kind == "batchPredictionJobs":
        stats = job.completion_stats
        print(f"lines    {stats.successful_count} predicted, {stats.failed_count} failed")
        if job.output_info.gcs_output_directory:
            print(f"output   {job.output_info.gcs_output_directory}")
    print(f"page     {name.page}")


def print_logs(name: JobName) -> None:
    """Prints where the logs of a job are."""
    if name.kind == "batchPredictionJobs":
        print(f"In the browser:  {name.page}")
        return
    # Reading the logs needs another library. The console shows them, so it is enough to print the address.
    query = quote(f'resource.type="ml_job" AND resource.labels.job_id="{name.number}"')
    kind = "custom-jobs" if name.kind == "customJobs" else "hp-tuning-jobs"
    place = name.place
    print(f"In the browser:  https://console.cloud.google.com/logs/query;query={query}?project={place.project}")
    print(
        f"In a terminal:   gcloud ai {kind} stream-logs {name.number} --project={place.project} --region={place.region}"
    )


def cancel(name: JobName) -> None:
    """Cancels a job."""
    job_service.cancel_job(client.build_client("Job", name.place.region), name)
    print(f"{name} will end within a few minutes. `python -m launch.vertex status --job={name}` shows its state.")


def _print_trials(study: Any) -> None:
    for trial in study.trials:
        parameters = "  ".join(f"{parameter.parameter_id}={parameter.value}" for parameter in trial.parameters)
        metrics = "  ".join(f"{metric.metric_id} {metric.value:.4f}" for metric in trial.final_measurement.metrics)
        print(f"trial {trial.id}: {trial.state.name}  {parameters}  {metrics}".rstrip())


def _next_commands(name: JobName, *, base_output_dir: str, tensorboard: str) -> str:
    """Returns the commands and addresses for a submitted job, one per line."""
    logs = base_output_dir if name.kind == "hyperparameterTuningJobs" else f"{base_output_dir}/logs"
    lines = [
        f"Submitted:    {name}",
        f"Its page:     {name.page}",
        f"Status:       python -m launch.vertex status --job={name}",
        f"Logs:         python -m launch.vertex logs --job={name}",
        f"TensorBoard:  tensorboard --logdir={logs} --host=127.0.0.1",
    ]
    if tensorboard:
        region = tensorboard_region(tensorboard)
        experiment = f"{tensorboard}/experiments/{name.number}".replace("/", "+")
        lines.append(f"  managed:    https://{region}.tensorboard.googleusercontent.com/experiment/{experiment}")
    lines.append(f"Stop paying:  python -m launch.vertex cancel --job={name}")
    return "\n".join(lines)
