"""The records of a run: what is saved, read back, compared, refused and recovered."""

import importlib
import json
import math
import os
import re

import pytest

from configs import default
from settings.errors import ConfigError, StorageError
from settings.trainer_config import load_trainer_config
from tests.conftest import REPOSITORY
from trainer import config as config_lib
from trainer import storage, workdir_lock
from trainer.compat import tf
from trainer.workdir import Workdir

STRATEGY = {"strategy": "default", "num_replicas": 1, "chosen": {}}
DESCRIPTION = {"num_users": 3, "fingerprints": {"vocabulary": "a" * 64, "train lists": "b" * 64}}


def changed(**fields):
    config = default.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@pytest.fixture(params=["local", "ram"])
def workdir(request, tmp_path, monkeypatch):
    """The folder of a run of the default config."""
    # No other run starts at the same time.
    monkeypatch.setattr(workdir_lock, "SETTLE_SECONDS", 0)
    workdir = Workdir(str(tmp_path / "run") if request.param == "local" else f"ram://{tmp_path.name}/run")
    with workdir.locked():
        workdir.save_run(default.get_config(), DESCRIPTION, **STRATEGY, first_step=0)
    return workdir


def contents(path):
    """Every file below a local path, with its content and time."""
    return {
        os.path.join(folder, name): (storage.read_bytes(os.path.join(folder, name)), os.stat(folder).st_mtime_ns)
        for folder, _, names in os.walk(path)
        for name in names
    }


def read_json(path):
    return json.loads(storage.read_bytes(path))


def rewrite(path, **fields):
    """Changes fields of a JSON file. None removes a field."""
    record = read_json(path) | fields
    storage.write_bytes(path, json.dumps({k: v for k, v in record.items() if v is not None}).encode())


def test_the_same_config_and_data_are_accepted(workdir):
    workdir.check(default.get_config())
    workdir.check(load_trainer_config(default.get_config()))
    workdir.check(default.get_config().to_dict())
    workdir.check_data(DESCRIPTION)
    assert workdir.load_config() == load_trainer_config(default.get_config())


def test_another_config_is_refused_with_each_change(workdir):
    with pytest.raises(ConfigError) as refused:
        workdir.check(changed(seed=1, model__hidden_sizes=(32,), train__keep_checkpoints=20))
    assert "config.model.hidden_sizes: () → (32,); config.seed: 0 → 1)" in str(refused.value)
    assert workdir.path in str(refused.value)
    assert "keep_checkpoints" not in str(refused.value)


def test_a_refusal_touches_nothing(tmp_path):
    workdir = Workdir(str(tmp_path))
    workdir.save_run(default.get_config(), DESCRIPTION, **STRATEGY, first_step=0)
    before = contents(tmp_path)
    with pytest.raises(ConfigError):
        workdir.check(changed(seed=1))
    with pytest.raises(ConfigError):
        workdir.check_data({"fingerprints": {"vocabulary": "c"}})
    with pytest.raises(ConfigError):
        workdir.check_num_epochs(1, steps_per_epoch=10, step=11)
    assert contents(tmp_path) == before


def test_fields_that_do_not_affect_the_steps_may_change(workdir):
    workdir.check(changed(data__data_dir="elsewhere", train__steps_per_execution=7, train__keep_checkpoints=1))


def test_other_data_is_refused(workdir):
    other = {"fingerprints": {"vocabulary": "a" * 64, "train lists": "0123456789abcdef"}}
    with pytest.raises(ConfigError, match=r"the fingerprint of its train lists was b{12} and is now 0123456789ab"):
        workdir.check_data(other)


def test_a_split_that_the_run_did_not_have_is_refused(workdir):
    with pytest.raises(ConfigError, match="the fingerprint of its test lists was None"):
        workdir.check_data({"fingerprints": {**DESCRIPTION["fingerprints"], "test lists": "d" * 64}})


def test_a_new_folder_is_accepted_and_not_created(tmp_path):
    workdir = Workdir(str(tmp_path / "new" / "run"))
    workdir.check(default.get_config())
    workdir.check_data(DESCRIPTION)
    workdir.check_progress(None)
    assert workdir.load_result() == {}
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"5", b"null", b'"text"'])
def test_a_broken_file_is_named(workdir, content):
    for path, read in [
        (workdir.config, lambda: workdir.check(default.get_config())),
        (workdir.config, workdir.load_config),
        (workdir.data, lambda: workdir.check_data(DESCRIPTION)),
        (workdir.data, workdir.was_trained_on_ratings),
        (workdir.result, workdir.load_result),
    ]:
        storage.write_bytes(path, content)
        with pytest.raises(StorageError, match=rf"^{path} cannot be read as the JSON that a run writes: .+ Restore"):
            read()


@pytest.mark.parametrize(
    "content",
    [
        b'{"format_version": 5}',
        b'{"format_version": 5, "fingerprints": 5}',
        b'{"format_version": 5, "fingerprints": null}',
    ],
)
def test_a_description_without_fingerprints_is_broken(workdir, content):
    storage.write_bytes(workdir.data, content)
    with pytest.raises(StorageError, match=r"data.json cannot be read"):
        workdir.check_data(DESCRIPTION)


@pytest.mark.parametrize("has_ratings", [True, False])
def test_a_run_tells_whether_it_was_trained_on_ratings(workdir, has_ratings):
    workdir.save_json(workdir.data, {**DESCRIPTION, "has_ratings": has_ratings})
    assert workdir.was_trained_on_ratings() is has_ratings
    workdir.save_json(workdir.data, DESCRIPTION)
    with pytest.raises(StorageError, match=r"data.json cannot be read as the JSON that a run writes"):
        workdir.was_trained_on_ratings()


def test_a_folder_without_a_run_has_no_config(tmp_path):
    with pytest.raises(ConfigError, match=f"--workdir={tmp_path} does not contain a run: it has no config.json"):
        Workdir(str(tmp_path)).load_config()


@pytest.mark.parametrize("content", [b'{"format_version": 5}', b'{"format_version": 5, "config": [1]}'])
def test_a_record_without_a_config_is_broken(workdir, content):
    storage.write_bytes(workdir.config, content)
    with pytest.raises(StorageError, match=r"config.json cannot be read"):
        workdir.check(default.get_config())


def test_the_result_is_what_was_saved(workdir):
    result = {"step": 480, "held_out": None, "speed": None, "train": {"loss": 0.1}, "protocols": {}}
    workdir.save_json(workdir.result, result)
    assert workdir.load_result() == result


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_is_null_in_the_file_and_nan_when_loaded(workdir, value):
    workdir.save_json(workdir.result, {"step": 1, "train": {"loss": value}, "protocols": {"rated": {"mrr": [value]}}})
    assert read_json(workdir.result)["train"] == {"loss": None}
    loaded = workdir.load_result()["train"]["loss"]
    assert f"{loaded:.4f}" == "nan"


@pytest.mark.parametrize("name", ["config", "data", "result"])
@pytest.mark.parametrize(
    ("version", "says"),
    [(None, "an earlier version of this project .format 1;"), (6, "a later version of this project .format 6;")],
)
def test_files_of_another_version_are_refused_and_left_alone(workdir, name, version, says):
    workdir.save_json(workdir.result, {"step": 1})
    rewrite(getattr(workdir, name), format_version=version)
    before = storage.read_bytes(getattr(workdir, name))
    reads = {
        "config": lambda: workdir.check(default.get_config()),
        "data": lambda: workdir.check_data(DESCRIPTION),
        "result": workdir.load_result,
    }
    with pytest.raises(ConfigError, match=f"^--workdir={workdir.path} was written by {says}.*another --workdir"):
        reads[name]()
    assert storage.read_bytes(getattr(workdir, name)) == before


def test_a_workdir_of_the_first_version_is_refused_and_left_alone(tmp_path):
    """Its config.json was the config itself."""
    (tmp_path / "config.json").write_text(json.dumps(default.get_config().to_dict()))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000010.json").write_text("{}")
    before = contents(tmp_path)
    for read in (lambda: Workdir(str(tmp_path)).check(default.get_config()), Workdir(str(tmp_path)).load_config):
        with pytest.raises(
            ConfigError, match=r"earlier version of this project \(format 1; this version reads format 5"
        ):
            read()
    assert contents(tmp_path) == before


def test_a_field_that_was_added_later_has_its_default(workdir):
    saved = read_json(workdir.config)["config"]
    del saved["eval"]["num_sample_users"], saved["optimizer"]["momentum"]
    rewrite(workdir.config, config=saved)
    workdir.check(default.get_config())
    assert workdir.load_config() == load_trainer_config(default.get_config())
    with pytest.raises(ConfigError, match=r"config.optimizer.momentum: 0.0 → 0.9\)"):
        workdir.check(changed(optimizer__momentum=0.9))


def test_a_saved_config_that_is_invalid_is_named(workdir):
    saved = read_json(workdir.config)["config"]
    rewrite(workdir.config, config={**saved, "seed": -1})
    with pytest.raises(
        ConfigError, match=rf"^The config of the run in --workdir={workdir.path} cannot .*config.seed=-1"
    ):
        workdir.load_config()


def test_every_config_is_read_back_as_it_was_saved(tmp_path):
    for path in (REPOSITORY / "configs").glob("*.py"):
        if path.stem == "__init__":
            continue
        config = importlib.import_module(f"configs.{path.stem}").get_config()
        workdir = Workdir(str(tmp_path / path.stem))
        with workdir.locked():
            workdir.save_run(config, DESCRIPTION, **STRATEGY, first_step=0)
        assert workdir.load_config() == load_trainer_config(config)
        workdir.check(config)


# A run that is killed and started again.


def test_a_run_that_was_stopped_before_its_first_checkpoint_may_start_again(workdir):
    storage.write_bytes(workdir.metrics, b'{"step": 10}\n')
    workdir.check(default.get_config())
    workdir.check_data(DESCRIPTION)
    workdir.check_progress(None)


@pytest.mark.parametrize("resumed", [False, True], ids=["saved", "resumed"])
def test_a_run_that_lost_all_its_checkpoints_does_not_start_again(workdir, resumed):
    if resumed:
        workdir.save_run(default.get_config(), DESCRIPTION, **STRATEGY, first_step=10)
    else:
        workdir.record_checkpoint()
    workdir.check_progress(10)
    again = Workdir(workdir.path)
    again.check(default.get_config())
    before = storage.read_bytes(workdir.config)
    for _ in range(2):
        with pytest.raises(StorageError, match=rf"had saved checkpoints, but {workdir.checkpoints} contains none"):
            again.check_progress(None)
    assert storage.read_bytes(workdir.config) == before


def test_the_record_of_a_checkpoint_outlives_a_resume(workdir):
    workdir.record_checkpoint()
    before = storage.read_bytes(workdir.config)
    workdir.record_checkpoint()
    assert storage.read_bytes(workdir.config) == before
    workdir.save_run(default.get_config(), DESCRIPTION, **STRATEGY, first_step=0)
    with pytest.raises(StorageError, match="had saved checkpoints"):
        workdir.check_progress(None)


def test_a_trained_run_that_lost_data_json_is_refused(workdir):
    tf.io.gfile.remove(workdir.data)
    workdir.check_data(DESCRIPTION)
    workdir.record_checkpoint()
    with pytest.raises(StorageError, match=r"data\.json is missing"):
        workdir.check_data(DESCRIPTION)


@pytest.mark.parametrize(
    "name",
    [
        *("data.json", "vocabulary/users.parquet", "seen.parquet", "checkpoints/step-00000010.index"),
        *("metrics.jsonl", "result.json", "queries.parquet", "logs/train/events.out.tfevents.1"),
        "logs/events.out.tfevents.1",
    ],
)
def test_files_of_a_run_without_its_config_are_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    before = contents(tmp_path)
    shown = {"vocabulary/users.parquet": "vocabulary", "logs/train/events.out.tfevents.1": "logs/train"}
    shown["checkpoints/step-00000010.index"] = "checkpoints"
    with pytest.raises(StorageError, match=f"contains {re.escape(shown.get(name, name))}, but no config.json"):
        Workdir(f"{tmp_path}/").check(default.get_config())
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", [".lock", "notes.txt", "logs/notes.txt", "ratings.csv"])
def test_other_files_may_be_in_the_folder(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    Workdir(str(tmp_path)).check(default.get_config())


# What was run.


def test_fewer_epochs_than_were_trained_are_refused(workdir):
    workdir.check_num_epochs(10, steps_per_epoch=48, step=480)
    workdir.check_num_epochs(10, steps_per_epoch=48, step=0)
    with pytest.raises(ConfigError) as refused:
        workdir.check_num_epochs(9, steps_per_epoch=48, step=444)
    assert "config.train.num_epochs=9 cannot be used" in str(refused.value)
    assert "already trained for 9.25 epochs (444 steps)" in str(refused.value)
    assert "at least 10," in str(refused.value)


def test_each_change_of_the_strategy_is_recorded_and_reported(workdir):
    def start(strategy, num_replicas, first_step):
        return workdir.save_run(
            default.get_config(),
            DESCRIPTION,
            strategy=strategy,
            num_replicas=num_replicas,
            chosen={},
            first_step=first_step,
        )

    assert start("default", 1, 100) is None
    assert start("mirrored", 2, 200) == (
        "The steps before step 200 were taken with the default strategy on 1 replica. The next steps are taken with "
        "the mirrored strategy on 2 replicas, so the weights can differ from those of a run without this change. "
        "config.json records it."
    )
    assert start("mirrored", 2, 300) is None
    assert "on 2 replicas. The next steps are taken with the mirrored strategy on 4" in start("mirrored", 4, 1000)
    assert "steps before step 1,200 were" in start("mirrored", 2, 1200)
    # The newest checkpoint was damaged, so the steps from 900 on are taken again.
    assert start("mirrored", 2, 900) is None
    record = read_json(workdir.config)
    assert record["runs"] == [
        {"strategy": "default", "num_replicas": 1, "first_step": 0},
        {"strategy": "mirrored", "num_replicas": 2, "first_step": 200},
    ]
    assert record["format_version"] == 5
    assert config_lib.changed_fields(record["config"], default.get_config()) == {}


def test_steps_that_were_never_saved_do_not_count(workdir):
    sentence = workdir.save_run(
        default.get_config(), DESCRIPTION, strategy="mirrored", num_replicas=2, chosen={}, first_step=0
    )
    assert sentence is None
    assert read_json(workdir.config)["runs"] == [{"strategy": "mirrored", "num_replicas": 2, "first_step": 0}]


def test_the_epochs_of_an_extended_run_are_recorded(workdir):
    constant = changed(optimizer__schedule="constant")
    workdir.save_run(constant, DESCRIPTION, **STRATEGY, first_step=10)
    longer = changed(optimizer__schedule="constant", train__num_epochs=99)
    workdir.check(longer)
    workdir.save_run(longer, DESCRIPTION, **STRATEGY, first_step=10)
    assert workdir.load_config().train.num_epochs == 99


def test_the_data_is_described_in_plain_json(workdir):
    assert read_json(workdir.data) == {"format_version": 5, **DESCRIPTION}


def test_values_that_another_version_chose_are_refused(workdir):
    """The fixture's run is saved once more, with values for the size of its data."""
    strategy = {**STRATEGY, "chosen": {"model.scale": 4.0, "train.num_epochs": 100}}
    workdir.save_run(default.get_config(), DESCRIPTION, **strategy, first_step=10)
    workdir.check_chosen({"model.scale": 4.0})
    workdir.check_chosen({"model.scale": 4.0, "history.targets": "all"})
    with pytest.raises(ConfigError, match=r"config\.model\.scale=4\.0 .* chooses 5\.0"):
        workdir.check_chosen({"model.scale": 5.0})


def test_what_killed_runs_left_half_written_is_deleted_and_nothing_else(workdir):
    """Only files that a run writes, and only as `storage` names them before they are whole."""
    left = ["config.json.12.tmp", "data.json.3.tmp", "metrics.jsonl.4.tmp", "report.html.5.tmp", "seen.parquet.6.tmp"]
    left += ["vocabulary/users.parquet.7.tmp", "vocabulary/features.parquet.8.tmp", ".lock.9.tmp", "result.json.1.tmp"]
    kept = ["config.json", "notes.12.tmp", "config.json.tmp", "config.json.x.tmp", "config.json.12.tmp.bak", "12.tmp"]
    kept += ["vocabulary/notes.parquet.7.tmp", "vocabulary/users.parquet"]
    storage.make_folder(workdir.vocabulary)
    for name in {*left, *kept} - {"config.json"}:
        storage.write_bytes(storage.join(workdir.path, name), b"mine")
    with workdir.locked():
        found = set(storage.list_files(workdir.path)) - {".lock"}
    assert found == {"data.json", *kept}
