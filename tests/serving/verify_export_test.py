"""The check of an exported model finds each way in which a model can be wrong."""

import ast
import json
import pathlib
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from tests.serving.planted import (
    CANDIDATES,
    EVENTS,
    HISTORIES,
    NO_HISTORY,
    QUERIES,
    VOCABULARY,
    build_model,
    build_pooled_model,
)
from trainer.compat import tf
from trainer.serving import export, verify_export
from trainer.serving.serving_model import ServingModel, list_scores

SAMPLE = {
    "user_ids": ["u", "v"],
    "item_ids": ["a", "b", "c", "d", "e"],
    "scores": (QUERIES[1:] @ CANDIDATES[1:].T).tolist(),
    "most_popular": "a",
    "from_history": None,
}


class UnmaskedModel(ServingModel):
    """Scores unknown items by the untrained row 0."""

    def _score_indices(self, features, items):
        return list_scores(self.query_vectors(features), self.candidates.read_value(), items)


class UpsideDownModel(ServingModel):
    """Recommends the item with the lowest score first."""

    def _recommend_indices(self, features, k, excluded):
        items, scores = super()._recommend_indices(features, 5, excluded)
        return items[:, ::-1][:, :k], scores[:, ::-1][:, :k]


class BoastfulModel(ServingModel):
    """Says that it knows everything."""

    @tf.function(input_signature=ServingModel.score.input_signature)
    def score(self, user_ids, item_ids):
        answer = super().score(user_ids, item_ids)
        return answer | {"known": tf.ones_like(answer["known"])}


class BoastfulOfUsersModel(ServingModel):
    """Says that it knows every user."""

    def _named(self, is_known, items, scores):
        return super()._named(tf.ones_like(is_known), items, scores)


def right():
    return ServingModel(build_model(), VOCABULARY, NO_HISTORY)


def nearly_right():
    return ServingModel(build_model(candidates=CANDIDATES * (1 + 1e-6)), VOCABULARY, NO_HISTORY)


def another_model():
    return ServingModel(build_model(candidates=CANDIDATES * 1.001), VOCABULARY, NO_HISTORY)


def not_finite():
    return ServingModel(build_model(candidates=CANDIDATES * np.nan), VOCABULARY, NO_HISTORY)


def upside_down():
    return UpsideDownModel(build_model(), VOCABULARY, NO_HISTORY)


def other_popularity():
    serving = right()
    serving.popularity.assign([0, 1, 2, 3, 4, 5])
    return serving


def boastful():
    return BoastfulModel(build_model(), VOCABULARY, NO_HISTORY)


def boastful_of_users():
    return BoastfulOfUsersModel(build_model(), VOCABULARY, NO_HISTORY)


def unmasked():
    return UnmaskedModel(build_model(), VOCABULARY, NO_HISTORY)


@pytest.mark.parametrize(
    ("build", "difference"),
    [
        (right, None),
        (nearly_right, None),
        (another_model, "its scores differ from the trainer's by up to 0.005"),
        (not_finite, "its scores differ from the trainer's by up to nan"),
        (upside_down, "an item scores higher than the one that it recommends first"),
        (other_popularity, "it recommends 'e' first to an unknown user, and 'a' is the most popular"),
        (boastful, "it does not tell which items of known users it knows"),
        (boastful_of_users, "it does not tell which users it knows"),
        (unmasked, "an unknown item has the score 9 instead of -inf"),
    ],
)
def test_the_first_difference_is_returned(build, difference, tmp_path):
    serving = build()
    tf.saved_model.save(serving, str(tmp_path), signatures=serving.build_signatures())
    assert verify_export.compare(SAMPLE | {"folder": str(tmp_path)}) == difference


# A query is (2/3, 2/3) for u and (0, 4) for v.
HISTORY_SAMPLE = SAMPLE | {
    "scores": [[16 / 3, 10 / 3, 16 / 3, 10 / 3, 0], [20, 16, 12, 8, 4]],
    "from_history": {
        "item_ids": [["a", "c"], ["b", ""]],
        "ratings": [[5.0, 2.5], [4.0, 0.0]],
        "values": {},
        "scores": [[10 / 3, 10 / 3, 0, -np.inf], [20, 12, 8, 4]],
    },
}


class ForgetfulModel(ServingModel):
    """Takes all ratings of a given history for the highest one."""

    def _recommend_from_history(self, item_ids, ratings, k, excluded_item_ids):
        return super()._recommend_from_history(item_ids, 5 + 0 * ratings, k, excluded_item_ids)


class MisnamingModel(ServingModel):
    """Names other items than it has scored, if they come from a history."""

    def _recommend_from_history(self, item_ids, ratings, k, excluded_item_ids):
        found = super()._recommend_from_history(item_ids, ratings, k, excluded_item_ids)
        return found | {"item_ids": tf.roll(found["item_ids"], 1, axis=0)}


class ForgetfulOfUsersModel(ServingModel):
    """Says that it knows no history, but knows users with an id."""

    def _named(self, is_known, items, scores):
        return super()._named(is_known & (tf.shape(items)[1] < 4), items, scores)


class RepeatingModel(ServingModel):
    """Recommends what is in the history."""

    def _recommend_indices(self, features, k, excluded):
        return super()._recommend_indices(features, k, excluded[:, :0])


@pytest.mark.parametrize(
    ("build", "difference"),
    [
        (ServingModel, None),
        (ForgetfulModel, "its scores from a history differ from the trainer's by up to "),
        (MisnamingModel, "its scores from a history differ from those of the user's id by up to "),
        (ForgetfulOfUsersModel, "it does not tell which histories it knows"),
        (RepeatingModel, "its scores from a history differ from the trainer's by up to "),
    ],
)
def test_the_first_difference_from_a_history_is_returned(build, difference, tmp_path):
    serving = build(build_pooled_model(), VOCABULARY, HISTORIES)
    tf.saved_model.save(serving, str(tmp_path), signatures=serving.build_signatures())
    found = verify_export.compare(HISTORY_SAMPLE | {"folder": str(tmp_path)})
    assert found == difference or found.startswith(difference)


def test_a_stored_history_that_is_not_the_given_one_is_found(tmp_path):
    """Both are compared with the trainer."""
    events = EVENTS.copy()
    events[3] += 0.01
    serving = ServingModel(build_pooled_model(events=events), VOCABULARY, HISTORIES)
    tf.saved_model.save(serving, str(tmp_path), signatures=serving.build_signatures())
    assert "its scores differ from the trainer's" in verify_export.compare(HISTORY_SAMPLE | {"folder": str(tmp_path)})


def test_the_script_needs_nothing_of_this_project():
    tree = ast.parse(pathlib.Path(verify_export.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.name for node in imports if isinstance(node, ast.Import) for name in node.names}
    assert names == {"json", "sys", "numpy", "tensorflow"}
    assert {node.module for node in imports if isinstance(node, ast.ImportFrom)} == {"typing"}


def test_a_fresh_process_returns_the_difference_too(folder):
    wrong = SAMPLE | {"folder": str(folder), "most_popular": "b"}
    message = "it recommends 'a' first to an unknown user, and 'b' is the most popular"
    assert export.verify_in_fresh_process(wrong) == export.verify_in_this_process(wrong) == message


def test_a_fresh_process_has_plain_tensorflow_and_no_gpu(monkeypatch):
    """The GPU's memory belongs to the trainer, and TF_USE_LEGACY_KERAS is a setting of this project."""
    started = {}

    def run(command, *, input, env, **_):
        started.update(command=command, sample=json.loads(input), env=env)
        return SimpleNamespace(returncode=0)

    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    monkeypatch.setattr(subprocess, "run", run)
    assert export.verify_in_fresh_process(SAMPLE) is None
    assert started["sample"] == SAMPLE
    assert "TF_USE_LEGACY_KERAS" not in started["env"]
    assert started["env"]["CUDA_VISIBLE_DEVICES"] == "-1"
    # Python adds the folder of a script to its import path.
    assert not any(str(pathlib.Path(export.__file__).parent) in part for part in started["command"])
