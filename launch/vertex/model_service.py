"""Calls Vertex AI's services of models and endpoints.

Each change is a long operation of the service. The functions wait for it, because it can fail after it was accepted.
"""

from collections.abc import Mapping
from typing import Any

from launch.vertex.client import DEPLOYMENT, TIMEOUT_SECONDS, UPLOAD, explained, wait_for
from launch.vertex.names import EndpointName, ModelName, Place, parse_endpoint_name, parse_model_name

# Vertex AI copies the model and the image.
_UPLOAD_MINUTES = 30
# Vertex AI starts the machines, which load the model.
_DEPLOY_MINUTES = 60


def upload_model(client: Any, request: Mapping[str, Any], place: Place) -> ModelName:
    """Uploads a model, and returns its name with its version.

    Args:
      client: The client of the service "Model".
      request: An UploadModelRequest.

    Raises:
      UserError: The service refused the model.
    """
    with explained(place.region, UPLOAD):
        operation = client.upload_model(request=request, timeout=TIMEOUT_SECONDS)
    answer = wait_for(operation, place.region, UPLOAD, minutes=_UPLOAD_MINUTES)
    name = parse_model_name("--model", answer.model, place)
    return ModelName(name.place, name.id, answer.model_version_id or name.version)


def create_endpoint(client: Any, request: Mapping[str, Any], region: str) -> EndpointName:
    """Creates an endpoint without a model. It costs nothing.

    Args:
      client: The client of the service "Endpoint".
      request: A CreateEndpointRequest.

    Raises:
      UserError: The service refused the endpoint.
    """
    with explained(region, DEPLOYMENT):
        operation = client.create_endpoint(request=request, timeout=TIMEOUT_SECONDS)
    return parse_endpoint_name(wait_for(operation, region, DEPLOYMENT, minutes=_UPLOAD_MINUTES).name)


def load_endpoint(client: Any, name: EndpointName) -> Any:
    """Loads an endpoint, with its models and its traffic.

    Raises:
      UserError: The service refused the request.
    """
    with explained(name.place.region, DEPLOYMENT):
        return client.get_endpoint(name=str(name), timeout=TIMEOUT_SECONDS)


def deploy_model(client: Any, request: Mapping[str, Any], region: str) -> str:
    """Deploys a model to an endpoint, and returns the id of the deployed model.

    Args:
      request: A DeployModelRequest.

    Raises:
      UserError: The service refused the deployment, or the model does not start.
    """
    with explained(region, DEPLOYMENT):
        operation = client.deploy_model(request=request, timeout=TIMEOUT_SECONDS)
    return wait_for(operation, region, DEPLOYMENT, minutes=_DEPLOY_MINUTES).deployed_model.id


def undeploy_model(client: Any, name: EndpointName, model_id: str, traffic: Mapping[str, int]) -> None:
    """Takes a model off an endpoint.

    Args:
      model_id: The id of the deployed model.
      traffic: The traffic of the other models, as percentages by their ids. Empty: it stays as it is.

    Raises:
      UserError: The service refused the request.
    """
    with explained(name.place.region, DEPLOYMENT):
        operation = client.undeploy_model(
            endpoint=str(name), deployed_model_id=model_id, traffic_split=dict(traffic), timeout=TIMEOUT_SECONDS
        )
    wait_for(operation, name.place.region, DEPLOYMENT, minutes=_DEPLOY_MINUTES)
