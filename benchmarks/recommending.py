"""Compares recommending and evaluating over the whole catalogue with `implicit`, on the same matrices.

    python -m benchmarks.recommending [--num_users=943] [--num_items=1682] [--rounds=3]

All sides get the same random vectors of 64 numbers of users and items and the same seen items, 100 for each user:

- `ours, top 10`: `CatalogueScorer.top_k`, which `recommend --all_users` and the evaluation use. It leaves out the seen
  items and orders equal scores by item index.
- `implicit, top 10`: `implicit.cpu.topk`, which the models of implicit recommend with. It leaves out the seen items
  too.
- `ours, ranks of 10 items`: `CatalogueScorer.ranks`, the exact ranks of ten held-out items of each user among all
  unseen items, from which the metrics are computed. implicit has nothing like it: its evaluation looks at the first
  items only.

The benchmark stops if the items of the two differ for more than one user in a thousand, which equal scores would
allow. The sides run in turn, each in a process of its own and with all threads. Times exclude the first call on the
first users, which traces. Memory is the peak of the process above its memory before the first call.

It takes half a minute on 2 CPU cores. MovieLens 25M's size, --num_users=162000 --num_items=59000 --rounds=1, takes
several minutes.
"""

import pathlib
import statistics
import tempfile
from typing import Any

import numpy as np
from absl import flags

from benchmarks import harness
from settings import cli
from settings.errors import DataError

_SIZE = 64
_NUM_SEEN = 100
_NUM_HELD_OUT = 10
_K = 10
_WARM_UP_USERS = 1000


def write_matrices(folder: str, num_users: int, num_items: int) -> None:
    """Writes the vectors and the seen items. Row 0 of both matrices stands for what is unknown."""
    random = np.random.default_rng(0)
    for name, num_rows in (("users", num_users + 1), ("items", num_items + 1)):
        np.save(pathlib.Path(folder) / f"{name}.npy", random.standard_normal((num_rows, _SIZE), np.float32))
    lists = 1 + random.integers(0, num_items, (num_users, _NUM_SEEN + _NUM_HELD_OUT)).astype(np.int32)
    np.save(pathlib.Path(folder) / "lists.npy", lists)


def _load(folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    users, items, lists = (np.load(pathlib.Path(folder) / f"{name}.npy") for name in ("users", "items", "lists"))
    return users, items, lists[:, :_NUM_SEEN], lists[:, _NUM_SEEN:]


def top_k_of_ours(folder: str) -> dict[str, Any]:
    """Our best items of all users, saved as ours.npy."""
    scorer, seen, _ = _build_scorer(folder)
    everyone = np.arange(1, seen.num_queries + 1, dtype=np.int32)
    first = np.arange(min(_WARM_UP_USERS, len(everyone)))
    before = harness.peak_bytes()
    scorer.top_k(everyone[first], _K, seen.take(first))
    found: dict[str, np.ndarray] = {}
    seconds = harness.time_repeatedly(lambda: found.update(items=scorer.top_k(everyone, _K, seen)[0]), at_least=1)
    np.save(pathlib.Path(folder) / "ours.npy", found["items"])
    return {"seconds": seconds, "peak_bytes": harness.peak_bytes() - before}


def ranks_of_ours(folder: str) -> dict[str, Any]:
    """The ranks of the held-out items of all users."""
    scorer, seen, held_out = _build_scorer(folder)
    everyone = np.arange(1, seen.num_queries + 1, dtype=np.int32)
    first = np.arange(min(_WARM_UP_USERS, len(everyone)))
    before = harness.peak_bytes()
    scorer.ranks(everyone[first], held_out.take(first), seen.take(first))
    seconds = harness.time_repeatedly(lambda: scorer.ranks(everyone, held_out, seen), at_least=1)
    return {"seconds": seconds, "peak_bytes": harness.peak_bytes() - before}


def _build_scorer(folder: str) -> tuple[Any, Any, Any]:
    """A scorer of the vectors, and the seen and held-out items."""
    from trainer import schema
    from trainer.compat import tf
    from trainer.evaluation.catalogue_scorer import CatalogueScorer
    from trainer.evaluation.item_lists import ItemLists

    users, items, seen, held_out = _load(folder)

    class Users:
        """A QuerySource whose queries have no feature but their index."""

        def gather(self, queries: np.ndarray) -> dict[str, np.ndarray]:
            return {schema.QUERY: queries}

    table = tf.constant(users)
    query_fn = tf.function(lambda features: tf.gather(table, features[schema.QUERY]))
    lists = (
        ItemLists(np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1], rows.reshape(-1))
        for rows in (seen, held_out)
    )
    return CatalogueScorer(query_fn, items, Users()), *lists


def top_k_of_implicit(folder: str) -> dict[str, Any]:
    """The best items of all users by implicit, saved as implicit.npy."""
    import threadpoolctl
    from implicit.cpu.topk import topk
    from scipy.sparse import csr_matrix

    users, items, seen, _ = _load(folder)
    users, items = users[1:], items[1:]  # There is no unknown item that could be recommended.
    offsets = np.arange(len(users) + 1) * _NUM_SEEN
    matrix = csr_matrix((np.ones(seen.size, np.float32), seen.reshape(-1) - 1, offsets), (len(users), len(items)))
    before = harness.peak_bytes()
    # implicit has threads of its own, and asks for BLAS to have one.
    with threadpoolctl.threadpool_limits(1, "blas"):
        topk(items, users[:_WARM_UP_USERS], _K, filter_query_items=matrix[:_WARM_UP_USERS])
        found: dict[str, np.ndarray] = {}
        seconds = harness.time_repeatedly(
            lambda: found.update(items=topk(items, users, _K, filter_query_items=matrix)[0]), at_least=1
        )
    np.save(pathlib.Path(folder) / "implicit.npy", found["items"] + 1)
    return {"seconds": seconds, "peak_bytes": harness.peak_bytes() - before}


def check_same(folder: str) -> None:
    """Checks that both sides recommend the same.

    Raises:
      DataError: they do not.
    """
    ours, theirs = (np.load(pathlib.Path(folder) / f"{name}.npy") for name in ("ours", "implicit"))
    differing = float((ours != theirs).any(axis=1).mean())
    if differing > 1e-3:
        raise DataError(
            f"implicit and we recommend different items to {differing:.1%} of the users for the same vectors. There is "
            "nothing to compare."
        )


def main() -> int:
    """Measures all sides in turn and prints the table."""
    num_users, num_items = flags.FLAGS.num_users, flags.FLAGS.num_items
    sides = {"ours, top 10": "top_k_of_ours"}
    notes = []
    if reason := harness.why_not_installed("implicit", "scipy", "threadpoolctl"):
        notes.append(f"Left out: implicit, because {reason}")
    else:
        sides["implicit, top 10"] = "top_k_of_implicit"
    sides["ours, ranks of 10 items"] = "ranks_of_ours"
    rounds: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_matrices(folder, num_users, num_items)
        for _ in range(flags.FLAGS.rounds):
            rounds.append(
                {
                    name: harness.run_side(f"benchmarks.recommending:{function}", folder=folder).value
                    for name, function in sides.items()
                }
            )
            if "implicit, top 10" in sides:
                check_same(folder)
    rows, results = [], {}
    unit = next(iter(sides))
    flops = 2 * num_users * num_items * _SIZE
    for name in sides:
        seconds = statistics.median(values[name]["seconds"] for values in rounds)
        ratio = statistics.median(values[name]["seconds"] / values[unit]["seconds"] for values in rounds)
        peak = max(values[name]["peak_bytes"] for values in rounds)
        rows.append(
            (
                name,
                f"{seconds:.3f}",
                f"{ratio:.2f}",
                f"{num_users / seconds:,.0f}",
                f"{flops / seconds / 1e9:.1f}",
                f"{peak / 1e9:.2f}",
            )
        )
        results[name] = {"seconds": seconds, "times_ours": ratio, "peak_bytes": peak}
    notes.append(
        f"{num_users:,} users × {num_items:,} items × {_SIZE} numbers: {flops / 1e9:.2f} GFLOP for all scores. "
        "The ranks need them twice; they are counted once."
    )
    columns = ("side", "seconds", "times ours", "users/s", "GFLOP/s", "memory, GB")
    sizes = {"num_users": num_users, "num_items": num_items}
    harness.report("recommending", columns, rows, notes=notes, rounds=len(rounds), **sizes, sides=results)
    return 0


if __name__ == "__main__":
    flags.DEFINE_integer("num_users", 943, "The number of users.", lower_bound=1)
    flags.DEFINE_integer("num_items", 1682, "The number of items.", lower_bound=1000)
    flags.DEFINE_integer("rounds", 3, "How often each side runs.", lower_bound=1)
    cli.run(main)
