"""Finished runs with a file that is missing, damaged, edited or of another run, and files that are asked about."""

import os
import pickle
import shutil
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from tests.reliability.corpus import CONFIG, DATA, STORAGE, Case, Place
from tests.reliability.corpus_sources import Canary, listening, pipe
from tests.reliability.run_changes import (
    changed_run,
    damaged_json,
    damaged_model,
    edit,
    edited_table,
    flipped,
    half,
    nested,
    of_another_run,
    resumed_on,
    rotated,
    unlisted,
    words,
    words_for_metrics,
    write,
)


def question(name: str, command: str, data: str, content: bytes | str, says: str, exit_code: int = DATA) -> Case:
    """Asks the finished run about a file."""

    def make(place: Place) -> tuple[str, ...]:
        return words(command, place, place.finished, place.file(data, content))

    return Case(f"{command}: {name}", make, exit_code, says)


def special_question(name: str, command: str, make_file: Callable[[str], object], says: str) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        path = str(place.path("asked.csv"))
        make_file(path)
        return words(command, place, place.finished, path)

    return Case(f"{command}: {name}", make, STORAGE, says)


VOCABULARY, ITEMS, SEEN = "vocabulary/users.parquet", "vocabulary/items.parquet", "seen.parquet"
WRITES_AGAIN = "it writes the file again from the data"
MODEL_FILES = (
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
)
MISSING = "missing.txt"

CASES = [
    *damaged_json("config.json", "recommend", "resume"),
    *damaged_json("data.json", "ratings", "evaluate", "report", "resume"),
    *damaged_json("result.json", "compare", "report", "resume"),
    *damaged_json("model/manifest.json", "recommend", says="its manifest.json"),
    *changed_run("no config.json", lambda run: (run / "config.json").unlink(), "config.json", "resume"),
    *changed_run(
        "no data.json", lambda run: (run / "data.json").unlink(), "data.json", "recommend", "ratings", "resume"
    ),
    *changed_run("config is a list", edit("config.json", config=[1]), "config.json", "recommend", "resume"),
    *changed_run(
        "a field of another type",
        edit("config.json", config__seed="a"),
        "config.seed",
        "recommend",
        "report",
        exit_code=CONFIG,
    ),
    *changed_run(
        "a field that is null", edit("config.json", config__train=None), "config.train", "recommend", exit_code=CONFIG
    ),
    *changed_run("an unknown field", edit("config.json", config__sed=1), "config.sed", "recommend", exit_code=CONFIG),
    *changed_run("another seed", edit("config.json", config__seed=7), "config.seed: 7 → 0", "resume", exit_code=CONFIG),
    *changed_run("chosen values in a list", edit("config.json", chosen=[1]), "config.json", "resume", "report"),
    *changed_run(
        "chosen values that differ",
        edit("config.json", chosen={"optimizer.name": "x"}),
        "config.",
        "resume",
        exit_code=CONFIG,
    ),
    *changed_run(
        "another version",
        edit("config.json", format_version=99),
        "a later version",
        "recommend",
        "resume",
        exit_code=CONFIG,
    ),
    *changed_run("an infinite version", write("config.json", '{"format_version": 1e999}'), "config.json", "recommend"),
    *changed_run("fingerprints in a list", edit("data.json", fingerprints=[1]), "data.json", "recommend", "resume"),
    *changed_run(
        "other fingerprints",
        edit("data.json", fingerprints__queries="0" * 64),
        "was 000000000000",
        "resume",
        "evaluate",
        exit_code=CONFIG,
    ),
    *changed_run(
        "other titles",
        edit("data.json", **{"fingerprints__titles and genres": "0" * 64}),
        "titles and genres",
        "resume",
        exit_code=CONFIG,
    ),
    *changed_run(
        "another vocabulary in data.json",
        edit("data.json", fingerprints__vocabulary="0" * 64),
        "vocabulary",
        "recommend",
    ),
    *changed_run(
        "a number for a fingerprint", edit("data.json", fingerprints__vocabulary=7), "vocabulary", "recommend"
    ),
    *changed_run(
        "no fingerprint of seen items",
        edit("data.json", **{"fingerprints__seen items": None}),
        "seen items",
        "recommend",
    ),
    *changed_run("rows that are words", edit("data.json", rows={"read": "x", "used": "y"}), "data.json", "report"),
    *changed_run("counts in a list", edit("data.json", num_ratings=[1]), "data.json", "report"),
    *changed_run("a number of users in words", edit("data.json", num_users="many"), "data.json", "report"),
    *changed_run("times beyond all years", edit("data.json", periods__train=[0, 10**30]), "data.json", "report"),
    *changed_run("no rows", edit("data.json", rows=None), "data.json", "report"),
    *changed_run("a step in words", edit("result.json", step="last"), "result.json", "report", "compare", "resume"),
    *changed_run("no verdict", edit("result.json", verdict=None), "result.json", "report", "resume"),
    *changed_run("a verdict of words", edit("result.json", verdict="good"), "result.json", "report", "resume"),
    *changed_run("protocols in a list", edit("result.json", protocols=[1]), "result.json", "report", "resume"),
    *changed_run(
        "a number for metrics", edit("result.json", protocols__rated__model=3), "result.json", "report", "resume"
    ),
    *changed_run(
        "a word for a metric",
        edit("result.json", **{"protocols__rated__model__ndcg@5__value": "x"}),
        "result.json",
        "report",
        "resume",
    ),
    *changed_run(
        "a metric of other fields",
        edit("result.json", **{"protocols__rated__model__ndcg@5": {"mean": 1}}),
        "result.json",
        "report",
        "resume",
    ),
    *changed_run(
        "a protocol without the model", edit("result.json", protocols__rated={}), "result.json", "report", "resume"
    ),
    *changed_run("training metrics in a list", edit("result.json", train=[1]), "result.json", "report", "resume"),
    *changed_run(
        "recommendations in a list", edit("result.json", recommendations=[1]), "result.json", "report", "resume"
    ),
    *changed_run("a number for warnings", edit("result.json", warnings=3), "result.json", "report", "resume"),
    *changed_run("no recommendations", edit("result.json", recommendations={}), "result.json", "report", "resume"),
    *changed_run("breakdowns in a list", edit("result.json", breakdowns=[1]), "result.json", "report"),
    *changed_run(
        "breakdowns of words",
        edit("result.json", breakdowns={"user_activity": {"groups": "x"}}),
        "result.json",
        "report",
    ),
    *changed_run("a speed of words", edit("result.json", speed={"strategy": 1}), "result.json", "report", "resume"),
    *changed_run("a split that is a number", edit("result.json", held_out=7), "result.json", "report", "compare"),
    *changed_run("curves that are no JSON", write("metrics.jsonl", "step 1\n"), "metrics.jsonl", "report"),
    *changed_run("curves of other fields", write("metrics.jsonl", '{"a": 1}\n'), "metrics.jsonl", "report"),
    *changed_run(
        "curves of words",
        write("metrics.jsonl", '{"step": 1, "epoch": "x", "split": "train", "metrics": {"loss": "x"}}\n'),
        "metrics.jsonl",
        "report",
    ),
    *changed_run(
        "curves of numbers without end",
        write("metrics.jsonl", '{"step": 1, "epoch": 1' + "0" * 400 + ', "split": "train", "metrics": {"loss": 1}}\n'),
        "metrics.jsonl",
        "report",
    ),
    *changed_run("curves that are nested deep", nested("metrics.jsonl"), "metrics.jsonl", "report"),
    *changed_run("no queries.parquet", lambda run: (run / "queries.parquet").unlink(), "queries", "compare", "report"),
    *changed_run("half of queries.parquet", half("queries.parquet"), "queries.parquet", "compare", "report"),
    *changed_run("a changed bit in queries.parquet", flipped("queries.parquet"), "queries.parquet", "compare"),
    *changed_run(
        "queries.parquet of another table",
        lambda run: pq.write_table(pa.table({"a": [1]}), run / "queries.parquet"),
        "queries.parquet",
        "compare",
        "report",
    ),
    *changed_run(
        "queries.parquet with other metadata",
        lambda run: pq.write_table(
            pq.read_table(run / "queries.parquet").replace_schema_metadata(
                {"listwise_queries": '{"format_version": 1, "split": 5, "protocols": [3]}'}
            ),
            run / "queries.parquet",
        ),
        "queries.parquet",
        "compare",
        "report",
    ),
    *changed_run(
        "queries.parquet with metrics of words",
        lambda run: pq.write_table(words_for_metrics(run), run / "queries.parquet"),
        "queries.parquet",
        "compare",
        "report",
    ),
    *changed_run(
        "queries.parquet is nested deep",
        lambda run: pq.write_table(
            pq.read_table(run / "queries.parquet").replace_schema_metadata({"listwise_queries": "[" * 100_000}),
            run / "queries.parquet",
        ),
        "queries.parquet",
        "compare",
    ),
    *changed_run(
        "permuted users",
        edited_table(VOCABULARY, user_id=rotated),
        WRITES_AGAIN,
        "recommend",
        "evaluate",
        "export",
        "report",
        "ratings",
    ),
    *changed_run("permuted items", edited_table(ITEMS, item_id=rotated), WRITES_AGAIN, "recommend", "similar items"),
    *changed_run(
        "permuted titles",
        edited_table(ITEMS, title=rotated),
        WRITES_AGAIN,
        "recommend",
        "similar items",
        "export",
        "report",
        "pairs",
    ),
    *changed_run(
        "other genres", edited_table(ITEMS, genres=lambda all: [["Drama"]] * len(all)), WRITES_AGAIN, "recommend"
    ),
    *changed_run("other numbers of ratings", edited_table(ITEMS, num_ratings=rotated), WRITES_AGAIN, "recommend"),
    *changed_run("another order of the index", edited_table(ITEMS, index=rotated), "index column", "recommend"),
    *changed_run(
        "a title that is missing", edited_table(ITEMS, title=lambda all: [*all[:-1], None]), WRITES_AGAIN, "recommend"
    ),
    *changed_run("the users of another run", of_another_run, WRITES_AGAIN, "recommend", "evaluate", "vectors"),
    *changed_run("half of the users", half(VOCABULARY), WRITES_AGAIN, "recommend", "evaluate", "export", "ratings"),
    *changed_run("no items", lambda run: (run / ITEMS).unlink(), WRITES_AGAIN, "recommend", "report"),
    *changed_run("no vocabulary", lambda run: shutil.rmtree(run / "vocabulary"), WRITES_AGAIN, "recommend", "evaluate"),
    *changed_run("other seen items", edited_table(SEEN, items=rotated), WRITES_AGAIN, "recommend", "export", "report"),
    *changed_run(
        "seen items that do not exist",
        edited_table(SEEN, items=lambda all: [[10**6]] * len(all)),
        WRITES_AGAIN,
        "recommend",
    ),
    *changed_run(
        "seen items of fewer users",
        lambda run: pq.write_table(pq.read_table(run / SEEN).slice(0, 3), run / SEEN),
        WRITES_AGAIN,
        "recommend",
    ),
    *changed_run("half of the seen items", half(SEEN), WRITES_AGAIN, "recommend", "export"),
    *changed_run("no seen items", lambda run: (run / SEEN).unlink(), WRITES_AGAIN, "recommend", "report"),
    *[case for name in MODEL_FILES for case in damaged_model(name)],
    *resumed_on("other titles in the data", lambda text: text.replace("Film 3", "Movie 3")),
    *resumed_on(
        "genres that were added to the data",
        lambda text: "".join(
            f"{line},{'Drama' if number else 'genres'}\n" for number, line in enumerate(text.splitlines())
        ),
    ),
    *changed_run("a manifest that lists nothing", unlisted, "model", "recommend", "evaluate", "export"),
    *changed_run(
        "a manifest of words",
        edit("model/manifest.json", files={"saved_model.pb": 5}, vocabulary=7),
        "manifest",
        "recommend",
    ),
    *changed_run(
        "a manifest with ../",
        edit("model/manifest.json", files={"../config.json": "0"}),
        "../config.json is missing",
        "recommend",
    ),
    *changed_run(
        "a manifest with NUL", edit("model/manifest.json", files={"a\0b": "0"}), "a\\x00b is missing", "recommend"
    ),
    *changed_run(
        "a canary in the model",
        lambda run: write("model/keras_model.h5", pickle.dumps(Canary(str(run.parent / "canary"))))(run),
        "keras_model.h5",
        "recommend",
        "evaluate",
        "export",
    ),
    *changed_run(
        "no model",
        lambda run: shutil.rmtree(run / "model"),
        "no exported model",
        "recommend",
        "evaluate",
        "export",
        "report",
        exit_code=CONFIG,
    ),
    *changed_run(
        "a file as the model",
        lambda run: (shutil.rmtree(run / "model"), write("model", "x")(run)),
        "model",
        "recommend",
        "evaluate",
        "export",
    ),
    question("an empty file", "ratings", "asked.csv", b"", "is empty"),
    question("other columns", "ratings", "asked.csv", "a,b\n1,2\n", "a"),
    question("a bad rating", "ratings", "asked.csv", "item_id,rating\ni1,nan\n", "rating_not_a_number"),
    question("unknown items", "ratings", "asked.csv", "item_id,rating\nx,5\n", "have none of their items", 1),
    question("many users", "ratings", "asked.csv", "user_id,item_id,rating\na,i1,5\nb,i1,5\n", "has 2 users", CONFIG),
    question("no UTF-8", "ratings", "asked.csv", b"item_id,rating\n\xff,5\n", "is not UTF-8 text"),
    question("Parquet that is none", "ratings", "asked.parquet", b"PAR1", "cannot be read"),
    question("an id of escapes", "ratings", "asked.csv", 'user_id,item_id,rating\n"\x1b[2J",x,5\n', "'\\x1b[2J'", 1),
    question("an empty file", "pairs", "asked.csv", b"", "asked.csv"),
    question("a header with a column twice", "pairs", "asked.csv", "user_id,user_id,item_id\n1,2,3\n", "user_id"),
    question("no items", "pairs", "asked.csv", "user_id,x\nu1,1\n", "the ids of the items"),
    question("rows of other lengths", "pairs", "asked.csv", "user_id,item_id\nu1,i1\nu2\n", "asked.csv"),
    question(
        "a column of the result", "pairs", "asked.csv", "user_id,item_id,score\nu1,i1,2\n", "has a column 'score'"
    ),
    question("no UTF-8", "pairs", "asked.csv", b"user_id,item_id\n\xff,i1\n", "is not UTF-8 text"),
    question("Parquet that is none", "pairs", "asked.parquet", b"PAR1" * 9, "cannot be read"),
    question("another format", "pairs", MISSING, "x", "pairs are read from files that end in", CONFIG),
    special_question("a named pipe", "ratings", pipe, "is a named pipe"),
    special_question("a named pipe", "pairs", pipe, "is a named pipe"),
    special_question("a socket", "pairs", listening, "is a socket"),
    special_question("an endless device", "pairs", lambda path: os.symlink("/dev/zero", path), "is a device"),
]
