"""MovieLens 25M with held-out validation and test ratings.

Run:      python -m trainer.main --config=configs/movielens_25m.py --strategy=mirrored \
              --config.data.source=PATH/ml-25m --workdir=runs/movielens_25m
          or, with TensorFlow Datasets, --config.data.source=movielens/25m --config.data.data_dir=DIR
          or, with synthetic ratings of the same shape:
          python -m benchmarks.ratings_file --output=ratings.csv
          python -m trainer.main --config=configs/movielens_25m.py --config.data.source=ratings.csv --workdir=DIR
Data:     25,000,095 ratings of 162,541 users and 59,047 movies, per user 80% / 10% / 10%
Hardware: 8 GiB of memory. Other work took most of the time of the machine in the run below: 26 minutes on 2 CPU cores,
          with 11 minutes of CPU time, and 4.3 GB of memory at the peak. Another 0.9 GB is needed for a moment by the
          process that checks the export. trainer.prepare makes a data set that starts faster; it is not needed.
Expect:   on the synthetic ratings, catalogue ndcg@10 0.2332 ± 0.0043, popularity 0.0242 (10,000 test users); not
          measured yet on MovieLens itself
Paper:    Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015
"""

from ml_collections import ConfigDict

from configs import movielens_1m


def get_config() -> ConfigDict:
    """Returns the config of MovieLens 1M with large batches and few epochs, without EASE, and with more test users."""
    config = movielens_1m.get_config()
    config.data.source = "movielens/25m"
    config.ease.weight = 0.0
    config.train.global_batch_size = 1024
    config.train.num_epochs = 5
    # The batches of a call are in memory together, and so are those of the next call.
    config.train.steps_per_execution = 10
    config.train.log_every_steps = 50
    config.eval.num_catalogue_users = 10_000
    return config
