"""The sections that shape the model: `model`, `history`, `transformer`, and the `candidates` that it is trained on."""

from typing import Literal

from pydantic import Field, model_validator

from settings.errors import ConfigError
from settings.sections import Section
from settings.trainer_config.numbers import NonNegativeFloat, PositiveFloat, PositiveSize, Size


class CandidatesConfig(Section):
    """The items that a list is scored against in training."""

    method: Literal["auto", "rated", "sampled", "catalogue"]
    num_negatives: PositiveSize
    popularity_power: float = Field(ge=0, le=2)
    uniform_fraction: float = Field(ge=0, le=1)
    logq_correction: bool


class ModelConfig(Section):
    """The two towers, and how their vectors become a score."""

    embedding_size: Size
    hidden_sizes: tuple[PositiveSize, ...] = Field(description="a tuple of whole numbers, each from 1 to 1,000,000")
    query_embedding: bool
    similarity: Literal["dot", "cosine"]
    scale: NonNegativeFloat
    item_bias: bool
    item_prior: bool
    initial_items: Literal["random", "svd"]

    @model_validator(mode="after")
    def _check_scale(self) -> "ModelConfig":
        if self.scale not in (0.0, 1.0) and self.similarity == "dot":
            raise ConfigError(
                f"config.model.scale={self.scale!r} cannot be used: a dot product has no scale. Set it to 1.0, or set "
                "config.model.similarity to cosine."
            )
        return self


class HistoryConfig(Section):
    """How a query is described by the items in its history."""

    encoder: Literal["none", "pooled", "transformer"]
    size: PositiveSize
    weights: Literal["ratings", "centered_ratings", "equal"]
    power: float = Field(ge=0, le=1)
    recency_half_life: NonNegativeFloat
    dropout: float = Field(ge=0, lt=1)
    targets: Literal["auto", "all", "dropped"]
    hidden_size: Size

    @model_validator(mode="after")
    def _check_dropout(self) -> "HistoryConfig":
        if self.encoder == "pooled" and self.targets == "dropped" and not self.dropout:
            raise ConfigError(
                "config.history.dropout=0.0 cannot be used with config.history.targets='dropped': the targets of a "
                "step are the items that were dropped from the history. Set it to 0.5, for example, or set "
                "config.history.targets to all."
            )
        return self


class TransformerConfig(Section):
    """The size of the transformer that encodes a history in its order."""

    num_layers: PositiveSize
    num_heads: PositiveSize
    dropout: float = Field(ge=0, lt=1)


class EaseConfig(Section):
    """A linear item-item model in closed form that is blended with the trained model."""

    weight: NonNegativeFloat
    regularization: PositiveFloat
