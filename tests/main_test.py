"""What is wrong gets one paragraph and an exit code, and nothing is written."""

import os
import subprocess
import sys
import types

import pytest

from settings.errors import ConfigError, DataError, DivergedError, StorageError
from tests.conftest import REPOSITORY, mirrored_strategy, train
from trainer import strategy as strategy_lib

WORKDIR = "--workdir=never_made"

# Command line → exit code, and what the paragraph has to say.
MISTAKES = {
    ("--config.nope=3", WORKDIR): (78, "config.nope is not a field"),
    ("--config.train.num_epoch=3", WORKDIR): (78, "did you mean num_epochs?"),
    ("--config.train.num_epochs=many", WORKDIR): (78, "config.train.num_epochs=many"),
    ("--config.seed=-1", WORKDIR): (78, "config.seed=-1 cannot be used"),
    ("--config=configs/missing.py", WORKDIR): (78, "--config=configs/missing.py cannot be loaded"),
    ("--nope=3", WORKDIR): (78, "nope"),
    ("--strategy=fast", WORKDIR): (78, "<default|mirrored|multi_worker_mirrored|tpu>"),
    ("--num_cpu_devices=0", WORKDIR): (78, "num_cpu_devices"),
    ("--config=/etc/passwd", WORKDIR): (78, "/etc/passwd is not a config"),
    ("stray", WORKDIR): (78, "'stray' is not a flag"),
    (): (78, "--workdir is missing"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[tuple[str, ...], tuple[int, str]]:
    """The exit code and output of each mistake, all processes at once: none of them gets to import TensorFlow."""
    folder = tmp_path_factory.mktemp("cwd")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("AIP_MODEL_DIR", None)
    processes = {
        flags: subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "trainer.main", *flags],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for flags in MISTAKES
    }
    answers = {}
    for flags, process in processes.items():
        output, _ = process.communicate(timeout=120)
        imports = [line for line in output.splitlines() if line.startswith("import time:")]
        assert imports and not any(line.endswith(" tensorflow") for line in imports)
        answers[flags] = process.returncode, "\n".join(set(output.splitlines()) - set(imports))
    assert not list(folder.iterdir())
    return answers


@pytest.mark.parametrize("flags", MISTAKES, ids=" ".join)
def test_a_mistake_on_the_command_line_is_one_paragraph(answers, flags):
    exit_code, says = MISTAKES[flags]
    actual_code, output = answers[flags]
    assert actual_code == exit_code
    assert output.startswith("error: ") and says in output
    assert len(output.splitlines()) == 1 and "Traceback" not in output


def rejects(error_class, says, config, workdir, **options):
    """Asserts that a run of the config is refused for the reason, and that the workdir is not made."""
    with pytest.raises(error_class) as caught:
        train(config, workdir, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("field", "value", "error_class", "says"),
    [
        ("data.source", "/no/such/ratings.csv", ConfigError, "/no/such/ratings.csv"),
        ("data.columns.rating", "stars", DataError, "stars"),
        ("data.rating_range", (0.0, 4.0), DataError, "config.data.max_bad_fraction"),
        ("loss.key", "nope_loss", ConfigError, "config.loss.key"),
        ("optimizer.name", "nope", ConfigError, "config.optimizer.name"),
        ("optimizer.schedule", "nope", ConfigError, "config.optimizer.schedule"),
        ("split.method", "nope", ConfigError, "config.split.method"),
        ("split.test_fraction", 0.95, ConfigError, "config.split.test_fraction"),
        ("eval.metrics", ("nope",), ConfigError, "config.eval"),
        ("eval.best_metric", "map", ConfigError, "config.eval.best_metric"),
        ("eval.relevance_threshold", 5.5, ConfigError, "config.eval.relevance_threshold"),
        ("data.rating_range", (0.0, 1000.0), ConfigError, "2^rating"),
    ],
)
def test_a_config_that_cannot_work_is_refused(tiny_config, tmp_path, field, value, error_class, says):
    with tiny_config.unlocked():
        tiny_config.update_from_flattened_dict({field: value})
    rejects(error_class, says, tiny_config, tmp_path / "workdir")


@pytest.mark.parametrize("bad", ["nan", "five", "", "inf"])
def test_a_bad_rating_is_named(tiny_config, tmp_path, bad):
    source = tmp_path / "ratings.csv"
    source.write_text(f"user_id,item_id,rating,timestamp,title\nu1,i1,4,1,A\nu1,i2,{bad},2,B\n")
    tiny_config.data.source = str(source)
    rejects(DataError, "ratings.csv", tiny_config, tmp_path / "workdir")


def test_nothing_left_to_train_on_is_said(tiny_config, tmp_path):
    source = tmp_path / "ratings.csv"
    source.write_text("user_id,item_id,rating,timestamp,title\nu1,i1,4,1,A\n")
    tiny_config.data.source = str(source)
    rejects(DataError, "config.split", tiny_config, tmp_path / "workdir")


def test_a_batch_that_replicas_cannot_share_is_refused(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(strategy_lib, "build_strategy", lambda *_, **__: mirrored_strategy(4))
    tiny_config.train.global_batch_size = 6
    rejects(ConfigError, "use a multiple of 4, such as 8", tiny_config, tmp_path / "workdir", strategy_name="mirrored")


def test_no_tpu_is_said(tiny_config, tmp_path):
    rejects(ConfigError, "no TPU answers at --tpu=local", tiny_config, tmp_path / "workdir", strategy_name="tpu")


def test_several_workers_need_a_cluster(tiny_config, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    name = "multi_worker_mirrored"
    rejects(ConfigError, "needs TF_CONFIG", tiny_config, tmp_path / "workdir", strategy_name=name)


def test_a_workdir_that_is_a_file_is_refused(tiny_config, tmp_path):
    workdir = tmp_path / "workdir"
    workdir.write_text("precious")
    with pytest.raises(StorageError, match="workdir"):
        train(tiny_config, workdir)
    assert workdir.read_text() == "precious"


def test_a_diverged_run_is_neither_saved_nor_exported(tiny_config, tmp_path):
    tiny_config.optimizer.name = "sgd"
    tiny_config.optimizer.learning_rate = 1e20
    with pytest.raises(DivergedError, match="learning_rate"):
        train(tiny_config, tmp_path)
    assert not list(tmp_path.glob("checkpoints/*")) and not (tmp_path / "model").exists()


def test_under_vertex_the_workdir_is_the_base_of_the_model_folder(monkeypatch):
    from trainer import main as main_module

    monkeypatch.setenv("AIP_MODEL_DIR", "gs://bucket/run/3/model/")
    monkeypatch.setattr(main_module, "_FLAGS", types.SimpleNamespace(workdir=None))
    assert main_module._workdir() == "gs://bucket/run/3"
