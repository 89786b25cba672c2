"""Calls Vertex AI's service of jobs: runs of the trainer, studies and batch predictions."""

from collections.abc import Mapping
from typing import Any

from launch.vertex.client import JOB, PREDICTION, TIMEOUT_SECONDS, Subject, explained
from launch.vertex.names import JobName, parse_job_name

# Each kind of job, as the names of the library's methods end.
_METHOD = {
    "customJobs": "custom_job",
    "hyperparameterTuningJobs": "hyperparameter_tuning_job",
    "batchPredictionJobs": "batch_prediction_job",
}


def create_job(client: Any, kind: str, request: Mapping[str, Any], region: str) -> JobName:
    """Submits a job.

    Args:
      client: The client of the service "Job".
      kind: The kind of the job, as in its name.
      request: The request to create it.

    Raises:
      UserError: The service refused the job.
    """
    create = getattr(client, f"create_{_METHOD[kind]}")
    with explained(region, _subject(kind)):
        return parse_job_name(create(request=request, timeout=TIMEOUT_SECONDS).name)


def load_job(client: Any, name: JobName) -> Any:
    """Loads the description and the state of a job.

    Raises:
      UserError: The service refused the request.
    """
    read = getattr(client, f"get_{_METHOD[name.kind]}")
    with explained(name.place.region, _subject(name.kind)):
        return read(name=str(name), timeout=TIMEOUT_SECONDS)


def cancel_job(client: Any, name: JobName) -> None:
    """Cancels a job. It ends within minutes.

    Raises:
      UserError: The service refused the request.
    """
    cancel = getattr(client, f"cancel_{_METHOD[name.kind]}")
    with explained(name.place.region, _subject(name.kind)):
        cancel(name=str(name), timeout=TIMEOUT_SECONDS)


def _subject(kind: str) -> Subject:
    return PREDICTION if kind == "batchPredictionJobs" else JOB
