"""The estimate of memory against bytes computed by hand, part by part."""

import pytest

from configs import default
from settings.errors import ConfigError
from settings.trainer_config import load_trainer_config
from trainer.doctor import memory
from trainer.modeling.chunks import CHUNK_BYTES

BATCH_SIZE, LIST_SIZE, EMBEDDING_SIZE, HISTORY_SIZE = 10, 100, 8, 20
PLAIN = {
    "list_size": LIST_SIZE,
    "candidates.method": "rated",
    "model.embedding_size": EMBEDDING_SIZE,
    "model.query_embedding": True,
    "model.similarity": "dot",
    "model.scale": 1.0,
    "history.encoder": "none",
    "history.size": HISTORY_SIZE,
    "eval.best_metric": "loss",
    "eval.num_catalogue_users": 0,
    "eval.num_validation_users": 0,
}
POOLED = {"history.encoder": "pooled", "history.targets": "dropped"}
TRANSFORMER = {
    "history.encoder": "transformer",
    "history.size": LIST_SIZE,
    "transformer.num_layers": 3,
    "transformer.num_heads": 4,
    "candidates.method": "catalogue",
}
EASE = POOLED | {"ease.weight": 0.5, "model.query_embedding": False}


def build(**fields):
    config = default.get_config()
    config.update_from_flattened_dict(PLAIN | fields)
    return load_trainer_config(config)


def estimate(num_items=1000, *, superbatch_bytes=0, batch_size=BATCH_SIZE, **fields):
    return memory.estimate_memory(
        build(**fields),
        weight_bytes=1000,
        slot_bytes=2000,
        superbatch_bytes=superbatch_bytes,
        batch_size=batch_size,
        num_items=num_items,
    )


def test_the_tutorial_model_keeps_weights_vectors_and_scores():
    assert estimate(superbatch_bytes=300) == {
        "weights": 1000,
        "optimizer slots": 2000,
        "features": 2 * 300,
        "gradients": 1000,
        "towers": 2 * 4 * (10 + 10 * 100) * 8,  # A query and 100 items for each of 10 lists, twice.
        "loss": 2 * 4 * 10 * 100,
    }


def test_towers_count_hidden_layers_and_normalized_vectors():
    # The last layer is as wide as the first.
    assert estimate(**{"model.hidden_sizes": (16,)})["towers"] == 2 * 4 * 1010 * (8 + 16 + 8)
    assert estimate(**{"model.similarity": "cosine"})["towers"] == 2 * 4 * 1010 * (8 + 8)


@pytest.mark.parametrize(
    ("key", "num_samples"),
    [
        ("pairwise_logistic_loss", 1),
        ("approx_ndcg_loss", 1),
        ("gumbel_approx_ndcg_loss", 8),
        ("yeti_logistic_loss", 8),
    ],
)
def test_some_losses_count_pairs_and_draws_of_noise(key, num_samples):
    assert estimate(**{"loss.key": key})["loss"] == 2 * 4 * 10 * 100**2 * num_samples


def test_a_pooled_history_is_looked_up_or_multiplied_with_all_items():
    """A product is faster up to 20 · history_size items."""
    assert estimate(20 * 20, **POOLED)["history"] == 4 * 10 * 400
    assert estimate(20 * 20 + 1, **POOLED)["history"] == 2 * 4 * 10 * 20 * 8


def test_sampled_negatives_have_vectors_and_join_each_list():
    found = estimate(**{"candidates.method": "sampled", "candidates.num_negatives": 50})
    assert found["towers"] == 2 * 4 * (10 + 10 * 100) * 8 and "loss" not in found
    of_negatives, scores, masks = 2 * 4 * 50 * 8, 2 * 4 * 10 * (100 + 50), 2 * 4 * 10 * 50
    assert found["negatives"] == of_negatives + scores + masks
    pairs = estimate(
        **{
            "candidates.method": "sampled",
            "candidates.num_negatives": 50,
            "candidates.logq_correction": False,
            "loss.key": "approx_ndcg_loss",
        }
    )
    assert pairs["negatives"] == of_negatives + 2 * 4 * 10 * (100 + 50) ** 2 + masks


def test_the_softmax_over_all_items_has_their_vectors_and_three_chunks_of_scores():
    catalogue = {"candidates.method": "catalogue"}
    # 10 lists fit one chunk. Evaluation looks the items of lists up as well.
    found = estimate(1000, **catalogue)
    assert found["all items"] == 2 * 4 * 1000 * 8 + 3 * 4 * 10 * 1000
    assert found["towers"] == 2 * 4 * (10 + 10 * 100) * 8 and "gradients" not in found
    # Half of the lists fit one chunk.
    num_items = CHUNK_BYTES // (4 * 5)
    assert estimate(num_items, **catalogue)["all items"] == 2 * 4 * num_items * 8 + 3 * 4 * 5 * num_items
    # A chunk has at least one list.
    num_items = CHUNK_BYTES // 2
    assert estimate(num_items, **catalogue)["all items"] == 2 * 4 * num_items * 8 + 3 * 4 * num_items


def test_a_transformer_keeps_the_attention_and_the_vectors_of_each_layer():
    """In training the histories have 99 items, and each item of a list is a list of its own."""
    found = estimate(**TRANSFORMER)
    assert found["transformer"] == 2 * 4 * 10 * 3 * (4 * 99**2 + 9 * 99 * 8)
    assert found["gradients"] == 1000
    assert found["towers"] == 2 * 4 * (10 * 100) * 8
    assert found["all items"] == 2 * 4 * 1000 * 8 + 3 * 4 * (10 * 100) * 1000
    sampled = TRANSFORMER | {"candidates.method": "sampled", "candidates.num_negatives": 50}
    found = estimate(**sampled)
    assert found["towers"] == 2 * 4 * (10 * 100 + 10 * 100) * 8
    assert found["negatives"] == 2 * 4 * 50 * 8 + 2 * 4 * (10 * 100) * (1 + 50) + 2 * 4 * (10 * 100) * 50


@pytest.mark.parametrize("field", ["eval.num_catalogue_users", "eval.num_validation_users"])
def test_ranking_the_catalogue_may_need_more_than_training(field):
    """The vectors of all candidates, and the chunks of scores, whose size does not depend on the catalogue."""
    assert estimate(60_000, **{field: -1}) == {
        "weights": 1000,
        "optimizer slots": 2000,
        "catalogue": 4 * 60_000 * 8 + 6 * CHUNK_BYTES,
    }


def test_ranking_encodes_histories_of_as_many_queries_as_it_takes_at_a_time():
    found = estimate(1000, **POOLED, **{"eval.num_catalogue_users": -1})
    assert found["history"] == 2 * 4 * 512 * 20 * 8
    # The attention of 427 histories, with 4 heads and 4 · 99² bytes each, takes 64 MiB. One layer is there at a time.
    found = estimate(1000, **TRANSFORMER, **{"eval.num_catalogue_users": -1})
    assert found["transformer"] == 4 * 427 * (3 * 4 * 99**2 + 9 * 99 * 8)
    long = TRANSFORMER | {"list_size": 501, "history.size": 500, "eval.num_catalogue_users": -1}
    found = estimate(1000, **long, batch_size=1)
    assert found["transformer"] == 4 * 16 * (3 * 4 * 500**2 + 9 * 500 * 8)


def test_ease_keeps_a_matrix_and_widens_the_vectors_of_the_catalogue():
    found = estimate(3000, **EASE)
    assert found["EASE"] == 4 * 3000**2
    ranking = estimate(3000, **EASE, **{"eval.num_catalogue_users": -1})
    assert ranking["EASE"] == 4 * 3000**2
    # The columns of EASE, and the matrix that they are copied from.
    assert ranking["catalogue"] == 4 * 3000 * (8 + 3000 + 3000) + 6 * CHUNK_BYTES


@pytest.mark.parametrize(
    ("fields", "more"), [({}, {}), (EASE, {"building EASE": 5 * 8 * 3000**2})], ids=["plain", "EASE"]
)
def test_the_machine_itself_holds_a_copy_of_the_checkpoint_and_builds_ease(fields, more):
    found = memory.estimate_host_memory(build(**fields), weight_bytes=1000, slot_bytes=2000, num_items=3000)
    assert found == {"a checkpoint that is being saved": 3000, **more}


@pytest.mark.parametrize(
    ("needed", "way_out"),
    [
        ({"weights": 9e9, "loss": 8e9}, "config.model.embedding_size"),
        ({"weights": 1e9, "loss": 15e9}, "config.list_size"),
        ({"optimizer slots": 15e9}, "config.optimizer.name"),
        ({"catalogue": 15e9}, "config.eval.num_catalogue_users"),
        ({"EASE": 15e9}, "config.ease.weight"),
    ],
)
def test_too_much_for_the_accelerator_is_refused_with_what_helps_most(needed, way_out):
    needed = {part: int(size) for part, size in needed.items()}
    with pytest.raises(ConfigError) as caught:
        memory.check_memory(needed, "T4", "mirrored")
    assert way_out in str(caught.value) and "\n" not in str(caught.value)
    assert "the A100-40 has 36.0 GB to use" in memory.check_memory(needed, "A100-40", "mirrored")
    assert "--accelerator=NAME" in memory.check_memory(needed, "", "mirrored")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        POOLED,
        TRANSFORMER,
        EASE,
        {"candidates.method": "sampled"},
        {"candidates.method": "catalogue"},
        {"eval.num_catalogue_users": -1},
    ],
)
def test_every_part_has_a_way_out(fields):
    for part in estimate(superbatch_bytes=1, **fields):
        with pytest.raises(ConfigError, match=r"Please .*(config\.|--)"):
            memory.check_memory({part: 15 * 10**9}, "T4", "mirrored")


def test_an_accelerator_of_the_other_kind_is_refused():
    with pytest.raises(ConfigError, match="TPU-v5e"):
        memory.check_memory({"weights": 1}, "H100", "tpu")
    with pytest.raises(ConfigError, match="H100"):
        memory.check_memory({"weights": 1}, "TPU-v2", "mirrored")
