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
    """Returns the default config with the ratings of MovieLens 100K, and a blend with EASE.

    The numbers were found on the validation split by `make bench-quality`.
    """
    config = default.get_config()
    config.data.source = "movielens/100k"
    config.model.embedding_size = 512
    config.model.scale = 4.3
    config.model.item_prior = True
    config.history.power = 0.4
    config.history.dropout = 0.3
    config.ease.weight = 0.5
    config.ease.regularization = 500.0
    config.loss.normalization_power = 0.2
    config.optimizer.learning_rate = 0.008
    config.optimizer.weight_decay = 0.02
    config.train.global_batch_size = 512
    config.train.num_epochs = 75
    return config
