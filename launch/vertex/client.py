"""The client library of Vertex AI: its clients, its messages, and one paragraph for each of its failures.

The library takes seconds to import, so it is imported only in the functions that need it.
"""

import concurrent.futures
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from settings.errors import ConfigError, NoRoomError, NotPermittedError, UnavailableError

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Subject:
    """What a call is about, in the words of its errors.

    Attributes:
      name: What the service accepts or refuses, such as "the job".
      rights: What is needed besides the role of a user: completes "You need the role ... on the project".
      names: The flags and fields whose names may be misspelt: completes "Check the spelling of ...".
      failure: The end of the message about a failure of the service.
      refusal: The end of the message about a refusal.
    """

    name: str
    rights: str
    names: str
    failure: str
    refusal: str = "--dry_run prints the request."


JOB = Subject(
    "the job",
    "and roles/iam.serviceAccountUser on config.service_account",
    "--project, --region and --job, and that the service_account, network and tensorboard of the config exist",
    "The job is not the cause. Try again in a few minutes.",
)
UPLOAD = Subject(
    "the model",
    "and the service agent of Vertex AI has to be able to read --model_uri and --serving_image",
    "--project, --region, --model_uri, --serving_image and --parent_model",
    "Try again in a few minutes.",
)
_MODEL_SERVER = "If the reason names the model server, see in Logs Explorer of the console why it did not start."
DEPLOYMENT = Subject(
    "the deployment",
    "",
    "--project, --region, --model and --endpoint",
    f"{_MODEL_SERVER} Otherwise try again in a few minutes.",
    f"{_MODEL_SERVER} --dry_run prints the request.",
)
PREDICTION = Subject(
    "the job",
    "and the service agent of Vertex AI has to be able to read --source and to write to --destination",
    "--project, --region and --model",
    "The job is not the cause. Try again in a few minutes.",
)


def build_client(service: str, region: str) -> Any:
    """Builds the client of a service in a region, with the credentials of this machine.

    Args:
      service: "Job", "Model" or "Endpoint".

    Raises:
      UserError: The library is not installed, or there are no credentials.
    """
    client_type = getattr(_library(), f"{service}ServiceClient")
    with explained(region, JOB):
        return client_type(client_options={"api_endpoint": f"{region}-aiplatform.googleapis.com"})


def check_request(message: str, request: Mapping[str, Any]) -> bool:
    """Checks a request against a message of the client library. Returns False if the library is not installed.

    Args:
      message: The name of the message, such as "CreateCustomJobRequest".

    Raises:
      ConfigError: The library does not know a field or a value.
    """
    try:
        aiplatform_v1 = _library()
    except ConfigError:
        return False
    try:
        getattr(aiplatform_v1, message)(request)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"The installed google-cloud-aiplatform does not know a value of this request: {error}. Check the spelling "
            "in the config and the flags, or upgrade google-cloud-aiplatform."
        ) from error
    return True


def wait_for(operation: Any, region: str, subject: Subject, *, minutes: float) -> Any:
    """Returns the result of a long operation of the service.

    Raises:
      UserError: The operation failed, or it takes longer than `minutes`. It then goes on.
    """
    with explained(region, subject):
        try:
            return operation.result(timeout=minutes * 60)
        except concurrent.futures.TimeoutError as error:
            raise UnavailableError(
                f"Vertex AI has not finished with {subject.name} after {minutes:.0f} minutes. It goes on without this "
                "command; the page in the console shows its state."
            ) from error


@contextlib.contextmanager
def explained(region: str, subject: Subject) -> Iterator[None]:
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
        raise _unreachable(region, subject, error) from error
    except (auth_exceptions.GoogleAuthError, exceptions.Unauthorized) as error:
        raise NotPermittedError(
            f"Google Cloud refused the credentials of this machine ({_reason(error)}). They may have expired. Run "
            "`gcloud auth application-default login` again."
        ) from error
    except exceptions.Forbidden as error:
        rights = f" {subject.rights}" if subject.rights else ""
        raise NotPermittedError(
            f"Vertex AI denied permission ({_reason(error)}). You need the role roles/aiplatform.user on the project"
            f"{rights}, and the Vertex AI API has to be enabled."
        ) from error
    except exceptions.NotFound as error:
        raise ConfigError(
            f"Vertex AI did not find something ({_reason(error)}). Check the spelling of {subject.names}."
        ) from error
    except (exceptions.TooManyRequests, exceptions.Aborted) as error:
        raise NoRoomError(
            f"Vertex AI has no capacity for {subject.name} ({_reason(error)}). Request a higher quota for the machine "
            "and the accelerator under IAM & Admin → Quotas, use fewer of them or another --region, or try again later."
        ) from error
    except exceptions.BadRequest as error:
        raise ConfigError(f"Vertex AI refused {subject.name} ({_reason(error)}). {subject.refusal}") from error
    except (exceptions.ServiceUnavailable, exceptions.GatewayTimeout, exceptions.RetryError) as error:
        raise _unreachable(region, subject, error) from error
    except exceptions.GoogleAPICallError as error:
        raise UnavailableError(f"Vertex AI failed ({_reason(error)}). {subject.failure}") from error


def _library() -> Any:
    try:
        import google.cloud.aiplatform_v1 as aiplatform_v1
    except ImportError as error:
        raise ConfigError(
            "Vertex AI's client library is not installed. Run python -m pip install --constraint constraints.txt "
            "'.[vertex]'. --dry_run works without it."
        ) from error
    return aiplatform_v1


def _unreachable(region: str, subject: Subject, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"Vertex AI cannot be reached at {region}-aiplatform.googleapis.com ({_reason(error)}). Check the "
        f"network, the proxy (https_proxy) and the firewall. Before you try again, check in the console whether "
        f"{subject.name} was accepted."
    )


def _reason(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    return " ".join(str(message).split()).rstrip(".")
