"""The check of an exported model finds each way in which a model can be wrong."""

import ast
import json
import pathlib
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from tests.serving.planted import CANDIDATES, NO_HISTORY, QUERIES, VOCABULARY, build_model
from trainer.compat import tf
from trainer.serving import export, verify_export
from trainer.serving.serving_model import ServingModel

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
        return self.model({**features, "items": items})


def right():
    return ServingModel(build_model(), VOCABULARY, NO_HISTORY)


def nearly_right():
    return ServingModel(build_model(candidates=CANDIDATES * (1 + 1e-6)), VOCABULARY, NO_HISTORY)


def another_model():
    return ServingModel(build_model(candidates=CANDIDATES * 1.001), VOCABULARY, NO_HISTORY)


def not_finite():
    return ServingModel(build_model(candidates=CANDIDATES * np.nan), VOCABULARY, NO_HISTORY)


def other_candidates():
    serving = right()
    serving.candidates.assign(-CANDIDATES)
    return serving


def other_popularity():
    serving = right()
    serving.popularity.assign([0, 1, 2, 3, 4, 5])
    return serving


def unmasked():
    return UnmaskedModel(build_model(), VOCABULARY, NO_HISTORY)


@pytest.mark.parametrize(
    ("build", "difference"),
    [
        (right, None),
        (nearly_right, None),
        (another_model, "its scores differ from the trainer's by up to 0.005"),
        (not_finite, "its scores differ from the trainer's by up to nan"),
        (other_candidates, "an item scores higher than the one that it recommends first"),
        (other_popularity, "it recommends 'e' first to an unknown user, and 'a' is the most popular"),
        (unmasked, "an unknown item has the score 9 instead of -inf"),
    ],
)
def test_the_first_difference_is_returned(build, difference, tmp_path):
    serving = build()
    tf.saved_model.save(serving, str(tmp_path), signatures=serving.build_signatures())
    assert verify_export.compare(SAMPLE | {"folder": str(tmp_path)}) == difference


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
