"""The embedded ratings, and every field there is, with its meaning.

Run:      python -m trainer.main --strategy=mirrored --workdir=runs/default
Data:     synthetic ratings of MovieLens 100K's shape: 943 users, 1,682 items, 100,000 ratings
Hardware: any; under a minute on 2 CPU cores
Expect:   see the README, which prints a run of exactly this

Other configs import this one and list only what differs. From the command line a field is set with
--config.SECTION.FIELD=VALUE; a name that does not stand here is an error.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The resolved default: plain values only, so that it can be saved as JSON and read back."""
    config = ConfigDict()

    # Determines the split, the initial weights, the order of the lists and every random draw of a loss.
    config.seed = 0

    config.data = ConfigDict()
    # `synthetic`; movielens/{100k,1m,20m,25m,latest-small} from TensorFlow Datasets; or a path, local or
    # gs://, of a MovieLens folder or zip, or of a CSV, TSV or Parquet file or folder of them.
    config.data.source = "synthetic"
    # Where TensorFlow Datasets keeps its data; empty for its own default.
    config.data.data_dir = ""
    # Names of the columns of a CSV, TSV or Parquet source. Empty: there is none (timestamp, title, genres).
    config.data.columns = ConfigDict()
    config.data.columns.user_id = "user_id"
    config.data.columns.item_id = "item_id"
    config.data.columns.rating = "rating"
    config.data.columns.timestamp = "timestamp"
    config.data.columns.title = ""
    config.data.columns.genres = ""
    # Ratings outside of [lowest, highest] are bad rows. The gain of NDCG is 2^rating - 1: think of that above 10.
    config.data.rating_range = (0.0, 5.0)
    # The run stops where more than this fraction of the rows cannot be used.
    config.data.max_bad_fraction = 0.0
    # `item_id`, or `title` as in the tutorial, which merges items of one title.
    config.data.item_identity = "item_id"

    config.split = ConfigDict()
    # `none`; per user `random` or `last` (by time); or `time`: one point in time for all.
    config.split.method = "random"
    config.split.validation_fraction = 0.1
    config.split.test_fraction = 0.1

    # A user's ratings are ranked in lists of at most this many.
    config.list_size = 100

    config.model = ConfigDict()
    config.model.embedding_size = 64
    # Hidden layers of each tower, after the embedding; empty as in the tutorial.
    config.model.hidden_sizes = ()

    config.loss = ConfigDict()
    # Any key of tfr.keras.losses.RankingLossKey.
    config.loss.key = "softmax_loss"
    config.loss.temperature = 1.0
    # Empty, or label_diff, dcg, ndcg, ndcg_v2, yeti_dcg, precision, list_mle, where the loss takes one.
    config.loss.lambda_weight = ""
    # Of the lambda weight; 0 for the whole list.
    config.loss.lambda_weight_cutoff = 0

    config.optimizer = ConfigDict()
    # adadelta, adafactor, adagrad, adam, adamax, adamw, ftrl, lion, nadam, rmsprop or sgd.
    config.optimizer.name = "adagrad"
    config.optimizer.learning_rate = 0.1
    # `constant`, or `warmup_cosine`: linear over warmup_steps, then a half cosine down to 0.
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 0
    # The norm of all gradients together is clipped to this; 0 for never.
    config.optimizer.clip_norm = 0.0
    # Decoupled; 0 for none, which adamw does not accept.
    config.optimizer.weight_decay = 0.0
    # Of sgd and rmsprop.
    config.optimizer.momentum = 0.0

    config.train = ConfigDict()
    # Lists a step, over all replicas.
    config.train.global_batch_size = 32
    config.train.num_epochs = 20
    # Steps run by one call of the compiled loop; changes the speed only.
    config.train.steps_per_execution = 50
    # Cadences in steps; 0 means once an epoch. The last step always counts.
    config.train.log_every_steps = 0
    config.train.eval_every_steps = 0
    config.train.checkpoint_every_steps = 0
    # The newest checkpoints that are kept, beside the best.
    config.train.keep_checkpoints = 3
    # Evaluations without a better best_metric before training stops; 0 for never.
    config.train.early_stopping_patience = 3

    config.eval = ConfigDict()
    # Keys of TF-Ranking with or without a cutoff: `ndcg@10`, `mrr`, `precision@5`, ...
    config.eval.metrics = ("ndcg", "ndcg@10", "mrr", "precision@5")
    # A rating from here on is relevant to the metrics that know only relevant and not.
    config.eval.relevance_threshold = 4.0
    # What chooses the best checkpoint on the validation lists: a metric above, or `loss`; `max` or `min`.
    config.eval.best_metric = "ndcg@10"
    config.eval.best_direction = "max"
    # Users, drawn at random, whose whole catalogue is ranked in the final evaluation; 0 for none, -1 for all. It
    # takes some 65 bytes for each of them and each item.
    config.eval.num_catalogue_users = 1000
    # Users whose recommendations are written to TensorBoard at each validation.
    config.eval.num_sample_users = 3

    return config
