"""Runs the trainer as a Vertex AI job.

python -m launch.vertex [submit] --project=P --region=R --image_uri=IMAGE --base_output_dir=gs://B/run \\
    [--config=configs/launch/NAME.py] [--config.FIELD=VALUE ...] [--dry_run] -- <flags of trainer.main>
python -m launch.vertex tune ...       the same for a study of many runs, as configs/launch/tune.py describes one
python -m launch.vertex status --job=NAME
python -m launch.vertex logs   --job=NAME
python -m launch.vertex cancel --job=NAME
"""

import functools
import sys
from collections.abc import Callable, Sequence
from urllib.parse import quote

import yaml
from absl import flags

from launch.vertex import service
from launch.vertex.checks import check_job
from launch.vertex.command_line import parse
from launch.vertex.job import Destination, build_custom_job_request, build_tuning_job_request
from settings.errors import ConfigError, UserError

_DESTINATION = {
    "project": "The Google Cloud project that runs and pays.",
    "region": "Where its machines stand, such as us-central1.",
    "image_uri": "The trainer's image, as `make image` builds it, in a registry the project can read.",
    "base_output_dir": "gs://BUCKET/FOLDER for what the run leaves: the trainer's --workdir.",
}


def main(arguments: Sequence[str]) -> int:
    """Does what the first of the arguments says; without one, submits. Returns the exit code."""
    command, own = ("submit", list(arguments))
    if own and not own[0].startswith("-"):
        command = own.pop(0)
    try:
        if command not in _COMMANDS:
            raise ConfigError(f"{command!r} is no command: it has to be one of {', '.join(_COMMANDS)}.")
        return _COMMANDS[command](own)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _launch(arguments: Sequence[str], *, tuning: bool) -> int:
    # What follows `--` is the trainer's; ml_collections would take its --config.X for the launcher's own.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own, trainer_flags = list(arguments[:end]), list(arguments[end + 1 :])

    values = flags.FlagValues()
    for flag, meaning in _DESTINATION.items():
        flags.DEFINE_string(flag, None, meaning, flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Check the job and print it; nothing is sent.", flag_values=values)
    if _asks_for_help(values, own):
        return 0
    try:
        rest = parse(values, own, default_config="launch/default.py")
    except ConfigError as error:
        raise ConfigError(f"{error} --help lists the flags, configs/launch/default.py the fields.") from error
    _refuse_rest(rest)
    missing = [flag for flag in _DESTINATION if not values[flag].value]
    if missing:
        raise ConfigError(f"--{missing[0]} is missing. --help explains it.")
    destination = Destination(values.project, values.region, values.image_uri, values.base_output_dir.removesuffix("/"))
    config = values.config
    check_job(config, destination, trainer_flags, tuning=tuning)
    build_request = build_tuning_job_request if tuning else build_custom_job_request
    request = build_request(config, destination, trainer_flags)

    if values.dry_run:
        print(yaml.safe_dump(request, sort_keys=False, width=1000), end="")
        if not service.check_request(request):
            print("The client library is not installed: the job was not checked against it.", file=sys.stderr)
        return 0
    name = service.create_job(service.build_client(destination.region), request, destination.region)
    print(_followed(name, base_output_dir=destination.base_output_dir, tensorboard=config.tensorboard))
    return 0


def _on_job(act: Callable[[service.JobName], None], arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("job", "", "The job's whole name, as `submit` printed it.", flag_values=values)
    if _asks_for_help(values, arguments):
        return 0
    try:
        _refuse_rest(values(["", *arguments])[1:])
    except flags.Error as error:
        raise ConfigError(f"{str(error).rstrip('.')}. --help lists the flags.") from error
    act(service.parse_job_name(values.job))
    return 0


def _status(name: service.JobName) -> None:
    job = service.load_job(service.build_client(name.region), name)
    print(f"{job.display_name}: {job.state.name}")
    for what, moment in (("created", job.create_time), ("started", job.start_time), ("ended", job.end_time)):
        if moment:
            print(f"{what:8} {moment:%Y-%m-%d %H:%M:%S} UTC")
    if job.error.message:
        print(f"error    {job.error.message}")
    for trial in job.trials if name.is_study else ():
        parameters = "  ".join(f"{parameter.parameter_id}={parameter.value}" for parameter in trial.parameters)
        figures = "  ".join(f"{metric.metric_id} {metric.value:.4f}" for metric in trial.final_measurement.metrics)
        print(f"trial {trial.id}: {trial.state.name}  {parameters}  {figures}".rstrip())
    print(f"page     {name.page}")


def _logs(name: service.JobName) -> None:
    # Reading them takes a library of its own, and the console shows them already: it is enough to say where.
    query = f'resource.type="ml_job" AND resource.labels.job_id="{name.number}"'
    kind = "hp-tuning-jobs" if name.is_study else "custom-jobs"
    print(f"In the browser:  https://console.cloud.google.com/logs/query;query={quote(query)}?project={name.project}")
    print(
        f"In a terminal:   gcloud ai {kind} stream-logs {name.number} --project={name.project} --region={name.region}"
    )


def _cancel(name: service.JobName) -> None:
    service.cancel_job(service.build_client(name.region), name)
    print(f"{name} ends within a few minutes; `python -m launch.vertex status --job={name}` tells when.")


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "submit": functools.partial(_launch, tuning=False),
    "tune": functools.partial(_launch, tuning=True),
    "status": functools.partial(_on_job, _status),
    "logs": functools.partial(_on_job, _logs),
    "cancel": functools.partial(_on_job, _cancel),
}


def _asks_for_help(values: flags.FlagValues, arguments: Sequence[str]) -> bool:
    if not {"--help", "-help", "-h"} & set(arguments):
        return False
    print(f"{__doc__}\n{values.get_help()}")
    return True


def _refuse_rest(rest: Sequence[str]) -> None:
    if rest:
        raise ConfigError(f"{rest[0]!r} is not a flag: every argument is --name=value. The trainer's follow `--`.")


def _followed(name: service.JobName, *, base_output_dir: str, tensorboard: str) -> str:
    """What to do with a submitted job, in lines to copy."""
    logs = base_output_dir if name.is_study else f"{base_output_dir}/logs"
    lines = [
        f"Submitted:    {name}",
        f"Its page:     {name.page}",
        f"Status:       python -m launch.vertex status --job={name}",
        f"Logs:         python -m launch.vertex logs --job={name}",
        f"TensorBoard:  tensorboard --logdir={logs}",
    ]
    if tensorboard:
        region = tensorboard.split("/")[3]
        experiment = f"{tensorboard}/experiments/{name.number}".replace("/", "+")
        lines.append(f"  managed:    https://{region}.tensorboard.googleusercontent.com/experiment/{experiment}")
    lines.append(f"Stop paying:  python -m launch.vertex cancel --job={name}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
