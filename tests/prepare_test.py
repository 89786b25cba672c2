"""The command that prepares data: what it prints, refuses and leaves; and a run that goes on from prepared data."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pyarrow.csv
import pytest

from settings.trainer_config import load_trainer_config
from tests.conftest import REPOSITORY, planted_ratings, train
from trainer.compat import tf
from trainer.config import dataset_arguments
from trainer.data.loading import load_source
from trainer.data.prepared import writing
from trainer.training.run import train_and_evaluate


@pytest.fixture
def prepare(tmp_path):
    """Runs the command in `tmp_path`. Returns its exit code and its output, without the imports."""

    def prepare(*flags):
        process = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "trainer.prepare", *flags],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        lines = process.stderr.splitlines()
        imports = [line for line in lines if line.startswith("import time:")]
        assert imports and not any(line.endswith(" tensorflow") for line in imports)
        return process.returncode, process.stdout + "\n".join(line for line in lines if line not in imports)

    return prepare


def contents(folder):
    return {path: path.read_bytes() for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_the_command_prepares_once_and_refuses_other_ratings(prepare, tmp_path):
    table = planted_ratings()
    pyarrow.csv.write_csv(table, tmp_path / "ratings.csv")
    with open(tmp_path / "ratings.csv", "a") as file:
        file.write('"u1","i1",9,1,"Film 1"\n')
    flags = ("--output=folder/data", "--config.data.source=ratings.csv", "--config.data.max_bad_fraction=0.1")
    code, output = prepare(*flags)
    assert code == 0, output
    num = table.num_rows
    assert f"ratings.csv: {num + 1:,} rows read, {num:,} used (others: 1 rating_out_of_range)." in output
    counts = json.loads((tmp_path / "folder/data/manifest.json").read_text())["counts"]["num_ratings"]
    assert sum(counts.values()) == num
    assert (
        "40 users, 30 items. Ratings: " + ", ".join(f"{number} {split}" for split, number in counts.items()) in output
    )
    assert re.search(
        r"Wrote [\d.]+ kB in 1 shard to folder/data in [\d.]+ s\..*--config.data.source=folder/data", output
    )
    assert os.listdir(tmp_path / "folder") == ["data"]
    before = contents(tmp_path)

    code, output = prepare(*flags)
    assert code == 0 and "There is nothing to do." in output
    code, output = prepare("--verify=folder/data")
    assert code == 0 and f"All {len(contents(tmp_path / 'folder')) - 1} files in folder/data" in output
    code, output = prepare(*flags, "--config.split.method=last")
    assert code == 78 and "config.split.method: 'random' → 'last'" in output
    code, output = prepare("--output=again", "--config.data.source=folder/data", flags[2])
    assert code == 78 and "folder/data is a prepared data set already" in output
    assert contents(tmp_path) == before

    pyarrow.csv.write_csv(table, tmp_path / "ratings.csv")
    code, output = prepare(*flags)
    assert code == 78 and "its rows is" in output and output.count("\n") == 0
    swapped = table.set_column(2, "rating", table["rating"].take(np.arange(num)[::-1]))
    pyarrow.csv.write_csv(swapped, tmp_path / "ratings.csv")
    with open(tmp_path / "ratings.csv", "a") as file:
        file.write('"u1","i1",9,1,"Film 1"\n')
    code, output = prepare(*flags)
    assert code == 78 and "--output=folder/data was prepared from other ratings." in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "Set --output"),
        (("--output=a", "--verify=b"), "Set --output"),
        (("--output=new", "--runner=DirectRunner"), "--runner=DirectRunner needs Apache Beam"),
        (("--output=new", "--dry_run"), "--dry_run is only used on Beam"),
        (("--output=new", "--", "--num_workers=2"), "--num_workers=2 is only used on Beam"),
        (("--output=new", "--num_workers=2"), "write Beam's own flags after --"),
        (("--output=taken",), "--output=taken exists and is no prepared data set"),
        (("--output=synthetic",), "--output=synthetic cannot be used"),
        (("--output=taken/file/data",), "taken/file is not a folder"),
        (("--verify=taken",), "taken holds no prepared data set"),
        (("--output=new", "--config.data.source=missing.csv"), "missing.csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_paragraph_and_nothing_is_written(prepare, tmp_path, flags, says):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    code, output = prepare(*flags)
    assert code in (74, 78) and output.startswith("error: ") and says in output and "\n" not in output
    assert list(contents(tmp_path)) == [tmp_path / "taken/file"] and os.listdir(tmp_path) == ["taken"]


def last_weights(workdir):
    prefix = max(pathlib.Path(workdir).glob("checkpoints/step-*.json")).with_suffix("")
    reader = tf.train.load_checkpoint(str(prefix))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith("_")]
    return prefix.name, {name: reader.get_tensor(name) for name in names}


@pytest.mark.slow
def test_a_run_goes_on_from_prepared_data_as_from_its_source(tiny_config, tmp_path, monkeypatch):
    """The prepared data has several shards, and the run ends with the same metrics too."""
    monkeypatch.setattr(writing, "SHARD_BYTES", 4000)
    tiny_config.train.early_stopping_patience = 0
    tiny_config.history.encoder = "pooled"
    tiny_config.history.targets = "dropped"
    train(tiny_config, tmp_path / "whole")

    arguments = dataset_arguments(load_trainer_config(tiny_config))
    dataset = load_source(**arguments)
    manifest = writing.write_prepared(dataset, str(tmp_path / "data"), writing.plan_dataset(dataset, arguments))
    assert len(manifest.shards) > 1
    tiny_config.train.num_epochs //= 2
    train_and_evaluate(
        load_trainer_config(tiny_config),
        strategy_name="default",
        workdir=str(tmp_path / "changed"),
        evaluate_test=False,
    )
    tiny_config.train.num_epochs *= 2
    tiny_config.data.source = str(tmp_path / "data")
    train(tiny_config, tmp_path / "changed")

    (step, weights), (expected_step, expected) = last_weights(tmp_path / "changed"), last_weights(tmp_path / "whole")
    assert step == expected_step and weights.keys() == expected.keys() and len(weights) > 5
    for name, tensor in weights.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    result, expected_result = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("changed", "whole")
    )
    assert {**result, "speed": None} == {**expected_result, "speed": None}
    for name in ("data.json", "seen.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "changed" / name).read_bytes()
