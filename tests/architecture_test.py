"""The arrows between modules: data flows one way, and only entry points know flags."""

import ast
import pathlib

import pytest

from tests.conftest import REPOSITORY

# Each part may import those above it. What stands on one line is of one rank, and may not import each other.
RANKS = [
    ["compat", "schema", "retries"],
    ["features", "file_systems"],
    ["storage", "strategy", "config"],
    ["workdir_lock"],
    ["workdir"],
    ["data"],
    ["modeling"],
    ["evaluation"],
    ["serving"],
    ["reporting"],
    ["training"],
    ["main", "doctor", "evaluate", "export", "recommend", "compare", "report", "prepare", "tune", "api", "command"],
]
RANK = {module: rank for rank, modules in enumerate(RANKS) for module in modules}
ENTRY_POINTS = {"main", "doctor", "evaluate", "export", "recommend", "compare", "report", "prepare", "tune"}


def sources(folder: str) -> list[pathlib.Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))


def imported(path: pathlib.Path) -> set[str]:
    """The dotted names of all that a file imports, at its top or within functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def module_of(path: pathlib.Path) -> str:
    return path.relative_to(REPOSITORY / "trainer").parts[0].removesuffix(".py")


def trainer_modules(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("trainer.")}


@pytest.mark.parametrize("path", sources("trainer"), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_point_one_way(path):
    module = module_of(path)
    if module == "__init__":
        return
    others = (trainer_modules(imported(path)) & RANK.keys()) - {module}
    assert all(RANK[other] < RANK[module] for other in others), f"{module} imports {others}"


def test_every_module_has_a_rank():
    assert {module_of(path) for path in sources("trainer")} == RANK.keys() | {"__init__"}


def test_only_entry_points_know_flags():
    knowing = {module_of(path) for path in sources("trainer") if any("absl.flags" in n for n in imported(path))}
    assert knowing == ENTRY_POINTS


def test_launch_and_trainer_do_not_know_each_other():
    assert not any(name.startswith("launch") for path in sources("trainer") for name in imported(path))
    assert not any(name.startswith("trainer") for path in sources("launch") for name in imported(path))


def test_settings_knows_neither():
    assert not any(
        name.split(".")[0] in ("trainer", "launch") for path in sources("settings") for name in imported(path)
    )


def test_tensorflow_comes_through_compat():
    """Or its version of Keras is not the one that TF-Ranking needs."""
    direct = {
        module_of(path)
        for path in sources("trainer")
        if any(name.split(".")[0] in ("tensorflow", "tensorflow_ranking", "tf_keras") for name in imported(path))
    }
    assert direct == {"compat", "serving", "training"}


def test_nothing_unpickles():
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
    assert not forbidden & {name.split(".")[0] for path in sources("trainer") for name in imported(path)}
    assert not [path for path in sources("trainer") if "allow_pickle=True" in path.read_text()]


def test_no_function_needs_autograph():
    """It triples the time of tracing, and leaves a file in the temporary folder for each function if it is killed."""
    nodes = [node for path in sources("trainer") for node in ast.walk(ast.parse(path.read_text()))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "tf.function"]
    assert len(calls) > 10
    assert not [call for call in map(ast.unparse, calls) if "autograph=False" not in call]
    # A decorator without arguments is no call.
    assert len(
        [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node) == "tf.function"]
    ) == len(calls)


@pytest.mark.parametrize("folder", ["serving", "reporting"])
def test_only_the_run_sees_what_comes_after_training(folder):
    """The rest of training trains; run.py alone exports what was trained, and reports on it."""
    seeing = {
        path.name
        for path in sources("trainer/training")
        if any(n.startswith(f"trainer.{folder}") for n in imported(path))
    }
    assert seeing == {"run.py"}


def test_reports_need_tensorflow_only_for_recommendations():
    """Runs are compared without it, and Matplotlib is not imported before there is something to draw."""
    names = {path.name: imported(path) for path in sources("trainer/reporting")}
    assert {name for name in names if any(n.startswith("trainer.serving") for n in names[name])} == {"samples.py"}
    assert {name for name in names if any(n.startswith("matplotlib") for n in names[name])} == {"charts.py", "svg.py"}


def test_data_imports_tensorflow_only_for_tensorflow_datasets():
    """So that data preparation runs on workers without TensorFlow."""
    names = {path: {name.split(".")[0] for name in imported(path)} for path in sources("trainer/data")}
    importing = {path.name for path in names if "tensorflow" in names[path] or "trainer.compat" in imported(path)}
    assert importing <= {"tensorflow_datasets.py"}


@pytest.mark.parametrize("folder", ["trainer", "launch", "settings", "configs", "benchmarks", "tests"])
def test_no_file_is_longer_than_400_lines(folder):
    assert {path.name for path in sources(folder) if len(path.read_text().splitlines()) > 400} == set()
