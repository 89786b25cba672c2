"""Estimates from sizes alone whether the work of one replica fits into the memory of an accelerator.

An estimate counts the arrays that grow with the config and the data, and no others. In trials on a CPU, the buffers of
compiled training steps had 50% to 90% of the estimated size.

- An activation of a training step counts twice: with its gradient, or with its product in a score. Only the weights of
  a pooled history have no gradient. Gradients of tables are dense.
- Every number is a float32 or an int32.
- What several phases of a run need at different times counts once: that of the phase that needs the most.
"""

from collections.abc import Mapping

from rich.filesize import decimal

from settings.errors import ConfigError
from settings.trainer_config import TrainerConfig
from trainer.config import history_size
from trainer.evaluation.catalogue_scorer import QUERIES_PER_CHUNK
from trainer.modeling.chunks import CHUNK_BYTES
from trainer.modeling.embedding import is_product_faster
from trainer.modeling.history import histories_at_a_time

ACCELERATORS = {
    "T4": 16,
    "P100": 16,
    "V100": 16,
    "L4": 24,
    "A100-40": 40,
    "A100-80": 80,
    "H100": 80,
    "H200": 141,
    "TPU-v2": 8,
    "TPU-v3": 16,
    "TPU-v5e": 16,
    "TPU-v6e": 32,
}
"""The memory of a replica in gigabytes. A replica is a GPU, a core of a TPU v2 or v3, or a chip of a TPU v5e or v6e."""

_USABLE_FRACTION = 0.9
"""The driver, the runtime and gaps between buffers take the rest of the memory."""

_NUMBER_BYTES = 4

_QUADRATIC_LOSSES = ("approx_", "pairwise_", "yeti_")
"""The keys of losses that compare pairs of entries of a list begin with these."""

_NOISY_LOSSES = ("gumbel_", "yeti_")
_NUM_NOISE_SAMPLES = 8
"""TF-Ranking evaluates each list with this many draws of noise."""

_VECTORS_PER_LAYER = 9
"""What a layer of a transformer keeps of each item: the inputs and outputs of two normalizations, its query, key and
value, the sum of what it attends to, and the hidden layer."""

_ATTENTION_ARRAYS = 3
"""The numbers for each pair of items that exist at a time without a gradient: logits, masked logits and weights."""

_SOFTMAX_ARRAYS = 3
"""The arrays of a chunk of scores that exist at a time in training/catalogue_softmax.py."""

_RANKING_ARRAYS = 6
"""The arrays of CHUNK_BYTES that exist at a time in evaluation/catalogue.py."""

_EASE_HOST_BYTES = 5 * 8
"""Bytes for each pair of items while EASE is built: five matrices of float64."""

_SAVINGS = {
    "weights": "lower config.model.embedding_size",
    "gradients": "lower config.model.embedding_size",
    "optimizer slots": "choose a config.optimizer.name with fewer slots (sgd has none, adagrad one, adam two)",
    "EASE": "set config.ease.weight to 0.0",
    "features": "lower config.train.steps_per_execution",
    "towers": "lower config.train.global_batch_size or config.list_size, or raise --num_replicas",
    "history": "lower config.history.size or config.train.global_batch_size, or raise --num_replicas",
    "transformer": "lower config.list_size, config.transformer.num_layers or config.train.global_batch_size, or raise "
    "--num_replicas",
    "loss": "lower config.list_size or config.train.global_batch_size, or choose a config.loss.key like softmax_loss",
    "negatives": "lower config.candidates.num_negatives or config.train.global_batch_size, or raise --num_replicas",
    "all items": "set config.candidates.method to sampled, or lower config.model.embedding_size",
    "catalogue": "lower config.model.embedding_size, or set config.eval.num_catalogue_users and "
    "config.eval.num_validation_users to 0",
}
"""How to reduce each part of the estimate."""


def estimate_memory(
    config: TrainerConfig,
    *,
    weight_bytes: int,
    slot_bytes: int,
    superbatch_bytes: int,
    batch_size: int,
    num_items: int,
) -> dict[str, int]:
    """Estimates what one replica keeps in memory when it needs the most: bytes by part, without empty parts.

    That is during a training step, during the evaluation of a batch of lists, or while the catalogue is ranked.

    Args:
      config: a config without open fields; see `size_rules.adapt`.
      weight_bytes: size of the variables of the model, without those of EASE.
      slot_bytes: size of the variables of the optimizer.
      superbatch_bytes: size of the features of one call. They count twice, because the features of the next call are
        loaded during a call.
      batch_size: lists per step and replica.
      num_items: number of item indices, including index 0.
    """
    kept = {
        "weights": weight_bytes,
        "optimizer slots": slot_bytes,
        "EASE": _NUMBER_BYTES * num_items**2 if config.ease.weight else 0,
        "features": 2 * superbatch_bytes,
    }
    phases = [_training(config, weight_bytes, batch_size, num_items), _evaluation(config, batch_size, num_items)]
    if config.eval.num_catalogue_users or config.eval.num_validation_users:
        phases.append(_ranking(config, num_items))
    largest = max(phases, key=lambda parts: sum(parts.values()))
    return {part: size for part, size in (kept | largest).items() if size}


def estimate_host_memory(
    config: TrainerConfig, *, weight_bytes: int, slot_bytes: int, num_items: int
) -> dict[str, int]:
    """Estimates what a run keeps in the memory of the machine itself beside the data: bytes by what it is for.

    Args:
      config, weight_bytes, slot_bytes, num_items: see `estimate_memory`.
    """
    needed = {
        # They are copied when a checkpoint is saved, and written in the background.
        "a checkpoint that is being saved": weight_bytes + slot_bytes,
        "building EASE": _EASE_HOST_BYTES * num_items**2 if config.ease.weight else 0,
    }
    return {purpose: size for purpose, size in needed.items() if size}


def _training(config: TrainerConfig, weight_bytes: int, batch_size: int, num_items: int) -> dict[str, int]:
    num_entries = batch_size * config.list_size
    is_sequential = config.history.encoder == "transformer"
    # A transformer makes each entry of a list a list of its own.
    num_lists, list_size = (num_entries, 1) if is_sequential else (batch_size, config.list_size)
    # All items are looked up at once instead of those of the lists.
    num_vectors = num_lists + (0 if config.candidates.method == "catalogue" else num_entries)
    return {
        "gradients": weight_bytes,
        "towers": 2 * _vector_bytes(config, num_vectors),
        **_history(config, batch_size, num_items, is_training=True),
        **_candidates(config, num_lists, list_size, num_items),
    }


def _evaluation(config: TrainerConfig, batch_size: int, num_items: int) -> dict[str, int]:
    return {
        "towers": 2 * _vector_bytes(config, batch_size * (1 + config.list_size)),
        **_history(config, batch_size, num_items, is_training=False),
        **_candidates(config, batch_size, config.list_size, num_items),
    }


def _ranking(config: TrainerConfig, num_items: int) -> dict[str, int]:
    # EASE adds a column for each item to the vectors. Another matrix of this size exists while they are computed.
    vector_size = config.model.embedding_size + (2 * num_items if config.ease.weight else 0)
    return {
        "catalogue": _NUMBER_BYTES * num_items * vector_size + _RANKING_ARRAYS * CHUNK_BYTES,
        **_history(config, QUERIES_PER_CHUNK, num_items, is_training=False),
    }


def _vector_bytes(config: TrainerConfig, num_vectors: int) -> int:
    """What a tower computes for vectors of queries or items: the layers, the last of them, and its normalization."""
    model = config.model
    layers = [model.embedding_size, *model.hidden_sizes, *([model.embedding_size] if model.hidden_sizes else [])]
    normalized = model.embedding_size if model.similarity == "cosine" else 0
    return _NUMBER_BYTES * num_vectors * (sum(layers) + normalized)


def _history(config: TrainerConfig, num_queries: int, num_items: int, *, is_training: bool) -> dict[str, int]:
    """What encoding the histories of queries needs."""
    size, embedding_size = history_size(config), config.model.embedding_size
    if config.history.encoder == "none":
        return {}
    if config.history.encoder == "pooled":
        is_product = is_product_faster(num_items, size)
        per_query = num_items if is_product else 2 * size * embedding_size
        return {"history": _NUMBER_BYTES * num_queries * per_query}
    options = config.transformer
    vectors, pairs = _VECTORS_PER_LAYER * size * embedding_size, options.num_heads * size**2
    if is_training:
        return {"transformer": _NUMBER_BYTES * num_queries * 2 * options.num_layers * (vectors + pairs)}
    num_queries = min(num_queries, max(1, histories_at_a_time(options.num_heads, size)))
    return {"transformer": _NUMBER_BYTES * num_queries * (vectors + _ATTENTION_ARRAYS * pairs)}


def _candidates(config: TrainerConfig, num_lists: int, list_size: int, num_items: int) -> dict[str, int]:
    """What scoring lists against their candidates needs besides the vectors of the lists."""
    if config.candidates.method == "catalogue":
        row_bytes = _NUMBER_BYTES * num_items
        chunk_bytes = row_bytes * min(num_lists, max(1, CHUNK_BYTES // row_bytes))
        return {"all items": 2 * _vector_bytes(config, num_items) + _SOFTMAX_ARRAYS * chunk_bytes}
    if config.candidates.method == "rated":
        return {"loss": _loss_bytes(config, num_lists, list_size)}
    num_negatives = config.candidates.num_negatives
    # Beside the scores: the labels of the negatives, and in which lists they are.
    masks = 2 * _NUMBER_BYTES * num_lists * num_negatives
    vectors = 2 * _vector_bytes(config, num_negatives)
    return {"negatives": vectors + masks + _loss_bytes(config, num_lists, list_size + num_negatives)}


def _loss_bytes(config: TrainerConfig, num_lists: int, list_size: int) -> int:
    """The scores of lists, or a number for each pair of entries where the loss compares pairs."""
    key = config.loss.key
    per_entry = list_size if key.removeprefix("gumbel_").startswith(_QUADRATIC_LOSSES) else 1
    num_samples = _NUM_NOISE_SAMPLES if key.startswith(_NOISY_LOSSES) else 1
    return 2 * _NUMBER_BYTES * num_lists * list_size * per_entry * num_samples


def check_memory(needed: Mapping[str, int], accelerator: str, strategy_name: str) -> str:
    """Raises ConfigError if the estimate is too large for the accelerator, or if the strategy does not run on it."""
    total = sum(needed.values())
    listed = ", ".join(f"{part} {decimal(size)}" for part, size in needed.items())
    estimate = f"About {decimal(total)} per replica ({listed})"
    if not accelerator:
        return f"{estimate}. Pass --accelerator=NAME to compare it with the memory of an accelerator."
    is_tpu, wants_tpu = accelerator.startswith("TPU"), strategy_name == "tpu"
    if is_tpu != wants_tpu:
        fitting = ", ".join(name for name in ACCELERATORS if name.startswith("TPU") == wants_tpu)
        raise ConfigError(
            f"--strategy={strategy_name} does not run on --accelerator={accelerator}. Use one of {fitting}."
        )
    usable = int(ACCELERATORS[accelerator] * 10**9 * _USABLE_FRACTION)
    if total > usable:
        largest = max(needed, key=needed.__getitem__)
        raise ConfigError(
            f"{estimate}, but the {accelerator} has {decimal(usable)} to use. Please {_SAVINGS[largest]}, or use an "
            "accelerator with more memory."
        )
    return f"{estimate}; the {accelerator} has {decimal(usable)} to use."
