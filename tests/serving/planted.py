"""Models with planted weights, whose scores and recommendations are known, and a finished run with such a model."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from configs import default
from tests.conftest import planted_ratings
from trainer import schema
from trainer.data.lists import group_by_user, save_item_lists
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
SIZES = {"num_queries": 3, "num_items": 6, "embedding_size": 2, "hidden_sizes": ()}
QUERIES = np.array([[1, 1], [1, 0], [0, -1]], np.float32)
# Row 0 would be the best item of u and of the unknown user. The items a and d are equally good for u.
CANDIDATES = np.array([[9, -9], [3, 5], [1, 4], [5, 3], [3, 2], [-1, 1]], np.float32)

# In place of u0, u1, ...: ids that quoting, markup, JSON or a terminal could damage.
ODD_USERS = ["Zoë 🎬", 'it\'s "quoted"', "two\nlines", "[bold]x[/bold]", "[/]", "a\\b", " "]


def build_model(queries: np.ndarray = QUERIES, candidates: np.ndarray = CANDIDATES) -> TwoTowerModel:
    """A model whose score of query q and item i is queries[q] · candidates[i]."""
    model = TwoTowerModel(
        num_queries=len(queries), num_items=len(candidates), embedding_size=queries.shape[1], hidden_sizes=()
    )
    model.set_weights([queries, candidates])
    return model


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
    """

    workdir: str
    vocabulary: Vocabulary
    scores: np.ndarray
    seen: list[set[int]]
    seen_in_training: list[set[int]]

    def user_index(self, user_id: str) -> int:
        return int(self.vocabulary.user_indices(pa.array([user_id]))[0])

    def best_items(self, user: int, *, excluded: frozenset[int] | set[int] = frozenset()) -> list[int]:
        """All candidates of the user index, best first."""
        return [item for item in np.argsort(-self.scores[user], kind="stable").tolist() if item not in {0, *excluded}]

    def item_ids(self, items: list[int]) -> list[str]:
        return self.vocabulary.items[schema.ITEM_ID].take(pa.array(items, pa.int32())).to_pylist()


def make_run(workdir: str) -> PlantedRun:
    """Writes, to an existing folder, what a finished run on the planted ratings leaves. Its weights are random."""
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

    rng = np.random.default_rng(1)
    queries = rng.normal(size=[vocabulary.num_users, 4]).astype(np.float32)
    candidates = rng.normal(size=[vocabulary.num_items, 4]).astype(np.float32)

    paths = Workdir(workdir)
    paths.save_run(default.get_config(), {"fingerprints": {}}, strategy="default", num_replicas=1, first_step=0)

    vocabulary.save(paths.vocabulary)
    save_item_lists(paths.seen, *group_by_user(users, rated, num_users=vocabulary.num_users))
    sizes = {"num_queries": len(queries), "num_items": len(candidates), "embedding_size": 4, "hidden_sizes": ()}
    export_model(build_model(queries, candidates), vocabulary, paths.model, sizes=sizes, verify=verify_in_this_process)

    def items_by_user(rows: np.ndarray) -> list[set[int]]:
        return [set(rated[rows & (users == user)].tolist()) for user in range(vocabulary.num_users)]

    return PlantedRun(
        workdir, vocabulary, queries @ candidates.T, items_by_user(users >= 0), items_by_user(is_training)
    )
