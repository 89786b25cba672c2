"""The sections `data` and `split`: where the ratings come from and which of them are held out."""

from fractions import Fraction
from typing import Literal

from pydantic import Field, model_validator

from settings.errors import ConfigError
from settings.sections import Section, cannot_be_used


class Columns(Section):
    """Names of the columns of a table with ratings."""

    user_id: str
    item_id: str
    rating: str
    timestamp: str
    title: str
    genres: str


class FeatureColumns(Section):
    """Names of the columns that describe a query, an item, or one entry of a list."""

    query: tuple[str, ...] = Field(description="a tuple of column names")
    item: tuple[str, ...] = Field(description="a tuple of column names")
    example: tuple[str, ...] = Field(description="a tuple of column names")


class DataConfig(Section):
    """Where the ratings come from."""

    source: str = Field(min_length=1, description="a source of ratings")
    data_dir: str
    columns: Columns
    features: FeatureColumns
    duplicates: Literal["once", "count"]
    rating_range: tuple[float, float] = Field(
        description="two numbers from 0 to 100, the lowest rating first (the gain of NDCG, 2^rating, overflows above)"
    )
    max_bad_fraction: float = Field(ge=0, lt=1)
    item_identity: Literal["item_id", "title"]

    @model_validator(mode="after")
    def _check_duplicates(self) -> "DataConfig":
        if self.duplicates == "count" and self.columns.rating:
            raise ConfigError(
                "config.data.duplicates='count' cannot be used with "
                f"config.data.columns.rating={self.columns.rating!r}: only events are counted. Set "
                "config.data.columns.rating to an empty string to use the rows as events, or set "
                "config.data.duplicates to 'once'."
            )
        return self

    @model_validator(mode="after")
    def _check_features(self) -> "DataConfig":
        owner_of: dict[str, str] = {}
        for owner, names in self.features.model_dump().items():
            for name in names:
                if not name or name in owner_of:
                    reason = f"{owner_of[name]} has this column too" if name else "a name is empty"
                    raise ConfigError(
                        f"config.data.features.{owner}={names!r} cannot be used: {reason}. Name each column once, in "
                        "config.data.features.query, item or example."
                    )
                owner_of[name] = f"config.data.features.{owner}"
        return self

    @model_validator(mode="after")
    def _check_rating_range(self) -> "DataConfig":
        lowest, highest = self.rating_range
        if not 0 <= lowest < highest <= 100:
            raise cannot_be_used(
                "config.data.rating_range", self.rating_range, str(type(self).model_fields["rating_range"].description)
            )
        return self


class SplitConfig(Section):
    """Which ratings are used for training, validation and test."""

    method: Literal["none", "random", "last", "time", "given"]
    validation_source: str
    test_source: str
    validation_fraction: float = Field(ge=0, lt=1)
    test_fraction: float = Field(ge=0, lt=1)
    seed: int = Field(ge=-1, lt=2**31, description="-1 for config.seed, or from 0 to 2147483647")

    @model_validator(mode="after")
    def _check_sources(self) -> "SplitConfig":
        if self.method == "given" and not self.test_source:
            raise ConfigError(
                "config.split.test_source is empty. With config.split.method='given', set it to the source of the test "
                "ratings."
            )
        for name in ("validation_source", "test_source"):
            if self.method != "given" and getattr(self, name):
                raise ConfigError(
                    f"config.split.{name}={getattr(self, name)!r} cannot be used with config.split.method="
                    f"{self.method!r}. Set config.split.method to 'given', or leave config.split.{name} empty."
                )
        return self

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitConfig":
        # As decimals, the way they were written: 0.9 + 0.1 is 1.
        if Fraction(repr(self.validation_fraction)) + Fraction(repr(self.test_fraction)) >= 1:
            raise ConfigError(
                f"config.split.validation_fraction={self.validation_fraction!r} and "
                f"config.split.test_fraction={self.test_fraction!r} cannot be used: their sum has to be below 1, so "
                "that ratings are left for training."
            )
        return self
