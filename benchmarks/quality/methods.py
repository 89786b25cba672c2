"""All methods, by name."""

from benchmarks.quality.ceiling import CEILING
from benchmarks.quality.factorization import BPR, IALS
from benchmarks.quality.method import Method
from benchmarks.quality.neighbours import EASE, EASE_POSITIVES, ITEM_KNN
from benchmarks.quality.ours import BLENDED, DEFAULT, ORDER_AWARE, POOLED, POOLED_RATED, TUTORIAL
from benchmarks.quality.simple import ITEM_MEAN, POPULARITY

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        CEILING,
        POPULARITY,
        ITEM_MEAN,
        ITEM_KNN,
        EASE,
        EASE_POSITIVES,
        IALS,
        BPR,
        TUTORIAL,
        DEFAULT,
        POOLED,
        BLENDED,
        ORDER_AWARE,
        POOLED_RATED,
    )
}
OURS = (DEFAULT.name, POOLED.name, BLENDED.name, ORDER_AWARE.name, POOLED_RATED.name)
