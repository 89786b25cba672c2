"""Calls the Vertex AI service, and turns each of its failures into one paragraph.

The client library takes seconds to import, so it is imported only in the functions that need it.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from settings.errors import ConfigError, NoRoomError, NotPermittedError, UnavailableError

_TIMEOUT_SECONDS = 60.0

# The region becomes part of the name of the host that gets the credentials, so its characters are limited.
_JOB_NAME = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<region>[a-z0-9-]+)"
    r"/(?P<kind>customJobs|hyperparameterTuningJobs)/(?P<number>\d+)"
)


@dataclass(frozen=True)
class JobName:
    """The parts of a job's resource name."""

    project: str
    region: str
    kind: str  # customJobs or hyperparameterTuningJobs
    number: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.region}/{self.kind}/{self.number}"

    @property
    def is_study(self) -> bool:
        return self.kind == "hyperparameterTuningJobs"

    @property
    def page(self) -> str:
        """The address of the job in the console."""
        return (
            f"https://console.cloud.google.com/agent-platform/locations/{self.region}/training/{self.number}"
            f"?project={self.project}"
        )


def parse_job_name(name: str) -> JobName:
    """Parses the resource name of a job.

    Raises:
      ConfigError: It is not a resource name.
    """
    parts = _JOB_NAME.fullmatch(name)
    if not parts:
        raise ConfigError(
            f"--job={name!r} cannot be used: it has to be the full name of the job, as `submit` printed it: "
            "projects/PROJECT/locations/REGION/customJobs/NUMBER, or .../hyperparameterTuningJobs/NUMBER."
        )
    return JobName(**parts.groupdict())


def build_client(region: str) -> Any:
    """Builds the JobServiceClient of a region, with the credentials of this machine.

    Raises:
      UserError: The library is not installed, or there are no credentials.
    """
    aiplatform_v1 = _library()
    with _one_paragraph(region):
        return aiplatform_v1.JobServiceClient(
            client_options={"api_endpoint": f"{region}-aiplatform.googleapis.com"},
        )


def create_job(client: Any, request: dict[str, Any], region: str) -> JobName:
    """Submits a CreateCustomJobRequest or CreateHyperparameterTuningJobRequest.

    Raises:
      UserError: The service refused the job.
    """
    create = (
        client.create_hyperparameter_tuning_job if "hyperparameter_tuning_job" in request else client.create_custom_job
    )
    with _one_paragraph(region):
        return parse_job_name(create(request=request, timeout=_TIMEOUT_SECONDS).name)


def load_job(client: Any, name: JobName) -> Any:
    """Loads a CustomJob or a HyperparameterTuningJob.

    Raises:
      UserError: The service refused the request.
    """
    read = client.get_hyperparameter_tuning_job if name.is_study else client.get_custom_job
    with _one_paragraph(name.region):
        return read(name=str(name), timeout=_TIMEOUT_SECONDS)


def cancel_job(client: Any, name: JobName) -> None:
    """Cancels a job. It ends within minutes.

    Raises:
      UserError: The service refused the request.
    """
    cancel = client.cancel_hyperparameter_tuning_job if name.is_study else client.cancel_custom_job
    with _one_paragraph(name.region):
        cancel(name=str(name), timeout=_TIMEOUT_SECONDS)


def check_request(request: dict[str, Any]) -> bool:
    """Checks a request against the messages of the client library. Returns False if the library is not installed.

    Raises:
      ConfigError: The library does not know a field or a value.
    """
    try:
        aiplatform_v1 = _library()
    except ConfigError:
        return False
    message = (
        aiplatform_v1.CreateHyperparameterTuningJobRequest
        if "hyperparameter_tuning_job" in request
        else aiplatform_v1.CreateCustomJobRequest
    )
    try:
        message(request)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"The installed google-cloud-aiplatform does not know a value of this job: {error}. Check the spelling in "
            "the config, or upgrade google-cloud-aiplatform."
        ) from error
    return True


def _library() -> Any:
    try:
        import google.cloud.aiplatform_v1 as aiplatform_v1
    except ImportError as error:
        raise ConfigError(
            "Vertex AI's client library is not installed. Run python -m pip install --constraint constraints.txt "
            "'.[vertex]'. --dry_run works without it."
        ) from error
    return aiplatform_v1


@contextlib.contextmanager
def _one_paragraph(region: str) -> Iterator[None]:
    """Turns each error of the service and of the credentials into one paragraph."""
    from google.api_core import exceptions
    from google.auth import exceptions as auth_exceptions

    try:
        yield
    except auth_exceptions.DefaultCredentialsError as error:
        raise NotPermittedError(
            "No Google Cloud credentials were found on this machine. Run `gcloud auth application-default login`, or "
            "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account. --dry_run works without them."
        ) from error
    except auth_exceptions.TransportError as error:
        raise _unreachable(region, error) from error
    except (auth_exceptions.GoogleAuthError, exceptions.Unauthorized) as error:
        raise NotPermittedError(
            f"Google Cloud refused the credentials of this machine ({_reason(error)}). They may have expired. Run "
            "`gcloud auth application-default login` again."
        ) from error
    except exceptions.Forbidden as error:
        raise NotPermittedError(
            f"Vertex AI denied permission ({_reason(error)}). You need the role roles/aiplatform.user on the project "
            "and roles/iam.serviceAccountUser on config.service_account, and the Vertex AI API has to be enabled."
        ) from error
    except exceptions.NotFound as error:
        raise ConfigError(
            f"Vertex AI did not find something ({_reason(error)}). Check the spelling of --project, --region and "
            "--job, and that the service_account, network and tensorboard of the config exist."
        ) from error
    except (exceptions.TooManyRequests, exceptions.Aborted) as error:
        raise NoRoomError(
            f"Vertex AI has no capacity for the job ({_reason(error)}). Request a higher quota for the machine and the "
            "accelerator under IAM & Admin → Quotas, use fewer of them or another --region, or try again later."
        ) from error
    except exceptions.BadRequest as error:
        raise ConfigError(f"Vertex AI refused the job ({_reason(error)}). --dry_run prints the request.") from error
    except (exceptions.ServiceUnavailable, exceptions.GatewayTimeout, exceptions.RetryError) as error:
        raise _unreachable(region, error) from error
    except exceptions.GoogleAPICallError as error:
        raise UnavailableError(
            f"Vertex AI failed ({_reason(error)}). The job is not the cause. Try again in a few minutes."
        ) from error


def _unreachable(region: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"Vertex AI cannot be reached at {region}-aiplatform.googleapis.com ({_reason(error)}). Check the "
        "network, the proxy (https_proxy) and the firewall. Before you submit again, check in the console whether the "
        "job was accepted."
    )


def _reason(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    return " ".join(str(message).split()).rstrip(".")
