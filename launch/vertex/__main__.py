"""Run the trainer as a Vertex AI job.

python -m launch.vertex [submit] --project=P --region=R --image_uri=IMAGE --base_output_dir=gs://B/run \\
    [--config=configs/launch/NAME.py] [--config.FIELD=VALUE ...] [--dry_run] -- <flags of trainer.main>
python -m launch.vertex tune ...       a study of many runs, as in configs/launch/tune.py
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
from ml_collections import config_flags

from configs.launch import default
from launch.vertex import service
from launch.vertex.checks import check_job
from launch.vertex.config import DEFAULTS_FILE, tensorboard_region
from launch.vertex.job import Destination, build_custom_job_request, build_tuning_job_request
from settings import cli
from settings.errors import ConfigError

_DESTINATION = {
    "project": "The Google Cloud project that runs the job and pays for it.",
    "region": "The region of the machines, such as us-central1.",
    "image_uri": "The trainer's image, built by `make image`, in a registry that the project can read.",
    "base_output_dir": "The output folder gs://BUCKET/FOLDER. It is the trainer's --workdir.",
}


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the first argument names, `submit` by default, and returns its exit code."""
    return cli.report_errors(lambda: _run(arguments)) or 0


def _run(arguments: Sequence[str]) -> int:
    command, own = "submit", list(arguments)
    if own and not own[0].startswith("-"):
        command = own.pop(0)
    if command not in _COMMANDS:
        raise ConfigError(f"{command!r} is not a command. Use one of {', '.join(_COMMANDS)}.")
    return _COMMANDS[command](own)


def _launch(arguments: Sequence[str], *, tuning: bool) -> int:
    # The flags behind -- are the trainer's. ml_collections must not see its --config.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own = cli.with_default_config(arguments[:end], default.__file__)
    trainer_flags = list(arguments[end + 1 :])

    values = flags.FlagValues()
    for flag, meaning in _DESTINATION.items():
        flags.DEFINE_string(flag, None, meaning, flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Check the job and print it, but do not submit it.", flag_values=values)
    config_flags.DEFINE_config_file("config", None, "The launch config.", flag_values=values, sys_argv=["", *own])
    if _asks_for_help(values, own):
        return 0
    _refuse_rest(cli.parse_flags(values, own, defaults_file=DEFAULTS_FILE))
    missing = [flag for flag in _DESTINATION if not values[flag].value]
    if missing:
        raise ConfigError(f"--{missing[0]} is missing. --help explains it.")
    destination = Destination(values.project, values.region, values.image_uri, values.base_output_dir.removesuffix("/"))
    config, warnings = check_job(cli.load_config(values), destination, trainer_flags, tuning=tuning)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    build_request = build_tuning_job_request if tuning else build_custom_job_request
    request = build_request(config, destination, trainer_flags)

    if values.dry_run:
        print(yaml.safe_dump(request, sort_keys=False, width=1000), end="")
        if not service.check_request(request):
            print(
                "warning: The client library of Vertex AI is not installed, so the job was not checked against it.",
                file=sys.stderr,
            )
        return 0
    name = service.create_job(service.build_client(destination.region), request, destination.region)
    print(_next_commands(name, base_output_dir=destination.base_output_dir, tensorboard=config.tensorboard))
    return 0


def _on_job(act: Callable[[service.JobName], None], arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("job", "", "The full name of the job, as `submit` printed it.", flag_values=values)
    if _asks_for_help(values, arguments):
        return 0
    _refuse_rest(cli.parse_flags(values, arguments, defaults_file=DEFAULTS_FILE))
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
        metrics = "  ".join(f"{metric.metric_id} {metric.value:.4f}" for metric in trial.final_measurement.metrics)
        print(f"trial {trial.id}: {trial.state.name}  {parameters}  {metrics}".rstrip())
    print(f"page     {name.page}")


def _logs(name: service.JobName) -> None:
    # Reading the logs needs another library. The console shows them, so it is enough to print the address.
    query = f'resource.type="ml_job" AND resource.labels.job_id="{name.number}"'
    kind = "hp-tuning-jobs" if name.is_study else "custom-jobs"
    print(f"In the browser:  https://console.cloud.google.com/logs/query;query={quote(query)}?project={name.project}")
    print(
        f"In a terminal:   gcloud ai {kind} stream-logs {name.number} --project={name.project} --region={name.region}"
    )


def _cancel(name: service.JobName) -> None:
    service.cancel_job(service.build_client(name.region), name)
    print(f"{name} will end within a few minutes. `python -m launch.vertex status --job={name}` shows its state.")


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
        raise ConfigError(
            f"{rest[0]!r} is not a flag. Write each argument as --name=value, and the trainer's flags after --."
        )


def _next_commands(name: service.JobName, *, base_output_dir: str, tensorboard: str) -> str:
    """Returns the commands and addresses for a submitted job, one per line."""
    logs = base_output_dir if name.is_study else f"{base_output_dir}/logs"
    lines = [
        f"Submitted:    {name}",
        f"Its page:     {name.page}",
        f"Status:       python -m launch.vertex status --job={name}",
        f"Logs:         python -m launch.vertex logs --job={name}",
        f"TensorBoard:  tensorboard --logdir={logs}",
    ]
    if tensorboard:
        region = tensorboard_region(tensorboard)
        experiment = f"{tensorboard}/experiments/{name.number}".replace("/", "+")
        lines.append(f"  managed:    https://{region}.tensorboard.googleusercontent.com/experiment/{experiment}")
    lines.append(f"Stop paying:  python -m launch.vertex cancel --job={name}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
