"""The TF-Ranking tutorial "Recommend movies for users with TensorFlow Ranking", on MovieLens 100K.

Run:      python -m trainer.main --config=configs/tutorial.py --config.data.data_dir=DIR --workdir=runs/tutorial
Data:     TensorFlow Datasets movielens/100k; as in the tutorial, all ratings are used for training, and
          items with the same title are merged
Hardware: any; half a minute on 2 CPU cores
Expect:   loss near 998.7, 997.1, 994.8 and NDCG near 0.82, 0.916, 0.938 after epochs 1, 2 and 3
          (published: 998.76, 997.18, 994.84 and 0.821, 0.916, 0.938); MRR 1.0, because every
          rated item counts as relevant. These are metrics of the training lists, where a random order has an
          NDCG of about 0.81.
Source:   https://www.tensorflow.org/ranking/tutorials/quickstart
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Returns the default config with the values of the tutorial."""
    config = default.get_config()
    config.data.source = "movielens/100k"
    config.data.item_identity = "title"
    config.split.method = "none"
    config.list_size = 100
    config.candidates.method = "rated"
    config.model.embedding_size = 64
    config.model.query_embedding = True
    config.model.similarity = "dot"
    config.model.item_bias = False
    config.model.initial_items = "random"
    config.history.encoder = "none"
    config.loss.normalization_power = 0.0
    config.optimizer.name = "adagrad"
    config.optimizer.learning_rate = 0.5
    config.optimizer.schedule = "constant"
    config.optimizer.weight_decay = 0.0
    config.train.global_batch_size = 32
    config.train.num_epochs = 3
    config.eval.metrics = ("ndcg", "mrr")
    config.eval.relevance_threshold = 1.0
    config.eval.best_metric = "ndcg"
    return config
