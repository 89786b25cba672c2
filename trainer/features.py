"""FeatureSpec describes one input feature of the model. This module does not import TensorFlow.

The towers are built from specs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from trainer import schema

Owner = Literal["query", "item", "example"]
"""What a feature describes: the query of a list, an item in any list, or one entry of one list."""

OWNERS: tuple[Owner, ...] = ("query", "item", "example")
_DTYPES = ("int32", "float32")


@dataclass(frozen=True)
class FeatureSpec:
    """One feature, as it enters the model.

    Attributes:
      name: The key of the feature in a batch.
      owner: What the feature describes.
      dtype: `int32` or `float32`. Categorical features are int32.
      shape: The shape of one value; () for a scalar.
      num_values: For a categorical feature, the number of indices, including index 0, which means unknown. None for
        a numeric feature.
    """

    name: str
    owner: Owner
    dtype: str = "int32"
    shape: tuple[int, ...] = ()
    num_values: int | None = None

    def __post_init__(self) -> None:
        if self.owner not in OWNERS:
            raise ValueError(f"Feature {self.name!r}: owner={self.owner!r} is not one of {', '.join(OWNERS)}.")
        if self.dtype not in _DTYPES:
            raise ValueError(f"Feature {self.name!r}: dtype={self.dtype!r} is not one of {', '.join(_DTYPES)}.")
        if self.num_values is not None and (self.dtype != "int32" or self.num_values < 1):
            raise ValueError(
                f"Feature {self.name!r}: num_values={self.num_values} with dtype={self.dtype!r}. A categorical feature "
                "is int32 and has at least one value."
            )

    @property
    def is_categorical(self) -> bool:
        """Whether values are indices, which an embedding encodes."""
        return self.num_values is not None


def index_features(num_queries: int, num_items: int) -> list[FeatureSpec]:
    """The two features that every model has: the index of the query and the index of the item."""
    return [
        FeatureSpec(schema.QUERY, "query", num_values=num_queries),
        FeatureSpec(schema.ITEMS, "item", num_values=num_items),
    ]


def owned_by(specs: Iterable[FeatureSpec], owner: Owner) -> list[FeatureSpec]:
    """The specs of one owner, in their order."""
    return [spec for spec in specs if spec.owner == owner]
