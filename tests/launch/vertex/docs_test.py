"""The commands of docs/vertex.md are commands of the launcher."""

import re
import shlex

import pytest

from launch.vertex import __main__ as vertex
from tests.conftest import REPOSITORY
from tests.launch.vertex.fake_service import FakeVertexAI

_VALUES = {
    "PROJECT": "my-project",
    "BUCKET": "my-bucket",
    "REPOSITORY": "listwise",
    "TAG": "2.21.0",
    "MODEL": "123",
    "ENDPOINT": "456",
    "IMAGE": "us-docker.pkg.dev/my-project/listwise/trainer:1",
}


def documented_commands() -> list[str]:
    """The commands of the launcher in blocks of code, in the order of the page."""
    blocks = re.findall(r"^```\n(.*?)^```", (REPOSITORY / "docs" / "vertex.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("launch.vertex ", 1)[1] for line in lines if "python -m launch.vertex " in line]


def test_every_command_is_on_the_page():
    named = {command.split()[0] for command in documented_commands()}
    assert {name for name in named if not name.startswith("-")} == {
        *("status", "logs", "cancel", "upload", "deploy", "undeploy", "predict")
    }


@pytest.mark.parametrize("command", documented_commands())
def test_a_command_of_the_page_works(command, vertex_ai, aiplatform_v1, capsys):
    vertex_ai.answers["GetEndpoint"] = aiplatform_v1.Endpoint(deployed_models=[{"id": "7"}], traffic_split={"7": 100})
    vertex_ai.answers["GetCustomJob"] = aiplatform_v1.CustomJob()
    command = command.replace("--job=NAME", f"--job={FakeVertexAI.PLACE}/customJobs/1").replace("NUMBER", "9")
    for placeholder, value in _VALUES.items():
        command = re.sub(rf"\b{placeholder}\b", value, command)
    assert vertex.main(shlex.split(command)) == 0, capsys.readouterr().err
