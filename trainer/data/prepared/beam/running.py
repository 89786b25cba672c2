"""Runs a preparation on one of Beam's runners: its flags, its errors, and what it leaves."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, SetupOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import PipelineState

from settings.errors import ConfigError, UnavailableError
from trainer.data.prepared.beam.failures import forget, reported
from trainer.data.prepared.beam.job import DATAFLOW, Job, build_job
from trainer.data.prepared.beam.parts import PartName, list_parts
from trainer.data.prepared.beam.pipeline import build_pipeline
from trainer.data.prepared.manifest import Manifest, load_manifest
from trainer.data.prepared.writing import whole_or_not_at_all

# Beam's own DirectRunner first tries to download another runner, Prism. This is the one that it falls back to.
_RUNNERS = {"DirectRunner": "apache_beam.runners.portability.fn_api_runner.FnApiRunner"}

_PASSES_FLAGS_ON = ("FlinkRunner", "SparkRunner", "PortableRunner")
"""The runners with a server that knows more flags than Beam."""


def prepare_on_beam(
    arguments: Mapping[str, Any],
    output: str,
    *,
    runner: str,
    flags: Sequence[str],
    report: Callable[[str], None],
    quiet: bool = True,
) -> Manifest:
    """Prepares a data set on Beam. It is written as a whole or not at all.

    Args:
      arguments: those of `load_source`.
      output: the folder to write, where nothing is yet, in a file system that all workers share.
      runner: the name of a runner of Beam.
      flags: Beam's flags.
      report: is called with a line about the job if the runner gives it an id.
      quiet: whether to leave out what Beam and its workers print.

    Raises:
      ConfigError: a flag, the runner or the source cannot be used.
      DataError: the ratings cannot be used.
      StorageError: the source cannot be read, or the folder cannot be written.
      UnavailableError: the runner failed.
    """
    with whole_or_not_at_all(output) as temporary:
        job = build_job(arguments, temporary)
        pipeline = _build(job, list_parts(job), runner, flags)
        with _naming(runner, temporary), _silence() if quiet else contextlib.nullcontext():
            result = pipeline.run()
            if hasattr(result, "job_id"):
                report(f"{runner} runs job {result.job_id()}.")
            try:
                state = result.wait_until_finish()
            except BaseException:
                # Or the workers would go on without the command, and write into a folder that is removed.
                with contextlib.suppress(Exception):
                    result.cancel()
                raise
            if state != PipelineState.DONE:
                raise RuntimeError(f"the state of the pipeline is {state}")
        forget(temporary)
        return load_manifest(temporary)


def describe_job(arguments: Mapping[str, Any], output: str, *, runner: str, flags: Sequence[str]) -> list[str]:
    """Builds the job of a preparation and checks its flags, without running it.

    No credentials are needed: the files of sources that are not on this machine are not listed.

    Args:
      arguments, output, runner, flags: as in `prepare_on_beam`.

    Returns:
      Lines: the options that differ from Beam's defaults, the files and buckets, the steps, and for Dataflow the job
      in JSON.

    Raises:
      ConfigError: a flag, the runner or the source cannot be used.
    """
    sources = [arguments[name] for name in ("source", "validation_source", "test_source")]
    is_remote = any("://" in source for source in sources)
    job = build_job(arguments, output, sources_are_known=not is_remote)
    names = [] if is_remote else list_parts(job)
    pipeline = _build(job, names, runner, [*flags, "--dry_run=True"] if runner == DATAFLOW else flags)
    steps = [step.full_label for step in pipeline.transforms_stack[0].parts]
    lines = [f"{name}: {value}" for name, value in sorted(pipeline.options.get_all_options(drop_default=True).items())]
    if not is_remote:
        lines += [f"files: {len(names):,}", f"buckets of users: {job.num_buckets:,}"]
    lines += [f"output: {output}"]
    lines += [f"step: {name}" for name in steps]
    if runner == DATAFLOW:
        with _naming(runner, output), _silence():
            lines += _dataflow_job(pipeline).splitlines()
    return lines


def _dataflow_job(pipeline: beam.Pipeline) -> str:
    """The job that would be sent to Dataflow, in JSON."""
    from apache_beam.runners.dataflow.internal import apiclient

    # With --dry_run Beam makes the job, and stops before it looks for credentials. The environment of the workers is
    # only added with the client that sends the job, after files were uploaded, so it is added here.
    job = pipeline.run().job
    staging = pipeline.options.view_as(GoogleCloudOptions).staging_location
    job.proto.environment = apiclient.Environment(
        packages=[],
        options=pipeline.options,
        environment_version=apiclient._FNAPI_ENVIRONMENT_MAJOR_VERSION,
        proto_pipeline_staged_url=f"{staging}/pipeline.pb",
        proto_pipeline=job.proto_pipeline,
    ).proto
    return job.json()


def _build(job: Job, names: Sequence[PartName], runner: str, flags: Sequence[str]) -> beam.Pipeline:
    options = _parse(runner, flags)
    try:
        pipeline = beam.Pipeline(options=options)
    except (ValueError, ImportError, AttributeError, RuntimeError) as error:
        raise ConfigError(
            f"--runner={runner} cannot be used with these flags of Beam ({' '.join(flags) or 'none'}): "
            f"{' '.join(str(error).split()).rstrip('.')}. Write the flags that it needs after --."
        ) from error
    build_pipeline(pipeline, job, names)
    return pipeline


def _parse(runner: str, flags: Sequence[str]) -> PipelineOptions:
    for flag in flags:
        if not flag.startswith("--"):
            raise ConfigError(f"{flag!r} after -- is not a flag. Write each flag of Beam as --name=value.")
    printed = io.StringIO()
    try:
        with _silence(), contextlib.redirect_stderr(printed):
            options = PipelineOptions([f"--runner={_RUNNERS.get(runner, runner)}", *flags])
            known = options.get_all_options()
            unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
    except SystemExit as error:  # From argparse, which prints the reason.
        reason = printed.getvalue().strip().splitlines()[-1].rpartition("error: ")[2]
        raise ConfigError(f"A flag of Beam after -- cannot be used: {reason}.") from error
    if unknown and runner not in _PASSES_FLAGS_ON:
        raise ConfigError(f"--{min(unknown)} after -- is not a flag of Beam. Beam's documentation lists its flags.")
    if runner == DATAFLOW:
        # Without a folder for temporary files Beam would look for credentials, and make a bucket of its own.
        cloud = options.view_as(GoogleCloudOptions)
        for problem in PipelineOptionsValidator(options, None).validate_gcs_path(cloud, "temp_location"):
            raise ConfigError(f"--runner={runner}: {problem} Write --temp_location=gs://BUCKET/FOLDER after --.")
    # Workers import what they run. Beam would also send them what is in the module of the command.
    options.view_as(SetupOptions).save_main_session = False
    return options


@contextlib.contextmanager
def _naming(runner: str, folder: str) -> Iterator[None]:
    """Turns an error of a pipeline into that of its worker, or into one that names the runner."""
    try:
        yield
    except Exception as error:
        raise reported(folder) or UnavailableError(
            f"The pipeline failed on {runner}: {_line(error)}. Start the same command again with --traceback to see "
            "where it failed."
        ) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Leaves out what this process and its workers print to stderr.

    Workers print the traceback of every error themselves, also of one that is reported in a paragraph.
    """
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with tempfile.TemporaryFile() as ignored:
            os.dup2(ignored.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


def _line(error: Exception) -> str:
    """The last line of the text of an error, which often is a traceback of a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1][:300].rstrip(".")
