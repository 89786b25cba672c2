"""Does what one replica does fit into an accelerator's memory? An estimate, from sizes alone."""

from collections.abc import Mapping, Sequence

from rich.filesize import decimal

from settings.errors import ConfigError

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
}
"""The gigabytes that a replica has: a GPU, a core of a TPU v2 or v3, a chip of a TPU v5e."""

_USABLE_FRACTION = 0.9
"""Of that memory: the driver, the runtime and the gaps between buffers take the rest."""

_NUMBER_BYTES = 4
"""Of a float32 or an int32: there is nothing else in a step."""

_QUADRATIC_LOSSES = ("approx_", "pairwise_", "yeti_")
"""By their keys: what they compare are the pairs of a list's entries."""

_NOISY_LOSSES = ("gumbel_", "yeti_")
_NUM_NOISE_SAMPLES = 8
"""TF-Ranking looks at each list under so many draws of noise."""

_SAVINGS = {
    "weights": "lower config.model.embedding_size",
    "gradients": "lower config.model.embedding_size",
    "optimizer slots": "choose a config.optimizer.name with fewer slots (sgd has none, adagrad one, adam two)",
    "towers": "lower config.train.global_batch_size or raise --num_replicas",
    "loss": "lower config.list_size or config.train.global_batch_size, or choose a config.loss.key like softmax_loss",
    "features": "lower config.train.steps_per_execution",
    "catalogue": "lower config.train.global_batch_size, or set config.eval.num_catalogue_users to 0",
}
"""What makes each part of the estimate smaller."""


def estimate_memory(
    *,
    weight_bytes: int,
    slot_bytes: int,
    layer_sizes: Sequence[int],
    batch_size: int,
    list_size: int,
    steps_per_execution: int,
    loss_key: str,
    catalogue_size: int,
) -> dict[str, int]:
    """What one replica keeps in memory when it needs the most: bytes by what takes them.

    That is a training step, or the final evaluation, whose lists are the catalogue. Tables have dense
    gradients. An activation counts with its gradient, or with its product in the score; so does, for losses
    that compare pairs, a value for each pair of a list's entries. Features count twice, since the next call's
    are there already.

    Args:
      weight_bytes: of the model's variables.
      slot_bytes: of the optimizer's.
      layer_sizes: of a tower, the embedding first.
      batch_size: lists a step and replica.
      catalogue_size: entries of the longest list of the catalogue; 0 where none is ranked.
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
    evaluation = {"catalogue": 2 * _NUMBER_BYTES * batch_size * catalogue_size * vectors}
    return kept | max(training, evaluation, key=lambda parts: sum(parts.values()))


def check_memory(needed: Mapping[str, int], accelerator: str, strategy_name: str) -> str:
    """Raises ConfigError where the bytes of `estimate_memory` are too many, or the accelerator is of another kind."""
    total = sum(needed.values())
    listed = ", ".join(f"{part} {decimal(size)}" for part, size in needed.items())
    estimate = f"About {decimal(total)} a replica ({listed})"
    if not accelerator:
        return f"{estimate}; --accelerator=NAME compares it with what there is."
    is_tpu, wants_tpu = accelerator.startswith("TPU"), strategy_name == "tpu"
    if is_tpu != wants_tpu:
        fitting = ", ".join(name for name in ACCELERATORS if name.startswith("TPU") == wants_tpu)
        raise ConfigError(
            f"--strategy={strategy_name} does not run on --accelerator={accelerator}: name one of {fitting}."
        )
    usable = int(ACCELERATORS[accelerator] * 10**9 * _USABLE_FRACTION)
    if total > usable:
        largest = max(needed, key=needed.__getitem__)
        raise ConfigError(
            f"{estimate}, and the {accelerator} has {decimal(usable)} to use: {_SAVINGS[largest]}, or take an "
            "accelerator with more memory."
        )
    return f"{estimate}; the {accelerator} has {decimal(usable)} to use."
