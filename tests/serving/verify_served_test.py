"""The check of a model for servers finds each way in which it can differ from the exported model."""

import ast
import pathlib

import numpy as np
import pytest

from tests.serving.planted import VOCABULARY
from tests.serving.served_model_test import SEEN, K
from trainer.compat import tf
from trainer.evaluation.item_lists import ItemLists
from trainer.serving import served_model, serving_layout, verify_served
from trainer.serving.export import load_export
from trainer.serving.served_model import ServedModel


class TurnedModel(ServedModel):
    """Returns the best items of a history in another order."""

    def _recommend_from_history(self, *arguments, **named):
        found = super()._recommend_from_history(*arguments, **named)
        return found | {"item_ids": found["item_ids"][:, ::-1]}


class DeafModel(ServedModel):
    """Recommends what a request excludes."""

    def _recommend_excluding(self, user_ids, excluded_item_ids):
        return super()._recommend_excluding(user_ids, excluded_item_ids[:, :0])


class BoastfulModel(ServedModel):
    """Says that it knows everything."""

    def _score(self, user_ids, item_ids):
        found = super()._score(user_ids, item_ids)
        return found | {"known": tf.ones_like(found["known"])}


class SilentModel(ServedModel):
    """Does not say what it knows."""

    def _similar_items(self, item_ids):
        found = super()._similar_items(item_ids)
        del found["known"]
        return found


class PoorModel(ServedModel):
    """Has no similar items."""

    def build_signatures(self):
        signatures = super().build_signatures()
        del signatures["similar_items"]
        return signatures


@pytest.mark.parametrize(
    ("kind", "seen", "difference"),
    [
        (ServedModel, SEEN, None),
        (ServedModel, ItemLists.empty(3), "the item_ids of recommend differ from those of the exported model"),
        (TurnedModel, SEEN, "the item_ids of recommend_from_history differ from those of the exported model"),
        (DeafModel, SEEN, "the item_ids of recommend_excluding differ from those of the exported model"),
        (BoastfulModel, SEEN, "the known of score differ from those of the exported model"),
        (
            SilentModel,
            SEEN,
            "the results of similar_items are item_ids, scores, titles and not item_ids, known, scores",
        ),
        (PoorModel, SEEN, "its signatures differ from those expected in similar_items"),
    ],
)
def test_the_first_difference_is_returned(pooled_folder, tmp_path, kind, seen, difference):
    model = load_export(str(pooled_folder))
    served = kind(model, seen, k=K)
    signatures = served.build_signatures()
    folder = str(tmp_path / "1")
    tf.saved_model.save(served, folder, signatures={**signatures, "serving_default": signatures["recommend"]})
    sample = serving_layout._build_sample(VOCABULARY, SEEN, folder, str(pooled_folder), k=K)
    assert sample["user_ids"] == ["u", "v", ""] and sample["seen"] == [["e", "a", "c"], ["b"], []]
    found = verify_served.compare(sample)
    assert found == difference or found.startswith(difference)


def test_the_script_needs_nothing_of_this_project():
    tree = ast.parse(pathlib.Path(verify_served.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.name for node in imports if isinstance(node, ast.Import) for name in node.names}
    assert names == {"json", "sys", "numpy", "tensorflow"}
    assert {node.module for node in imports if isinstance(node, ast.ImportFrom)} == {"typing", "collections.abc"}


def test_both_files_have_the_same_lowest_score():
    assert verify_served.LOWEST_SCORE == served_model.LOWEST_SCORE == float(np.finfo(np.float32).min)
