"""Checks what a model's upload, deployment and batch prediction are described by, and builds their requests.

A request is plain dictionaries, as in `job.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch.vertex import machines
from launch.vertex.names import IMAGE, EndpointName, ModelName, Place, check_bucket_path
from settings.errors import ConfigError
from settings.sections import cannot_be_used

# "Prebuilt containers for inference and explanation": the newest one of TensorFlow, the last day with patches, and the
# last day on which it can be had.
PREBUILT_TENSORFLOW, _PATCHED_UNTIL, _AVAILABLE_UNTIL = "2.15", "2026-07-14", "2027-01-14"
_PREBUILT = re.compile(r"(us|europe|asia)-docker\.pkg\.dev/vertex-ai(-restricted)?/prediction/(?P<name>.+)")
_PREBUILT_TENSORFLOW = re.compile(r"(tf2|tf_opt)-(cpu|gpu)\.[\w-]+:latest")
# `ModelContainerSpec.image_uri`: the image has to be in Artifact Registry or Container Registry.
_REGISTRY_HOST = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io")

# Vertex AI sends requests to this port unless the container has another one.
_PORT = 8080
# The name of the model in the paths of TensorFlow Serving. It is no part of what a client sends.
_SERVED_NAME = "listwise"

# In the traffic of a deployment: the model that is deployed, which has no id yet.
NEW_MODEL = "0"
# What a dry run prints in place of what only the service knows.
UNKNOWN_ENDPOINT_ID, OTHER_MODELS = "NUMBER", "OTHERS"


@dataclass(frozen=True)
class Machine:
    """The machines that serve a model."""

    machine_type: str
    accelerator_type: str
    accelerator_count: int


def default_serving_image(region: str) -> str:
    """Returns the prebuilt container of the newest TensorFlow, from the repository that is nearest to a region."""
    near = next((place for place in ("europe", "asia") if region.startswith(f"{place}-")), "us")
    version = PREBUILT_TENSORFLOW.replace(".", "-")
    return f"{near}-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.{version}:latest"


def build_upload_request(
    place: Place, *, model_uri: str, display_name: str, serving_image: str, parent_model: ModelName | None
) -> dict[str, Any]:
    """Builds the UploadModelRequest of an exported model.

    Args:
      model_uri: The gs:// path of the SavedModel. For an image of TensorFlow Serving, the folder with its versions.
      serving_image: A prebuilt container of Vertex AI, or an image of TensorFlow Serving.
      parent_model: The model that gets another version, or None for a new model.

    Raises:
      ConfigError: It names the flag, its value and what is allowed.
    """
    model_uri = model_uri.removesuffix("/")
    check_bucket_path("--model_uri", model_uri)
    _check_display_name(display_name)
    if parent_model and parent_model.version:
        raise cannot_be_used(
            "--parent_model", parent_model.short, f"{parent_model.id}, without @: the upload becomes its next version"
        )
    model = {
        "display_name": display_name,
        "artifact_uri": model_uri,
        "container_spec": _container(serving_image, model_uri),
    }
    if not parent_model:
        return {"parent": str(place), "model": model}
    return {"parent": str(place), "parent_model": str(parent_model), "model": model}


def warnings_of_upload(serving_image: str) -> list[str]:
    """Returns warnings about a serving image that cannot be refused."""
    if not _PREBUILT.fullmatch(serving_image):
        return []
    return [
        f"Google's page on prebuilt containers gives {_PATCHED_UNTIL} as the last day with patches for TensorFlow "
        f"{PREBUILT_TENSORFLOW}, the newest one, and {_AVAILABLE_UNTIL} as the last day on which it can be used. "
        "docs/vertex.md tells how to serve with an image of TensorFlow Serving instead."
    ]


def _container(image: str, model_uri: str) -> dict[str, Any]:
    prebuilt = _PREBUILT.fullmatch(image)
    if prebuilt and not _PREBUILT_TENSORFLOW.fullmatch(prebuilt["name"]):
        raise cannot_be_used(
            "--serving_image", image, "one of TensorFlow with the tag latest, such as .../tf2-cpu.2-15:latest"
        )
    if prebuilt:
        return {"image_uri": image}
    if not IMAGE.fullmatch(image) or not _REGISTRY_HOST.fullmatch(image.split("/")[0]):
        raise cannot_be_used(
            "--serving_image",
            image,
            "a prebuilt container of Vertex AI, or TensorFlow Serving's image in Artifact Registry, such as "
            "REGION-docker.pkg.dev/PROJECT/REPOSITORY/serving:TAG",
        )
    folder, _, last = model_uri.rpartition("/")
    if last.isdecimal():
        raise ConfigError(
            f"--model_uri={model_uri!r} cannot be used with an image of TensorFlow Serving, which looks for folders of "
            f"versions in it. Use the folder above it, --model_uri={folder}. Of several versions in it, TensorFlow "
            "Serving uses the highest."
        )
    return {
        "image_uri": image,
        # Not the entrypoint of the image, which has flags of its own. Vertex AI fills in the variable.
        "command": ["tensorflow_model_server"],
        "args": [
            f"--rest_api_port={_PORT}",
            f"--model_name={_SERVED_NAME}",
            "--model_base_path=$(AIP_STORAGE_URI)",
        ],
        "ports": [{"container_port": _PORT}],
        "predict_route": f"/v1/models/{_SERVED_NAME}:predict",
        "health_route": f"/v1/models/{_SERVED_NAME}",
    }


def build_endpoint_request(place: Place, *, display_name: str) -> dict[str, Any]:
    """Builds the CreateEndpointRequest of an endpoint without a model."""
    _check_display_name(display_name)
    return {"parent": str(place), "endpoint": {"display_name": display_name}}


def build_deploy_request(
    model: ModelName,
    endpoint: EndpointName | None,
    *,
    display_name: str,
    machine: Machine,
    min_replicas: int,
    max_replicas: int,
    traffic_percent: int,
) -> dict[str, Any]:
    """Builds the DeployModelRequest of a model.

    Args:
      endpoint: An endpoint that exists, or None for a new one. The request then has no valid name.
      traffic_percent: The share of the requests that the model gets. The other models of the endpoint get the rest;
        see `with_traffic`.

    Raises:
      ConfigError: It names the flag, its value and what is allowed.
    """
    _check_display_name(display_name)
    if not 1 <= min_replicas <= max_replicas:
        raise ConfigError(
            f"--min_replicas={min_replicas} and --max_replicas={max_replicas} cannot be used: 1 is the smallest, and "
            "--max_replicas cannot be below --min_replicas."
        )
    if not 0 <= traffic_percent <= 100:
        raise cannot_be_used("--traffic_percent", traffic_percent, "from 0 to 100")
    if traffic_percent < 100 and not endpoint:
        raise ConfigError(
            f"--traffic_percent={traffic_percent} needs --endpoint, with another model that gets the rest. The only "
            "model of a new endpoint gets all requests."
        )
    traffic = {0: {}, 100: {NEW_MODEL: 100}}.get(
        traffic_percent, {NEW_MODEL: traffic_percent, OTHER_MODELS: 100 - traffic_percent}
    )
    request: dict[str, Any] = {
        "endpoint": str(endpoint or EndpointName(model.place, UNKNOWN_ENDPOINT_ID)),
        "deployed_model": {
            "model": str(model),
            "display_name": display_name,
            "dedicated_resources": {
                "machine_spec": _machine_spec(machine),
                "min_replica_count": min_replicas,
                "max_replica_count": max_replicas,
            },
        },
    }
    return {**request, "traffic_split": traffic} if traffic else request


def with_traffic(request: Mapping[str, Any], endpoint: EndpointName, current: Mapping[str, int]) -> dict[str, Any]:
    """Returns a DeployModelRequest with its endpoint, and with the traffic of the endpoint's other models.

    Args:
      current: Percentages by the id of a deployed model. The others keep their proportions.

    Raises:
      ConfigError: The traffic is shared, but no other model has any.
    """
    traffic = dict(request.get("traffic_split", {}))
    rest = traffic.pop(OTHER_MODELS, 0)
    if rest:
        others = share_traffic(current, rest)
        if not others:
            raise ConfigError(
                f"--traffic_percent={100 - rest} leaves {rest} percent for other models, but {endpoint} has none with "
                "traffic. Use --traffic_percent=100."
            )
        traffic |= others
    return {**request, "endpoint": str(endpoint), **({"traffic_split": traffic} if traffic else {})}


def share_traffic(current: Mapping[str, int], percent: int) -> dict[str, int]:
    """Shares a percentage in the proportions of the current one.

    Args:
      current: Percentages by the id of a deployed model.
      percent: The sum of the shares.

    Returns:
      The whole percentages by id, without models that have no traffic.
    """
    total, shares, before = sum(current.values()), {}, 0
    # Each share is the difference of two rounded sums, so that the shares add up exactly.
    for place, (model_id, traffic) in enumerate(current.items(), start=1):
        until = round(percent * sum(list(current.values())[:place]) / total) if total else 0
        if traffic:
            shares[model_id] = until - before
        before = until
    return shares


def build_batch_prediction_request(
    model: ModelName,
    place: Place,
    *,
    display_name: str,
    source: str,
    destination: str,
    machine: Machine,
    num_replicas: int,
) -> dict[str, Any]:
    """Builds the CreateBatchPredictionJobRequest of a model.

    Args:
      source: The gs:// path of files with one JSON object per line. It can have wildcards.
      destination: The gs:// path of a folder. The job makes a folder in it.

    Raises:
      ConfigError: It names the flag, its value and what is allowed.
    """
    _check_display_name(display_name)
    if model.place.region != place.region:
        raise cannot_be_used("--model", str(model), f"a model in the region of the job, {place.region}")
    check_bucket_path("--source", source, of="FILE.jsonl", wildcards=True)
    check_bucket_path("--destination", destination)
    if num_replicas < 1:
        raise cannot_be_used("--num_replicas", num_replicas, "at least 1")
    job = {
        "display_name": display_name,
        "model": str(model),
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": [source]}},
        "output_config": {
            "predictions_format": "jsonl",
            "gcs_destination": {"output_uri_prefix": destination.removesuffix("/")},
        },
        "dedicated_resources": {
            "machine_spec": _machine_spec(machine),
            "starting_replica_count": num_replicas,
            "max_replica_count": num_replicas,
        },
    }
    return {"parent": str(place), "batch_prediction_job": job}


def _machine_spec(machine: Machine) -> dict[str, Any]:
    machines.check_serving_machine(machine.machine_type, machine.accelerator_type, machine.accelerator_count)
    if not machine.accelerator_type:
        return {"machine_type": machine.machine_type}
    return {
        "machine_type": machine.machine_type,
        "accelerator_type": machine.accelerator_type,
        "accelerator_count": machine.accelerator_count,
    }


def _check_display_name(display_name: str) -> None:
    if not 1 <= len(display_name) <= 128:
        raise cannot_be_used("--display_name", display_name, "from 1 to 128 characters long")
