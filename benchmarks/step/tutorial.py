"""The peer that our speed is measured against: TensorFlow Ranking's own public tutorial.

"Recommend movies for users with TensorFlow Ranking", https://www.tensorflow.org/ranking/tutorials/quickstart,
built anew with the choices its author made, neither slowed nor tuned: lists cut from a stream of decoded
ratings in every epoch, nothing cached or shuffled, ragged batches, strings looked up inside the model.

    python -m benchmarks.step.tutorial --data_dir=DIR --num_epochs=3

The author published losses of 998.76, 997.18 and 994.84 and NDCG of 0.821, 0.916 and 0.938 for its three
epochs. MRR is 1.0 throughout, because TensorFlow Ranking counts every star as relevant.
"""

import dataclasses
import json
import statistics
import time
from typing import Any

import tensorflow_datasets as tfds
from absl import app, flags

from trainer.compat import keras, tf, tfr

WINDOW_SIZE = 100
BATCH_SIZE = 32
EMBEDDING_SIZE = 64
LEARNING_RATE = 0.5


@dataclasses.dataclass(frozen=True)
class BaselineResult:
    """What one run of the tutorial took and reached; a list has one entry an epoch.

    The first epoch's seconds hold the tracing of the training step too.
    """

    seconds_preparing: float
    seconds_per_epoch: list[float]
    steps_per_epoch: int
    losses: list[float]
    ndcg: list[float]
    mrr: list[float]


class TwoTowers(keras.Model):
    """Scores a title for a user by the dot product of their embeddings."""

    def __init__(self, users: keras.layers.StringLookup, titles: keras.layers.StringLookup) -> None:
        super().__init__()
        self.users = users
        self.titles = titles
        self.user_embedding = keras.layers.Embedding(users.vocabulary_size(), EMBEDDING_SIZE)
        self.title_embedding = keras.layers.Embedding(titles.vocabulary_size(), EMBEDDING_SIZE)

    def call(self, features: dict[str, tf.RaggedTensor]) -> tf.RaggedTensor:
        """Returns scores [batch_size, (list_size)] for strings of that same ragged shape."""
        queries = self.user_embedding(self.users(features["user_id"]))
        items = self.title_embedding(self.titles(features["movie_title"]))
        return tf.reduce_sum(queries * items, axis=2)


class EpochSeconds(keras.callbacks.Callback):
    """Records how long each epoch takes, its input pipeline included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def build_vocabulary(strings: tf.data.Dataset) -> keras.layers.StringLookup:
    """Returns a lookup from each string [] of the data set to its index; index 0 is the unknown string."""
    vocabulary = keras.layers.StringLookup(mask_token=None)
    vocabulary.adapt(strings.batch(1000))
    return vocabulary


def build_lists(ratings: tf.data.Dataset, users: keras.layers.StringLookup) -> tf.data.Dataset:
    """Returns batches of (features, stars), each tensor ragged [batch_size, (list_size)].

    A user of more than WINDOW_SIZE ratings has several lists.
    """
    lists = ratings.group_by_window(
        key_func=lambda rating: users(rating["user_id"]),
        reduce_func=lambda _, window: window.batch(WINDOW_SIZE),
        window_size=WINDOW_SIZE,
    )
    labeled = lists.map(
        lambda entry: ({name: entry[name] for name in ("user_id", "movie_title")}, entry["user_rating"])
    )
    return labeled.ragged_batch(BATCH_SIZE)


def run(data_dir: str, num_epochs: int) -> BaselineResult:
    """Trains the tutorial's model on MovieLens 100K as TensorFlow Datasets keeps it under `data_dir`."""
    start = time.perf_counter()
    ratings = tfds.load("movielens/100k-ratings", split="train", data_dir=data_dir).map(
        lambda rating: {name: rating[name] for name in ("user_id", "movie_title", "user_rating")}
    )
    movies = tfds.load("movielens/100k-movies", split="train", data_dir=data_dir)
    users = build_vocabulary(ratings.map(lambda rating: rating["user_id"]))
    titles = build_vocabulary(movies.map(lambda movie: movie["movie_title"]))
    lists = build_lists(ratings, users)
    model = TwoTowers(users, titles)
    model.compile(
        optimizer=keras.optimizers.Adagrad(LEARNING_RATE),
        # Keras 2, which trainer.compat chooses, hands ragged labels and scores to them unchanged.
        loss=tfr.keras.losses.SoftmaxLoss(ragged=True),
        metrics=[
            tfr.keras.metrics.NDCGMetric(name="ndcg", ragged=True),
            tfr.keras.metrics.MRRMetric(name="mrr", ragged=True),
        ],
    )
    seconds_preparing = time.perf_counter() - start

    epochs = EpochSeconds()
    history = model.fit(lists, epochs=num_epochs, callbacks=[epochs], verbose=0).history
    return BaselineResult(
        seconds_preparing=seconds_preparing,
        seconds_per_epoch=epochs.seconds,
        steps_per_epoch=int(model.optimizer.iterations) // num_epochs,
        losses=history["loss"],
        ndcg=history["ndcg"],
        mrr=history["mrr"],
    )


def train(folder: str, *, data_dir: str) -> dict[str, Any]:
    """The seconds of an epoch after the first one, which traces. It cuts its own lists, not those in `folder`."""
    result = run(data_dir=data_dir, num_epochs=4)
    return {"seconds": statistics.mean(result.seconds_per_epoch[1:]), "num_steps": result.steps_per_epoch}


def main(_: list[str]) -> None:
    result = run(data_dir=flags.FLAGS.data_dir, num_epochs=flags.FLAGS.num_epochs)
    print(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "The folder that TensorFlow Datasets keeps MovieLens in.", required=True)
    flags.DEFINE_integer("num_epochs", 3, "How often to go through the ratings.", lower_bound=1)
    app.run(main)
