"""The results of trials and tests: one JSON object per line, appended as they come, and the metrics of each user."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from settings.errors import StorageError

TRIAL, TEST = "trial", "test"

Record = dict[str, Any]


class Records:
    """The files of an output folder."""

    def __init__(self, folder: pathlib.Path):
        self._path = folder / "results.jsonl"
        self._queries = folder / "queries"
        self._queries.mkdir(parents=True, exist_ok=True)

    def append(self, record: Record) -> None:
        """Adds one line, in place of a last line that was cut off."""
        with self._path.open("ab") as file:
            file.truncate(len(self._whole_lines()))
            file.write(json.dumps(record).encode() + b"\n")

    def find(self, kind: str, **fields: Any) -> list[Record]:
        """The records of a kind whose fields have these values, in the order of the file.

        Raises:
          StorageError: A line is not JSON. A last line that was cut off is left out.
        """
        records = []
        for number, line in enumerate(self._whole_lines().splitlines(), 1):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise StorageError(
                    f"{self._path} is damaged: line {number} is not JSON. Remove the line, or set --output to another "
                    "folder."
                ) from error
        return [
            record
            for record in records
            if record["kind"] == kind and all(record.get(name) == value for name, value in fields.items())
        ]

    def _whole_lines(self) -> bytes:
        content = self._path.read_bytes() if self._path.exists() else b""
        return content[: content.rfind(b"\n") + 1]

    def save_queries(self, name: str, users: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Saves metrics [num_users] of users, int32 [num_users]."""
        arrays: dict[str, Any] = {"users": users, **values}
        np.savez_compressed(self._queries / f"{name}.npz", **arrays)

    def load_queries(self, name: str, metrics: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Reads what `save_queries` saved."""
        with np.load(self._queries / f"{name}.npz") as file:
            return file["users"], {metric: file[metric] for metric in metrics}
