"""What the exported model of a run knows about the ratings of its users."""

import numpy as np

from trainer.schema import ITEM_ID, RATING, TIMESTAMP
from trainer.serving.recommender import Recommender

USER_IDS = ("u7", "u8", "u30")


def test_a_model_with_a_history_has_the_latest_items_with_their_ratings(history_run):
    recommender = Recommender(history_run.workdir)
    users = np.array([history_run.user_index(user_id) for user_id in USER_IDS], np.int32)
    items, ratings = recommender.rated_items(users)
    assert ratings is not None
    for row, user_id in enumerate(USER_IDS):
        rows = history_run.ratings_of(user_id).sort_by(TIMESTAMP)
        assert rows.num_rows > 15  # The histories of this run have 15 items.
        assert history_run.item_ids(items[row].tolist()) == rows[ITEM_ID].to_pylist()[-15:]
        assert ratings[row].tolist() == rows[RATING].to_pylist()[-15:]


def test_without_a_history_it_has_all_seen_items_and_no_ratings(planted_run):
    recommender = Recommender(planted_run.workdir)
    users = np.array([planted_run.user_index(user_id) for user_id in USER_IDS], np.int32)
    items, ratings = recommender.rated_items(users)
    assert ratings is None
    assert [set(row.tolist()) for row in items] == [planted_run.seen[user] for user in users]
    assert recommender.num_seen()[users].tolist() == [len(planted_run.seen[user]) for user in users]
