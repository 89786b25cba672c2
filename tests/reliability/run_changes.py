"""What is done to a finished run, and the cases of its commands afterwards."""

import json
import os
import pathlib
import pickle
import shutil
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.reliability.corpus import CONFIG, STORAGE, Case, Place
from tests.reliability.corpus_sources import Canary, deep, flip

Change = Callable[[pathlib.Path], object]

COMMANDS: dict[str, tuple[str, ...]] = {
    "recommend": ("trainer.recommend", "--workdir=RUN", "--user_id=u1"),
    "similar items": ("trainer.recommend", "--workdir=RUN", "--item_id=i1"),
    "ratings": ("trainer.recommend", "--workdir=RUN", "--ratings=DATA"),
    "pairs": ("trainer.recommend", "--workdir=RUN", "--pairs=DATA", "--output=OUT/scored.csv"),
    "evaluate": ("trainer.evaluate", "--workdir=RUN"),
    "export": ("trainer.export", "--workdir=RUN", "--output=OUT/served"),
    "vectors": ("trainer.export", "--workdir=RUN", "--vectors=OUT/vectors"),
    "compare": ("trainer.compare", "RUN"),
    "report": ("trainer.report", "RUN", "--output=OUT/report.html"),
    "resume": ("trainer.main", "--config=CONFIG", "--workdir=RUN"),
}


def words(command: str, place: Place, run: pathlib.Path, data: str = "") -> tuple[str, ...]:
    values = {"RUN": str(run), "OUT": str(place.folder), "CONFIG": place.config, "DATA": data}
    found = COMMANDS[command]
    for name, value in values.items():
        found = tuple(word.replace(name, value) for word in found)
    return found


def changed_run(
    name: str, change: Change, says: str, *commands: str, exit_code: int = STORAGE, data: str = "ratings.csv"
) -> list[Case]:
    """A case for each command, of a copy of the finished run to which `change` was done."""

    def case(command: str) -> Case:
        def make(place: Place) -> tuple[str, ...]:
            run = place.run()
            change(run)
            return words(command, place, run, place.file(data, "user_id,item_id,rating,timestamp\nu1,i1,5,1\n"))

        return Case(f"{command}: {name}", make, exit_code, says)

    return [case(command) for command in commands]


def edit(name: str, **fields: Any) -> Change:
    """Sets fields of a JSON file of the run. The dots of a name are written as __."""

    def change(run: pathlib.Path) -> None:
        record = json.loads((run / name).read_text())
        for path, value in fields.items():
            *parents, last = path.split("__")
            part = record
            for parent in parents:
                part = part[parent]
            part[last] = value
        (run / name).write_text(json.dumps(record))

    return change


def write(name: str, content: bytes | str) -> Change:
    return lambda run: (run / name).write_bytes(content.encode() if isinstance(content, str) else content)


def nested(name: str) -> Change:
    def change(run: pathlib.Path) -> None:
        shutil.move(deep(str(run)), run / name)

    return change


def half(name: str) -> Change:
    return lambda run: os.truncate(run / name, (run / name).stat().st_size // 2)


def flipped(name: str) -> Change:
    return lambda run: flip(str(run / name), (run / name).stat().st_size // 2)


def special(name: str, make_file: Callable[[str], object]) -> Change:
    def change(run: pathlib.Path) -> None:
        (run / name).unlink()
        make_file(str(run / name))

    return change


def edited_table(name: str, **columns: Callable[[list[Any]], list[Any]]) -> Change:
    """Changes columns of a Parquet file of the run."""

    def change(run: pathlib.Path) -> None:
        table = pq.read_table(run / name)
        for column, changed in columns.items():
            position = table.schema.get_field_index(column)
            field = table.schema.field(position)
            table = table.set_column(position, field, pa.array(changed(table[column].to_pylist()), field.type))
        pq.write_table(table, run / name)

    return change


def rotated(values: list[Any]) -> list[Any]:
    """The first value stays: it is that of the unknown user or item."""
    return [values[0], *values[2:], values[1]]


def damaged_json(name: str, *commands: str, says: str | None = None) -> list[Case]:
    """What happens to any JSON file."""
    changes = {
        "is empty": write(name, b""),
        "is cut": half(name),
        "is a list": write(name, b"[1, 2]"),
        "is nested deep": nested(name),
        "has no UTF-8": write(name, b"\xff\xfe\x00"),
        "is a pickle": lambda run: write(name, pickle.dumps(Canary(str(run.parent / "canary"))))(run),
        "is a folder": special(name, os.mkdir),
    }
    return [
        case
        for what, change in changes.items()
        for case in changed_run(f"{name} {what}", change, says or name, *commands)
    ]


def damaged_model(name: str) -> list[Case]:
    path = f"model/{name}"
    changes = {
        "is cut": half(path),
        "has a changed bit": flipped(path),
        "is missing": lambda run: (run / path).unlink(),
        "is empty": lambda run: os.truncate(run / path, 0),
        "is a folder": special(path, os.mkdir),
    }
    commands = ("recommend", "evaluate", "export") if name == "saved_model.pb" else ("recommend",)
    return [
        case for what, change in changes.items() for case in changed_run(f"{path} {what}", change, "model", *commands)
    ]


def resumed_on(name: str, change: Callable[[str], str]) -> list[Case]:
    """The command of the finished run, on ratings that were edited since."""

    def make(place: Place) -> tuple[str, ...]:
        source = place.file("edited.csv", change((place.finished.parent / "ratings.csv").read_text()))
        return (*words("resume", place, place.run()), f"--config.data.source={source}")

    return [Case(f"resume: {name}", make, CONFIG, "the fingerprint of its titles and genres was")]


def unlisted(run: pathlib.Path) -> None:
    """The manifest lists nothing, and the model is changed."""
    edit("model/manifest.json", files={})(run)
    flipped("model/saved_model.pb")(run)


def of_another_run(run: pathlib.Path) -> None:
    """The vocabulary of a run on other users: it has one user less."""
    table = pq.read_table(run / "vocabulary/users.parquet")
    pq.write_table(table.slice(0, table.num_rows - 1), run / "vocabulary/users.parquet")


def words_for_metrics(run: pathlib.Path) -> pa.Table:
    table = pq.read_table(run / "queries.parquet")
    return table.set_column(3, table.schema.field(3).name, pa.array(["x"] * table.num_rows))
