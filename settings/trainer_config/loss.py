"""The section `loss`: the keys of TF-Ranking, and what each of them accepts."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from settings.errors import ConfigError
from settings.sections import Section
from settings.trainer_config.numbers import Count, PositiveFloat

LossKey = Literal[
    "approx_mrr_loss",
    "approx_ndcg_loss",
    "cosine_contrastive_loss",
    "coupled_rankdistil_loss",
    "gbce_loss",
    "gumbel_approx_ndcg_loss",
    "list_mle_loss",
    "mean_squared_loss",
    "ordinal_loss",
    "pairwise_hinge_loss",
    "pairwise_logistic_loss",
    "pairwise_mse_loss",
    "pairwise_soft_zero_one_loss",
    "sigmoid_cross_entropy_loss",
    "softmax_loss",
    "unique_softmax_loss",
    "yeti_logistic_loss",
]
LambdaWeight = Literal["", "label_diff", "dcg", "ndcg", "ndcg_v2", "yeti_dcg", "precision", "list_mle"]
# The losses that are not TF-Ranking's. They need sampled negatives.
SAMPLED_LOSSES = ("cosine_contrastive_loss", "gbce_loss")
# yeti_logistic_loss has a temperature argument, but never reads it.
LOSSES_WITHOUT_TEMPERATURE = (
    *SAMPLED_LOSSES,
    "mean_squared_loss",
    "ordinal_loss",
    "sigmoid_cross_entropy_loss",
    "yeti_logistic_loss",
)
PAIRWISE_LOSSES = (
    "pairwise_hinge_loss",
    "pairwise_logistic_loss",
    "pairwise_mse_loss",
    "pairwise_soft_zero_one_loss",
)
_PAIR_WEIGHTS = ("label_diff", "dcg", "ndcg", "ndcg_v2", "yeti_dcg", "precision")
# The lambda weights that each loss reads. A loss silently ignores any other.
_LAMBDA_WEIGHTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(PAIRWISE_LOSSES, _PAIR_WEIGHTS),
    "yeti_logistic_loss": ("yeti_dcg",),
    "softmax_loss": ("dcg", "ndcg"),
    "list_mle_loss": ("list_mle",),
}
_WEIGHTS_WITH_CUTOFF = ("dcg", "ndcg", "ndcg_v2", "yeti_dcg", "precision")


class LossConfig(Section):
    """The loss, by its key in TF-Ranking, with its options."""

    key: LossKey
    labels: Literal["auto", "binary", "ratings", "gains"]
    temperature: PositiveFloat
    lambda_weight: LambdaWeight = Field(description=f"empty, or one of {', '.join(get_args(LambdaWeight)[1:])}")
    lambda_weight_cutoff: Count
    normalization_power: float = Field(ge=0, le=1)
    calibration: float = Field(ge=0, le=1)
    margin: float = Field(ge=-1, le=1)
    negative_weight: PositiveFloat

    @model_validator(mode="after")
    def _check_options(self) -> "LossConfig":
        if self.temperature != 1.0 and self.key in LOSSES_WITHOUT_TEMPERATURE:
            takers = ", ".join(key for key in get_args(LossKey) if key not in LOSSES_WITHOUT_TEMPERATURE)
            raise ConfigError(
                f"config.loss.temperature={self.temperature!r} cannot be used: {self.key} has no temperature. Set it "
                f"to 1.0, or set config.loss.key to one of {takers}."
            )
        weights = _LAMBDA_WEIGHTS.get(self.key, ())
        if self.lambda_weight and self.lambda_weight not in weights:
            accepted = f"accepts only {', '.join(weights)}" if weights else "accepts no lambda weight"
            raise ConfigError(
                f"config.loss.lambda_weight={self.lambda_weight!r} cannot be used: {self.key} {accepted}. Change it, "
                "or leave it empty."
            )
        # yeti_logistic_loss always has the lambda weight yeti_dcg. The weights of softmax_loss have no cutoff.
        weight = self.lambda_weight or ("yeti_dcg" if self.key == "yeti_logistic_loss" else "")
        has_cutoff = weight in _WEIGHTS_WITH_CUTOFF and self.key != "softmax_loss"
        if self.lambda_weight_cutoff and not has_cutoff:
            raise ConfigError(
                f"config.loss.lambda_weight_cutoff={self.lambda_weight_cutoff!r} cannot be used: {self.key} with "
                f"config.loss.lambda_weight={self.lambda_weight!r} has no cutoff. Set it to 0, or use a pairwise loss "
                f"with one of the lambda weights {', '.join(_WEIGHTS_WITH_CUTOFF)}."
            )
        if weight == "precision" and not self.lambda_weight_cutoff:
            raise ConfigError(
                "config.loss.lambda_weight_cutoff=0 cannot be used: the lambda weight precision needs the cutoff of "
                "the precision. Set it to 10, for example."
            )
        return self
