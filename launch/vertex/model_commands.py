"""The commands about an exported model: upload, deploy, undeploy, predict."""

from collections.abc import Sequence

from absl import flags

from launch.vertex import client, command_line, job_service, machines, model_service
from launch.vertex.names import (
    EndpointName,
    Place,
    check_place,
    parse_endpoint_name,
    parse_model_name,
)
from launch.vertex.secrets import check_no_secrets
from launch.vertex.serving import (
    Machine,
    build_batch_prediction_request,
    build_deploy_request,
    build_endpoint_request,
    build_upload_request,
    default_serving_image,
    share_traffic,
    warnings_of_upload,
    with_traffic,
)
from settings.errors import ConfigError


def upload(arguments: Sequence[str], *, usage: str | None = None) -> int:
    """Uploads an exported model to the model registry."""
    values = flags.FlagValues()
    command_line.define_place(values)
    flags.DEFINE_string(
        "model_uri", None, "The exported model, gs://BUCKET/FOLDER/1, as trainer.export wrote it.", flag_values=values
    )
    flags.DEFINE_string("display_name", "listwise", "The name in the console.", flag_values=values)
    flags.DEFINE_string(
        "serving_image",
        None,
        "What serves the model: a prebuilt container of TensorFlow, or an image of TensorFlow Serving in Artifact "
        "Registry. (default: the newest prebuilt container)",
        flag_values=values,
    )
    flags.DEFINE_string(
        "parent_model", None, "The model that gets this as its next version. (default: a new model)", flag_values=values
    )
    if _is_help_or_parse(values, arguments, usage, required=["project", "region", "model_uri"]):
        return 0
    place = _place(values)
    image = values.serving_image or default_serving_image(place.region)
    request = build_upload_request(
        place,
        model_uri=values.model_uri,
        display_name=values.display_name,
        serving_image=image,
        parent_model=parse_model_name("--parent_model", values.parent_model, place) if values.parent_model else None,
    )
    command_line.print_warnings(
        [
            *warnings_of_upload(image),
            *machines.find_unknown_names(region=place.region, machine_types=(), accelerator_type=""),
        ]
    )
    if values.dry_run:
        command_line.print_requests({"UploadModelRequest": request})
        return 0
    print("Vertex AI copies the model and the image. This takes minutes.", flush=True)
    name = model_service.upload_model(client.build_client("Model", place.region), request, place)
    where = f"--project={place.project} --region={place.region}"
    print(f"Uploaded:  {name}")
    print(f"Its page:  {name.page}")
    print(f"Deploy:    python -m launch.vertex deploy {where} --model={name.short}")
    print(
        f"Batch:     python -m launch.vertex predict {where} --model={name.short} "
        "--source=gs://BUCKET/INSTANCES.jsonl --destination=gs://BUCKET/FOLDER"
    )
    delete = f"delete-version {name.short}" if values.parent_model else f"delete {name.id}"
    print(f"Delete:    gcloud ai models {delete} {where}")
    return 0


def deploy(arguments: Sequence[str], *, usage: str | None = None) -> int:
    """Deploys an uploaded model to an endpoint, which answers requests and costs money until `undeploy`."""
    values = flags.FlagValues()
    command_line.define_place(values)
    _define_model_and_machine(values)
    flags.DEFINE_string("endpoint", None, "The endpoint. (default: a new one)", flag_values=values)
    flags.DEFINE_string("display_name", "listwise", "The name of a new endpoint and of the model.", flag_values=values)
    flags.DEFINE_integer("min_replicas", 1, "The smallest number of machines.", flag_values=values)
    flags.DEFINE_integer("max_replicas", 1, "The largest number of machines, under load.", flag_values=values)
    flags.DEFINE_integer(
        "traffic_percent", 100, "The percentage of the endpoint's requests that the model gets.", flag_values=values
    )
    if _is_help_or_parse(values, arguments, usage, required=["project", "region", "model"]):
        return 0
    place = _place(values)
    endpoint = parse_endpoint_name(values.endpoint, place) if values.endpoint else None
    create = build_endpoint_request(place, display_name=values.display_name)
    request = build_deploy_request(
        parse_model_name("--model", values.model, place),
        endpoint,
        display_name=values.display_name,
        machine=_machine(values),
        min_replicas=values.min_replicas,
        max_replicas=values.max_replicas,
        traffic_percent=values.traffic_percent,
    )
    _warn_of_machine(values)
    if values.dry_run:
        new = {} if endpoint else {"CreateEndpointRequest": create}
        command_line.print_requests({**new, "DeployModelRequest": request})
        return 0

    endpoints = client.build_client("Endpoint", place.region)
    current: dict[str, int] = {}
    if endpoint:
        current = dict(model_service.load_endpoint(endpoints, endpoint).traffic_split)
    else:
        endpoint = model_service.create_endpoint(endpoints, create, place.region)
    request = with_traffic(request, endpoint, current)
    print(f"Endpoint:      {endpoint}")
    print(f"Its page:      {endpoint.page}")
    # Before the deployment, so that the command is there even if this one is interrupted.
    stop = f"python -m launch.vertex undeploy --endpoint={endpoint}"
    print(f"{'Stop all:     ' if values.endpoint else 'Stop paying:  '} {stop}")
    print(
        "Deploying takes minutes. It goes on if you interrupt this command. The machines cost money until you stop "
        "them, also without requests.",
        flush=True,
    )
    model_id = model_service.deploy_model(endpoints, request, place.region)
    print(f"Deployed:      {model_id}")
    if values.endpoint:
        print(f"Stop paying:   {stop} --deployed_model={model_id}")
    print(
        f"Ask it:        gcloud ai endpoints predict {endpoint.id} --project={place.project} --region={place.region} "
        "--json-request=REQUEST.json"
    )
    for other in _without_traffic(current, request):
        print(
            f"No requests:   {other} gets none any more, but its machines still cost money: {stop} "
            f"--deployed_model={other}"
        )
    return 0


def undeploy(arguments: Sequence[str], *, usage: str | None = None) -> int:
    """Takes all models off an endpoint, or one of them. Without a model an endpoint costs nothing."""
    values = flags.FlagValues()
    flags.DEFINE_string("endpoint", "", "The full name of the endpoint, as `deploy` printed it.", flag_values=values)
    flags.DEFINE_string(
        "deployed_model",
        "",
        "The number of the deployed model, as `deploy` printed it. Empty: all.",
        flag_values=values,
    )
    if _is_help_or_parse(values, arguments, usage, required=()):
        return 0
    endpoint = parse_endpoint_name(values.endpoint)
    place = endpoint.place
    endpoints = client.build_client("Endpoint", place.region)
    loaded = model_service.load_endpoint(endpoints, endpoint)
    deployed, traffic = [model.id for model in loaded.deployed_models], dict(loaded.traffic_split)
    if values.deployed_model:
        if values.deployed_model not in deployed:
            raise ConfigError(
                f"--deployed_model={values.deployed_model!r} cannot be used: {endpoint} has "
                f"{', '.join(deployed) or 'no model'}."
            )
        _undeploy_one(endpoints, endpoint, values.deployed_model, traffic, alone=len(deployed) == 1)
        return 0
    for model_id in deployed:
        # The service keeps a model that gets requests, so the last one gets all of them.
        is_last = model_id == deployed[-1]
        rest = {deployed[-1]: 100} if traffic.get(model_id) and not is_last else {}
        model_service.undeploy_model(endpoints, endpoint, model_id, rest)
        print(f"Undeployed:  {model_id}", flush=True)
    where = f"--project={place.project} --region={place.region}"
    print(f"{endpoint} has no model and costs nothing. Delete it: gcloud ai endpoints delete {endpoint.id} {where}")
    return 0


def predict(arguments: Sequence[str], *, usage: str | None = None) -> int:
    """Submits a batch prediction: a job that asks an uploaded model about each line of a file."""
    values = flags.FlagValues()
    command_line.define_place(values)
    _define_model_and_machine(values)
    flags.DEFINE_string(
        "source", None, "The instances: gs://BUCKET/FILE.jsonl, one JSON object per line.", flag_values=values
    )
    flags.DEFINE_string(
        "destination", None, "The folder gs://BUCKET/FOLDER, in which the job makes a folder.", flag_values=values
    )
    flags.DEFINE_string("display_name", "listwise", "The name of the job in the console.", flag_values=values)
    flags.DEFINE_integer("num_replicas", 1, "The number of machines.", flag_values=values)
    if _is_help_or_parse(values, arguments, usage, required=["project", "region", "model", "source", "destination"]):
        return 0
    place = _place(values)
    request = build_batch_prediction_request(
        parse_model_name("--model", values.model, place),
        place,
        display_name=values.display_name,
        source=values.source,
        destination=values.destination,
        machine=_machine(values),
        num_replicas=values.num_replicas,
    )
    _warn_of_machine(values)
    if values.dry_run:
        command_line.print_requests({"CreateBatchPredictionJobRequest": request})
        return 0
    name = job_service.create_job(
        client.build_client("Job", place.region), "batchPredictionJobs", request, place.region
    )
    print(f"Submitted:    {name}")
    print(f"Its page:     {name.page}")
    print(f"Status:       python -m launch.vertex status --job={name}")
    print(f"Stop paying:  python -m launch.vertex cancel --job={name}")
    return 0


def _undeploy_one(
    endpoints: object, endpoint: EndpointName, model_id: str, traffic: dict[str, int], *, alone: bool
) -> None:
    others: dict[str, int] = {}
    if traffic.pop(model_id, 0) and not alone:
        others = share_traffic(traffic, 100)
        if not others:
            raise ConfigError(
                f"--deployed_model={model_id!r} gets all requests of {endpoint}. Deploy another model with traffic "
                "first, or leave out --deployed_model to stop all."
            )
    model_service.undeploy_model(endpoints, endpoint, model_id, others)
    print(f"Undeployed:  {model_id}")


def _without_traffic(current: dict[str, int], request: dict) -> list[str]:
    """Returns the deployed models that a deployment took all requests from."""
    split = request.get("traffic_split", current)
    return [model_id for model_id, percent in current.items() if percent and not split.get(model_id)]


def _is_help_or_parse(
    values: flags.FlagValues, arguments: Sequence[str], usage: str | None, *, required: Sequence[str]
) -> bool:
    """Parses the arguments, or prints the usage and returns True."""
    if command_line.is_help(usage, values, arguments):
        return True
    # This check comes first, so that no other message repeats a secret.
    check_no_secrets(arguments, "The argument")
    command_line.parse(values, arguments, required=required)
    return False


def _place(values: flags.FlagValues) -> Place:
    place = Place(values.project, values.region)
    check_place(place)
    return place


def _define_model_and_machine(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "model",
        None,
        "The model: its number, NUMBER@VERSION, or its full name, as `upload` printed it.",
        flag_values=values,
    )
    flags.DEFINE_string("machine_type", "n1-standard-2", "The machine type.", flag_values=values)
    flags.DEFINE_string("accelerator_type", "", "The type of its GPUs, such as NVIDIA_TESLA_T4.", flag_values=values)
    flags.DEFINE_integer("accelerator_count", 0, "The number of its GPUs.", flag_values=values)


def _machine(values: flags.FlagValues) -> Machine:
    return Machine(values.machine_type, values.accelerator_type, values.accelerator_count)


def _warn_of_machine(values: flags.FlagValues) -> None:
    command_line.print_warnings(
        machines.find_unknown_names(
            region=values.region,
            machine_types=[values.machine_type],
            accelerator_type=values.accelerator_type,
            serving=True,
        )
    )
