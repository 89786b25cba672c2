"""Recommendations for a few users as a Markdown table, to look at while the model trains."""

import itertools

import numpy as np
import pyarrow as pa

from trainer import schema
from trainer.data.dataset import Dataset
from trainer.evaluation.catalogue import CatalogueScorer, ItemLists, candidate_matrix
from trainer.modeling.two_tower import TwoTowerModel

_NUM_ITEMS = 5


def sample_recommendations(model: TwoTowerModel, dataset: Dataset, num_users: int) -> str:
    """Returns a Markdown table with a column for each user and a row for each rank.

    The users are spread evenly over the vocabulary. Items that a user rated in training are left out.
    """
    vocabulary = dataset.vocabulary
    users = np.unique(np.linspace(1, vocabulary.num_users - 1, num_users, dtype=np.int32))
    seen = ItemLists(*dataset.items_by_user("train")).take(users)
    scorer = CatalogueScorer(model.query_vectors, candidate_matrix(model.candidate_vectors, model.num_items))
    items, _ = scorer.top_k({schema.QUERY: users}, _NUM_ITEMS, seen)
    columns = []
    for best in items:
        titles = vocabulary.items[schema.TITLE].take(pa.array(best[best != schema.UNKNOWN_INDEX])).to_pylist()
        columns.append([" ".join(title.replace("|", "\\|").split()) for title in titles])
    ids = vocabulary.users[schema.USER_ID].take(users).to_pylist()
    lines = [["rank", *(f"user {user_id}" for user_id in ids)], ["---"] * (len(ids) + 1)]
    lines += [
        [str(rank), *titles] for rank, titles in enumerate(itertools.zip_longest(*columns, fillvalue=""), start=1)
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
