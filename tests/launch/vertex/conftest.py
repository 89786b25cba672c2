import socket

import pytest

from launch.vertex import client
from tests.conftest import REPOSITORY
from tests.launch.vertex.fake_service import FakeVertexAI, build_client


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def no_network(monkeypatch):
    """Every connection fails."""

    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def aiplatform_v1():
    """The official client library."""
    return pytest.importorskip(
        "google.cloud.aiplatform_v1", reason="google-cloud-aiplatform is not installed: make test-launch"
    )


@pytest.fixture
def vertex_ai(aiplatform_v1, monkeypatch):
    """A fake of Vertex AI, which gets the requests of the commands."""
    server = FakeVertexAI(aiplatform_v1)
    monkeypatch.setattr(
        client, "build_client", lambda service, region: build_client(aiplatform_v1, service, server.port)
    )
    yield server
    server.stop()
