"""Which users and items a report shows, and what it says of them, for a model whose scores are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.serving.planted import make_history_run
from trainer.reporting import samples
from trainer.schema import ITEM_ID, RATING, TIMESTAMP

EVENTS, RATINGS = (SimpleNamespace(data=SimpleNamespace(has_ratings=has_ratings)) for has_ratings in (False, True))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_history_run(str(tmp_path_factory.mktemp("history")))


@pytest.fixture(scope="module")
def drawn(run):
    return samples.draw(run.workdir, RATINGS)


def test_users_are_spread_from_the_least_to_the_most_active_one(run, drawn):
    num_seen = [user.num_seen for user in drawn.users]
    every = sorted(len(seen) for seen in run.seen[1:])
    assert len(num_seen) == 10 and num_seen == sorted(num_seen)
    assert (num_seen[0], num_seen[-1]) == (every[0], every[-1])
    assert num_seen[3] == every[round(3 * (len(every) - 1) / 9)]
    assert num_seen == [len(run.seen[run.user_index(user.user_id)]) for user in drawn.users]


def test_a_user_has_its_latest_ratings_and_the_best_items_that_it_has_not_seen(run, drawn):
    assert drawn.is_latest and drawn.has_stars
    for user in drawn.users:
        rows = run.ratings_of(user.user_id).sort_by([(TIMESTAMP, "descending")])
        assert [item.item_id for item in user.rated] == rows[ITEM_ID].to_pylist()[:8]
        assert [item.value for item in user.rated] == rows[RATING].to_pylist()[:8]
        index = run.user_index(user.user_id)
        best = run.best_items(index, excluded=run.seen[index])[:8]
        assert [item.item_id for item in user.recommended] == run.item_ids(best)
        np.testing.assert_allclose(
            [item.value for item in user.recommended], run.scores[index][best], rtol=1e-5, atol=1e-6
        )
        assert user.rated[0].title.endswith(f"«{user.rated[0].item_id}»")


def test_popular_items_have_similar_ones_and_their_number_of_ratings(run, drawn):
    (first, others), *_, (last, _) = drawn.similar
    items = run.vocabulary.items
    assert (first.item_id, first.num_ratings) == (items["item_id"][1].as_py(), items["num_ratings"][1].as_py())
    assert len(drawn.similar) == 8 and last.item_id == items["item_id"][-1].as_py()
    cosines = [item.value for item in others]
    assert len(others) == 5 and cosines == sorted(cosines, reverse=True) and first not in others


def test_events_have_no_ratings_to_show(run):
    drawn = samples.draw(run.workdir, EVENTS)
    assert not drawn.has_stars and drawn.is_latest and len(drawn.users[0].rated) == 8
