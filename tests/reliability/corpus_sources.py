"""Sources that are no regular file, archives, folders, and files that would run code if they were loaded."""

import os
import pickle
import shutil
import socket
import stat
import zipfile
from collections.abc import Callable

from tests.reliability.corpus import CONFIG, DATA, STORAGE, Case, Place
from tests.reliability.corpus_tables import GOOD, rows

MOVIES = "movieId,title,genres\n" + "".join(f"{i},Film {i},Drama\n" for i in range(10))
RATINGS = "userId,movieId,rating,timestamp\n" + "".join(f"{i % 8},{i % 10},{1 + i % 5},{i}\n" for i in range(40))


class Canary:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def archive(name: str, members: dict[str, str | bytes], says: str, *, links: tuple[str, ...] = ()) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        path = place.path("ratings.zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for member, content in members.items():
                facts = zipfile.ZipInfo(member)
                if member in links:
                    facts.external_attr = (stat.S_IFLNK | 0o777) << 16
                packed.writestr(facts, content)
        return place.train_on(str(path))

    return Case(name, make, DATA, says)


def changed_archive(name: str, change: Callable[[bytes], bytes], says: str) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        path = place.path("ratings.zip")
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("ratings.csv", RATINGS)
            packed.writestr("movies.csv", MOVIES)
        path.write_bytes(change(path.read_bytes()))
        return place.train_on(str(path))

    return Case(name, make, DATA, says)


def folder(name: str, members: dict[str, str | bytes], says: str) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        for member, content in members.items():
            place.file(f"data/{member}", content)
        place.path("data/x").parent.mkdir(exist_ok=True)
        return place.train_on(str(place.folder / "input" / "data"))

    return Case(name, make, DATA, says)


def pipe(path: str) -> None:
    os.mkfifo(path)


def listening(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        # Its path may be too long for a socket.
        before = os.getcwd()
        os.chdir(os.path.dirname(path))
        end.bind(os.path.basename(path))
        os.chdir(before)


def special(name: str, make_file: Callable[[str], object], says: str, *, file: str = "ratings.csv") -> Case:
    def make(place: Place) -> tuple[str, ...]:
        path = str(place.path(file))
        make_file(path)
        return place.train_on(path)

    return Case(name, make, STORAGE, says)


def in_folder(name: str, make_file: Callable[[str], object], says: str) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        place.file("data/a.csv", GOOD)
        make_file(str(place.path("data/b.csv")))
        return place.train_on(str(place.folder / "input" / "data"))

    return Case(name, make, STORAGE, says)


def canary_data(place: Place) -> tuple[str, ...]:
    """A pickle as the table, beside a model and more pickles."""
    content = pickle.dumps(Canary(str(place.folder / "canary")))
    for name in ("ratings.csv", "model.h5", "ratings.pkl", "weights.npy", "movies.csv"):
        path = place.file(f"data/{name}", content)
    return place.train_on(os.path.dirname(path))


def canary_archive(place: Place) -> tuple[str, ...]:
    content = pickle.dumps(Canary(str(place.folder / "canary")))
    path = place.path("ratings.zip")
    with zipfile.ZipFile(path, "w") as packed:
        for name in ("ratings.csv", "movies.csv", "../canary", "/canary", "model.h5"):
            packed.writestr(name, content)
    return place.train_on(str(path))


def prepared(place: Place) -> tuple[str, str]:
    """A prepared data set, and the flag that names it."""
    from tests.reliability.commands import call

    output = str(place.path("prepared"))
    answer = call("trainer.prepare", f"--config={place.config}", f"--output={output}")
    assert answer.exit_code == 0, answer
    return output, f"--config.data.source={output}"


def changed_prepared(name: str, change: Callable[[str], object], says: str, exit_code: int = STORAGE) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        output, flag = prepared(place)
        change(output)
        return place.train(flag)

    return Case(name, make, exit_code, says)


def shard(output: str, name: str = "train.items.npy") -> str:
    return f"{output}/shards/00000-of-00001/{name}"


def flip(path: str, position: int = -1) -> None:
    with open(path, "r+b") as file:
        content = bytearray(file.read())
        content[position] ^= 1
        file.seek(0)
        file.write(content)


def replace(path: str, old: str, new: str) -> None:
    with open(path) as file:
        text = file.read()
    assert old in text, (path, old)
    with open(path, "w") as file:
        file.write(text.replace(old, new, 1))


def unpickled(output: str) -> None:
    import numpy as np

    path = shard(output)
    np.save(path, np.array([Canary(f"{output}/canary")], object), allow_pickle=True)


CASES = [
    Case("no such file", lambda place: place.train_on("/no/such/ratings.csv"), CONFIG, "there is no such file or"),
    Case("a name with ../", lambda place: place.train_on("../../nothing/ratings.csv"), CONFIG, "there is no such file"),
    Case("a name with NUL", lambda place: place.train_on("ratings\0.csv"), STORAGE, "it contains a NUL byte"),
    Case("a name with a line break", lambda place: place.train_on("a\nb.csv"), CONFIG, "there is no such file"),
    Case("a name that is not UTF-8", lambda place: place.train_on("a\udcff.csv"), CONFIG, "'a\\udcff.csv' cannot be"),
    Case("a name that is too long", lambda place: place.train_on("x" * 300 + ".csv"), CONFIG, "there is no such file"),
    Case("an unknown scheme", lambda place: place.train_on("http://host/ratings.csv"), STORAGE, "no file system for"),
    special("a named pipe", pipe, "is a named pipe"),
    special("a named pipe of lines", pipe, "is a named pipe", file="lines.txt"),
    special("a named pipe as Parquet", pipe, "is a named pipe", file="ratings.parquet"),
    special("a named pipe as gzip", pipe, "is a named pipe", file="ratings.csv.gz"),
    special("a named pipe as an archive", pipe, "is a named pipe", file="ratings.zip"),
    special("a socket", listening, "is a socket"),
    special("an endless device", lambda path: os.symlink("/dev/zero", path), "is a device"),
    special("an empty device", lambda path: os.symlink("/dev/null", path), "is a device"),
    in_folder("a named pipe in a folder", pipe, "b.csv is a named pipe"),
    in_folder("an endless device in a folder", lambda path: os.symlink("/dev/zero", path), "b.csv is a device"),
    Case(
        "a link to nothing",
        lambda place: (os.symlink("nothing", place.path("a.csv")), place.train_on(str(place.path("a.csv"))))[1],
        CONFIG,
        "there is no such file",
    ),
    folder("a folder that is named like a table", {"ratings.csv/x": "y"}, "no .csv"),
    folder("an empty folder", {}, "found: nothing"),
    folder("a folder of other files", {"model.h5": b"\x89HDF", "data.pkl": b"\x80"}, "found: data.pkl, model.h5"),
    folder("tables in subfolders", {"a/ratings.csv": GOOD}, "has tables in subfolders"),
    folder(
        "files with other columns",
        {"a.csv": GOOD, "b.csv": "user,item_id,rating,timestamp,title\n" + rows()},
        "must have the same columns",
    ),
    folder("a good and an empty file", {"a.csv": GOOD, "b.csv": b""}, "b.csv is empty"),
    folder(
        "MovieLens with broken items", {"ratings.csv": RATINGS, "movies.csv": "movieId\n1\n"}, "movies.csv does not"
    ),
    folder("MovieLens 100K with broken items", {"u.data": "1\t2\t3\t4\n", "u.item": "1|A\n"}, "u.item does not have"),
    folder("MovieLens 1M with broken items", {"ratings.dat": "1::2::3::4\n", "movies.dat": "1\n"}, "movies.dat does"),
    folder("MovieLens with broken ratings", {"u.data": "1\t2\n", "u.item": "1|A||||1\n"}, "u.data"),
    folder(
        "MovieLens with items that are not UTF-8", {"ratings.csv": RATINGS, "movies.csv": b"\xff\xfe"}, "movies.csv"
    ),
    archive("an archive without tables", {"readme.txt": "hello"}, "found: readme.txt"),
    archive("an empty archive", {}, "found: nothing"),
    archive("an archive with ../", {"../ratings.csv": RATINGS, "../movies.csv": MOVIES}, "outside of the archive"),
    archive(
        "an archive with absolute names", {"/ratings.csv": RATINGS, "/movies.csv": MOVIES}, "outside of the archiv"
    ),
    archive(
        "an archive of links", {"ratings.csv": "/etc/passwd", "movies.csv": MOVIES}, "link", links=("ratings.csv",)
    ),
    changed_archive("half an archive", lambda content: content[: len(content) // 2], "is damaged or incomplete"),
    changed_archive("an archive of text", lambda content: RATINGS.encode(), "is damaged or incomplete"),
    changed_archive(
        "an archive with a wrong checksum", lambda content: content.replace(b"Film 3", b"Film 4", 1), "Copy"
    ),
    Case("a canary in a folder", canary_data, DATA, "data"),
    Case("a canary in an archive", canary_archive, DATA, "outside of the archive"),
    changed_prepared("a canary in a prepared data set", unpickled, "train.items.npy of a prepared data set"),
    changed_prepared("a changed bit in a shard", lambda output: flip(shard(output)), "its content has changed"),
    changed_prepared("a shorter shard", lambda output: os.truncate(shard(output), 100), "it has 100 bytes instead of"),
    changed_prepared("a shard that is missing", lambda output: os.remove(shard(output)), "No such file"),
    changed_prepared(
        "a changed vocabulary", lambda output: flip(f"{output}/vocabulary/items.parquet", 40), "has changed"
    ),
    changed_prepared(
        "a changed count", lambda output: replace(f"{output}/manifest.json", '"used": ', '"used": 1'), "manifest.json"
    ),
    changed_prepared(
        "a changed number of users",
        lambda output: replace(f"{output}/manifest.json", '"end": ', '"end": 1'),
        "manifest.json",
    ),
    changed_prepared(
        "a manifest of words",
        lambda output: replace(f"{output}/manifest.json", '"begin": 0', '"begin": "a"'),
        "manifest.json",
    ),
    changed_prepared("an empty manifest", lambda output: os.truncate(f"{output}/manifest.json", 0), "manifest.json"),
    changed_prepared(
        "a manifest with lists for dicts",
        lambda output: replace(f"{output}/manifest.json", '"files": {', '"files": [], "more": {'),
        "json",
    ),
    changed_prepared(
        "a manifest that is nested deep",
        lambda output: shutil.copy(deep(output), f"{output}/manifest.json"),
        "manifest.json",
    ),
]


def deep(folder_of_it: str) -> str:
    path = f"{folder_of_it}/deep"
    with open(path, "w") as file:
        file.write("[" * 100_000 + "]" * 100_000)
    return path
