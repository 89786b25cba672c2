"""The protocols: which data, which metrics, which methods, what has to be beaten, and what others published."""

import functools
from dataclasses import dataclass

from benchmarks.quality.data import LoadSplit, movielens_100k, movielens_100k_last, published, synthetic

_EASE = ("ease", "ease_positives")
_PEERS = ("popularity", "item_mean", "item_knn", *_EASE, "ials", "bpr", "tutorial")


@dataclass(frozen=True)
class Target:
    """What ours should reach on the test ratings.

    Attributes:
      metric: Its name.
      at_least: The least value; or, with `times`, the least multiple of the best of those methods.
      times: Names of methods. Empty: `at_least` is the value.
      significant: Instead, the difference to the best of `times` has to be above 0, with p < 0.05 in a paired test.
    """

    metric: str
    at_least: float
    times: tuple[str, ...] = ()
    significant: bool = False


@dataclass(frozen=True)
class Protocol:
    """A comparison on one data set.

    Attributes:
      title: The heading of its table.
      folder: The folder below --data_dir that it needs, "" for none.
      load: Loads the split of a seed.
      seeds: Of the splits. The hyperparameters are chosen with the first.
      metrics: The names, as in config.eval.metrics. The first chooses the best trial.
      rated: Whether the rated items of each user are ranked, with graded gains. Otherwise it is the catalogue.
      relevance_threshold: Ratings at or above this value are relevant.
      methods: The names of the methods, in the order of the table.
      reference: The methods whose best one the others are compared with.
      targets: What ours should reach.
      published: The published values: name → the value of each metric, None for a missing one.
      vector_size: The largest allowed size of an embedding, None for any.
    """

    title: str
    folder: str
    load: LoadSplit
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    methods: tuple[str, ...]
    reference: tuple[str, ...]
    targets: tuple[Target, ...]
    rated: bool = False
    relevance_threshold: float = 0.0
    published: tuple[tuple[str, tuple[float | None, ...]], ...] = ()
    vector_size: int | None = None


_FIVE_SEEDS = (0, 1, 2, 3, 4)


_ML_100K_80_10_10 = functools.partial(movielens_100k, validation_fraction=0.1, test_fraction=0.1)
_ML_100K_75_25 = functools.partial(movielens_100k, validation_fraction=0.0, test_fraction=0.25)
_SYNTHETIC_80_10_10 = functools.partial(synthetic, validation_fraction=0.1, test_fraction=0.1)

PROTOCOLS: dict[str, Protocol] = {
    "ml-100k": Protocol(
        title="MovieLens 100K, random 80/10/10 per user, 5 seeds, whole catalogue, relevant = rated 4 or 5",
        folder="ml-100k",
        load=_ML_100K_80_10_10,
        seeds=_FIVE_SEEDS,
        metrics=("binary_ndcg@10", "recall@20"),
        relevance_threshold=4.0,
        methods=(*_PEERS, "default", "pooled", "blended", "order_aware"),
        reference=_EASE,
        targets=(
            Target("binary_ndcg@10", 1.03, times=_EASE),
            Target("binary_ndcg@10", 1.05, times=("ials",)),
            Target("binary_ndcg@10", 2.5, times=("tutorial",)),
        ),
    ),
    "ml-100k-rated": Protocol(
        title="MovieLens 100K, random 80/10/10 per user, 5 seeds, rated lists, gain 2^rating - 1",
        folder="ml-100k",
        load=_ML_100K_80_10_10,
        seeds=_FIVE_SEEDS,
        metrics=("ndcg@10",),
        rated=True,
        relevance_threshold=4.0,
        methods=("popularity", "item_mean", "tutorial", "pooled_rated"),
        reference=("item_mean",),
        targets=(Target("ndcg@10", 0.0, times=("item_mean",), significant=True),),
    ),
    "ml-100k-75-25": Protocol(
        title="MovieLens 100K, random 75/25 per user, 5 seeds, whole catalogue, every test rating relevant",
        folder="ml-100k",
        load=_ML_100K_75_25,
        seeds=_FIVE_SEEDS,
        metrics=("binary_ndcg@10", "recall@10"),
        methods=(
            "popularity",
            "item_knn",
            "ease",
            "ials",
            "bpr",
            "tutorial",
            "default",
            "pooled",
            "blended",
            "order_aware",
        ),
        reference=("ease",),
        targets=(Target("binary_ndcg@10", 0.5),),
        published=(
            ("BiVAE", (0.475, None)),
            ("BPR", (0.442, None)),
            ("LightGCN", (0.420, None)),
            ("NCF", (0.396, None)),
            ("SAR", (0.382, None)),
        ),
    ),
    "ml-100k-last": Protocol(
        title="MovieLens 100K, the latest 10% per user, 3 seeds, whole catalogue, relevant = rated 4 or 5",
        folder="ml-100k",
        load=movielens_100k_last,
        seeds=(0, 1, 2),
        metrics=("binary_ndcg@10", "recall@20"),
        relevance_threshold=4.0,
        methods=("popularity", "item_knn", *_EASE, "ials", "default", "pooled", "order_aware"),
        reference=_EASE,
        targets=(),
    ),
    "ml-1m-lcf": Protocol(
        title="MovieLens 1M, published split ml-1m-lcf",
        folder="published/ml-1m-lcf",
        load=functools.partial(published, name="ml-1m-lcf"),
        seeds=(0,),
        metrics=("binary_ndcg@20", "recall@20"),
        methods=("popularity", "item_knn", "ease", "ials", "bpr", "default", "pooled", "blended"),
        reference=("ease",),
        targets=(Target("recall@20", 0.289), Target("binary_ndcg@20", 0.275)),
        published=(("SimpleX", (0.2670, 0.2802)), ("UltraGCN", (0.2642, 0.2787))),
    ),
    "gowalla": Protocol(
        title="Gowalla, published split, at most 64 dimensions",
        folder="published/gowalla",
        load=functools.partial(published, name="gowalla"),
        seeds=(0,),
        metrics=("binary_ndcg@20", "recall@20"),
        methods=("popularity", "item_knn", "ease", "ials", "bpr", "default", "pooled"),
        reference=("item_knn",),
        targets=(Target("recall@20", 0.190), Target("binary_ndcg@20", 0.160)),
        published=(
            ("SimpleX", (0.1557, 0.1872)),
            ("UltraGCN", (0.1580, 0.1862)),
            ("GF-CF", (0.1518, 0.1849)),
            ("MF-CCL", (0.1493, 0.1837)),
            ("LightGCN", (0.1547, 0.1820)),
            ("EASE", (0.1467, 0.1765)),
            ("MF-BPR", (0.1378, 0.1627)),
        ),
        vector_size=64,
    ),
    "synthetic": Protocol(
        title="The embedded ratings, random 80/10/10 per user, 5 seeds, whole catalogue, relevant = rated 4 or 5",
        folder="",
        load=_SYNTHETIC_80_10_10,
        seeds=_FIVE_SEEDS,
        metrics=("binary_ndcg@10", "recall@20"),
        relevance_threshold=4.0,
        methods=(*_PEERS, "default", "pooled", "blended", "order_aware", "ceiling"),
        reference=_EASE,
        targets=(Target("binary_ndcg@10", 1.0, times=_EASE),),
    ),
}
