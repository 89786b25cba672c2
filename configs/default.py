"""The default config: every field, with its meaning and its default.

Run:      python -m trainer.main --strategy=mirrored --workdir=runs/default
Data:     synthetic ratings with the size of MovieLens 100K: 943 users, 1,682 items, 100,000 ratings
Hardware: any; under a minute on 2 CPU cores
Expect:   see the README, which shows the output of this run

Other configs import this one and change only what differs. On the command line, --config.SECTION.FIELD=VALUE sets a
field. An unknown field is an error. settings/trainer_config/ has the allowed values.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the default config. It has only plain values, so that it can be saved as JSON."""
    config = ConfigDict()

    # The seed of everything random: the initial weights, the order of the lists, the noise of a loss, and the split,
    # unless split.seed is set.
    config.seed = 0

    config.data = ConfigDict()
    # `synthetic`; movielens/{100k,1m,20m,25m,latest-small} from TensorFlow Datasets; or a path, local or gs://, of a
    # MovieLens folder or zip file, of a CSV, TSV or Parquet file or a folder of them, of a text file with lines
    # `user item item ...`, or of what trainer.prepare wrote.
    config.data.source = "synthetic"
    # The folder of TensorFlow Datasets, and of copies of prepared data on gs://. Empty: their default folders.
    config.data.data_dir = ""
    # The column names of a CSV, TSV or Parquet source. `auto`: the column with a usual name, such as userId, movieId,
    # stars or date; docs/data.md lists them. All but user_id and item_id can be empty to use no such column. Without
    # rating, each row is an event. Without timestamp, the row number is the time.
    config.data.columns = ConfigDict()
    config.data.columns.user_id = "auto"
    config.data.columns.item_id = "auto"
    config.data.columns.rating = "auto"
    config.data.columns.timestamp = "auto"
    config.data.columns.title = "auto"
    config.data.columns.genres = "auto"
    # Names of columns that describe a query, an item, or one entry of a list. MovieLens has the query features age,
    # gender and occupation (100K and 1M) and the item features genres and year.
    config.data.features = ConfigDict()
    config.data.features.query = ()
    config.data.features.item = ()
    config.data.features.example = ()
    # What becomes of several rows of the same user and item: `once` keeps the last one; `count`, which needs an empty
    # columns.rating, keeps it too and makes their number its rating.
    config.data.duplicates = "once"
    # The lowest and the highest rating. A row with another rating is a bad row. The gain of NDCG is 2^rating - 1, so
    # ratings above 10 give very large gains.
    config.data.rating_range = (0.0, 5.0)
    # The run stops if more than this fraction of the rows is bad.
    config.data.max_bad_fraction = 0.0
    # What identifies an item: `item_id`, or `title`, which merges items with the same title, as in the tutorial.
    config.data.item_identity = "item_id"

    config.split = ConfigDict()
    # How ratings are held out: `none`; `random` or `last` (the latest) for each user; `time`, which holds out the
    # latest ratings of all users; or `given`, which reads them from the sources below.
    config.split.method = "random"
    # With `given`: the sources of the validation and the test ratings. config.data.source then has the training
    # ratings. Without a validation source, validation_fraction of each user's training ratings is held out at random.
    # test_fraction is not used.
    config.split.validation_source = ""
    config.split.test_source = ""
    # The fractions of the ratings that are held out for validation and for the test.
    config.split.validation_fraction = 0.1
    config.split.test_fraction = 0.1
    # The seed of a random split, of the synthetic ratings, and of the choice of the users of eval.num_catalogue_users
    # and eval.num_validation_users. -1: config.seed. With a value, runs with different config.seed can be compared.
    config.split.seed = -1

    # The largest number of items in a list. A user with more ratings has several lists. The lists of a split are padded
    # to the longest one.
    config.list_size = 500

    config.candidates = ConfigDict()
    # The items that a list is scored against in training. `rated`: the items of the list, as in the tutorial.
    # `sampled`: also num_negatives items, which are drawn anew in each step and shared by the whole batch.
    # `catalogue`: all items. `auto`: catalogue, or sampled above 50,000 items.
    config.candidates.method = "auto"
    # The number of sampled negatives.
    config.candidates.num_negatives = 1000
    # Negatives are drawn in proportion to (number of training ratings)^popularity_power. 0: all items alike.
    config.candidates.popularity_power = 0.5
    # This fraction of the probability is spread evenly over all items.
    config.candidates.uniform_fraction = 0.1
    # Subtracts the logarithm of an item's expected number of draws from its score in training. Only with softmax_loss.
    config.candidates.logq_correction = True

    config.model = ConfigDict()
    # The size of the embeddings. 0: 256, 128 or 64, the largest with at most 4 million numbers for all items.
    config.model.embedding_size = 0
    # The sizes of the hidden layers of each tower, after the embedding. Empty: no hidden layers, as in the tutorial.
    config.model.hidden_sizes = ()
    # Whether each query has an embedding of its own. Without one, new users can be served from their history.
    config.model.query_embedding = False
    # How a query vector and a candidate vector become a score: `dot` or `cosine`.
    config.model.similarity = "cosine"
    # The cosine is multiplied by the scale. With a high scale the softmax attends to the best items only. 0: 4, or
    # 0.75 times the natural logarithm of the number of items from 300,000 training ratings up.
    config.model.scale = 0.0
    # Whether each item has a bias, which is added to its score.
    config.model.item_bias = True
    # Whether scores start from what the training labels say of each item without a user: the logarithm of their sum,
    # or of their mean with candidates.method = "rated". The embeddings then learn what differs between users.
    config.model.item_prior = False
    # The initial embeddings of items: `random`, or from a truncated singular value decomposition (`svd`) of the matrix
    # of users and items, from which training needs fewer steps.
    config.model.initial_items = "svd"

    config.history = ConfigDict()
    # How the items of a user's history describe the user: `none`: not at all; `pooled`: by the sum of their
    # embeddings; `transformer`: in their order, by a causal transformer.
    config.history.encoder = "pooled"
    # The largest number of items in a history. Of longer ones the latest items are used. transformer: histories have at
    # most list_size - 1 items, as in training.
    config.history.size = 500
    # pooled: how much an item counts: `ratings`: its rating divided by the highest one; `centered_ratings`: its rating
    # minus the user's mean; `equal`: 1.
    config.history.weights = "ratings"
    # pooled: the sum is divided by (number of items)^power. 0: a sum; 1: a mean.
    config.history.power = 0.5
    # pooled: an item that is this many items old counts half. 0: all items count alike.
    config.history.recency_half_life = 0.0
    # pooled: each item of a history is dropped with this probability in each training step.
    config.history.dropout = 0.5
    # pooled: the targets of a step: `all` items of a list, or only those that the step `dropped` from the history.
    # `auto`: dropped, or all from 300,000 training ratings up.
    config.history.targets = "auto"
    # pooled: after the sum, layer normalization and a residual layer with this number of hidden units. 0: neither.
    config.history.hidden_size = 0

    config.transformer = ConfigDict()
    # The numbers of layers and of attention heads, and the dropout, of config.history.encoder = "transformer".
    config.transformer.num_layers = 2
    config.transformer.num_heads = 2
    config.transformer.dropout = 0.2

    config.ease = ConfigDict()
    # The scores of EASE, a linear item-item model in closed form, are multiplied by the weight and added to those of
    # the trained model, in evaluation and in the exported model. 0: no EASE. It needs a pooled history, and memory for
    # a few (number of items)² matrices.
    config.ease.weight = 0.0
    # The L2 regularization of EASE.
    config.ease.regularization = 400.0

    config.loss = ConfigDict()
    # A key of tfr.keras.losses.RankingLossKey; with sampled candidates also gbce_loss or cosine_contrastive_loss.
    config.loss.key = "softmax_loss"
    # The labels of items: `binary`: 1 for relevant ones, see config.eval.relevance_threshold; `ratings`; `gains`:
    # 2^rating - 1, as in NDCG. `auto`: ratings with candidates.method = "rated", otherwise binary.
    config.loss.labels = "auto"
    # Scores are divided by the temperature. 1.0 for losses without a temperature.
    config.loss.temperature = 1.0
    # For losses with a lambda weight: label_diff, dcg, ndcg, ndcg_v2, yeti_dcg, precision or list_mle. Empty: none.
    config.loss.lambda_weight = ""
    # The cutoff of the lambda weight. 0: the whole list.
    config.loss.lambda_weight_cutoff = 0
    # The loss of a list is divided by (sum of its labels)^normalization_power. 0: lists with many labels weigh more.
    config.loss.normalization_power = 0.5
    # gbce_loss: 0 trains for the order of the sampled items only, 1 for probabilities that match the catalogue.
    config.loss.calibration = 0.75
    # cosine_contrastive_loss: a negative counts when its cosine is above the margin; all negatives together have the
    # weight negative_weight.
    config.loss.margin = 0.4
    config.loss.negative_weight = 1.0

    config.optimizer = ConfigDict()
    # adadelta, adafactor, adagrad, adam, adamax, adamw, ftrl, lazy_adam, lion, nadam, rmsprop, rowwise_adagrad or sgd.
    # Of a large table, adagrad, lazy_adam, rowwise_adagrad and sgd update only the rows that a step looked up, so that
    # steps do not slow down as the table grows. lazy_adam is Adam (with weight decay: AdamW) for these rows alone.
    # `auto`: adamw, or lazy_adam above 50,000 items unless all items are candidates.
    config.optimizer.name = "auto"
    # The highest learning rate of the schedule.
    config.optimizer.learning_rate = 0.003
    # `constant`, or `warmup_cosine`: a linear rise over warmup_steps, then half a cosine down to 0.
    config.optimizer.schedule = "warmup_cosine"
    # The number of steps of the warm-up.
    config.optimizer.warmup_steps = 0
    # Gradients are scaled down when their global norm is above this. 0: no clipping.
    config.optimizer.clip_norm = 0.0
    # Decoupled weight decay, of all rows of a table, except with lazy_adam. 0: none. adamw needs a value above 0.
    config.optimizer.weight_decay = 0.5
    # The momentum of sgd and rmsprop. 0: none.
    config.optimizer.momentum = 0.0

    config.train = ConfigDict()
    # The number of lists per step, over all replicas.
    config.train.global_batch_size = 128
    # The number of passes over the training lists. 0: as many as make 1,500 steps, from 20 to 100.
    config.train.num_epochs = 0
    # The number of steps of one compiled call. It affects only the speed.
    config.train.steps_per_execution = 50
    # The number of virtual replicas: parts of each batch whose gradients are added up in a fixed order. The weights are
    # then equal bit for bit on any number of replicas and workers that divides it, but steps take longer; see
    # docs/reliability.md. It has to divide global_batch_size. 0: none, and the last digits depend on the replicas.
    config.train.deterministic_reduction = 0
    # The numbers of steps between two logs, two validations and two checkpoints. 0: one epoch; if num_epochs is 0 too,
    # a few epochs, so that each happens about 25 times. Each also happens after the last step.
    config.train.log_every_steps = 0
    config.train.eval_every_steps = 0
    config.train.checkpoint_every_steps = 0
    # The number of newest checkpoints to keep. The best one is kept as well.
    config.train.keep_checkpoints = 3
    # Training stops after this many validations without an improvement of best_metric. 0: never.
    config.train.early_stopping_patience = 0
    # A process ends with exit code 75 when its run makes no progress for this long, from the end of its start to the
    # end of its evaluation: no training call, no chunk of an evaluation, no checkpoint and no export ends. 0: never.
    config.train.stall_timeout_seconds = 3600.0

    config.eval = ConfigDict()
    # Keys of TF-Ranking, with or without a cutoff: `ndcg@10`, `mrr`, ... `precision@5` divides by 5, as usual;
    # `tfr_precision@5` is TF-Ranking's own, which divides by the length of a shorter list.
    config.eval.metrics = ("ndcg", "ndcg@10", "mrr", "precision@5")
    # Ratings at or above this value count as relevant in metrics with binary relevance.
    config.eval.relevance_threshold = 4.0
    # The metric of the validation split that selects the best checkpoint: `loss`; one of the metrics above, for the
    # rated lists; or one of them after `catalogue/`, for the whole catalogue.
    config.eval.best_metric = "catalogue/ndcg@10"
    # `max` if a higher value is better, `min` if a lower one is.
    config.eval.best_direction = "max"
    # The number of random users for whom the final evaluation ranks the whole catalogue. 0: none. -1: all users.
    config.eval.num_catalogue_users = 1000
    # The number of users for whom each validation ranks the whole catalogue. 0: none. -1: all users.
    config.eval.num_validation_users = 1000
    # The number of users whose recommendations are written to TensorBoard at each validation.
    config.eval.num_sample_users = 3

    return config
