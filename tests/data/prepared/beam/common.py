"""Sources for Beam, what one machine writes of them, and the steps of the pipeline as plain loops."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tests.data.prepared.common import CASES, FEATURES, arguments_of, prepare, ratings_table
from trainer.data.prepared.beam import buckets, parts, plan, times
from trainer.data.prepared.beam.blocks import pack, unpack
from trainer.data.prepared.beam.job import build_job
from trainer.data.splits import held_out_ranks
from trainer.schema import TIMESTAMP, TITLE

NO_FEATURES: dict[str, tuple[str, ...]] = {"query": (), "item": (), "example": ()}
SOME_FEATURES = {**FEATURES, "example": ()}
SHARD_BYTES = 4000

FILES: dict[str, dict[str, Any]] = {
    "files": {},
    "files in time order": {"split_method": "last", "list_order": "time", "history_size": 4},
    "files cut in time": {"split_method": "time", "validation_fraction": 0.3, "test_fraction": 0.3},
    "files without times": {"split_method": "last", "columns": {"timestamp": ""}},
    "films of one title in files": {"item_identity": "title"},
    "given files": {"split_method": "given", "validation_fraction": 0.2, "test_source": "unseen.parquet"},
    "films without titles in files": {"item_identity": "title", "columns": {"title": "", "genres": ""}},
    "counted events in files": {"columns": {"rating": "", "timestamp": ""}, "duplicates": "count"},
    "events in files once": {"columns": {"rating": ""}, "split_method": "random"},
    "features in files": {"features": SOME_FEATURES, "split_method": "last"},
}
"""Changes of the arguments for a folder of several files; see `arguments_of_files`."""


def all_cases() -> list[str]:
    """The names of all cases of `arguments_for`."""
    return [*CASES, *FILES]


def arguments_for(folder: pathlib.Path, case: str, **changed: Any) -> dict[str, Any]:
    """Writes the source of a case to `folder`. Returns the arguments that load it, without example features."""
    if case in FILES:
        return {**_arguments_of_files(folder, case), **changed}
    features = SOME_FEATURES if "features" in CASES[case] else NO_FEATURES
    return {**arguments_of(folder, case, features=features), **changed}


def _arguments_of_files(folder: pathlib.Path, case: str) -> dict[str, Any]:
    """Five files of both formats. The first has 7.0 for the id 7. They have bad rows and rows of equal pairs and times.

    Users change their age and items their weight. An age is a number in one file and text in the others.
    """
    table = ratings_table().select(["user_id", "item_id", "rating", "timestamp", "title", "age", "groups", "weight/kg"])
    numbers = np.arange(table.num_rows)
    weights = pa.array(table["weight/kg"].to_numpy() + numbers / 7, mask=numbers % 11 == 0)
    table = table.set_column(7, "weight/kg", weights)
    ages = [f"{int(age) + number % 3}" if age else None for number, age in enumerate(table["age"].to_pylist())]
    table = table.set_column(5, "age", pa.array(ages))
    titles = pa.array([None if number % 3 == 0 else title for number, title in enumerate(table["title"].to_pylist())])
    genres = pa.array([["", "Drama", "Drama|War"][number % 7 % 3] for number in range(table.num_rows)])
    table = table.set_column(4, "title", titles).append_column("genres", genres)
    (folder / "source").mkdir()
    for number, (begin, end) in enumerate([(0, 1), (1, 700), (700, 701), (701, table.num_rows)]):
        part = table.slice(begin, end - begin)
        path = folder / "source" / f"part-{number}"
        if number % 2:
            rating = pa.array(np.where(np.arange(part.num_rows) % 100 == 1, 77.0, part["rating"].to_numpy()))
            pq.write_table(part.set_column(2, "rating", rating), f"{path}.parquet")
        else:
            pyarrow.csv.write_csv(part, f"{path}.csv")
    whole = table.slice(20, 300)
    for position, name in enumerate(("user_id", "item_id")):
        whole = whole.set_column(
            position, name, pa.array([f"{id_as_text}.0" for id_as_text in whole[name].to_pylist()])
        )
    whole = whole.set_column(5, "age", whole["age"].cast(pa.float64()))
    pq.write_table(whole, folder / "source" / "first.parquet")
    changes = dict(FILES[case])
    if "test_source" in changes:
        # Some of its users and items are in no training rating.
        unseen = table.slice(100, 400)
        for position, name in enumerate(("user_id", "item_id")):
            ids = [f"new {id_as_text}" if id_as_text in "23" else id_as_text for id_as_text in unseen[name].to_pylist()]
            unseen = unseen.set_column(position, name, pa.array(ids))
        changes["test_source"] = str(folder / changes["test_source"])
        pq.write_table(unseen, changes["test_source"])
    arguments = arguments_of(folder, "row order", features=NO_FEATURES, source=str(folder / "source"))
    columns = {**arguments["columns"], "title": "title", "genres": "genres", **changes.get("columns", {})}
    return {**arguments, "max_bad_fraction": 0.5, **changes, "columns": columns}


def files_of(folder: pathlib.Path | str) -> dict[str, bytes | None]:
    """The content of each file below a folder, and None for each folder."""
    paths = sorted(pathlib.Path(folder).rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def written_by_one_machine(folder: pathlib.Path, arguments: dict[str, Any]) -> dict[str, bytes | None]:
    """What one machine writes to a folder."""
    prepare(folder, arguments)
    return files_of(folder)


def run_steps(
    arguments: dict[str, Any], folder: pathlib.Path, *, num_buckets: int, seed: int
) -> dict[str, bytes | None]:
    """Runs all steps in this process, with every collection of values in a random order. Returns what they write."""
    rng = np.random.default_rng(seed)
    job = dataclasses.replace(build_job(arguments, str(folder)), num_buckets=num_buckets, shard_bytes=SHARD_BYTES)

    def shuffled(values: list) -> list:
        return [values[position] for position in rng.permutation(len(values))]

    read = [parts.read_part(job, name) for name in shuffled(parts.list_parts(job))]
    totals = parts.join_parts(job, [part.account for part in read])
    item_table = parts.join_items(job, totals, shuffled([table for part in read for table in part.items]))
    blocks: dict[int, list] = {}
    for part in read:
        for bucket, rows in part.blocks.items():
            blocks.setdefault(bucket, []).append((part.account.part.number, unpack(pack(rows))))
    merged = {bucket: buckets.merge_bucket(job, totals, shuffled(of_bucket)) for bucket, of_bucket in blocks.items()}

    cuts: list[int | None] = []
    if arguments["split_method"] == "time":
        stamps = [of_bucket.rows[TIMESTAMP].to_numpy() for of_bucket in merged.values()]
        counts = sum(times.count_periods(of_bucket) for of_bucket in stamps)
        fractions = {name: arguments[name] for name in ("validation_fraction", "test_fraction")}
        periods = times.find_periods(counts, held_out_ranks(int(counts.sum()), **fractions))
        cuts = times.find_cuts(sum(times.count_seconds(of_bucket, periods) for of_bucket in stamps), periods)
    dropped = np.sort(np.concatenate([of_bucket.dropped for of_bucket in merged.values()]))
    split = {}
    for bucket, of_bucket in merged.items():
        rows = of_bucket.rows
        if arguments["item_identity"] == TITLE:
            rows = buckets.name_by_title(rows, item_table)
        split[bucket] = unpack(pack(buckets.split_bucket(job, rows, dropped, cuts)))
    indices = plan.make_plan(
        job,
        totals,
        num_others=np.sum([of_bucket.num_others for of_bucket in merged.values()], axis=0).tolist(),
        buckets=shuffled([buckets.users_of_bucket(job, bucket, rows) for bucket, rows in split.items()]),
        item_counts=buckets.join_item_counts(shuffled([buckets.items_of_bucket(job, rows) for rows in split.values()])),
        item_table=item_table,
    )
    num_pairs, of_shards = 0, {}
    for bucket in shuffled(list(split)):
        rows = buckets.index_bucket(split[bucket], indices.users[bucket], indices.item_ids)
        num_pairs += buckets.num_test_pairs_in_train(rows, indices.plan.num_items)
        for shard, of_shard in buckets.divide_by_shard(rows, indices.plan.shards):
            of_shards.setdefault(shard, []).append(of_shard)
    files = [plan.write_rows(job, indices.plan, shard, shuffled(rows)) for shard, rows in of_shards.items()]
    plan.finish(job, indices.plan, files=shuffled(files), num_test_pairs_in_train=num_pairs)
    return files_of(folder)
