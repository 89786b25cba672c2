"""The names of places and resources of Vertex AI, and their pages in the console."""

import re
from dataclasses import dataclass

from settings.errors import ConfigError
from settings.sections import cannot_be_used

_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]|\d+")
# The region becomes part of the name of the host that gets the credentials. Custom jobs do not run in "global".
_REGION = re.compile(r"[a-z]+(-[a-z]+)+\d+")
# A path can have other characters, but TensorFlow reads *, ?, [ and \ in it as a pattern.
_BUCKET_PATH = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/\s*?\[\\]+)*/?")
# An image in a registry, with its tag or digest.
IMAGE = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)+(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?")

_IN_PLACE = r"projects/(?P<project>[^/]+)/locations/(?P<region>[a-z0-9-]+)"
_JOB = re.compile(
    _IN_PLACE + r"/(?P<kind>customJobs|hyperparameterTuningJobs|batchPredictionJobs)/(?P<number>\d+)", re.ASCII
)
_ENDPOINT = re.compile(_IN_PLACE + r"/endpoints/(?P<id>\d+|[a-z][a-z0-9-]{0,61}[a-z0-9])", re.ASCII)
_MODEL = re.compile(
    _IN_PLACE + r"/models/(?P<id>[a-z0-9_-]{1,63})(@(?P<version>\d+|[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]))?", re.ASCII
)


@dataclass(frozen=True)
class Place:
    """The project and the region that own a resource."""

    project: str
    region: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"


@dataclass(frozen=True)
class JobName:
    """The parts of the resource name of a job."""

    place: Place
    kind: str  # customJobs, hyperparameterTuningJobs or batchPredictionJobs
    number: str

    def __str__(self) -> str:
        return f"{self.place}/{self.kind}/{self.number}"

    @property
    def page(self) -> str:
        """The address of the job in the console."""
        kind = "batch-predictions" if self.kind == "batchPredictionJobs" else "training"
        return (
            f"https://console.cloud.google.com/agent-platform/locations/{self.place.region}/{kind}/{self.number}"
            f"?project={self.place.project}"
        )


@dataclass(frozen=True)
class EndpointName:
    """The parts of the resource name of an endpoint."""

    place: Place
    id: str

    def __str__(self) -> str:
        return f"{self.place}/endpoints/{self.id}"

    @property
    def page(self) -> str:
        """The address of the endpoint in the console."""
        return (
            f"https://console.cloud.google.com/vertex-ai/locations/{self.place.region}/endpoints/{self.id}"
            f"?project={self.place.project}"
        )


@dataclass(frozen=True)
class ModelName:
    """The parts of the resource name of a model. An empty version is the default version of the model."""

    place: Place
    id: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.place}/models/{self.short}"

    @property
    def short(self) -> str:
        """The last part of the name."""
        return f"{self.id}@{self.version}" if self.version else self.id

    @property
    def page(self) -> str:
        """The address of the model in the console."""
        version = f"/versions/{self.version}" if self.version else ""
        return (
            f"https://console.cloud.google.com/vertex-ai/models/locations/{self.place.region}/models/{self.id}{version}"
            f"?project={self.place.project}"
        )


def check_place(place: Place) -> None:
    """Checks --project and --region.

    Raises:
      ConfigError: One of them has characters that it cannot have.
    """
    if not _PROJECT.fullmatch(place.project):
        raise cannot_be_used("--project", place.project, "the ID of a project, such as my-project-1")
    if not _REGION.fullmatch(place.region):
        raise cannot_be_used("--region", place.region, "a region of Google Cloud, such as us-central1")


def check_bucket_path(flag: str, uri: str, *, of: str = "FOLDER", wildcards: bool = False) -> None:
    """Checks a gs:// path.

    Args:
      flag: The flag that has the path, for the message.
      of: What the path leads to, for the message.
      wildcards: Whether the path can have the wildcard *.

    Raises:
      ConfigError: TensorFlow or Vertex AI cannot open the path.
    """
    if not _BUCKET_PATH.fullmatch(uri.replace("*", "x") if wildcards else uri):
        raise cannot_be_used(
            flag,
            uri,
            f"gs://BUCKET/{of}, with the bucket in lower case and of at least 3 characters, and without spaces, empty "
            f"parts and the characters {'' if wildcards else '* '}? [ \\",
        )


def parse_job_name(name: str) -> JobName:
    """Parses the resource name of a job.

    Raises:
      ConfigError: It is not a resource name.
    """
    parts = _JOB.fullmatch(name)
    if not parts:
        raise ConfigError(
            f"--job={name!r} cannot be used: it has to be the full name of the job, as `submit` printed it: "
            "projects/PROJECT/locations/REGION/customJobs/NUMBER, or .../hyperparameterTuningJobs/NUMBER, or "
            ".../batchPredictionJobs/NUMBER."
        )
    return JobName(Place(parts["project"], parts["region"]), parts["kind"], parts["number"])


def parse_model_name(flag: str, name: str, place: Place) -> ModelName:
    """Parses the name of a model: the full resource name, or its last part.

    Args:
      flag: The flag that has the name, for the message.
      place: Where the model is if the name does not tell.

    Raises:
      ConfigError: It is not the name of a model.
    """
    parts = _MODEL.fullmatch(name if "/" in name else f"{place}/models/{name}")
    if not parts:
        raise cannot_be_used(
            flag,
            name,
            "the number or the full name of a model, as `upload` printed it: 123, 123@2 for version 2, or "
            "projects/PROJECT/locations/REGION/models/123",
        )
    return ModelName(Place(parts["project"], parts["region"]), parts["id"], parts["version"] or "")


def parse_endpoint_name(name: str, place: Place | None = None) -> EndpointName:
    """Parses the name of an endpoint: the full resource name, or its last part.

    Args:
      place: Where the endpoint is if the name does not tell. None: the name has to be the full one.

    Raises:
      ConfigError: It is not the name of an endpoint.
    """
    parts = _ENDPOINT.fullmatch(f"{place}/endpoints/{name}" if place and "/" not in name else name)
    if not parts:
        raise cannot_be_used(
            "--endpoint",
            name,
            ("the number or " if place else "")
            + "the full name of an endpoint, as `deploy` printed it: projects/PROJECT/locations/REGION/endpoints/123",
        )
    return EndpointName(Place(parts["project"], parts["region"]), parts["id"])
