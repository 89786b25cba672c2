"""Where the files of a prepared data set are."""

from collections.abc import Collection
from urllib.parse import quote

from trainer import schema
from trainer.features import FeatureSpec

MANIFEST = "manifest.json"
VOCABULARY = "vocabulary"
FEATURES = "features"


def shard_folder(number: int, num_shards: int) -> str:
    """The path of shard `number` of `num_shards` in the folder of the data set."""
    return f"shards/{number:05d}-of-{num_shards:05d}"


def split_file(split: str, column: str) -> str:
    """The name of the file with a column of a split, in the folder of a shard."""
    return f"{split}.{column}.npy"


def example_file(split: str, feature: str) -> str:
    """The name of the file with an example feature of a split, in the folder of a shard."""
    return split_file(split, f"feature.{quote(feature, safe='')}")


def history_file(splits: tuple[str, ...], column: str) -> str:
    """The name of the file with a column of the histories of some splits, in the folder of a shard."""
    return f"history.{'+'.join(splits)}.{column}.npy"


def feature_file(spec: FeatureSpec) -> str:
    """The path of the values of a feature of users or items, in the folder of the data set."""
    return f"{FEATURES}/{spec.owner}.{quote(spec.name, safe='')}.npy"


def history_splits(splits: Collection[str]) -> list[tuple[str, ...]]:
    """The splits of each history that is stored: the training split, and it with each split after it."""
    present = tuple(name for name in schema.SPLITS if name in splits)
    return [present[: number + 1] for number in range(len(present))]
