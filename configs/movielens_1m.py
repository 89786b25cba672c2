"""MovieLens 1M with held-out validation and test ratings.

Run:      python -m trainer.main --config=configs/movielens_1m.py --config.data.source=PATH/ml-1m \
              --workdir=runs/movielens_1m
          or, with TensorFlow Datasets, --config.data.source=movielens/1m --config.data.data_dir=DIR
Data:     1,000,209 ratings of 6,040 users and 3,706 movies, per user 80% / 10% / 10%
Hardware: any
Expect:   not measured yet
Paper:    Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015
"""

from ml_collections import ConfigDict

from configs import movielens_100k


def get_config() -> ConfigDict:
    """Returns the config of MovieLens 100K with the values for more ratings."""
    config = movielens_100k.get_config()
    config.data.source = "movielens/1m"
    config.ease.regularization = 500.0
    return config
