"""The doctor passes a run that works, and each of its checks fails on what was made to fail it."""

import dataclasses
import os
import subprocess
import sys

import pytest

from settings.errors import ConfigError, StorageError
from settings.trainer_config import load_trainer_config
from tests.conftest import REPOSITORY
from trainer import doctor, schema, storage
from trainer.compat import tf
from trainer.evaluation import metrics
from trainer.modeling.two_tower import TwoTowerModel
from trainer.training import losses, optimizers, steps
from trainer.training.objectives import Objective, rank_rated

BATCH_SIZE, LIST_SIZE, STEPS_PER_EXECUTION = 2, 4, 2
BATCH = {
    schema.QUERY: tf.ones([BATCH_SIZE], tf.int32),
    schema.ITEMS: tf.ones([BATCH_SIZE, LIST_SIZE], tf.int32),
    schema.LABELS: tf.ones([BATCH_SIZE, LIST_SIZE]),
    schema.WEIGHTS: tf.ones([BATCH_SIZE]),
    schema.ROWS: tf.range(BATCH_SIZE),
    schema.NUM_LISTS: tf.constant(2.0),
}


def outcome(findings):
    """By check: passed, failed or not checked."""
    return {finding.check: finding.passed for finding in findings}


def refusal(check, *arguments):
    """The paragraph with which a check fails."""
    with pytest.raises(ConfigError) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def batches(**features):
    """One batch for training, with some of its features replaced."""
    return {"training": tf.data.Dataset.from_tensors(BATCH | features)}


def train_call(model_class):
    """The arguments of `trace_step` for the training step of a model."""
    model = model_class(num_queries=3, num_items=5, embedding_size=2)
    schedule = optimizers.build_schedule("constant", learning_rate=0.1, total_steps=9, warmup_steps=0)
    optimizer = optimizers.build_optimizer("sgd", schedule, tables=model.table_variables)
    optimizer.build(model.trainable_variables)
    loss_fn = losses.build_loss("softmax_loss", global_batch_size=BATCH_SIZE)
    objective = Objective(model, rank_rated(model, loss_fn))
    call = steps.build_train_call(tf.distribute.get_strategy(), model, optimizer, objective, [])
    superbatch = {name: tf.stack([feature] * STEPS_PER_EXECUTION) for name, feature in BATCH.items()}
    return "training", call, (superbatch, tf.constant(0, tf.int64), tf.constant(1))


class MaskingModel(TwoTowerModel):
    """Its scores have the right shape, but what they are made of has one that depends on the scores."""

    def list_scores(self, queries, items, examples):
        scores = super().list_scores(queries, items, examples)
        return scores - tf.reduce_max(tf.boolean_mask(scores, scores > 0))


class RaggedModel(TwoTowerModel):
    """Its scores are of a shape that the loss cannot take."""

    def list_scores(self, queries, items, examples):
        return tf.ragged.boolean_mask(super().list_scores(queries, items, examples), items > 0)


class SpellingModel(TwoTowerModel):
    """It takes a detour through text."""

    def list_scores(self, queries, items, examples):
        scores = super().list_scores(queries, items, examples)
        return scores * tf.strings.to_number(tf.strings.as_string(items))


def test_a_run_that_works_passes(tiny_config, tmp_path):
    workdir = tmp_path / "workdir"
    tiny_config.eval.metrics = ("ndcg@5",)
    findings = doctor.examine(
        tiny_config, strategy_name="tpu", num_replicas=4, workdir=str(workdir), accelerator="TPU-v3"
    )
    assert outcome(findings) == dict.fromkeys(
        [
            *(
                "config",
                "batch size",
                "workdir",
                "data",
                "size of the data",
                "model",
                "batches",
                "shapes of batches",
                "types of batches",
            ),
            *("steps", "shapes in steps", "compilation", "memory"),
        ],
        True,
    )
    says = {finding.check: finding.says for finding in findings}
    assert says["batch size"] == "2 lists per step for each of 4 replicas." and "40 users, 30 items" in says["data"]
    # A call has the number of lists, and takes 5 steps of 2 lists with query, 12 items, 12 labels, weight and row.
    assert 2 * 4 * (5 * 2 * (1 + 12 + 12 + 1 + 1) + 1) == 2168 and "features 2.2 kB" in says["memory"]
    assert not workdir.exists()


def test_what_needs_a_failed_check_is_not_checked(tiny_config, tmp_path):
    tiny_config.data.source = str(tmp_path / "missing.csv")
    tiny_config.train.global_batch_size = 6
    (tmp_path / "file").write_text("precious")
    findings = doctor.examine(tiny_config, strategy_name="mirrored", num_replicas=4, workdir=str(tmp_path / "file"))
    by_outcome = {passed: [f.check for f in findings if f.passed is passed] for passed in (True, False, None)}
    assert by_outcome[True] == ["config"] and by_outcome[False] == ["batch size", "workdir", "data"]
    assert by_outcome[None][:2] == ["size of the data", "model"] and by_outcome[None][-2:] == ["compilation", "memory"]
    says = {finding.check: finding.says for finding in findings}
    assert "use a multiple of 4, such as 8" in says["batch size"] and "missing.csv" in says["data"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("eval.metrics", ("nope", "ndcg@10")),
        ("loss.key", "nope_loss"),
        ("optimizer.name", "nope"),
        ("optimizer.momentum", 0.5),
        ("optimizer.schedule", "nope"),
        ("optimizer.warmup_steps", 1),
        ("split.method", "nope"),
        ("split.test_fraction", 1.5),
    ],
)
def test_a_field_that_cannot_be_used_is_named(tiny_config, field, value):
    with tiny_config.unlocked():
        tiny_config.update_from_flattened_dict({field: value, "eval.best_metric": "loss"})
    first, *others = doctor.examine(tiny_config, strategy_name="default")
    assert first.check == "config" and first.passed is False and f"config.{field}" in first.says
    assert others and all(finding.passed is None for finding in others)


def test_replicas_have_to_share_a_batch(tiny_config):
    """The batch has 8 lists."""
    config = load_trainer_config(tiny_config).train
    assert doctor.replica_batch_size_of(config, "mirrored", 2) == 4
    assert "--num_replicas=2" in refusal(doctor.replica_batch_size_of, config, "default", 2)
    assert "multiple of 3, such as 9" in refusal(doctor.replica_batch_size_of, config, "mirrored", 3)
    in_fixed_order = config.model_copy(update={"deterministic_reduction": 2})
    assert doctor.replica_batch_size_of(in_fixed_order, "mirrored", 2) == 4
    assert "deterministic_reduction=4" in refusal(doctor.replica_batch_size_of, in_fixed_order, "mirrored", 4)
    assert "--strategy=tpu" in refusal(doctor.replica_batch_size_of, in_fixed_order, "tpu", 2)


def test_a_remote_workdir_is_written_to_and_left_as_it_was(tiny_config, monkeypatch):
    doctor.check_workdir("ram://bucket/run", tiny_config)
    assert not tf.io.gfile.exists("ram://bucket/run/.doctor")

    def forbidden(path, content):
        raise tf.errors.PermissionDeniedError(None, None, "one may look, but not write")

    monkeypatch.setattr(storage, "write_bytes", forbidden)
    with pytest.raises(StorageError, match="ram://bucket/run cannot be written: one may look"):
        doctor.check_workdir("ram://bucket/run", tiny_config)


def test_a_batch_of_a_changing_shape_is_refused():
    changing = {"training": tf.data.Dataset.from_tensor_slices(tf.ones([5])).batch(2).map(lambda x: {"labels": x})}
    assert "'labels' of the batches for training has the shape (None,)" in refusal(doctor.check_batch_shapes, changing)
    assert "'items'" in refusal(doctor.check_batch_shapes, batches(items=tf.ragged.constant([[1], [2, 3]])))
    doctor.check_batch_shapes(batches())


def test_a_batch_of_anything_but_dense_numbers_is_refused():
    assert "a RaggedTensor" in refusal(doctor.check_batch_types, batches(items=tf.ragged.constant([[1], [2, 3]])))
    assert "a SparseTensor" in refusal(doctor.check_batch_types, batches(items=tf.sparse.eye(2)))
    assert "holds strings" in refusal(doctor.check_batch_types, batches(title=tf.constant(["Heat", "Alien"])))
    doctor.check_batch_types(batches())


def test_a_step_whose_shapes_depend_on_values_is_refused():
    """Compiling it here would not tell: on a CPU, XLA takes it."""
    step = doctor.trace_step(*train_call(MaskingModel))
    said = refusal(doctor.check_step_shapes, [step])
    assert "boolean_mask/Where (Where) has the shape (None, 1)" in said and "training" in said


def test_a_step_that_cannot_be_traced_is_refused():
    said = refusal(doctor.trace_step, *train_call(RaggedModel))
    assert "The step for training cannot be traced: " in said and "RaggedTensor" in said


def test_a_step_with_strings_does_not_compile():
    step = doctor.trace_step(*train_call(SpellingModel))
    doctor.check_step_shapes([step])
    said = refusal(doctor.check_compilation, [step])
    assert "XLA cannot compile the step for training" in said and "it has no AsString (while/AsString)" in said


def test_metrics_are_compiled_everywhere_and_the_rest_of_evaluation_on_a_tpu(tiny_config, monkeypatch):
    def spell(numbers):
        return tf.strings.to_number(tf.strings.as_string(numbers))

    def calls_of(learner, *, whole):
        batches = doctor._build_batches(config, dataset, learner, 1)
        return doctor._build_calls(config, learner, batches, whole=whole)

    config = load_trainer_config(tiny_config)
    dataset = doctor.load_dataset(**doctor.config_lib.dataset_arguments(config))
    learner = doctor._build_learner(config, dataset)

    def spelled(features):
        return spell(learner.model(features))

    spelled.trainable_variables = learner.model.trainable_variables
    spelling = dataclasses.replace(learner, model=spelled)
    doctor.check_compilation([doctor.trace_step(*calls_of(spelling, whole=False)[1])])
    said = refusal(doctor.check_compilation, [doctor.trace_step(*calls_of(spelling, whole=True)[1])])
    assert "evaluation" in said
    monkeypatch.setattr(
        metrics.RankingMetric, "of_lists", lambda self, lists: (spell(lists.list_sizes), lists.list_sizes)
    )
    for name, *call in calls_of(learner, whole=False):
        assert name in refusal(doctor.check_compilation, [doctor.trace_step(name, *call)])


def test_the_command_prints_the_table_and_exits_with_78(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "trainer.doctor", "--strategy=tpu", "--num_replicas=5", "--accelerator=tpu-v3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 78
    rows = [line.split() for line in answer.stdout.splitlines()]
    assert rows[0][:2] == ["pass", "config"] and rows[1][:3] == ["FAIL", "batch", "size"]
    assert "such as 130" in answer.stdout and rows[-1][:3] == ["not", "checked", "memory"]
    assert not list(tmp_path.iterdir())
