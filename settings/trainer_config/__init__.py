"""The trainer's config as typed sections: the one place that knows its ranges, names and cross-field rules.

configs/default.py explains each field and holds its default. This package does not import TensorFlow, so errors
are found before its import, and the launcher can check the trainer's config too.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from pydantic import Field, model_validator

from configs import default
from settings.errors import ConfigError
from settings.secrets import has_secret
from settings.sections import Section, build_section, cannot_be_used
from settings.trainer_config.data import DataConfig, SplitConfig
from settings.trainer_config.evaluation import EvalConfig
from settings.trainer_config.loss import SAMPLED_LOSSES, LossConfig
from settings.trainer_config.model import CandidatesConfig, EaseConfig, HistoryConfig, ModelConfig, TransformerConfig
from settings.trainer_config.training import OptimizerConfig, TrainConfig

DEFAULTS_FILE = "configs/default.py"

# config.model.embedding_size=0 chooses this or a multiple of it.
SMALLEST_EMBEDDING_SIZE = 64

# The values of --strategy.
STRATEGIES = ("default", "mirrored", "multi_worker_mirrored", "tpu")


class TrainerConfig(Section):
    """All fields of a training run."""

    seed: int = Field(ge=0, lt=2**31, description="from 0 to 2147483647")
    data: DataConfig
    split: SplitConfig
    list_size: int = Field(ge=2, le=10**6, description="from 2, as a single item has no order, to 1,000,000")
    candidates: CandidatesConfig
    model: ModelConfig
    history: HistoryConfig
    transformer: TransformerConfig
    ease: EaseConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    eval: EvalConfig

    @model_validator(mode="after")
    def _check_relevance_threshold(self) -> "TrainerConfig":
        if self.eval.relevance_threshold > self.data.rating_range[1]:
            raise cannot_be_used(
                "config.eval.relevance_threshold",
                self.eval.relevance_threshold,
                f"at most the highest rating of config.data.rating_range={self.data.rating_range}",
            )
        return self

    @model_validator(mode="after")
    def _check_query(self) -> "TrainerConfig":
        encoder = self.history.encoder
        if encoder == "none" and not (self.model.query_embedding or self.data.features.query):
            raise ConfigError(
                "config.model.query_embedding=False cannot be used with config.history.encoder='none' and without "
                "config.data.features.query: nothing would describe a query. Set it to True, or set "
                "config.history.encoder to pooled."
            )
        if self.ease.weight and encoder != "pooled":
            raise ConfigError(
                f"config.ease.weight={self.ease.weight!r} cannot be used with config.history.encoder={encoder!r}: EASE "
                "predicts items from a history. Set it to 0.0, or set config.history.encoder to pooled."
            )
        embedding_size = self.model.embedding_size or SMALLEST_EMBEDDING_SIZE
        if encoder == "transformer" and embedding_size % self.transformer.num_heads:
            raise ConfigError(
                f"config.transformer.num_heads={self.transformer.num_heads} cannot be used: it has to divide "
                f"config.model.embedding_size, which is {embedding_size} or a multiple of it."
                if not self.model.embedding_size
                else f"config.transformer.num_heads={self.transformer.num_heads} cannot be used: it has to divide "
                f"config.model.embedding_size={embedding_size}."
            )
        if encoder == "transformer" and self.history.size < self.list_size - 1:
            raise ConfigError(
                f"config.history.size={self.history.size} cannot be used with config.history.encoder='transformer' and "
                f"config.list_size={self.list_size}: the history of the last item of a list is the rest of the list. "
                f"Set it to at least {self.list_size - 1}, or lower config.list_size."
            )
        if self.ease.weight and self.history.recency_half_life:
            raise ConfigError(
                f"config.ease.weight={self.ease.weight!r} cannot be used with config.history.recency_half_life="
                f"{self.history.recency_half_life!r}: EASE does not know the order of a history. Set one of them to 0."
            )
        if encoder == "transformer" and self.candidates.method == "rated":
            raise ConfigError(
                "config.candidates.method='rated' cannot be used with config.history.encoder='transformer', which "
                "learns to predict the next item among other candidates. Set it to sampled or catalogue."
            )
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> "TrainerConfig":
        method, key = self.candidates.method, self.loss.key
        keeps_targets = self.history.targets == "all" or not self.history.dropout
        if method == "rated" and self.history.encoder == "pooled" and keeps_targets:
            raise ConfigError(
                f"config.history.targets={self.history.targets!r} and config.history.dropout={self.history.dropout!r} "
                "cannot be used with config.candidates.method='rated': the history has the ratings of the list, so the "
                "model would be told the labels. Set targets to dropped, and dropout to 0.5, for example."
            )
        if method == "sampled" and self.candidates.logq_correction and key != "softmax_loss":
            raise ConfigError(
                f"config.candidates.logq_correction=True cannot be used with config.loss.key={key!r}: it corrects a "
                "softmax. Set it to False."
            )
        if key == "cosine_contrastive_loss" and (
            self.model.similarity != "cosine" or self.model.scale != 1.0 or self.model.item_bias
        ):
            raise ConfigError(
                "config.loss.key='cosine_contrastive_loss' cannot be used with these fields of config.model: it "
                "compares cosines with a margin. Set config.model.similarity to cosine, config.model.scale to 1.0 and "
                "config.model.item_bias to False."
            )
        if key in SAMPLED_LOSSES and method != "sampled":
            raise ConfigError(
                f"config.loss.key={key!r} cannot be used with config.candidates.method={method!r}: it compares an item "
                "with sampled negatives. Set config.candidates.method to sampled, or use another loss."
            )
        if method in ("auto", "catalogue") and (key != "softmax_loss" or self.loss.lambda_weight):
            raise ConfigError(
                f"config.loss.key={key!r} with config.loss.lambda_weight={self.loss.lambda_weight!r} cannot be used "
                f"with config.candidates.method={method!r}: the whole catalogue is only ranked with softmax_loss, "
                "without a lambda weight. Set config.candidates.method to sampled or rated, which work with every "
                "loss."
            )
        if self.data.features.example and method not in ("rated", "sampled"):
            raise ConfigError(
                f"config.data.features.example={self.data.features.example!r} cannot be used with "
                f"config.candidates.method={method!r}: only the entries of a list have these features. "
                "Set config.candidates.method to rated or sampled, or leave them out."
            )
        return self


def load_trainer_config(config: ConfigDict | Mapping[str, Any]) -> TrainerConfig:
    """Checks all fields of the trainer's config.

    Raises:
      ConfigError: It names the field, its value and what is allowed.
    """
    checked = build_section(TrainerConfig, config, defaults=default.get_config(), defaults_file=DEFAULTS_FILE)
    _check_no_secrets(checked.model_dump(), "config")
    return checked


def _check_no_secrets(fields: Mapping[str, Any], prefix: str) -> None:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _check_no_secrets(value, f"{prefix}.{name}")
        elif has_secret(str(value)):
            raise ConfigError(
                f"{prefix}.{name} looks like a secret (its value is not repeated here). A run writes its config to its "
                "workdir, its logs and its report. Use a path without a password, key or signature: a local copy, or "
                "gs:// with the credentials of this machine."
            )


def from_saved(fields: Mapping[str, Any]) -> ConfigDict:
    """Reads the config that an earlier run saved, which an older version of this project may have written.

    A field that did not exist in that version gets its default. A field that no longer exists stays, and
    `load_trainer_config` refuses it.

    Args:
      fields: The sections and fields, as in the file.
    """
    return ConfigDict(_merged(default.get_config().to_dict(), fields))


def _merged(defaults: dict[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for name, value in saved.items():
        known = merged.get(name)
        if isinstance(known, dict) and isinstance(value, Mapping):
            merged[name] = _merged(known, value)
        else:
            merged[name] = tuple(value) if isinstance(value, list) else value
    return merged
