"""MovieLens 100K with held-out validation and test ratings.

Run:      python -m trainer.main --config=configs/movielens_100k.py --config.data.data_dir=DIR \
              --workdir=runs/movielens_100k
          or, with the files of GroupLens, --config.data.source=PATH/ml-100k
Data:     100,000 ratings of 943 users and 1,682 movies, per user 80% / 10% / 10%
Hardware: any; half a minute on 2 CPU cores
Paper:    Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Returns the default config with the ratings of MovieLens 100K, and a blend with EASE."""
    config = default.get_config()
    config.data.source = "movielens/100k"
    config.ease.weight = 3.0
    config.ease.regularization = 200.0
    return config
