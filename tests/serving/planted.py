"""Models with planted weights, whose scores and recommendations are known, and a finished run with such a model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ml_collections import ConfigDict

from configs import default
from tests.conftest import planted_ratings
from trainer import schema
from trainer.data import saved
from trainer.data.lists import group_ratings, save_item_lists
from trainer.data.queries import Queries, build_queries
from trainer.data.vocabulary import Vocabulary, build_vocabulary
from trainer.modeling.two_tower import TwoTowerModel
from trainer.serving.export import export_model, verify_in_this_process
from trainer.workdir import Workdir

# The items by index are a, b, c, d, e with 5, 4, 3, 2, 1 ratings. The users by index are u, v.
VOCABULARY = build_vocabulary(
    pa.Table.from_pylist(
        [
            {"user_id": user, "item_id": item, "rating": 1.0, "timestamp": 0}
            for user, items in (("u", "aabbcde"), ("v", "aaabbccd"))
            for item in items
        ],
        schema.RATINGS_SCHEMA,
    ),
    pa.Table.from_pylist(
        [{"item_id": item, "title": f"Film «{item}»", "genres": []} for item in "abcde"], schema.ITEMS_SCHEMA
    ),
)
SIZES: dict[str, Any] = {"num_queries": 3, "num_items": 6, "embedding_size": 2, "hidden_sizes": ()}
QUERIES = np.array([[1, 1], [1, 0], [0, -1]], np.float32)
# Row 0 would be the best item of u and of the unknown user. The items a and d are equally good for u.
CANDIDATES = np.array([[9, -9], [3, 5], [1, 4], [5, 3], [3, 2], [-1, 1]], np.float32)

# Without a history, all that the model needs of a query is its index.
NO_HISTORY = Queries(np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), history_size=0)
# The histories of u: e, a, c, of which the latest two count; and of v: b. Ratings are from 1 to 5.
HISTORIES = Queries(
    np.array([0, 0, 3, 4]), np.array([5, 1, 3, 2], np.int32), np.array([1, 5, 2.5, 4], np.float32), history_size=2
)
# Row 0 would change every history that counts its padding.
EVENTS = np.array([[99, 99], [2, 0], [0, 4], [-2, 2], [1, 1], [7, 7]], np.float32)
POOLED: dict[str, Any] = {
    **SIZES,
    "query_embedding": False,
    "history": {"power": 1.0, "highest_rating": 5.0, "dropout": 0.5, "leave_out_targets": True},
}
TRANSFORMER: dict[str, Any] = {
    **SIZES,
    "embedding_size": 8,
    "query_embedding": False,
    "transformer": {"size": 2, "num_layers": 1, "num_heads": 2, "dropout": 0.5},
}

# In place of u0, u1, ...: ids that quoting, markup, JSON or a terminal could damage.
ODD_USERS = ["Zoë 🎬", 'it\'s "quoted"', "two\nlines", "[bold]x[/bold]", "[/]", "a\\b", " "]


def build_model(queries: np.ndarray = QUERIES, candidates: np.ndarray = CANDIDATES) -> TwoTowerModel:
    """A model whose score of query q and item i is queries[q] · candidates[i]."""
    model = TwoTowerModel(
        num_queries=len(queries), num_items=len(candidates), embedding_size=queries.shape[1], hidden_sizes=()
    )
    model.set_weights([queries, candidates])
    return model


def build_pooled_model(events: np.ndarray = EVENTS, candidates: np.ndarray = CANDIDATES, **sizes: Any) -> TwoTowerModel:
    """A model without query embeddings. A query is the mean of the events of its history, weighted by rating."""
    model = TwoTowerModel(**POOLED | {"num_items": len(events), "embedding_size": events.shape[1]} | sizes)
    model.tables[schema.HISTORY].embeddings.assign(events)
    model.tables[schema.ITEMS].embeddings.assign(candidates)
    return model


def build_random_model(**sizes: Any) -> TwoTowerModel:
    """A model with large random weights."""
    model = TwoTowerModel(**sizes)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def pooled_scores(
    items: np.ndarray, ratings: np.ndarray, events: np.ndarray = EVENTS, candidates: np.ndarray = CANDIDATES
) -> np.ndarray:
    """What `build_pooled_model` scores all items, float [num_items], for the items of a history without padding."""
    return (ratings @ events[items] / ratings.sum()) @ candidates.T


def odd_title(item_id: str) -> str:
    return f"[bold]Film[/bold] [/] :smile: «{item_id}»"


@dataclass(frozen=True)
class PlantedRun:
    """A finished run.

    Attributes:
      workdir: its folder.
      vocabulary: of the training ratings.
      scores: float32 [num_users, num_items], by index.
      seen: the items that each user has rated in any split, by index.
      seen_in_training: the same for the training split.
      ratings: the rows that the run was given, with `user_id`, `item_id`, `rating` and `timestamp`.
    """

    workdir: str
    vocabulary: Vocabulary
    scores: np.ndarray
    seen: list[set[int]]
    seen_in_training: list[set[int]]
    ratings: pa.Table

    def user_index(self, user_id: str) -> int:
        return int(self.vocabulary.user_indices(pa.array([user_id]))[0])

    def best_items(self, user: int, *, excluded: frozenset[int] | set[int] = frozenset()) -> list[int]:
        """All candidates of the user index, best first."""
        return [item for item in np.argsort(-self.scores[user], kind="stable").tolist() if item not in {0, *excluded}]

    def ratings_of(self, *user_ids: str) -> pa.Table:
        """The rows of these users, in the order of the file, which is that of time."""
        return self.ratings.filter(pc.is_in(self.ratings[schema.USER_ID], value_set=pa.array(user_ids)))

    def item_ids(self, items: list[int]) -> list[str]:
        return self.vocabulary.items[schema.ITEM_ID].take(pa.array(items, pa.int32())).to_pylist()


def make_run(workdir: str) -> PlantedRun:
    """Writes, to an existing folder, what a finished run on the planted ratings leaves. Its weights are random."""
    config = default.get_config()
    config.history.encoder = "none"
    config.model.query_embedding = True
    rng = np.random.default_rng(1)

    def build(vocabulary: Vocabulary, _: Queries) -> tuple[TwoTowerModel, dict[str, Any], np.ndarray]:
        queries = rng.normal(size=[vocabulary.num_users, 4]).astype(np.float32)
        candidates = rng.normal(size=[vocabulary.num_items, 4]).astype(np.float32)
        sizes = SIZES | {"num_queries": len(queries), "num_items": len(candidates), "embedding_size": 4}
        return build_model(queries, candidates), sizes, queries @ candidates.T

    return _write_run(workdir, config, build, history_size=0)


def make_history_run(workdir: str) -> PlantedRun:
    """The same with a model that knows users by the latest 15 items of their history alone."""
    config = default.get_config()
    config.history.encoder = "pooled"
    config.history.size = 15
    config.model.query_embedding = False
    rng = np.random.default_rng(2)

    def build(vocabulary: Vocabulary, queries: Queries) -> tuple[TwoTowerModel, dict[str, Any], np.ndarray]:
        num_items = vocabulary.num_items
        events = rng.normal(size=[num_items, 4]).astype(np.float32)
        candidates = rng.normal(size=[num_items, 4]).astype(np.float32)
        sizes = POOLED | {"num_queries": vocabulary.num_users, "num_items": num_items, "embedding_size": 4}
        scores: np.ndarray = np.zeros([vocabulary.num_users, num_items])
        for user in range(1, vocabulary.num_users):
            latest = slice(max(queries.offsets[user], queries.offsets[user + 1] - 15), queries.offsets[user + 1])
            scores[user] = pooled_scores(queries.items[latest], queries.ratings[latest], events, candidates)
        return build_pooled_model(events, candidates, **sizes), sizes, scores

    return _write_run(workdir, config, build, history_size=15)


def _write_run(workdir: str, config: ConfigDict, build_fn: Any, *, history_size: int) -> PlantedRun:
    """`build_fn(vocabulary, queries)` returns the model, its sizes, and the score of each user and item."""
    ratings = planted_ratings()
    user_ids = [ODD_USERS[int(u[1:])] if int(u[1:]) < len(ODD_USERS) else u for u in ratings["user_id"].to_pylist()]
    item_ids = ratings["item_id"].to_pylist()
    columns = [pa.array(user_ids), ratings["item_id"], ratings["rating"], ratings["timestamp"]]
    table = pa.table(columns, schema=schema.RATINGS_SCHEMA)
    titles = sorted(set(item_ids))
    items = pa.table(
        [pa.array(titles), pa.array([odd_title(item) for item in titles]), pa.array([[]] * len(titles))],
        schema=schema.ITEMS_SCHEMA,
    )
    is_training = np.arange(table.num_rows) % 5 > 0
    vocabulary = build_vocabulary(table.filter(pa.array(is_training)), items)
    users, rated = vocabulary.user_indices(table["user_id"]), vocabulary.item_indices(table["item_id"])
    columns = (users, rated, table["rating"].to_numpy(), table["timestamp"].to_numpy())
    queries = build_queries(
        *columns,
        num_users=vocabulary.num_users,
        history_size=history_size,
        features={},
    )
    model, sizes, scores = build_fn(vocabulary, queries)

    paths = Workdir(workdir)
    by_user = group_ratings(*columns, num_users=vocabulary.num_users)
    fingerprints = saved.fingerprints_of(vocabulary, (by_user.offsets, by_user.items))
    description = {"fingerprints": fingerprints, "has_ratings": True}
    paths.save_run(config, description, strategy="default", num_replicas=1, chosen={}, first_step=0)
    vocabulary.save(paths.vocabulary)
    save_item_lists(paths.seen, by_user.offsets, by_user.items)
    export_model(model, vocabulary, paths.model, sizes=sizes, query_source=queries, verify=verify_in_this_process)

    def items_by_user(rows: np.ndarray) -> list[set[int]]:
        return [set(rated[rows & (users == user)].tolist()) for user in range(vocabulary.num_users)]

    return PlantedRun(workdir, vocabulary, scores, items_by_user(users >= 0), items_by_user(is_training), table)
