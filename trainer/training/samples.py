"""Recommendations for a few users as a Markdown table, to look at while the model trains."""

import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from settings.visible_text import visible
from trainer import schema
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.evaluation.catalogue_ranking import Ranker
from trainer.evaluation.catalogue_scorer import CatalogueScorer
from trainer.evaluation.item_lists import ItemLists

_NUM_ITEMS = 5


def build_sample_fn(model: Ranker, dataset: Dataset, num_users: int) -> Callable[[tf.Tensor], str]:
    """Prepares recommendations for users that are spread evenly over the vocabulary.

    The users are described by their training ratings, and the items that they rated in training are left out.

    Returns:
      A function of the candidate vectors, see `candidate_matrix`, that recommends with the model's current weights. It
      returns a Markdown table with a column for each user and a row for each rank.
    """
    vocabulary = dataset.vocabulary
    users = np.unique(np.linspace(1, vocabulary.num_users - 1, num_users, dtype=np.int32))
    seen = ItemLists(*dataset.items_by_user("train")).take(users)
    query_source = dataset.query_source("train")
    query_fn = tf.function(model.query_vectors, autograph=False)
    ids = vocabulary.users[schema.USER_ID].take(users).to_pylist()

    def sample(candidates: tf.Tensor) -> str:
        items, _ = CatalogueScorer(query_fn, candidates, query_source).top_k(users, _NUM_ITEMS, seen)
        columns = []
        for best in items:
            titles = vocabulary.items[schema.TITLE].take(pa.array(best[best != schema.UNKNOWN_INDEX])).to_pylist()
            columns.append(list(map(_cell, titles)))
        lines = [["rank", *(f"user {_cell(user_id)}" for user_id in ids)], ["---"] * (len(ids) + 1)]
        lines += [
            [str(rank), *titles] for rank, titles in enumerate(itertools.zip_longest(*columns, fillvalue=""), start=1)
        ]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

    return sample


def _cell(text: str) -> str:
    """A text in one cell of the table, where no character of it acts on the rest."""
    return visible(" ".join(text.replace("|", "\\|").split()))
