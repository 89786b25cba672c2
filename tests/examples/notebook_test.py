"""Runs the cells of the notebook in this process."""

import ast
import functools
import json

import pyarrow as pa
import pytest

from tests.conftest import REPOSITORY
from trainer import api
from trainer.serving.export import verify_in_this_process
from trainer.training.run import train_and_evaluate

NOTEBOOK = json.loads((REPOSITORY / "examples" / "notebook.ipynb").read_text())
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run_cell(source, names):
    """Runs a cell and returns the value of its last expression, which a notebook shows."""
    *statements, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        exec(compile(ast.parse(source), "cell", "exec"), names)
        return None
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What each cell shows, and the names that the cells define."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        patch.setattr(
            api, "train_and_evaluate", functools.partial(train_and_evaluate, verify_export=verify_in_this_process)
        )
        names = {"__name__": "__main__"}
        values = [run_cell(source, names) for source in CELLS]
        yield values, names


def test_the_model_is_judged_and_beats_a_random_order(shown):
    values, names = shown
    metrics = names["run"].metrics["catalogue"]
    assert metrics["model"]["ndcg@10"].value > metrics["random"]["ndcg@10"].value
    assert set(values[2].index) == set(metrics)


def test_each_user_gets_five_unseen_items(shown):
    values, names = shown
    found = pa.Table.from_pandas(values[3])
    assert found["user_id"].to_pylist() == ["42"] * 5 + ["7"] * 5
    ratings = names["ratings"]
    seen = set(zip(ratings["user_id"], ratings["item_id"], strict=True))
    assert not seen & set(zip(found["user_id"].to_pylist(), found["item_id"].to_pylist(), strict=True))


def test_an_excluded_item_is_not_served(shown):
    values, names = shown
    titles = names["titles"]
    assert len(values[5]) == 3
    assert not {titles["1"], titles["2"]} & set(values[5])
