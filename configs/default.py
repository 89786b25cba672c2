"""The default config: every field, with its meaning and its default.

Run:      python -m trainer.main --strategy=mirrored --workdir=runs/default
Data:     synthetic ratings with the size of MovieLens 100K: 943 users, 1,682 items, 100,000 ratings
Hardware: any; under a minute on 2 CPU cores
Expect:   see the README, which shows the output of this run

Other configs import this one and change only what differs. On the command line, --config.SECTION.FIELD=VALUE sets a
field. An unknown field is an error. settings/trainer_config.py has the allowed values.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the default config. It has only plain values, so that it can be saved as JSON."""
    config = ConfigDict()

    # The seed of everything random: the split, the initial weights, the order of the lists, and the noise of a loss.
    config.seed = 0

    config.data = ConfigDict()
    # `synthetic`; movielens/{100k,1m,20m,25m,latest-small} from TensorFlow Datasets; or a path, local or gs://, of a
    # MovieLens folder or zip file, or of a CSV, TSV or Parquet file or a folder of them.
    config.data.source = "synthetic"
    # The folder of TensorFlow Datasets. Empty: its default folder.
    config.data.data_dir = ""
    # The column names of a CSV, TSV or Parquet source. timestamp, title and genres can be empty if there is no such
    # column.
    config.data.columns = ConfigDict()
    config.data.columns.user_id = "user_id"
    config.data.columns.item_id = "item_id"
    config.data.columns.rating = "rating"
    config.data.columns.timestamp = "timestamp"
    config.data.columns.title = ""
    config.data.columns.genres = ""
    # The lowest and the highest rating. A row with another rating is a bad row. The gain of NDCG is 2^rating - 1, so
    # ratings above 10 give very large gains.
    config.data.rating_range = (0.0, 5.0)
    # The run stops if more than this fraction of the rows is bad.
    config.data.max_bad_fraction = 0.0
    # What identifies an item: `item_id`, or `title`, which merges items with the same title, as in the tutorial.
    config.data.item_identity = "item_id"

    config.split = ConfigDict()
    # How ratings are held out: `none`; `random` or `last` (the latest) for each user; or `time`, which holds out the
    # latest ratings of all users.
    config.split.method = "random"
    # The fractions of the ratings that are held out for validation and for the test.
    config.split.validation_fraction = 0.1
    config.split.test_fraction = 0.1

    # The largest number of items in a list. A user with more ratings has several lists.
    config.list_size = 100

    config.model = ConfigDict()
    # The size of the embeddings of users and items.
    config.model.embedding_size = 64
    # The sizes of the hidden layers of each tower, after the embedding. Empty: no hidden layers, as in the tutorial.
    config.model.hidden_sizes = ()

    config.loss = ConfigDict()
    # A key of tfr.keras.losses.RankingLossKey.
    config.loss.key = "softmax_loss"
    # Scores are divided by the temperature. 1.0 for losses without a temperature.
    config.loss.temperature = 1.0
    # For losses with a lambda weight: label_diff, dcg, ndcg, ndcg_v2, yeti_dcg, precision or list_mle. Empty: none.
    config.loss.lambda_weight = ""
    # The cutoff of the lambda weight. 0: the whole list.
    config.loss.lambda_weight_cutoff = 0

    config.optimizer = ConfigDict()
    # adadelta, adafactor, adagrad, adam, adamax, adamw, ftrl, lion, nadam, rmsprop or sgd.
    config.optimizer.name = "adagrad"
    # The highest learning rate of the schedule.
    config.optimizer.learning_rate = 0.1
    # `constant`, or `warmup_cosine`: a linear rise over warmup_steps, then half a cosine down to 0.
    config.optimizer.schedule = "constant"
    # The number of steps of the warm-up.
    config.optimizer.warmup_steps = 0
    # Gradients are scaled down when their global norm is above this. 0: no clipping.
    config.optimizer.clip_norm = 0.0
    # Decoupled weight decay. 0: none. adamw needs a value above 0.
    config.optimizer.weight_decay = 0.0
    # The momentum of sgd and rmsprop. 0: none.
    config.optimizer.momentum = 0.0

    config.train = ConfigDict()
    # The number of lists per step, over all replicas.
    config.train.global_batch_size = 32
    # The number of passes over the training lists.
    config.train.num_epochs = 20
    # The number of steps of one compiled call. It affects only the speed.
    config.train.steps_per_execution = 50
    # The numbers of steps between two logs, two validations and two checkpoints. 0: one epoch. Each also happens after
    # the last step.
    config.train.log_every_steps = 0
    config.train.eval_every_steps = 0
    config.train.checkpoint_every_steps = 0
    # The number of newest checkpoints to keep. The best one is kept as well.
    config.train.keep_checkpoints = 3
    # Training stops after this many validations without an improvement of best_metric. 0: never.
    config.train.early_stopping_patience = 3

    config.eval = ConfigDict()
    # Keys of TF-Ranking, with or without a cutoff: `ndcg@10`, `mrr`, ... `precision@5` divides by 5, as usual;
    # `tfr_precision@5` is TF-Ranking's own, which divides by the length of a shorter list.
    config.eval.metrics = ("ndcg", "ndcg@10", "mrr", "precision@5")
    # Ratings at or above this value count as relevant in metrics with binary relevance.
    config.eval.relevance_threshold = 4.0
    # The metric of the validation lists that selects the best checkpoint: one of the metrics above, or `loss`.
    config.eval.best_metric = "ndcg@10"
    # `max` if a higher value is better, `min` if a lower one is.
    config.eval.best_direction = "max"
    # The number of random users for whom the final evaluation ranks the whole catalogue. 0: none. -1: all users.
    config.eval.num_catalogue_users = 1000
    # The number of users whose recommendations are written to TensorBoard at each validation.
    config.eval.num_sample_users = 3

    return config
