"""The seed tutorial's job: "Recommend movies for users with TensorFlow Ranking", on MovieLens 100K.

Run:      python -m trainer.main --config=configs/tutorial.py --config.data.data_dir=DIR --workdir=runs/tutorial
Data:     TensorFlow Datasets movielens/100k; all ratings train, as in the tutorial; titles are identity
Hardware: any; half a minute on 2 CPU cores
Expect:   loss near 998.7, 997.1, 994.8 and NDCG near 0.82, 0.916, 0.938 after epochs 1, 2 and 3
          (published: 998.76, 997.18, 994.84 and 0.821, 0.916, 0.938); MRR 1.0, because every star is
          relevant to it. These are figures on the lists that were trained on, measured while training:
          a random order scores an NDCG of about 0.81 there.
Source:   https://www.tensorflow.org/ranking/tutorials/quickstart
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what the tutorial does otherwise."""
    config = default.get_config()
    config.data.source = "movielens/100k"
    config.data.item_identity = "title"
    config.split.method = "none"
    config.optimizer.learning_rate = 0.5
    config.train.num_epochs = 3
    config.eval.metrics = ("ndcg", "mrr")
    config.eval.relevance_threshold = 1.0
    config.eval.best_metric = "ndcg"
    return config
