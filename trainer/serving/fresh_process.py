"""Runs the check of an exported model in a process of its own, with plain TensorFlow and nothing of this project."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any


def run_check(script: pathlib.Path, sample: dict[str, Any]) -> str | None:
    """Runs a script that reads a sample as JSON and exits with a message if it finds a difference.

    It takes some seconds, most of them for the import of TensorFlow.

    Returns:
      The difference, as a clause for an error message. None if there is none.
    """
    # Users of the model choose their own Keras. This process holds the memory of the accelerator.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    process = subprocess.run(
        # As text, because Python would add the folder of a script to its import path.
        [sys.executable, "-c", script.read_text()],
        env=environment | {"CUDA_VISIBLE_DEVICES": "-1"},
        input=json.dumps(sample),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode == 0:
        return None
    return (process.stderr.strip().splitlines() or [f"exit code {process.returncode}, without a message"])[-1]
