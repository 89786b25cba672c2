"""Calls of the Vertex AI service, each failure told as one paragraph.

The client library takes seconds to import, so every import of it stands in the function that needs it.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from settings.errors import ConfigError, NoRoomError, NotPermittedError, UnavailableError

_TIMEOUT_SECONDS = 60.0

# The region becomes part of the host that gets the credentials, so it must not hold what ends a host's name.
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
        """The job's page in the console."""
        return (
            f"https://console.cloud.google.com/agent-platform/locations/{self.region}/training/{self.number}"
            f"?project={self.project}"
        )


def parse_job_name(name: str) -> JobName:
    """Reads a resource name, as `submit` printed it.

    Raises:
      ConfigError: it is none.
    """
    parts = _JOB_NAME.fullmatch(name)
    if not parts:
        raise ConfigError(
            f"--job={name!r} cannot be used: it has to be the job's whole name, as `submit` printed it: "
            "projects/PROJECT/locations/REGION/customJobs/NUMBER, or .../hyperparameterTuningJobs/NUMBER."
        )
    return JobName(**parts.groupdict())


def build_client(region: str) -> Any:
    """A JobServiceClient of a region, with the credentials of this machine.

    Raises:
      UserError: the library is not installed, or there are no credentials.
    """
    aiplatform_v1 = _library()
    with _told(region):
        return aiplatform_v1.JobServiceClient(
            client_options={"api_endpoint": f"{region}-aiplatform.googleapis.com"},
        )


def create_job(client: Any, request: dict[str, Any], region: str) -> JobName:
    """Submits a CreateCustomJobRequest or CreateHyperparameterTuningJobRequest.

    Raises:
      UserError: why the service did not take it.
    """
    create = (
        client.create_hyperparameter_tuning_job if "hyperparameter_tuning_job" in request else client.create_custom_job
    )
    with _told(region):
        return parse_job_name(create(request=request, timeout=_TIMEOUT_SECONDS).name)


def load_job(client: Any, name: JobName) -> Any:
    """What the service knows of a job: a CustomJob or a HyperparameterTuningJob.

    Raises:
      UserError: why it does not tell.
    """
    read = client.get_hyperparameter_tuning_job if name.is_study else client.get_custom_job
    with _told(name.region):
        return read(name=str(name), timeout=_TIMEOUT_SECONDS)


def cancel_job(client: Any, name: JobName) -> None:
    """Asks for a job's end; the service brings it about within minutes.

    Raises:
      UserError: why it does not.
    """
    cancel = client.cancel_hyperparameter_tuning_job if name.is_study else client.cancel_custom_job
    with _told(name.region):
        cancel(name=str(name), timeout=_TIMEOUT_SECONDS)


def check_request(request: dict[str, Any]) -> bool:
    """Checks a request against the messages of the client library; False where that is not installed.

    Raises:
      ConfigError: the service knows no such field or value.
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
        raise ConfigError(f"The installed google-cloud-aiplatform cannot describe this job: {error}.") from error
    return True


def _library() -> Any:
    try:
        import google.cloud.aiplatform_v1 as aiplatform_v1
    except ImportError as error:
        raise ConfigError(
            "Vertex AI's client library is not installed: python -m pip install --constraint "
            "constraints.txt '.[vertex]'. --dry_run does without it."
        ) from error
    return aiplatform_v1


@contextlib.contextmanager
def _told(region: str) -> Iterator[None]:
    """Turns what the service and the credentials can raise in the body into one paragraph each."""
    from google.api_core import exceptions
    from google.auth import exceptions as auth_exceptions

    try:
        yield
    except auth_exceptions.DefaultCredentialsError as error:
        raise NotPermittedError(
            "No Google Cloud credentials are found on this machine. Run `gcloud auth application-default login`, or "
            "set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file. --dry_run does without any."
        ) from error
    except auth_exceptions.TransportError as error:
        raise _unreachable(region, error) from error
    except (auth_exceptions.GoogleAuthError, exceptions.Unauthorized) as error:
        raise NotPermittedError(
            f"Google Cloud does not accept this machine's credentials ({_reason(error)}). They may have expired: run "
            "`gcloud auth application-default login` again."
        ) from error
    except exceptions.Forbidden as error:
        raise NotPermittedError(
            f"Vertex AI does not permit this ({_reason(error)}). Who submits needs the role roles/aiplatform.user on "
            "the project, roles/iam.serviceAccountUser on config.service_account, and the Vertex AI API to be enabled."
        ) from error
    except exceptions.NotFound as error:
        raise ConfigError(
            f"Vertex AI does not find it ({_reason(error)}). Look at the spelling of --project, --region and --job, "
            "and at whether what the config names (service_account, network, tensorboard) still exists."
        ) from error
    except (exceptions.TooManyRequests, exceptions.Aborted) as error:
        raise NoRoomError(
            f"Vertex AI has no room for it ({_reason(error)}). Ask for more of this machine and accelerator under "
            "IAM & Admin → Quotas, try another --region, use fewer of them, or try again later."
        ) from error
    except exceptions.BadRequest as error:
        raise ConfigError(
            f"Vertex AI finds fault with the job ({_reason(error)}). --dry_run prints what was sent."
        ) from error
    except (exceptions.ServiceUnavailable, exceptions.GatewayTimeout, exceptions.RetryError) as error:
        raise _unreachable(region, error) from error
    except exceptions.GoogleAPICallError as error:
        raise UnavailableError(
            f"Vertex AI failed ({_reason(error)}). This is no fault of the job: try again in a few minutes."
        ) from error


def _unreachable(region: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"Vertex AI cannot be reached at {region}-aiplatform.googleapis.com ({_reason(error)}). Look at the network, "
        "at a proxy (https_proxy) or a firewall, and try again. Before submitting once more, see with the console "
        "whether the job was taken."
    )


def _reason(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    return " ".join(str(message).split()).rstrip(".")
