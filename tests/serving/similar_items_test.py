"""Similar items: nearest by the cosine of what the tower has learnt, whatever the popularity."""

import numpy as np
import pytest

from tests.serving.planted import NO_HISTORY, SIZES, VOCABULARY, build_model, odd_title
from trainer.compat import tf
from trainer.evaluation import catalogue
from trainer.modeling.ease import EaseBlend
from trainer.modeling.two_tower import TwoTowerModel
from trainer.serving import serving_model
from trainer.serving.recommender import SIMILAR_ITEMS_SCHEMA, Recommender
from trainer.serving.serving_model import ServingModel

# The items by index are a, b, c, d, e. Of the angles of their vectors, a is next to c, then b; e is opposite.
DIRECTIONS = np.array([[9, -9], [1, 0], [0, 1], [2, 1], [-1, 3], [-4, 0]], np.float32)


def similar(serving: ServingModel, items: list[int], k: int) -> tuple[list, np.ndarray]:
    found, cosines = serving.similar_indices(np.array(items, np.int32), k)
    return found.numpy().tolist(), cosines.numpy()


def test_the_nearest_by_cosine_come_first_and_an_item_is_not_similar_to_itself():
    serving = ServingModel(build_model(candidates=DIRECTIONS), VOCABULARY, NO_HISTORY)
    found, cosines = similar(serving, [1, 5], 3)
    assert found == [[3, 2, 4], [4, 2, 3]]
    expected = [[2 / 5**0.5, 0, -1 / 10**0.5], [1 / 10**0.5, 0, -2 / 5**0.5]]
    np.testing.assert_allclose(cosines, expected, atol=1e-6)


def test_nothing_is_similar_to_the_unknown_item_and_rows_are_padded():
    serving = ServingModel(build_model(candidates=DIRECTIONS), VOCABULARY, NO_HISTORY)
    found, cosines = similar(serving, [0, 1], 100)
    assert found == [[0] * 6, [3, 2, 4, 5, 0, 0]]
    assert (cosines[0] == -np.inf).all() and (cosines[1, 4:] == -np.inf).all()


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_biases_priors_and_ease_do_not_count(similarity):
    """With them, every item would be next to the two with the largest bias, c and e."""
    prior = np.array([0, 0, 0, 50, 0, 50], np.float32)
    model = TwoTowerModel(**SIZES | {"similarity": similarity, "item_bias": True, "item_prior": prior})
    model.candidate_tower.tables["items"].embeddings.assign(DIRECTIONS)
    model.item_bias.embeddings.assign(np.array([[0], [0], [0], [90], [0], [90]], np.float32))
    blend = EaseBlend(model, np.full([6, 6], 7, np.float32), weight=1.0)
    assert ServingModel(blend, VOCABULARY, NO_HISTORY).candidates.shape == [6, 2 + 1 + 6]
    for ranker in (model, blend):
        found, _ = similar(ServingModel(ranker, VOCABULARY, NO_HISTORY), [1, 2, 5], 2)
        assert found == [[3, 2], [4, 3], [4, 2]]


def test_chunks_of_the_catalogue_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=[6, 2]).astype(np.float32)
    whole, cosines = similar(ServingModel(build_model(candidates=candidates), VOCABULARY, NO_HISTORY), [1, 2, 3], 4)
    widths = []
    top_k = catalogue.top_k

    def noting(score_chunk, *arguments, **options):
        def noted(begin, end):
            tf.py_function(lambda width: widths.append(int(width)), [end - begin], [])
            return score_chunk(begin, end)

        return top_k(noted, *arguments, **options)

    monkeypatch.setattr(catalogue, "top_k", noting)
    monkeypatch.setattr(serving_model, "CHUNK_BYTES", 4 * 2 * 2)
    serving = ServingModel(build_model(candidates=candidates), VOCABULARY, NO_HISTORY)
    chunked, cosines_of_chunks = similar(serving, [1, 2, 3], 4)
    assert widths == [2, 2, 1]
    assert chunked == whole
    np.testing.assert_allclose(cosines_of_chunks, cosines, rtol=1e-5, atol=1e-6)


def test_the_table_of_a_run_has_ids_titles_and_ranks(planted_run):
    recommender = Recommender(planted_run.workdir)
    vectors = recommender.model.candidates.numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = recommender.similar_items(np.array([7, 3], np.int32), 4)
    assert found.schema.equals(SIMILAR_ITEMS_SCHEMA)
    expected = []
    for item in (7, 3):
        nearest = [other for other in np.argsort(-unit @ unit[item], kind="stable") if other not in (0, item)][:4]
        (item_id,) = planted_run.item_ids([item])
        expected += [
            {
                "item_id": item_id,
                "title": odd_title(item_id),
                "rank": rank,
                "similar_item_id": other,
                "similar_title": odd_title(other),
            }
            for rank, other in enumerate(planted_run.item_ids(nearest), start=1)
        ]
    assert found.drop_columns(["score"]).to_pylist() == expected
    assert recommender.similar_items(np.zeros(0, np.int32), 4).num_rows == 0
