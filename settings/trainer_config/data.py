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
