"""With virtual replicas, another number of replicas gives the same bits."""

import hashlib

import numpy as np
import pytest

from settings.errors import ConfigError
from tests.training.planted_steps import BATCH_SIZE, K, build_steps, random_superbatch
from trainer import schema
from trainer.compat import tf
from trainer.modeling import embedding
from trainer.training import reduction


def digest(variables):
    """The SHA-256 of the bits of all variables."""
    hashed = hashlib.sha256()
    for variable in variables:
        hashed.update(variable.numpy().tobytes())
    return hashed.hexdigest()


def digests(num_virtual, *, replicas=(0, 2), **options):
    """Of all variables of model and optimizer after K steps, on one device (0) and on several replicas."""
    found, weights = [], []
    for num_replicas in replicas:
        planted = build_steps(num_replicas, num_virtual=num_virtual, **options)
        assert int(planted.take(K).failed_step) == -1
        found.append(digest(planted.variables))
        weights.append([variable.numpy() for variable in planted.variables])
    for others in weights[1:]:
        for part, other in zip(weights[0], others, strict=True):
            np.testing.assert_allclose(part, other, rtol=1e-4, atol=1e-5)
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": 0.5, "model_options": {"hidden_sizes": (3,), "item_bias": True}},
        {"optimizer_name": "adamw", "weight_decay": 0.1, "loss_key": "gumbel_approx_ndcg_loss"},
    ],
)
def test_dense_updates_are_equal_bit_for_bit(options):
    assert len(set(digests(4, replicas=(0, 2, 4), **options))) == 1


@pytest.mark.parametrize("optimizer_name", ["adagrad", pytest.param("lazy_adam", marks=pytest.mark.long)])
def test_updates_of_looked_up_rows_are_equal_bit_for_bit(optimizer_name, monkeypatch):
    monkeypatch.setattr(embedding, "_ROWS_PER_INDEX", 0)
    assert len(set(digests(4, optimizer_name=optimizer_name, model_options={"item_bias": True}))) == 1


def test_without_virtual_replicas_the_last_digits_differ():
    """Or the tests above would show nothing."""
    assert len(set(digests(0, clip_norm=0.5))) > 1


def test_the_parts_of_a_batch_are_its_lists_in_order():
    batch = {name: feature[0] for name, feature in random_superbatch().items()}
    batch[schema.NEGATIVES] = tf.range(7)
    parts = reduction.split(batch, 4)
    for name, feature in batch.items():
        if name in (schema.NEGATIVES, schema.NUM_LISTS):
            assert all(part[name] is feature for part in parts)
        else:
            np.testing.assert_array_equal(tf.concat([part[name] for part in parts], axis=0), feature)
            assert all(part[name].shape[0] == BATCH_SIZE // 4 for part in parts)


def test_gradients_are_added_up_in_the_order_of_the_parts():
    """Of 1e8, 1 and −1e8 in float32 only this order gives 0 and the other one 1."""
    for values, total in (([1e8, 1.0, -1e8], 0.0), ([1e8, -1e8, 1.0], 1.0)):
        parts = iter(values)

        def gradients_fn(batch, step, parts=parts):
            gradient = tf.fill([2], next(parts))
            return reduction.Gradients(tf.zeros([3]), tf.zeros([1, 0]), tf.zeros([2]), [gradient])

        summed = reduction.FixedOrderSum(gradients_fn, ["weights"], None, num_virtual=3, num_replicas=1)
        (gradient, _), *_ = summed({schema.WEIGHTS: tf.ones([3])}, tf.constant(0)).gradients
        np.testing.assert_array_equal(gradient, [total, total])


@pytest.mark.parametrize(
    ("num_virtual", "batch", "num_replicas", "nearest"),
    [(4, 8, 8, 8), (6, 12, 4, 4), (3, 12, 2, 2), (5, 30, 2, 6), (1, 32, 4, 4)],
)
def test_a_number_that_the_replicas_cannot_share_is_refused(num_virtual, batch, num_replicas, nearest):
    with pytest.raises(ConfigError, match=f"={num_virtual} cannot.* {num_replicas} replicas.*={nearest}\\."):
        reduction.check_virtual_replicas(
            num_virtual, global_batch_size=batch, strategy_name="mirrored", num_replicas=num_replicas
        )
    reduction.check_virtual_replicas(
        nearest, global_batch_size=batch, strategy_name="mirrored", num_replicas=num_replicas
    )


def test_none_can_be_shared_by_any_number():
    reduction.check_virtual_replicas(0, global_batch_size=12, strategy_name="tpu", num_replicas=4)


def test_a_tpu_has_none():
    with pytest.raises(ConfigError, match="=4 cannot be used with --strategy=tpu"):
        reduction.check_virtual_replicas(4, global_batch_size=8, strategy_name="tpu", num_replicas=4)
