"""Train and recommend from Python, for notebooks and services: no flags, and errors are raised.

from trainer import train

run = train(ratings, fields={"train.num_epochs": 30})
run.metrics["catalogue"]["model"]["ndcg@10"]
run.recommend(["42"], k=5).to_pandas()
"""

import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict

from configs import default
from settings.errors import ConfigError, UserError
from settings.trainer_config import DEFAULTS_FILE, load_trainer_config
from trainer import schema, storage
from trainer.evaluation.final_metrics import Protocols, from_json
from trainer.evaluation.result import load_result
from trainer.serving.recommender import Recommender
from trainer.training.run import train_and_evaluate
from trainer.workdir import Workdir


class FinishedRun:
    """A finished run: its metrics, its exported model and its recommendations.

    Attributes:
      workdir: the folder of the run. All commands take it as --workdir.
      result: the content of result.json.
    """

    def __init__(self, workdir: str):
        """Opens the run in `workdir`, local or gs://.

        Raises:
          ConfigError: the folder holds no finished run.
          StorageError: a file cannot be read.
        """
        self.workdir = workdir
        paths = Workdir(workdir)
        paths.load_config()
        self.result = load_result(paths)
        if not self.result:
            raise ConfigError(
                f"{workdir} holds a run that is not finished. Call `train` with this workdir and the config of the run "
                "to finish it."
            )

    def __repr__(self) -> str:
        return f"FinishedRun({self.workdir!r})"

    @functools.cached_property
    def metrics(self) -> Protocols:
        """The final metrics, such as `metrics["catalogue"]["model"]["ndcg@10"].value`, with 95% intervals.

        The second key is `model` or a baseline. Empty if no ratings were held out.
        """
        return from_json(self.result.get("protocols", {}))

    @property
    def verdict(self) -> str:
        """Whether the model is better than the baselines, in one sentence; see docs/metrics.md."""
        return self.result["verdict"]["sentence"]

    @property
    def model(self) -> Any:
        """The exported SavedModel, as `tf.saved_model.load` returns it; docs/serving.md lists its functions."""
        return self._recommender.model

    def recommend(self, user_ids: Sequence[str], k: int = 10, *, include_seen: bool = False) -> pa.Table:
        """Recommends the best k items to each user.

        Args:
          user_ids: the ids of users with training ratings, in any order.
          k: the number of items per user, at least 1.
          include_seen: also recommend what the user has rated.

        Returns:
          A table with the columns user_id, item_id, title, rank and score, sorted by user and rank. A user with fewer
          candidates gets fewer rows.

        Raises:
          UserError: a user is unknown.
        """
        users = self._known(user_ids, self._recommender.vocabulary.user_indices, "user")
        return self._recommender.recommend(users, k, exclude_seen=not include_seen)

    def similar_items(self, item_ids: Sequence[str], k: int = 10) -> pa.Table:
        """Finds the k items that are most similar to each item.

        Raises:
          UserError: an item is unknown.
        """
        items = self._known(item_ids, self._recommender.vocabulary.item_indices, "item")
        return self._recommender.similar_items(items, k)

    @functools.cached_property
    def _recommender(self) -> Recommender:
        return Recommender(self.workdir)

    def _known(self, ids: Sequence[str], indices_fn: Any, what: str) -> np.ndarray:
        if isinstance(ids, str):
            raise TypeError(f"{what}_ids is {ids!r}. Give a list of ids, such as [{ids!r}].")
        wanted = pa.array([str(each) for each in ids], pa.string())
        indices = indices_fn(wanted)
        unknown = wanted.filter(pa.array(indices == schema.UNKNOWN_INDEX))
        if len(unknown):
            raise UserError(
                f"The {what} {unknown[0].as_py()!r} is unknown: the training ratings of {self.workdir} have no {what} "
                "with this id."
            )
        return indices


def train(
    ratings: Any = None,
    *,
    workdir: str | os.PathLike[str] | None = None,
    config: ConfigDict | None = None,
    fields: Mapping[str, Any] | None = None,
    strategy: str = "default",
    quiet: bool = False,
) -> FinishedRun:
    """Trains, exports and evaluates a model, or resumes the run in `workdir`.

    It is the run of `python -m trainer.main`, in this process. Ctrl-C saves a checkpoint before it ends the run.

    Args:
      ratings: a path, local or gs://; or a table in memory: a PyArrow table, a pandas or Polars DataFrame, or anything
        else with the Arrow PyCapsule interface. A table is saved as `ratings.parquet` in the workdir. None for
        `config.data.source`.
      workdir: the folder of the run, local or gs://. None for a new temporary folder.
      config: the config, for example `configs.default.get_config()`, which is also the default.
      fields: values of config fields, by dotted name without `config`: {"train.num_epochs": 30}.
      strategy: as the flag --strategy.
      quiet: whether to print nothing.

    Raises:
      UserError: what is wrong with the config, the data, the workdir or the run. Its kinds are in `settings.errors`.
    """
    folder = os.fspath(workdir) if workdir is not None else tempfile.mkdtemp(prefix="listwise-")
    # A copy, because the caller's config must not change.
    config = (config if config is not None else default.get_config()).copy_and_resolve_references()
    _set_fields(config, fields or {})
    if ratings is not None:
        config.data.source = _source_of(ratings, folder)
    train_and_evaluate(load_trainer_config(config), strategy_name=strategy, workdir=folder, quiet=quiet)
    return FinishedRun(folder)


def load_run(workdir: str | os.PathLike[str]) -> FinishedRun:
    """Opens a finished run, local or gs://; see `FinishedRun`."""
    return FinishedRun(os.fspath(workdir))


def _set_fields(config: ConfigDict, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        try:
            config.update_from_flattened_dict({name: value})
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            reason = "is not a field" if isinstance(error, KeyError | AttributeError) else f"cannot be {value!r}"
            raise ConfigError(f"config.{name} {reason}. {DEFAULTS_FILE} lists and explains all fields.") from error


def _source_of(ratings: Any, workdir: str) -> str:
    """The path of ratings. A table is saved first; see `train`."""
    if isinstance(ratings, str | os.PathLike):
        return os.fspath(ratings)
    if not hasattr(ratings, "__arrow_c_stream__"):
        raise TypeError(
            f"ratings is of the type {type(ratings).__name__}. Give a path, a PyArrow table or a DataFrame."
        )
    table = _plain(pa.table(ratings))
    path = storage.join(workdir, "ratings.parquet")
    if storage.exists(path):
        if not storage.read_table(path, table.schema).equals(table):
            raise ConfigError(
                f"{path} has other ratings than the table that was given, so {workdir} holds a run on other data. "
                "Nothing was changed. Use another workdir."
            )
        return path
    storage.make_folder(workdir)
    storage.write_table(table, path)
    return path


def _plain(table: pa.Table) -> pa.Table:
    """The table without what the libraries of DataFrames add: row numbers, metadata, and string types of their own."""
    fields = [
        field.with_type(pa.string())
        if pa.types.is_large_string(field.type) or field.type == pa.string_view()
        else field
        for field in table.schema
        if not field.name.startswith("__index_level_")
    ]
    plain = pa.schema(fields).remove_metadata()
    return table.select(plain.names).cast(plain)
