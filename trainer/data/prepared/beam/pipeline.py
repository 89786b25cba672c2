"""The Beam pipeline: which worker does which part of the way, and what it counts. The parts are plain functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsList, AsSingleton, PCollection, TaggedOutput

from trainer.data.prepared.beam import buckets, parts, plan, times
from trainer.data.prepared.beam.blocks import pack, unpack
from trainer.data.prepared.beam.buckets import Users
from trainer.data.prepared.beam.failures import reporting
from trainer.data.prepared.beam.job import Job
from trainer.data.prepared.beam.parts import ItemTable, PartAccount, PartName, Totals
from trainer.data.prepared.beam.plan import Plan
from trainer.data.ratings import accounts
from trainer.data.ratings.merging import with_others
from trainer.data.splits import held_out_ranks
from trainer.schema import TIMESTAMP, TITLE

METRICS = "rows"
"""The namespace of the counters. Their names are those of the manifest's account of rows."""

_Rows = tuple[int, bytes]
"""A bucket, or a shard, and rows of it."""


class _Step(beam.DoFn):
    """Calls a function with the job, an element (unless it is None) and side inputs. What it yields are the outputs.

    An error that the user can fix is written down for the command that waits for the pipeline.
    """

    def __init__(self, function: Any, job: Job):
        self._function = function
        self._job = job

    def process(self, element: Any, *side_inputs: Any) -> Iterator[Any]:
        with reporting(self._job.folder):
            yield from self._function(self._job, *([] if element is None else [element]), *side_inputs)


def build_pipeline(root: beam.Pipeline, job: Job, names: Sequence[PartName]) -> None:
    """Adds all steps of a preparation to a pipeline.

    Args:
      root: the pipeline.
      job: the preparation.
      names: the result of `parts.list_parts`.
    """
    # Each file is an element that any worker may take.
    files = root | "Files" >> beam.Create(names) | "Distribute" >> beam.Reshuffle()
    read = files | "Read" >> _step(_read, job).with_outputs("accounts", "items", main="blocks")
    totals = AsSingleton(_once(root, "Totals", _join_parts, job, AsList(read.accounts)))
    item_table = AsSingleton(_once(root, "Items", _join_items, job, totals, AsList(read.items)))

    blocks = _typed(read.blocks, "Block", tuple[int, tuple[int, bytes]])
    merged = (
        blocks
        | "ByBucket" >> beam.GroupByKey()
        | "Merge" >> _step(_merge, job, totals).with_outputs("others", main="rows")
    )
    others = AsSingleton(_once(root, "Others", _join_others, job, AsList(merged.others)))
    cuts = _find_cuts(root, job, merged.rows)
    # Only with titles as ids does a bucket need the items.
    titles = item_table if job.arguments["item_identity"] == TITLE else None
    split = merged.rows | "Split" >> _step(_split, job, others, cuts, titles).with_outputs(
        "users", "item_counts", main="rows"
    )
    item_counts = AsSingleton(split.item_counts | "CountItems" >> beam.CombineGlobally(_add_counts))
    planned = (
        root
        | "PlanOnce" >> beam.Create([None])
        | "Plan"
        >> _step(_plan, job, totals, others, AsList(split.users), item_counts, item_table).with_outputs(
            "users", "item_ids", main="plan"
        )
    )
    the_plan = AsSingleton(planned.plan)

    by_bucket = {
        "rows": _typed(split.rows, "Rows", _Rows),
        "users": _typed(planned.users, "Indices", tuple[int, np.ndarray]),
    }
    indexed = (
        by_bucket
        | "WithIndices" >> beam.CoGroupByKey()
        | "Index" >> _step(_index, job, the_plan, AsSingleton(planned.item_ids)).with_outputs("pairs", main="rows")
    )
    written = (
        _typed(indexed.rows, "OfShard", _Rows)
        | "ByShard" >> beam.GroupByKey()
        | "Write" >> _step(_write, job, the_plan)
    )
    _once(root, "Finish", _finish, job, the_plan, AsList(written), AsList(indexed.pairs))


def _step(function: Any, job: Job, *side_inputs: Any) -> beam.ParDo:
    return beam.ParDo(_Step(function, job), *side_inputs)


def _once(root: beam.Pipeline, name: str, function: Any, job: Job, *side_inputs: Any) -> PCollection:
    """The output of a function of side inputs alone."""
    return root | f"{name}Once" >> beam.Create([None]) | name >> _step(function, job, *side_inputs)


def _typed(rows: PCollection, name: str, element_type: Any) -> PCollection:
    """The same elements. Keys have to have a type that all workers write in the same way."""
    return rows | f"Type{name}" >> beam.Map(_same).with_output_types(element_type)


def _same(element: Any) -> Any:
    return element


def _read(job: Job, name: PartName) -> Iterator[Any]:
    read = parts.read_part(job, name)
    for kind in (accounts.READ, *accounts.BAD):
        Metrics.counter(METRICS, kind).inc(read.account.account.report[kind])
    yield TaggedOutput("accounts", read.account)
    for table in read.items:
        yield TaggedOutput("items", table)
    for bucket, rows in read.blocks.items():
        yield bucket, (name.number, pack(rows))


def _join_parts(job: Job, of_parts: Sequence[PartAccount]) -> Iterator[Totals]:
    yield parts.join_parts(job, of_parts)


def _join_items(job: Job, totals: Totals, tables: Sequence[ItemTable]) -> Iterator[pa.Table]:
    yield parts.join_items(job, totals, tables)


def _merge(job: Job, blocks: tuple[int, Iterable[tuple[int, bytes]]], totals: Totals) -> Iterator[Any]:
    bucket, packed = blocks
    merged = buckets.merge_bucket(job, totals, [(part, unpack(rows)) for part, rows in packed])
    num_rows = {accounts.USED: merged.rows.num_rows + sum(merged.num_others)}
    for kind, number in with_others(num_rows, sum(merged.num_others), duplicates=job.arguments["duplicates"]).items():
        Metrics.counter(METRICS, kind).inc(number)
    yield TaggedOutput("others", (merged.num_others, merged.dropped))
    yield bucket, pack(merged.rows)


def _join_others(job: Job, others: Sequence[tuple[list[int], np.ndarray]]) -> Iterator[tuple[list[int], np.ndarray]]:
    num_others, dropped = zip(*others, strict=True)
    yield np.sum(num_others, axis=0).tolist(), np.sort(np.concatenate(dropped))


def _find_cuts(root: beam.Pipeline, job: Job, rows: PCollection) -> Any:
    """The times at which a split by time begins; None for other methods."""
    if job.arguments["split_method"] != "time":
        return None
    counts = rows | "Periods" >> _step(_count_periods, job) | "AddPeriods" >> beam.CombineGlobally(_add_arrays)
    periods = AsSingleton(_once(root, "FindPeriods", _find_periods, job, AsSingleton(counts)))
    counts = rows | "Seconds" >> _step(_count_seconds, job, periods) | "AddSeconds" >> beam.CombineGlobally(_add_arrays)
    return AsSingleton(_once(root, "FindCuts", _find_cuts_in, job, AsSingleton(counts), periods))


def _count_periods(job: Job, rows: _Rows) -> Iterator[np.ndarray]:
    yield times.count_periods(unpack(rows[1])[TIMESTAMP].to_numpy())


def _find_periods(job: Job, counts: np.ndarray) -> Iterator[Any]:
    fractions = {name: job.arguments[name] for name in ("validation_fraction", "test_fraction")}
    yield times.find_periods(counts, held_out_ranks(int(counts.sum()), **fractions))


def _count_seconds(job: Job, rows: _Rows, periods: Any) -> Iterator[np.ndarray]:
    yield times.count_seconds(unpack(rows[1])[TIMESTAMP].to_numpy(), periods)


def _find_cuts_in(job: Job, counts: np.ndarray, periods: Any) -> Iterator[list[int | None]]:
    yield times.find_cuts(counts, periods)


def _add_arrays(arrays: Iterable[np.ndarray]) -> Any:
    return sum(arrays)


def _split(
    job: Job, rows: _Rows, others: tuple[list[int], np.ndarray], cuts: Any, titles: pa.Table | None
) -> Iterator[Any]:
    bucket, packed = rows
    table = unpack(packed)
    if titles is not None:
        table = buckets.name_by_title(table, titles)
    table = buckets.split_bucket(job, table, others[1], cuts)
    yield TaggedOutput("users", buckets.users_of_bucket(job, bucket, table))
    yield TaggedOutput("item_counts", pack(buckets.items_of_bucket(job, table)))
    yield bucket, pack(table)


def _add_counts(packed: Iterable[bytes]) -> bytes:
    return pack(buckets.join_item_counts([unpack(table) for table in packed]))


def _plan(
    job: Job,
    totals: Totals,
    others: tuple[list[int], np.ndarray],
    users: Sequence[Users],
    item_counts: bytes,
    item_table: pa.Table,
) -> Iterator[Any]:
    indices = plan.make_plan(
        job, totals, num_others=others[0], buckets=users, item_counts=unpack(item_counts), item_table=item_table
    )
    yield indices.plan
    yield TaggedOutput("item_ids", indices.item_ids)
    for of_bucket in indices.users.items():
        yield TaggedOutput("users", of_bucket)


def _index(job: Job, joined: tuple[int, Mapping[str, Any]], the_plan: Plan, item_ids: pa.Array) -> Iterator[Any]:
    (packed,), (user_indices,) = joined[1]["rows"], joined[1]["users"]
    rows = buckets.index_bucket(unpack(packed), user_indices, item_ids)
    yield TaggedOutput("pairs", buckets.num_test_pairs_in_train(rows, the_plan.num_items))
    for shard, of_shard in buckets.divide_by_shard(rows, the_plan.shards):
        yield shard, pack(of_shard)


def _write(job: Job, rows: tuple[int, Iterable[bytes]], the_plan: Plan) -> Iterator[dict[str, Any]]:
    number, blocks = rows
    yield plan.write_rows(job, the_plan, number, [unpack(block) for block in blocks])


def _finish(job: Job, the_plan: Plan, files: Sequence[dict[str, Any]], pairs: Sequence[int]) -> Iterator[None]:
    plan.finish(job, the_plan, files=files, num_test_pairs_in_train=sum(pairs))
    yield None
