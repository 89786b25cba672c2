"""The commands about an exported model: what they refuse, print and send to a fake of Vertex AI."""

import sys

import pytest
import yaml

from launch.vertex import __main__ as vertex
from launch.vertex import machines, model_service
from launch.vertex.serving import share_traffic
from tests.launch.vertex.commands import GOLDEN
from tests.launch.vertex.fake_service import FakeVertexAI

PLACE = ["--project=my-project", "--region=us-central1"]
SERVING_IMAGE = "us-central1-docker.pkg.dev/my-project/listwise/serving:2.21.0"
UPLOAD = ["upload", *PLACE, "--model_uri=gs://my-bucket/run/serving/1"]
DEPLOY = ["deploy", *PLACE, "--model=123@2"]
PREDICT = [
    *["predict", *PLACE, "--model=123"],
    *["--source=gs://my-bucket/instances-*.jsonl", "--destination=gs://my-bucket/predictions/"],
]
UNDEPLOY = ["undeploy", f"--endpoint={FakeVertexAI.ENDPOINT}"]
# What a dry run prints is in golden/serving.
COMMANDS = {
    "upload": [*UPLOAD, "--display_name=Mine"],
    "upload_version": [
        *["upload", *PLACE, "--model_uri=gs://my-bucket/run/serving/", f"--serving_image={SERVING_IMAGE}"],
        "--parent_model=123",
    ],
    "deploy": DEPLOY,
    "deploy_to_endpoint": [
        *[*DEPLOY, "--endpoint=456", "--traffic_percent=20", "--min_replicas=2", "--max_replicas=5"],
        *["--machine_type=n1-standard-4", "--accelerator_type=NVIDIA_TESLA_T4", "--accelerator_count=1"],
    ],
    "predict": [*PREDICT, "--num_replicas=3", "--machine_type=e2-standard-4"],
}


def refused(capsys, arguments, exit_code=78) -> str:
    """Runs a command that fails before it prints anything else, and returns its message."""
    assert vertex.main(arguments) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_prints_the_golden_request(name, capsys, no_network):
    assert vertex.main([*COMMANDS[name], "--dry_run"]) == 0
    assert capsys.readouterr().out == (GOLDEN / "serving" / f"{name}.yaml").read_text()


def test_every_golden_file_has_a_command():
    assert {path.stem for path in (GOLDEN / "serving").glob("*")} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_service_gets_the_golden_request(name, vertex_ai, aiplatform_v1, capsys):
    vertex_ai.answers["GetEndpoint"] = aiplatform_v1.Endpoint(traffic_split={"8": 75, "9": 25})
    assert vertex.main(COMMANDS[name]) == 0
    sent = [(method, request) for method, request in vertex_ai.requests if method != "GetEndpoint"]
    golden = list(yaml.safe_load_all((GOLDEN / "serving" / f"{name}.yaml").read_text()))
    for (method, request), expected in zip(sent, golden, strict=True):
        if method == "DeployModel" and len(golden) == 2:
            # A dry run does not know the name of the endpoint.
            expected["endpoint"] = FakeVertexAI.ENDPOINT
        if "OTHERS" in expected.get("traffic_split", {}):
            expected["traffic_split"] = {"0": 20, "8": 60, "9": 20}
        assert request == getattr(aiplatform_v1, f"{method}Request")(expected), method


def test_a_dry_run_works_without_the_client_library(capsys, monkeypatch, no_network):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    for name, command in COMMANDS.items():
        assert vertex.main([*command, "--dry_run"]) == 0
        captured = capsys.readouterr()
        assert captured.out == (GOLDEN / "serving" / f"{name}.yaml").read_text()
        assert "not checked against it" in captured.err
    assert "'.[vertex]'" in refused(capsys, DEPLOY)


def test_uploading_prints_what_comes_next(vertex_ai, capsys):
    assert vertex.main(UPLOAD) == 0
    output = capsys.readouterr().out
    assert f"Uploaded:  {FakeVertexAI.MODEL}@2\n" in output
    where = "--project=my-project --region=us-central1"
    assert f"python -m launch.vertex deploy {where} --model={FakeVertexAI.NUMBER}@2\n" in output
    assert f"python -m launch.vertex predict {where} --model={FakeVertexAI.NUMBER}@2 --source=" in output
    assert f"gcloud ai models delete {FakeVertexAI.NUMBER} {where}\n" in output
    # The other versions of the model stay.
    assert vertex.main(COMMANDS["upload_version"]) == 0
    assert f"gcloud ai models delete-version {FakeVertexAI.NUMBER}@2 {where}\n" in capsys.readouterr().out


def test_the_nearest_prebuilt_container_is_the_default_and_gets_a_warning(capsys):
    for region, near in (("us-east4", "us"), ("europe-west4", "europe"), ("asia-east1", "asia"), ("me-west1", "us")):
        assert vertex.main([*UPLOAD, f"--region={region}", "--dry_run"]) == 0
        captured = capsys.readouterr()
        assert f"image_uri: {near}-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest\n" in captured.out
        assert captured.err.count("warning: Google's page on prebuilt containers") == 1
    assert vertex.main([*COMMANDS["upload_version"], "--dry_run"]) == 0
    assert "prebuilt" not in capsys.readouterr().err


def test_deploying_prints_how_to_stop_paying_before_it_can_fail(vertex_ai, capsys):
    vertex_ai.failures["DeployModel"] = (13, "Model server exited unexpectedly.")
    assert vertex.main(DEPLOY) == 69
    captured = capsys.readouterr()
    assert f"Stop paying:   python -m launch.vertex undeploy --endpoint={FakeVertexAI.ENDPOINT}\n" in captured.out
    assert "machines cost money until you stop them, also without requests" in captured.out
    assert "Deployed" not in captured.out
    assert "Vertex AI failed (Model server exited unexpectedly). If the reason names the model server" in captured.err
    assert vertex_ai.methods() == ["CreateEndpoint", "DeployModel"]


def test_deploying_prints_how_to_ask(vertex_ai, capsys):
    assert vertex.main(DEPLOY) == 0
    output = capsys.readouterr().out
    assert "Deployed:      77\n" in output
    assert f"gcloud ai endpoints predict {FakeVertexAI.NUMBER} --project=my-project --region=us-central1 " in output


def test_a_model_that_gets_no_more_requests_is_named(vertex_ai, aiplatform_v1, capsys):
    endpoint = f"--endpoint={FakeVertexAI.ENDPOINT}"
    vertex_ai.answers["GetEndpoint"] = aiplatform_v1.Endpoint(traffic_split={"8": 100, "9": 0})
    assert vertex.main([*DEPLOY, endpoint]) == 0
    output = capsys.readouterr().out
    assert (
        "No requests:   8 gets none any more, but its machines still cost money: python -m launch.vertex undeploy "
        in output
    )
    assert output.endswith(f"undeploy {endpoint} --deployed_model=8\n")
    assert dict(vertex_ai.requests[-1][1].traffic_split) == {"0": 100}
    for percent, split in ((0, {}), (30, {"0": 30, "8": 70})):
        assert vertex.main([*DEPLOY, endpoint, f"--traffic_percent={percent}"]) == 0
        output = capsys.readouterr().out
        assert "No requests" not in output
        # What is printed to stop this deployment leaves the others alone.
        assert f"Stop paying:   python -m launch.vertex undeploy {endpoint} --deployed_model=77\n" in output
        assert dict(vertex_ai.requests[-1][1].traffic_split) == split


def test_traffic_cannot_be_shared_with_nobody(vertex_ai, aiplatform_v1, capsys):
    vertex_ai.answers["GetEndpoint"] = aiplatform_v1.Endpoint()
    assert "leaves 80 percent for other models" in refused(capsys, COMMANDS["deploy_to_endpoint"])
    assert vertex_ai.methods() == ["GetEndpoint"]


@pytest.mark.parametrize(
    ("current", "percent", "expected"),
    [
        ({"8": 75, "9": 25}, 80, {"8": 60, "9": 20}),
        ({"7": 34, "8": 33, "9": 33}, 50, {"7": 17, "8": 17, "9": 16}),
        ({"7": 60, "8": 0}, 100, {"7": 100}),
        ({"7": 0}, 100, {}),
        ({}, 40, {}),
    ],
)
def test_shared_traffic_keeps_its_proportions_and_adds_up(current, percent, expected):
    shares = share_traffic(current, percent)
    assert sorted(shares.values()) == sorted(expected.values()) and shares.keys() == expected.keys()


def deployed(aiplatform_v1, traffic):
    models = [{"id": model_id} for model_id in traffic]
    return aiplatform_v1.Endpoint(deployed_models=models, traffic_split=traffic)


def undeployed(vertex_ai):
    """The ids of the models that were taken off, with the traffic that they left to others."""
    return [(r.deployed_model_id, dict(r.traffic_split)) for m, r in vertex_ai.requests if m == "UndeployModel"]


def test_undeploying_takes_every_model_off(vertex_ai, aiplatform_v1, capsys):
    vertex_ai.answers["GetEndpoint"] = deployed(aiplatform_v1, {"7": 0, "8": 60, "9": 40})
    assert vertex.main(UNDEPLOY) == 0
    # The service refuses to take off a model that still gets requests, unless another one gets them.
    assert undeployed(vertex_ai) == [("7", {}), ("8", {"9": 100}), ("9", {})]
    output = capsys.readouterr().out
    assert "costs nothing. Delete it: gcloud ai endpoints delete 9876543210 --project=123 --region=us-c" in output


@pytest.mark.parametrize(
    ("traffic", "expected"),
    [
        ({"7": 0, "8": 60, "9": 40}, [("7", {})]),
        ({"7": 60, "8": 10, "9": 30}, [("7", {"8": 25, "9": 75})]),
        ({"7": 100}, [("7", {})]),
    ],
)
def test_undeploying_one_model_leaves_its_requests_to_the_others(traffic, expected, vertex_ai, aiplatform_v1, capsys):
    vertex_ai.answers["GetEndpoint"] = deployed(aiplatform_v1, traffic)
    assert vertex.main([*UNDEPLOY, "--deployed_model=7"]) == 0
    assert undeployed(vertex_ai) == expected


def test_the_only_model_with_requests_is_not_taken_from_the_others(vertex_ai, aiplatform_v1, capsys):
    vertex_ai.answers["GetEndpoint"] = deployed(aiplatform_v1, {"7": 100, "8": 0})
    assert "gets all requests of" in refused(capsys, [*UNDEPLOY, "--deployed_model=7"])
    assert "has 7, 8." in refused(capsys, [*UNDEPLOY, "--deployed_model=9"])
    assert undeployed(vertex_ai) == []


def test_a_batch_prediction_is_a_job(vertex_ai, aiplatform_v1, capsys):
    assert vertex.main(PREDICT) == 0
    job = f"{FakeVertexAI.PLACE}/batchPredictionJobs/{FakeVertexAI.NUMBER}"
    output = capsys.readouterr().out
    assert f"Submitted:    {job}\n" in output and f"/batch-predictions/{FakeVertexAI.NUMBER}?project=123\n" in output
    assert f"Stop paying:  python -m launch.vertex cancel --job={job}\n" in output

    vertex_ai.answers["GetBatchPredictionJob"] = aiplatform_v1.BatchPredictionJob(
        display_name="mine",
        state="JOB_STATE_SUCCEEDED",
        completion_stats={"successful_count": 9, "failed_count": 1},
        output_info={"gcs_output_directory": "gs://my-bucket/predictions/prediction-mine-1"},
    )
    assert vertex.main(["status", f"--job={job}"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "mine: JOB_STATE_SUCCEEDED"
    assert "lines    9 predicted, 1 failed" in output
    assert "output   gs://my-bucket/predictions/prediction-mine-1" in output
    assert vertex.main(["cancel", f"--job={job}"]) == 0
    assert vertex.main(["logs", f"--job={job}"]) == 0
    assert f"/batch-predictions/{FakeVertexAI.NUMBER}?project=123\n" in capsys.readouterr().out
    assert vertex_ai.methods() == ["CreateBatchPredictionJob", "GetBatchPredictionJob", "CancelBatchPredictionJob"]


MISTAKES = [
    (["upload"], "--project is missing"),
    (["upload", *PLACE], "--model_uri is missing. --help explains it."),
    ([*UPLOAD, "--project=My_Project"], "--project='My_Project' cannot be used"),
    ([*UPLOAD, "--region=global"], "--region='global' cannot be used"),
    (
        [*UPLOAD, "--model_uri=runs/mine/model"],
        "--model_uri='runs/mine/model' cannot be used: it has to be gs://BUCKET",
    ),
    ([*UPLOAD, "--model_uri=gs://my-bucket//1"], "empty parts"),
    ([*UPLOAD, "--display_name="], "--display_name='' cannot be used"),
    ([*UPLOAD, "--serving_image=tensorflow/serving:2.21.0"], "in Artifact Registry"),
    ([*UPLOAD, "--serving_image=us-docker.pkg.dev/My Image"], "--serving_image='us-docker.pkg.dev/My Image'"),
    ([*UPLOAD, "--serving_image=us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-0:latest"], "one of TensorFlow"),
    ([*UPLOAD, "--serving_image=us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15"], "with the tag latest"),
    ([*UPLOAD, f"--serving_image={SERVING_IMAGE}"], "Use the folder above it, --model_uri=gs://my-bucket/run/serving."),
    ([*UPLOAD, "--parent_model=123@2"], "it has to be 123, without @"),
    ([*UPLOAD, "--parent_model=My Model"], "--parent_model='My Model' cannot be used"),
    ([*UPLOAD, "--modle_uri=x"], "--modle_uri is not a flag; did you mean --model_uri?"),
    ([*UPLOAD, "--", "--strategy=tpu"], "'--strategy=tpu' is not a flag. Write each argument as --name=value."),
    ([*DEPLOY, "--model="], "--model is missing"),
    ([*DEPLOY, "--model=projects/p/locations/r/endpoints/3"], "it has to be the number or the full name of a model"),
    ([*DEPLOY, "--endpoint=a b"], "the number or the full name of an endpoint"),
    ([*DEPLOY, "--min_replicas=0"], "1 is the smallest"),
    ([*DEPLOY, "--min_replicas=3"], "--max_replicas cannot be below --min_replicas"),
    ([*DEPLOY, "--min_replicas=few"], "--min_replicas=few"),
    ([*DEPLOY, "--traffic_percent=50"], "--traffic_percent=50 needs --endpoint"),
    ([*DEPLOY, "--endpoint=4", "--traffic_percent=101"], "--traffic_percent=101 cannot be used: it has to be from 0"),
    ([*DEPLOY, "--accelerator_type=NVIDIA_TESLA_T4"], "contradict each other. Set both, or neither."),
    (
        [*DEPLOY, "--accelerator_type=NVIDIA_TESLA_T4", "--accelerator_count=3"],
        "--accelerator_count=3 cannot be used: for n1-standard-2 with NVIDIA_TESLA_T4 it has to be one of 1, 2, 4",
    ),
    ([*DEPLOY, "--accelerator_type=NVIDIA_L4", "--accelerator_count=1"], "--accelerator_type='NVIDIA_L4' cannot be"),
    ([*DEPLOY, "--machine_type=g2-standard-4"], "--accelerator_type='' cannot be used: for g2-standard-4"),
    ([*DEPLOY, "--machine_type=ct5lp-hightpu-1t"], "a machine without a TPU"),
    (["undeploy"], "--endpoint='' cannot be used: it has to be the full name"),
    (["undeploy", "--endpoint=123"], "--endpoint='123' cannot be used: it has to be the full name"),
    ([*PREDICT, "--source="], "--source is missing"),
    ([*PREDICT, "--source=gs://my-bucket/a?.jsonl"], "--source='gs://my-bucket/a?.jsonl' cannot be used"),
    ([*PREDICT, "--destination=gs://my-bucket/*"], "--destination='gs://my-bucket/*' cannot be used"),
    ([*PREDICT, "--num_replicas=0"], "--num_replicas=0 cannot be used: it has to be at least 1"),
    ([*PREDICT, "--model=projects/p/locations/us-east1/models/3"], "a model in the region of the job, us-central1"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[" ".join(m[0])[-80:] for m in MISTAKES])
def test_a_mistake_is_one_paragraph_that_names_it(arguments, says, capsys, no_network):
    assert says in refused(capsys, arguments)


@pytest.mark.parametrize("command", ["upload", "deploy", "predict"])
def test_a_secret_is_refused_and_not_repeated(command, capsys, no_network):
    secret = "ghp_" + 6 * "c4n4ry"
    error = refused(capsys, [*COMMANDS[command], f"--display_name={secret}", "--dry_run"])
    assert "The argument --display_name looks like a secret" in error and "c4n4ry" not in error


def test_unknown_names_get_a_warning(capsys):
    assert vertex.main([*DEPLOY, "--machine_type=n9-standard-2", "--region=mars-north1", "--dry_run"]) == 0
    error = capsys.readouterr().err
    assert "--region='mars-north1' is not in" in error and "The machine type 'n9-standard-2' is not in" in error
    for machine_type in ("n1-standard-2", "e2-highcpu-2", "n2-standard-8"):
        assert vertex.main([*DEPLOY, f"--machine_type={machine_type}", "--dry_run"]) == 0
        assert "machine type" not in capsys.readouterr().err
    # It is too small to train on.
    assert machines.find_unknown_names(region="us-central1", machine_types=["n1-standard-2"], accelerator_type="")


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        ("PERMISSION_DENIED", 77, "roles/aiplatform.user"),
        ("NOT_FOUND", 78, "Check the spelling of --project, --region"),
        ("RESOURCE_EXHAUSTED", 75, "Quotas"),
        ("FAILED_PRECONDITION", 78, "--dry_run prints the request"),
        ("UNAUTHENTICATED", 77, "gcloud auth application-default login"),
        ("UNAVAILABLE", 69, "cannot be reached at us-central1-aiplatform.googleapis.com"),
        ("INTERNAL", 69, "ry again in a few minutes"),
    ],
)
@pytest.mark.parametrize("command", ["upload", "deploy", "deploy_to_endpoint", "predict", "undeploy"])
def test_a_refusal_of_the_service_is_one_paragraph(command, code, exit_code, says, vertex_ai, capsys):
    import grpc

    vertex_ai.refusals[""] = (getattr(grpc.StatusCode, code), "The service's\nown reason.")
    assert vertex.main(COMMANDS.get(command, UNDEPLOY)) == exit_code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and says in error and "(The service's own reason)" in error
    assert len(vertex_ai.requests) == 1, "it was tried more than once"


def test_an_operation_that_fails_later_is_one_paragraph(vertex_ai, capsys):
    vertex_ai.failures["UploadModel"] = (7, "The service agent cannot read the image.")
    assert vertex.main(UPLOAD) == 77
    captured = capsys.readouterr()
    assert "Uploaded" not in captured.out
    assert "(The service agent cannot read the image). You need the role" in captured.err
    assert "has to be able to read --model_uri and --serving_image" in captured.err


def test_a_model_that_does_not_start_tells_where_its_log_is(vertex_ai, capsys):
    vertex_ai.failures["DeployModel"] = (9, "Model server never became ready.")
    assert vertex.main(DEPLOY) == 78
    assert "refused the deployment (Model server never became ready). If the reason names" in capsys.readouterr().err


def test_an_operation_that_takes_too_long_goes_on(vertex_ai, capsys, monkeypatch):
    monkeypatch.setattr(model_service, "_DEPLOY_MINUTES", 0.001)
    vertex_ai.unfinished.add("DeployModel")
    assert vertex.main(DEPLOY) == 69
    assert "has not finished with the deployment after 0 minutes. It goes on" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["upload", "deploy", "undeploy", "predict"])
def test_help_explains_the_flags(command, capsys):
    assert vertex.main([command, "--help"]) == 0
    output = capsys.readouterr().out
    assert "python -m launch.vertex undeploy" in output
    assert ("--endpoint:" if command == "undeploy" else "--[no]dry_run:") in output
