"""The numbers that TensorFlow can take, and that a machine has memory for, as types of fields."""

from typing import Annotated

from pydantic import Field

LARGEST_FLOAT = 3.4e38
"""About the largest float32."""

_LARGEST_COUNT = 10**9
_LARGEST_SIZE = 10**6

PositiveFloat = Annotated[
    float, Field(ge=1.2e-38, le=LARGEST_FLOAT, description="above 0, and a float32: from 1.2e-38 to 3.4e+38")
]
"""A number that is computed with as a float32. A smaller one would be 0."""

NonNegativeFloat = Annotated[float, Field(ge=0, le=LARGEST_FLOAT)]
"""A number that is computed with as a float32, or 0."""

Count = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]
"""A number of steps, epochs or files."""

PositiveCount = Annotated[int, Field(ge=1, le=_LARGEST_COUNT)]
"""The same, where 0 makes no sense."""

Size = Annotated[int, Field(ge=0, le=_LARGEST_SIZE)]
"""The extent of a tensor, which takes memory."""

PositiveSize = Annotated[int, Field(ge=1, le=_LARGEST_SIZE)]
"""The same, where 0 makes no sense."""
