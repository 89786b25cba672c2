"""The commands about jobs, against a fake of Vertex AI."""

import socket
import sys

import pytest
import yaml

from launch.vertex import __main__ as vertex
from launch.vertex import client
from settings.errors import ConfigError, UserError
from tests.launch.vertex.commands import COMMANDS, EVERYTHING, GOLDEN, refused
from tests.launch.vertex.fake_service import FakeVertexAI, build_client
from tests.launch.vertex.secrets_test import CANARY


def leaves(tree, path: str = "") -> dict[str, str | float]:
    """Returns dotted path → value, without default values: a message cannot tell them from missing fields."""
    if isinstance(tree, dict):
        children = [(f"{path}.{name}", child) for name, child in tree.items()]
    elif isinstance(tree, list):
        children = [(f"{path}[{place}]", child) for place, child in enumerate(tree)]
    elif tree in (0, "", False, "ALGORITHM_UNSPECIFIED"):
        return {}
    elif path.endswith("env[1].value") or not str(tree).replace(".", "", 1).isdigit():
        return {path: tree}
    else:
        return {path: float(tree)}  # JSON has 64-bit numbers as strings.
    return {key: value for child_path, child in children for key, value in leaves(child, child_path).items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_service_gets_the_golden_job_field_by_field(name, aiplatform_v1, vertex_ai, capsys, monkeypatch):
    from google.protobuf.json_format import MessageToDict

    monkeypatch.setenv("HF_TOKEN", CANARY)
    command = [argument for argument in COMMANDS[name] if argument != "--dry_run"]
    assert vertex.main(command) == 0
    ((method, request),) = vertex_ai.requests
    assert method == ("CreateHyperparameterTuningJob" if name == "tune" else "CreateCustomJob")
    received = MessageToDict(type(request).pb(request), preserving_proto_field_name=True)
    golden = leaves(yaml.safe_load((GOLDEN / f"{name}.yaml").read_text()))
    assert leaves(received) == golden
    assert len(golden) > 8 and CANARY not in str(request)


def test_submitting_prints_the_commands_for_the_job(vertex_ai, capsys):
    assert vertex.main(COMMANDS["single_gpu"]) == 0
    name = f"projects/123/locations/us-central1/customJobs/{FakeVertexAI.NUMBER}"
    output = capsys.readouterr().out
    assert f"Submitted:    {name}\n" in output
    assert (
        f"https://console.cloud.google.com/agent-platform/locations/us-central1/training/{FakeVertexAI.NUMBER}"
        in output
    )
    assert "tensorboard --logdir=gs://my-bucket/run/logs --host=127.0.0.1\n" in output
    assert f"python -m launch.vertex cancel --job={name}\n" in output
    assert "managed" not in output

    assert vertex.main(EVERYTHING) == 0
    assert (
        "https://us-central1.tensorboard.googleusercontent.com/experiment/projects+my-project+locations+us-central1"
        f"+tensorboards+456+experiments+{FakeVertexAI.NUMBER}\n"
    ) in capsys.readouterr().out

    assert vertex.main(COMMANDS["tune"]) == 0
    assert "tensorboard --logdir=gs://my-bucket/study --host=127.0.0.1\n" in capsys.readouterr().out


JOB = f"projects/123/locations/us-central1/customJobs/{FakeVertexAI.NUMBER}"
STUDY_JOB = JOB.replace("customJobs", "hyperparameterTuningJobs")


def test_status_prints_state_times_and_error(aiplatform_v1, vertex_ai, capsys):
    vertex_ai.answers["GetCustomJob"] = aiplatform_v1.CustomJob(
        display_name="mine",
        state="JOB_STATE_FAILED",
        create_time="2026-01-02T03:04:05Z",
        error={"code": 3, "message": "The replica exited with a non-zero status of 78."},
    )
    assert vertex.main(["status", f"--job={JOB}"]) == 0
    ((method, request),) = vertex_ai.requests
    assert (method, request.name) == ("GetCustomJob", JOB)
    output = capsys.readouterr().out.splitlines()
    assert output[:3] == [
        "mine: JOB_STATE_FAILED",
        "created  2026-01-02 03:04:05 UTC",
        "error    The replica exited with a non-zero status of 78.",
    ]


def test_status_of_a_study_prints_its_trials(aiplatform_v1, vertex_ai, capsys):
    vertex_ai.answers["GetHyperparameterTuningJob"] = aiplatform_v1.HyperparameterTuningJob(
        display_name="study",
        state="JOB_STATE_RUNNING",
        trials=[
            {
                "id": "1",
                "state": "SUCCEEDED",
                "parameters": [{"parameter_id": "config.optimizer.learning_rate", "value": 0.5}],
                "final_measurement": {"metrics": [{"metric_id": "ndcg@10", "value": 0.25}]},
            },
            {"id": "2", "state": "ACTIVE"},
        ],
    )
    assert vertex.main(["status", f"--job={STUDY_JOB}"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[1:3] == [
        "trial 1: SUCCEEDED  config.optimizer.learning_rate=0.5  ndcg@10 0.2500",
        "trial 2: ACTIVE",
    ]


@pytest.mark.parametrize(("job", "method"), [(JOB, "CancelCustomJob"), (STUDY_JOB, "CancelHyperparameterTuningJob")])
def test_cancel_sends_the_name_of_the_job(job, method, vertex_ai, capsys):
    assert vertex.main(["cancel", f"--job={job}"]) == 0
    ((sent, request),) = vertex_ai.requests
    assert (sent, request.name) == (method, job)
    assert f"--job={job}" in capsys.readouterr().out


def test_logs_prints_the_addresses_without_the_client_library(capsys, no_network, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    assert vertex.main(["logs", f"--job={JOB}"]) == 0
    output = capsys.readouterr().out
    assert f"resource.labels.job_id%3D%22{FakeVertexAI.NUMBER}%22?project=123\n" in output
    assert f"gcloud ai custom-jobs stream-logs {FakeVertexAI.NUMBER} --project=123 --region=us-central1\n" in output
    assert vertex.main(["logs", f"--job={STUDY_JOB}"]) == 0
    assert "gcloud ai hp-tuning-jobs stream-logs" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
@pytest.mark.parametrize(
    "job", ["", "123", JOB.replace("customJobs", "models"), JOB + "/x", JOB.replace("us-", "a.b#")]
)
def test_a_job_needs_its_full_name(command, job, capsys):
    assert f"--job={job!r} cannot be used" in refused(capsys, [command, f"--job={job}"])


REFUSALS = {
    403: ("PERMISSION_DENIED", 77, "roles/aiplatform.user"),
    404: ("NOT_FOUND", 78, "Check the spelling of --project, --region and --job"),
    429: ("RESOURCE_EXHAUSTED", 75, "Quotas"),
    400: ("INVALID_ARGUMENT", 78, "--dry_run prints the request"),
    401: ("UNAUTHENTICATED", 77, "gcloud auth application-default login"),
    503: ("UNAVAILABLE", 69, "cannot be reached at us-central1-aiplatform.googleapis.com"),
    500: ("INTERNAL", 69, "Try again in a few minutes"),
}


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("command", ["submit", "tune", "status", "cancel"])
def test_a_refusal_of_the_service_is_one_paragraph(command, status, vertex_ai, capsys):
    import grpc

    code, exit_code, says = REFUSALS[status]
    vertex_ai.refusals[""] = (getattr(grpc.StatusCode, code), "The service's\nown reason.")
    arguments = {"submit": COMMANDS["single_gpu"], "tune": COMMANDS["tune"]}.get(command, [command, f"--job={JOB}"])
    assert vertex.main(arguments) == exit_code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert says in captured.err and "(The service's own reason)" in captured.err
    assert len(vertex_ai.requests) == 1, "it was tried more than once"


def test_an_unreachable_service_is_one_paragraph(aiplatform_v1, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound but not listening, so nothing answers.
        closed = build_client(aiplatform_v1, "Job", taken.getsockname()[1])
        monkeypatch.setattr(client, "build_client", lambda service, region: closed)
        assert vertex.main(COMMANDS["single_gpu"]) == 69
    error = capsys.readouterr().err
    assert "Vertex AI cannot be reached at us-central1-aiplatform.googleapis.com" in error
    assert "check in the console whether the job was accepted" in error and error.count("\n") == 1


@pytest.mark.parametrize("key_file", ["", "missing.json"])
def test_missing_credentials_are_one_paragraph_with_the_way_out(
    aiplatform_v1, key_file, capsys, monkeypatch, tmp_path, no_network
):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    if key_file:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / key_file))
    assert vertex.main(COMMANDS["single_gpu"]) == 77
    error = capsys.readouterr().err
    assert "No Google Cloud credentials were found" in error and error.count("\n") == 1


def test_expired_credentials_are_reported(aiplatform_v1):
    from google.auth import exceptions

    with (
        pytest.raises(UserError, match=r"refused the credentials of this machine \(expired\)"),
        client.explained("r", client.JOB),
    ):
        raise exceptions.RefreshError("expired")
    with pytest.raises(UserError, match="cannot be reached"), client.explained("r", client.JOB):
        raise exceptions.TransportError("no route")


def test_a_field_that_the_library_does_not_know_is_refused(aiplatform_v1):
    assert client.check_request("CreateCustomJobRequest", {"parent": "p", "custom_job": {"display_name": "x"}})
    with pytest.raises(ConfigError, match="does not know a value of this request"):
        client.check_request("CreateCustomJobRequest", {"parent": "p", "custom_job": {"name_of_display": "x"}})
    with pytest.raises(ConfigError, match="does not know a value of this request"):
        client.check_request(
            "CreateCustomJobRequest", {"custom_job": {"job_spec": {"scheduling": {"strategy": "CHEAP"}}}}
        )
