"""Estimates from sizes alone whether the work of one replica fits into the memory of an accelerator."""

from collections.abc import Mapping, Sequence

from rich.filesize import decimal

from settings.errors import ConfigError
from trainer.evaluation.catalogue import CHUNK_BYTES

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
"""The size of a float32 or an int32. A step contains no other types."""

_QUADRATIC_LOSSES = ("approx_", "pairwise_", "yeti_")
"""The keys of losses that compare pairs of entries of a list begin with these."""

_NOISY_LOSSES = ("gumbel_", "yeti_")
_NUM_NOISE_SAMPLES = 8
"""TF-Ranking evaluates each list with this many draws of noise."""

_SAVINGS = {
    "weights": "lower config.model.embedding_size",
    "gradients": "lower config.model.embedding_size",
    "optimizer slots": "choose a config.optimizer.name with fewer slots (sgd has none, adagrad one, adam two)",
    "towers": "lower config.train.global_batch_size or raise --num_replicas",
    "loss": "lower config.list_size or config.train.global_batch_size, or choose a config.loss.key like softmax_loss",
    "features": "lower config.train.steps_per_execution",
    "catalogue": "lower config.model.embedding_size, or set config.eval.num_catalogue_users to 0",
}
"""How to reduce each part of the estimate."""


def estimate_memory(
    *,
    weight_bytes: int,
    slot_bytes: int,
    layer_sizes: Sequence[int],
    batch_size: int,
    list_size: int,
    steps_per_execution: int,
    loss_key: str,
    num_items: int,
) -> dict[str, int]:
    """Estimates what one replica keeps in memory when it needs the most: bytes by part.

    That is during a training step, or during the final evaluation, which scores the catalogue in chunks. Tables have
    dense gradients. An activation counts twice: with its gradient, or with its product in the score. Losses that
    compare pairs count a value for each pair of entries of a list. Features count twice, because the next call's
    features are loaded during a call.

    Args:
      weight_bytes: size of the variables of the model.
      slot_bytes: size of the variables of the optimizer.
      layer_sizes: of a tower, the embedding first.
      batch_size: lists per step and replica.
      num_items: size of the catalogue; 0 if the final evaluation does not rank it.
    """
    entries = batch_size * list_size
    vectors = sum(layer_sizes) + (layer_sizes[0] if len(layer_sizes) > 1 else 0)
    num_samples = _NUM_NOISE_SAMPLES if loss_key.startswith(_NOISY_LOSSES) else 1
    per_entry = list_size if loss_key.removeprefix("gumbel_").startswith(_QUADRATIC_LOSSES) else 1
    kept = {"weights": weight_bytes, "optimizer slots": slot_bytes}
    training = {
        "gradients": weight_bytes,
        "towers": 2 * _NUMBER_BYTES * (batch_size + entries) * vectors,
        "loss": 2 * _NUMBER_BYTES * entries * per_entry * num_samples,
        "features": 2 * _NUMBER_BYTES * steps_per_execution * 2 * (batch_size + entries),
    }
    # The vectors of all candidates, and the chunks of scores; see evaluation/catalogue.py.
    evaluation = {"catalogue": _NUMBER_BYTES * num_items * layer_sizes[0] + 6 * CHUNK_BYTES if num_items else 0}
    return kept | max(training, evaluation, key=lambda parts: sum(parts.values()))


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
