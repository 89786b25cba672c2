"""Fixtures for the tests of checkpoints."""

import pytest
from absl import logging


@pytest.fixture
def local_folder(tmp_path):
    """A folder for checkpoints that does not exist yet."""
    return str(tmp_path / "checkpoints")


@pytest.fixture
def logged(monkeypatch):
    """The errors that are logged, as they are logged."""
    lines = []
    monkeypatch.setattr(logging, "error", lambda message, *values: lines.append(message % values))
    return lines
