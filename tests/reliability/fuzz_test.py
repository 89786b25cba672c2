"""Any change of a valid file is read, with every row accounted for, or refused with a UserError. It never hangs."""

import copy
import functools
import gzip
import io
import json
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs import default
from settings.errors import UserError
from tests.data.prepared.common import arguments_of, prepare
from tests.reliability.corpus_sources import MOVIES, RATINGS
from tests.reliability.corpus_tables import GOOD, HEADER, rows, table
from tests.reporting.planted import samples_of, write_run
from trainer.data.loading import load_dataset
from trainer.data.ratings import load_ratings
from trainer.data.ratings.accounts import BAD, COUNTED, DUPLICATE, READ, USED
from trainer.evaluation.comparison import compare_with_baselines, load_run
from trainer.reporting.contents import Contents, gather
from trainer.reporting.page import render_run
from trainer.serving import manifest
from trainer.workdir import Workdir

_ANY = {"deadline": None, "suppress_health_check": list(HealthCheck)}
SHORT = settings(max_examples=40, derandomize=True, **_ANY)
LONG = settings(max_examples=500, **_ANY)
LONG_RECORDS = settings(max_examples=60, **_ANY)
"""The short profile has the same examples each time. The long ones look for new ones, for about two minutes."""

SNIPPETS = [
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\t",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"nan",
    b"-1",
    b"1e999",
    b"[",
    b"{",
    b"null",
]
SNIPPETS += [b"9" * 40, b"::", b"|", b'""', b"\xe2\x80\xae", b"PAR1", b"PK\x03\x04", b"..", b"/", b" ", b":", b"true"]


@st.composite
def changes(draw: Callable) -> Callable[[bytes], bytes]:
    """What happens to a file: some bytes are replaced, added, removed or moved, or it ends early."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["replace", "insert", "delete", "cut", "copy"]),
                st.floats(0, 1),
                st.one_of(st.sampled_from(SNIPPETS), st.binary(min_size=1, max_size=8)),
                st.integers(1, 60),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def change(content: bytes) -> bytes:
        for kind, where, snippet, length in steps:
            at = int(where * len(content))
            match kind:
                case "replace":
                    content = content[:at] + snippet + content[at + len(snippet) :]
                case "insert":
                    content = content[:at] + snippet + content[at:]
                case "delete":
                    content = content[:at] + content[at + length :]
                case "cut":
                    content = content[:at]
                case "copy":
                    content = content[:at] + content[at : at + length] + content[at:]
        return content

    return change


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/ratings.csv", RATINGS)
        archive.writestr("ml/movies.csv", MOVIES)
    return packed.getvalue()


def as_parquet() -> bytes:
    content = io.BytesIO()
    pq.write_table(table(), content)
    return content.getvalue()


LINES = "".join(f"u{user} {' '.join(f'i{item}' for item in range(user, user + 6))}\n" for user in range(8))
USERS = "".join(f"{user}|30|M|writer|10000\n" for user in range(8))

SOURCES: dict[str, dict[str, bytes]] = {
    "ratings.csv": {"ratings.csv": GOOD.encode()},
    "quoted.csv": {"quoted.csv": (HEADER + '"u1","i,1",4,3,"A ""film"""\n' + rows()).encode()},
    "ratings.tsv": {"ratings.tsv": GOOD.replace(",", "\t").encode()},
    "ratings.csv.gz": {"ratings.csv.gz": gzip.compress(GOOD.encode(), mtime=0)},
    "ratings.parquet": {"ratings.parquet": as_parquet()},
    "lines.txt": {"lines.txt": LINES.encode()},
    "ml.zip": {"ml.zip": zipped()},
    "ml-csv": {"ml-csv/movies.csv": MOVIES.encode(), "ml-csv/ratings.csv": RATINGS.encode()},
    "ml-100k": {
        "ml-100k/u.item": "".join(f"{i}|Film {i}|1995||http://a|0|1\n" for i in range(10)).encode(),
        "ml-100k/u.data": RATINGS.partition("\n")[2].replace(",", "\t").encode(),
        "ml-100k/u.genre": b"Drama|0\nWar|1\n",
        "ml-100k/u.user": USERS.encode(),
    },
    "ml-1m": {
        "ml-1m/movies.dat": "".join(f"{i}::Film: {i}::Drama|War\n" for i in range(10)).encode(),
        "ml-1m/ratings.dat": RATINGS.partition("\n")[2].replace(",", "::").encode(),
    },
}
"""A valid source of each format: its path, and the path and content of each of its files."""

READING = {
    "columns": {**default.get_config().data.columns.to_dict(), "title": "auto"},
    "rating_range": (0.0, 5.0),
    "max_bad_fraction": 0.5,
}


def account_is_complete(report: dict[str, int], num_ratings: int) -> bool:
    """Whether each row that was read is used, or counted under one reason."""
    others = sum(report[kind] for kind in (DUPLICATE, *BAD)) + report.get(COUNTED, 0)
    return report[READ] == report[USED] + others and report[USED] == num_ratings


def read_changed(folder: pathlib.Path, source: str, changed: str, change: Callable[[bytes], bytes]) -> None:
    for name, content in SOURCES[source].items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(change(content) if name == changed else content)
    features = {"query": ("age",)} if source == "ml-100k" else {}
    try:
        found = load_ratings(str(folder / source), features=features, **READING)
    except UserError as error:
        assert len(str(error)) < 3000
        return
    assert account_is_complete(found.report, found.ratings.num_rows), found.report
    assert found.ratings["rating"].null_count == found.ratings["user_id"].null_count == 0


FILES = [(source, name) for source, files in SOURCES.items() for name in files]


@pytest.mark.parametrize(("source", "name"), FILES, ids=[name for _, name in FILES])
def test_a_valid_source_is_read(source, name, tmp_path):
    read_changed(tmp_path, source, name, lambda content: content)
    found = load_ratings(str(tmp_path / source), features={}, **READING)
    assert found.report[USED] >= 40


def fuzz_sources(source: str, name: str, profile: settings) -> None:
    with tempfile.TemporaryDirectory() as folder:

        @profile
        @given(changes())
        def read(change):
            read_changed(pathlib.Path(folder), source, name, change)

        read()


_FOLDERS: list[tempfile.TemporaryDirectory] = []
"""Each is removed when the process ends."""


def new_folder() -> pathlib.Path:
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="listwise-fuzz-"))
    return pathlib.Path(_FOLDERS[-1].name)


@functools.cache
def finished_run() -> pathlib.Path:
    folder = new_folder()
    return pathlib.Path(write_run(folder / "run"))


@functools.cache
def prepared_data() -> tuple[pathlib.Path, dict]:
    folder = new_folder()
    return folder / "data", prepare(folder / "data", arguments_of(folder, "row order"))


def use_run(run: pathlib.Path) -> Contents:
    """Reads all files of a run that commands without a model read."""
    paths = Workdir(str(run))
    paths.check(default.get_config())
    paths.check_data({"fingerprints": {}})
    paths.check_chosen({"model.embedding_size": 128})
    paths.was_trained_on_ratings()
    compare_with_baselines(load_run(str(run)))
    return gather(str(run))


def report_run(run: pathlib.Path) -> None:
    """The same, and writes the report."""
    render_run(use_run(run), samples_of(["A"]))


@functools.cache
def model_folder() -> pathlib.Path:
    folder = new_folder() / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    manifest.write_manifest(str(folder), vocabulary_fingerprint="0" * 64)
    return folder


def use_model(folder: pathlib.Path) -> None:
    manifest.find_damage(str(folder), vocabulary_fingerprint="0" * 64)


def use_prepared(folder: pathlib.Path) -> None:
    load_dataset(**{**prepared_data()[1], "source": str(folder)})


RECORDS: dict[str, tuple[Callable[[], pathlib.Path], Callable[[pathlib.Path], object]]] = {
    "config.json": (finished_run, use_run),
    "data.json": (finished_run, use_run),
    "result.json": (finished_run, use_run),
    "metrics.jsonl": (finished_run, use_run),
    "queries.parquet": (finished_run, use_run),
    "model manifest": (model_folder, use_model),
    "prepared manifest": (lambda: prepared_data()[0], use_prepared),
}


@st.composite
def other_values(draw: Callable) -> Callable[[bytes], bytes]:
    """Replaces some values of a JSON file, at any depth, by values of other types."""
    values = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.just([]),
        st.just({}),
        st.just([[1]]),
    )
    steps = draw(
        st.lists(st.tuples(st.lists(st.integers(0, 50), min_size=1, max_size=6), values), min_size=1, max_size=2)
    )

    def change(content: bytes) -> bytes:
        record = json.loads(content)
        for path, value in steps:
            part = record
            for number in path:
                inner = list(part) if isinstance(part, dict) else list(range(len(part)))
                if not inner:
                    break
                key = inner[number % len(inner)]
                if not isinstance(part[key], dict | list) or number == path[-1]:
                    part[key] = copy.deepcopy(value)
                    break
                part = part[key]
        return json.dumps(record).encode()

    return change


def fuzz_records(
    name: str,
    made: Callable[[], pathlib.Path],
    use: Callable[[pathlib.Path], object],
    strategy: st.SearchStrategy,
    profile: settings,
) -> None:
    source = made()
    file = "manifest.json" if name.endswith("manifest") else name
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / source.name
        shutil.copytree(source, folder)
        content = (folder / file).read_bytes()

        @profile
        @given(strategy)
        def read(change):
            (folder / file).write_bytes(change(content))
            try:
                use(folder)
            except UserError as error:
                assert str(error)

        read()


IN_JSON = [name for name in RECORDS if name.endswith((".json", "manifest"))]


@pytest.mark.parametrize(("source", "name"), FILES, ids=[name for _, name in FILES])
def test_a_changed_source_is_read_or_refused(source, name):
    fuzz_sources(source, name, SHORT)


@pytest.mark.parametrize("name", RECORDS)
def test_a_changed_record_is_read_or_refused(name):
    fuzz_records(name, *RECORDS[name], changes(), SHORT)


@pytest.mark.parametrize("name", IN_JSON)
def test_a_record_with_other_values_is_read_or_refused(name):
    fuzz_records(name, *RECORDS[name], other_values(), SHORT)


@pytest.mark.reliability
@pytest.mark.promise(8, "fuzzed files", "formats read or refused")
@pytest.mark.parametrize(("source", "name"), FILES, ids=[name for _, name in FILES])
def test_a_source_is_read_or_refused_after_many_changes(source, name):
    fuzz_sources(source, name, LONG)


@pytest.mark.reliability
@pytest.mark.promise(8, "fuzzed files", "formats read or refused")
@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_or_refused_after_many_changes(name):
    strategy = st.one_of(changes(), other_values()) if name in IN_JSON else changes()
    made, use = RECORDS[name]
    fuzz_records(name, made, report_run if use is use_run else use, strategy, LONG_RECORDS)
