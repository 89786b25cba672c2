"""The requests with which TensorFlow Serving warms up a model when it loads it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from settings.errors import ConfigError
from trainer import schema, storage
from trainer.compat import tf
from trainer.data.vocabulary import Vocabulary

Requests = list[tuple[str, dict[str, np.ndarray]]]
"""Names of signatures, and the values of their arguments."""

_FILE = "tf_serving_warmup_requests"
_BATCH_SIZES = (1, 8)
_LIST_SIZE = 10


def import_protocol_buffers() -> Any:
    """Imports the module with the protocol buffer of a logged request.

    Raises:
      ConfigError: tensorflow-serving-api is not installed.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ConfigError(
            "The package tensorflow-serving-api is not installed, and warm-up requests are its protocol buffers. "
            "Install the extra `serving`: pip install -c constraints.txt -e '.[serving]'. Or set --nowarmup; the first "
            "requests to the server then take longer."
        ) from error
    return prediction_log_pb2


def build_requests(vocabulary: Vocabulary, signatures: Mapping[str, Mapping[str, tf.TensorSpec]]) -> Requests:
    """Builds requests with known ids for each signature, with one user or item and with several.

    Args:
      vocabulary: that of the model.
      signatures: the arguments of each signature. One that is no id is left empty: 0 for numbers, "" for text.
    """
    user_ids = _first_ids(vocabulary.users, schema.USER_ID)
    item_ids = _first_ids(vocabulary.items, schema.ITEM_ID)

    def values(name: str, spec: tf.TensorSpec, batch_size: int) -> np.ndarray:
        shape = [batch_size, _LIST_SIZE][: spec.shape.rank]
        if name == "user_ids":
            return np.resize(user_ids, shape)
        if name in ("item_ids", "excluded_item_ids"):
            return np.resize(item_ids[:1] if name == "excluded_item_ids" else item_ids, shape)
        return np.full(shape, "" if spec.dtype == tf.string else 0, object if spec.dtype == tf.string else np.float32)

    return [
        (signature, {name: values(name, spec, batch_size) for name, spec in inputs.items()})
        for signature, inputs in sorted(signatures.items())
        for batch_size in _BATCH_SIZES
    ]


def write_requests(requests: Requests, folder: str, *, model_name: str) -> None:
    """Writes requests into the folder of a SavedModel, where TensorFlow Serving looks for them.

    Args:
      requests: the result of `build_requests`.
      folder: of the SavedModel, local or gs://.
      model_name: the name under which the server knows the model.
    """
    extra = storage.join(folder, "assets.extra")
    storage.make_folder(extra)
    with tf.io.TFRecordWriter(storage.join(extra, _FILE)) as writer:
        for log in _logs(requests, model_name):
            writer.write(log.SerializeToString())


def _logs(requests: Requests, model_name: str) -> Iterator[Any]:
    protocol_buffers = import_protocol_buffers()
    for signature, inputs in requests:
        log = protocol_buffers.PredictionLog()
        request = log.predict_log.request
        request.model_spec.name = model_name
        request.model_spec.signature_name = signature
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        yield log


def _first_ids(table: pa.Table, name: str) -> np.ndarray:
    ids = table[name].slice(1, max(max(_BATCH_SIZES), _LIST_SIZE)).to_pylist()
    return np.array([each.encode() for each in ids], object)
