"""Keras `fit` on dense padded lists, with TensorFlow Ranking's softmax loss."""

from typing import Any

import numpy as np

from benchmarks.harness import time_repeatedly
from benchmarks.step.job import EPSILON, INITIAL_SLOT, LEARNING_RATE, load_job
from trainer.compat import keras, tf, tfr


def train(folder: str, *, steps_per_execution: int) -> dict[str, Any]:
    """The losses of two epochs, and then the seconds of an epoch.

    Args:
      folder: of the job.
      steps_per_execution: 0 for an epoch.
    """
    job = load_job(folder)
    batch_size, list_size = job.items.shape[1:]
    is_real = (np.arange(batch_size) < job.num_lists[:, np.newaxis]).reshape(-1)
    queries, items, labels = (
        array.reshape(-1, *array.shape[2:])[is_real] for array in (job.queries, job.items, job.labels)
    )
    batches = tf.data.Dataset.from_tensor_slices(({"query": queries, "items": items}, labels)).batch(batch_size)
    model = _build_model(job.query_table, job.item_table, list_size)
    model.compile(
        optimizer=keras.optimizers.Adagrad(
            LEARNING_RATE, initial_accumulator_value=INITIAL_SLOT, epsilon=EPSILON, jit_compile=False
        ),
        loss=tfr.keras.losses.SoftmaxLoss(),
        steps_per_execution=steps_per_execution or job.num_steps,
    )
    data = batches.cache().prefetch(2)
    losses = model.fit(data, epochs=2, verbose=0).history["loss"]
    # Several epochs in one call of `fit`, as a user would, so that what `fit` does once counts little.
    seconds = time_repeatedly(lambda: model.fit(data, epochs=10, verbose=0)) / 10
    device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return {"losses": [float(loss) for loss in losses], "seconds": seconds, "device": device}


def _build_model(query_table: np.ndarray, item_table: np.ndarray, list_size: int) -> keras.Model:
    query = keras.Input([], dtype=tf.int32, name="query")
    items = keras.Input([list_size], dtype=tf.int32, name="items")
    vectors = [
        keras.layers.Embedding(*table.shape, embeddings_initializer=keras.initializers.Constant(table))(indices)
        for table, indices in ((query_table, query), (item_table, items))
    ]
    scores = tf.einsum("bd,bld->bl", *vectors)
    return keras.Model({"query": query, "items": items}, scores)
