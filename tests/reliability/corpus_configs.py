"""Flags and config fields that cannot be used, config files that are none, and folders that are no workdir."""

import os
from collections.abc import Callable

from tests.reliability.corpus import CONFIG, DATA, STORAGE, Case, Place
from tests.reliability.corpus_sources import listening, pipe


def field(name: str, value: str, says: str = "cannot be used", exit_code: int = CONFIG) -> Case:
    return Case(
        f"{name}={value[:40]}",
        lambda place: place.train(f"--config.{name}={value}"),
        exit_code,
        says or f"config.{name}",
    )


def flag(argument: str, says: str) -> Case:
    return Case(argument[:60], lambda place: place.train(argument), CONFIG, says)


def command(name: str, arguments: tuple[str, ...], says: str, exit_code: int = CONFIG) -> Case:
    """RUN in an argument stands for the finished run, and OUT for a folder that can be written."""

    def make(place: Place) -> tuple[str, ...]:
        place.path("x").touch()
        return tuple(
            argument.replace("RUN", str(place.finished)).replace("OUT", str(place.folder)) for argument in arguments
        )

    return Case(name, make, exit_code, says)


def config_file(name: str, content: bytes | str, says: str, *, ending: str = ".py") -> Case:
    def make(place: Place) -> tuple[str, ...]:
        return "trainer.main", f"--config={place.file(f'mine{ending}', content)}", f"--workdir={place.folder}/workdir"

    return Case(name, make, CONFIG, says)


def special_config(name: str, make_file: Callable[[str], object], says: str) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        path = str(place.path("mine.py"))
        make_file(path)
        return "trainer.main", f"--config={path}", f"--workdir={place.folder}/workdir"

    return Case(name, make, CONFIG, says)


def workdir(name: str, value: str, says: str, exit_code: int = STORAGE) -> Case:
    """IN in the value stands for the folder of the case."""

    def make(place: Place) -> tuple[str, ...]:
        place.file("file", "precious")
        return "trainer.main", f"--config={place.config}", f"--workdir={value.replace('IN', str(place.folder))}"

    return Case(name, make, exit_code, says)


def special_workdir(name: str, make_file: Callable[[str], object]) -> Case:
    def make(place: Place) -> tuple[str, ...]:
        path = str(place.path("run"))
        make_file(path)
        return "trainer.main", f"--config={place.config}", f"--workdir={path}"

    return Case(name, make, STORAGE, "is not a folder")


HUGE = "1" + "0" * 20

CASES = [
    field("eval.metrics", "()", "a tuple of at least one metric name"),
    field("eval.metrics", "('ndcg','ndcg')", "a metric is named twice"),
    field("eval.metrics", "('ndgc@10',)", "which is not a metric"),
    field("eval.metrics", f"('ndcg@{HUGE}',)", "A cutoff is a rank from 1 to"),
    field("eval.metrics", "('ndcg@2147483648',)", "A cutoff is a rank from 1 to"),
    field("eval.metrics", "('ndcg@0',)", "A cutoff is a rank from 1"),
    field("eval.metrics", "('ndcg@-1',)", "A cutoff is a rank from 1"),
    field("eval.metrics", "('ndcg@1e3',)", "A cutoff is a rank from 1"),
    field("eval.metrics", "('ndcg@٣',)", "A cutoff is a rank from 1"),
    field("eval.metrics", "('arp@10',)", "has no cutoff"),
    field("eval.metrics", "(1,)", "config.eval.metrics"),
    field("eval.metrics", "ndcg", "config.eval.metrics"),
    field("eval.metrics", "('ndcg\\n@3',)", "which is not a metric"),
    field("eval.best_metric", "map", "is not measured"),
    field("eval.best_direction", "up", "config.eval.best_direction"),
    field("eval.relevance_threshold", "0.0", "above 0"),
    field("eval.relevance_threshold", "-1.0", "above 0"),
    field("eval.relevance_threshold", "nan", "a finite number"),
    field("eval.relevance_threshold", "1e39", "at most the highest rating"),
    field("eval.relevance_threshold", "5.5", "at most the highest rating"),
    field("eval.num_catalogue_users", HUGE, "config.eval.num_catalogue_users"),
    field("eval.num_catalogue_users", "-2", "config.eval.num_catalogue_users"),
    field("eval.num_validation_users", HUGE, "config.eval.num_validation_users"),
    field("eval.num_sample_users", HUGE, "config.eval.num_sample_users"),
    field("eval.num_sample_users", "-1", "from 0 to 2147483647"),
    field("data.rating_range", "(5.0, 1.0)", "the lowest rating first"),
    field("data.rating_range", "(3.0, 3.0)", "the lowest rating first"),
    field("data.rating_range", "(-1.0, 5.0)", "two numbers from 0 to 100"),
    field("data.rating_range", "(0.0, 1000.0)", "two numbers from 0 to 100"),
    field("data.rating_range", "(0.0,)", "two numbers from 0 to 100"),
    field("data.rating_range", "(0.0, 'five')", "two numbers from 0 to 100"),
    field("data.rating_range", "(0.0, 1e-50)", "config.data.rating_range"),
    field("data.max_bad_fraction", "1.0", "below 1"),
    field("data.max_bad_fraction", "-0.1", "at least 0"),
    field("data.max_bad_fraction", "nan", "a finite number"),
    field("data.source", "", "a source of ratings"),
    field("data.source", "movielens/7m", "which is not a known dataset"),
    field("data.duplicates", "count", "only events are counted"),
    field("data.duplicates", "twice", "config.data.duplicates"),
    field("data.item_identity", "name", "config.data.item_identity"),
    field("data.columns.user_id", "", "config.data.columns.user_id is empty"),
    field("data.columns.rating", "stars", "has no column 'stars' for rating", DATA),
    field("data.columns.rating", "stars\x1b[31m", "has no column 'stars\\x1b[31m' for rating", DATA),
    field("data.features.query", "('rating','rating')", "has this column too"),
    field("data.features.query", "('',)", "a name is empty"),
    field("data.features.query", "('nothing',)", "has no such column"),
    field("data.features.item", "('items',)", "items"),
    field("split.method", "half", "config.split.method"),
    field("split.method", "given", "config.split.test_source is empty"),
    field("split.test_source", "x.csv", "cannot be used with config.split.method"),
    field("split.test_fraction", "0.95", "their sum has to be below 1"),
    field("split.test_fraction", "1.0", "below 1"),
    field("split.validation_fraction", "nan", "a finite number"),
    field("split.seed", "-2", "-1 for config.seed"),
    field("seed", "-1", "from 0 to 2147483647"),
    field("seed", "2147483648", "from 0 to 2147483647"),
    field("seed", "one", "config.seed=one"),
    field("seed", "1.5", "config.seed"),
    field("sed", "1", "did you mean seed?"),
    field("data", "1", "config.data"),
    field("data.sourc", "x", "did you mean source?"),
    flag("--nope", "nope is not a flag"),
    flag("--strategy=fast", "<default|mirrored|multi_worker_mirrored|tpu>"),
    flag("--num_cpu_devices=0", "num_cpu_devices"),
    flag("--num_cpu_devices=many", "num_cpu_devices"),
    flag("--profile=0", "profile"),
    flag("stray", "'stray' is not a flag"),
    flag("st\nray", "'st\\nray' is not a flag"),
    command("no workdir", ("trainer.main",), "--workdir is missing"),
    config_file("an empty config", "", "has no function get_config"),
    config_file("a config with a syntax error", "def get_config(:\n", "is not a config: line 1"),
    config_file("a config that raises", "def get_config():\n    return 1 / 0\n", "line 2, ZeroDivisionError"),
    config_file("a config that imports what is missing", "import nothing_like_it\n", "ModuleNotFoundError"),
    config_file("a config that ends the program", "import sys\nsys.exit(0)\n", "it ends the program"),
    config_file("a config that recurses", "def get_config():\n    return get_config()\n", "RecursionError"),
    config_file("a config that returns None", "def get_config():\n    pass\n", "returned NoneType"),
    config_file("a config that returns a dict", "def get_config():\n    return {}\n", "returned dict"),
    config_file("a config that needs an argument", "def get_config(size):\n    return size\n", "TypeError"),
    config_file("an empty ConfigDict", "from ml_collections import ConfigDict as get_config\n", "is missing"),
    config_file("a config of bytes", bytes(range(256)), "mine.py"),
    config_file("a config with NUL", b"x = 1\0\n", "mine.py"),
    config_file("a config in UTF-16", "x = 1\n".encode("utf-16"), "mine.py"),
    config_file("a config in JSON", '{"seed": 1}', "has no function get_config", ending=".json"),
    special_config("a folder as a config", os.mkdir, "it is a folder"),
    special_config("a named pipe as a config", pipe, "is a named pipe"),
    special_config("an endless device as a config", lambda path: os.symlink("/dev/zero", path), "is a device"),
    special_config("a socket as a config", listening, "is a socket"),
    special_config("no config", lambda path: None, "No such file"),
    command("a config named with NUL", ("trainer.main", "--workdir=OUT/w", "--config=a\0.py"), "cannot be loaded"),
    command("a config named with a line break", ("trainer.main", "--workdir=OUT/w", "--config=a\nb.py"), "a\\nb.py"),
    command("a config that is no path", ("trainer.main", "--workdir=OUT/w", "--config="), "config"),
    workdir("a file as workdir", "IN/input/file", "file is not a folder"),
    workdir("a workdir below a file", "IN/input/file/run", "file is not a folder"),
    workdir("a workdir on the web", "http://host/run", "there is no file system for http://"),
    workdir("a bucket of another cloud", "s3://bucket/run", "there is no file system for s3://"),
    workdir("a scheme alone", "gs://", "names no bucket"),
    workdir("a workdir with a pattern", "IN/run*", "must not contain *", CONFIG),
    workdir("a workdir with NUL", "IN/a\0b", "it contains a NUL byte"),
    workdir("a workdir that is not UTF-8", "IN/a\udcff", "it is not UTF-8"),
    workdir("a workdir with a line break", "IN/input/file/a\nb", "a\\nb cannot be made"),
    workdir("a workdir with a name that is too long", "IN/" + "x" * 300, "cannot be written"),
    special_workdir("a named pipe as workdir", pipe),
    special_workdir("a socket as workdir", listening),
    special_workdir("a device as workdir", lambda path: os.symlink("/dev/null", path)),
    command("recommend nothing", ("trainer.recommend", "--workdir=RUN"), "Choose what to do"),
    command("recommend 0 items", ("trainer.recommend", "--workdir=RUN", "--user_id=u1", "--k=0"), "k"),
    command("recommend to nobody", ("trainer.recommend", "--workdir=RUN", "--user_id=nobody"), "is unknown", 1),
    command(
        "an id of escapes", ("trainer.recommend", "--workdir=RUN", "--user_id=\x1b[2J\n"), "'\\x1b[2J\\n' is unkn", 1
    ),
    command("an id with NUL", ("trainer.recommend", "--workdir=RUN", "--user_id=a\0"), "'a\\x00' is unknown", 1),
    command("an id that is not UTF-8", ("trainer.recommend", "--workdir=RUN", "--user_id=\udcff"), "not UTF-8"),
    command("an item that is not UTF-8", ("trainer.recommend", "--workdir=RUN", "--item_id=\udcff"), "not UTF-8"),
    command(
        "an output of another format", ("trainer.recommend", "--workdir=RUN", "--all_users", "--output=x.h5"), ".csv"
    ),
    command(
        "an output in no folder",
        ("trainer.recommend", "--workdir=RUN", "--all_users", "--output=OUT/no/x.csv"),
        "cannot be written",
        STORAGE,
    ),
    command(
        "an output that is a folder",
        ("trainer.recommend", "--workdir=RUN", "--user_id=u1", "--output=OUT/.csv/"),
        "suffix",
    ),
    command(
        "a workdir without a run", ("trainer.recommend", "--workdir=OUT", "--user_id=u1"), "does not contain a run"
    ),
    command("nothing to evaluate", ("trainer.evaluate", "--workdir=OUT"), "does not contain a run"),
    command("nothing to export", ("trainer.export", "--workdir=OUT", "--output=OUT/x"), "does not contain a run"),
    command("export nothing", ("trainer.export", "--workdir=RUN"), "Choose what to write"),
    command("export over a file", ("trainer.export", "--workdir=RUN", "--output=OUT/input/x"), "x", STORAGE),
    command("vectors over a file", ("trainer.export", "--workdir=RUN", "--vectors=OUT/input/x"), "already exists"),
    command("export below a file", ("trainer.export", "--workdir=RUN", "--vectors=OUT/input/x/y"), "x", STORAGE),
    command("compare nothing", ("trainer.compare",), "Name the workdirs"),
    command("compare no run", ("trainer.compare", "OUT"), "cannot be compared"),
    command("compare a run with itself", ("trainer.compare", "RUN", "RUN"), "A workdir is named twice"),
    command("compare an unknown scorer", ("trainer.compare", "RUN", "--scorer_a=best"), "is not a scorer of"),
    command("report nothing", ("trainer.report",), "Name the workdir of a finished run"),
    command("report no run", ("trainer.report", "OUT"), "does not contain a run"),
    command("a report as PDF", ("trainer.report", "RUN", "--output=x.pdf"), "the report is HTML"),
    command(
        "a report below a file", ("trainer.report", "RUN", "--output=OUT/input/x/y.html"), "cannot be written", STORAGE
    ),
    command("prepare over a folder", ("trainer.prepare", "--output=OUT"), "is no prepared data set"),
    command("prepare below a file", ("trainer.prepare", "--output=OUT/input/x/y"), "is not a folder", STORAGE),
]
