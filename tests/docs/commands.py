"""How the commands of the documents are run: each page in a folder with small files of the names that it uses."""

import pathlib
import re
import shlex
import zipfile

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tests.conftest import REPOSITORY
from trainer.data.synthetic import generate_ratings

RUN = "run"

_OF_TENSORFLOW = re.compile(r"WARNING: All log messages before|[IWE]\d{4} |\d{4}-\d\d-\d\d |To enable the following")

_RUN = re.compile(r"^(python -m (trainer|launch)\.|listwise )")

_NEEDS = {
    "the cloud": r"gs://|python -m launch\.vertex",
    "other machines, a TPU or GPUs": r"TF_CONFIG=|--strategy=tpu --workdir|--extra gpu|'\.\[gpu\]'",
    "a container engine or a server": r"^(docker|curl|gcloud|make image)",
    "a browser": r"^tensorboard ",
    "hours; tests/benchmarks tests its parts": r"^make bench|^python -m benchmarks\.",
    "an installation; CI makes it": r"^make |^pip |^python -m venv ",
    "values in the place of the dots": r"\.\.\.( |$)",
    "a test of its own, tests/examples/scripts_test.py": r"^(\S+ )?examples/",
    "Apache Beam; make test-beam tests it": r"--runner=",
}
"""What a command needs that this test does not have → the commands. No command is left out without a reason."""


_PLACEHOLDERS = {
    "uri=IMAGE": "uri=us-docker.pkg.dev/my-project/listwise/trainer:1",
    "REGION-docker": "us-docker",
    "PROJECT": "my-project",
    "REPOSITORY": "listwise",
    "BUCKET": "my-bucket",
}


def kind_of(command: str) -> str | None:
    """RUN, or what the command needs that the test does not have; None for a command that nobody has thought of."""
    if "--dry_run" in command and "--runner=" not in command:
        return RUN
    for need, pattern in _NEEDS.items():
        if re.search(pattern, command):
            return need
    return RUN if _RUN.match(command) else None


def shortened(command: str) -> list[str]:
    """The arguments of a command, with values for its placeholders.

    If it trains and sets no number of epochs, it trains for two.
    """
    words = shlex.split(re.sub("|".join(_PLACEHOLDERS), lambda match: _PLACEHOLDERS[match[0]], command))
    trains = re.match(r"^(python -m (trainer\.(main|tune)|launch\.local)|listwise (train|tune))", command)
    if trains and "--help" not in words and not any("train.num_epochs" in word for word in words):
        words.append("--config.train.num_epochs=2")
    return [word.replace("--num_trials=30", "--num_trials=2") for word in words]


def noise_of(stderr: str, *, plain_tensorflow: bool = False) -> list[str]:
    """The lines of stderr that something which works has no reason to print.

    Args:
      stderr: what it printed.
      plain_tensorflow: whether it imports TensorFlow without this project. TensorFlow then tells about the machine.
    """
    lines = [line for line in stderr.splitlines() if line and not line.startswith("warning: ")]
    return [line for line in lines if not (plain_tensorflow and _OF_TENSORFLOW.match(line))]


def write_files(folder: pathlib.Path) -> None:
    """Writes the files that the documents name, and links the folders of the repository."""
    for name in ("configs", "examples"):
        (folder / name).symlink_to(REPOSITORY / name)
    drawn = generate_ratings(num_users=200, num_items=300, num_ratings=8_000)
    titles = dict(zip(drawn.items["item_id"].to_pylist(), drawn.items["title"].to_pylist(), strict=True))
    ratings = drawn.ratings
    names = pa.array([titles[item_id] for item_id in ratings["item_id"].to_pylist()])
    pa.csv.write_csv(ratings.append_column("title", names), folder / "ratings.csv")
    mine = ratings.slice(0, 12).select(["item_id", "rating"])
    pa.csv.write_csv(mine, folder / "mine.csv")
    pa.parquet.write_table(ratings.slice(100, 50).select(["user_id", "item_id"]), folder / "candidates.parquet")
    shop = ratings.select(["user_id", "item_id", "rating"]).rename_columns(["buyer", "sku", "stars"])
    pa.csv.write_csv(shop, folder / "shop.csv")
    _write_lines(folder / "train.txt", ratings.slice(0, 6_000))
    _write_lines(folder / "test.txt", ratings.slice(6_000))
    _write_movielens_100k(folder / "ml-100k.zip", drawn.ratings, drawn.items)
    _write_movielens_1m(folder / "ml-1m.zip", drawn.ratings, drawn.items)
    _write_movielens_25m(folder / "ml-25m.zip", drawn.ratings, drawn.items)


def _write_movielens_100k(path: pathlib.Path, ratings: pa.Table, items: pa.Table) -> None:
    rows = [
        f"{row['user_id']}\t{row['item_id']}\t{row['rating']:.0f}\t{row['timestamp']}" for row in ratings.to_pylist()
    ]
    films = [f"{row['item_id']}|{row['title']}|01-Jan-1995||" + "|0" * 18 + "|1" for row in items.to_pylist()]
    users = [f"{user}|30|F|writer|55414" for user in sorted(set(ratings["user_id"].to_pylist()))]
    files = {"u.data": rows, "u.item": films, "u.user": users}
    _write_zip(path, {f"ml-100k/{name}": lines for name, lines in files.items()})


def _write_movielens_1m(path: pathlib.Path, ratings: pa.Table, items: pa.Table) -> None:
    rows = [
        f"{row['user_id']}::{row['item_id']}::{row['rating']:.0f}::{row['timestamp']}" for row in ratings.to_pylist()
    ]
    films = [f"{row['item_id']}::{row['title']}::{'|'.join(row['genres'])}" for row in items.to_pylist()]
    users = [f"{user}::F::25::10::55414" for user in sorted(set(ratings["user_id"].to_pylist()))]
    files = {"ratings.dat": rows, "movies.dat": films, "users.dat": users}
    _write_zip(path, {f"ml-1m/{name}": lines for name, lines in files.items()})


def _write_movielens_25m(path: pathlib.Path, ratings: pa.Table, items: pa.Table) -> None:
    rows = [f"{row['user_id']},{row['item_id']},{row['rating']:.1f},{row['timestamp']}" for row in ratings.to_pylist()]
    films = [f"{row['item_id']},{row['title']},{'|'.join(row['genres'])}" for row in items.to_pylist()]
    files = {
        "ratings.csv": ["userId,movieId,rating,timestamp", *rows],
        "movies.csv": ["movieId,title,genres", *films],
    }
    _write_zip(path, {f"ml-25m/{name}": lines for name, lines in files.items()})


def _write_lines(path: pathlib.Path, ratings: pa.Table) -> None:
    items_of: dict[str, list[str]] = {}
    for row in ratings.to_pylist():
        items_of.setdefault(row["user_id"], []).append(row["item_id"])
    path.write_text("".join(f"{user} {' '.join(items)}\n" for user, items in items_of.items()))


def _write_zip(path: pathlib.Path, files: dict[str, list[str]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, lines in files.items():
            archive.writestr(name, "\n".join(lines).encode("latin-1", "replace") + b"\n")
