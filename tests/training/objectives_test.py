"""Each kind of candidates against its definition in NumPy, and on any number of replicas."""

import itertools

import numpy as np
import pytest

from tests.conftest import mirrored_strategy
from trainer import schema
from trainer.compat import tf
from trainer.data.lists import cut_lists, group_ratings
from trainer.data.queries import build_queries
from trainer.modeling import input_pipeline
from trainer.modeling.randomness import Draws
from trainer.modeling.two_tower import TwoTowerModel
from trainer.training import losses, objectives, optimizers, steps
from trainer.training.candidates import NegativeSampler
from trainer.training.objectives import Objective

NUM_USERS, NUM_ITEMS, LIST_SIZE, HISTORY_SIZE = 20, 15, 6, 10
BATCH_SIZE, STEPS_PER_EXECUTION, NUM_CALLS, SEED = 4, 3, 2, 1
POOLED = {"power": 0.5, "highest_rating": 5.0, "dropout": 0.5, "leave_out_targets": True}
CENTERED = {**POOLED, "weights": "centered_ratings", "mean_rating": 3.0, "hidden_size": 4}
TRANSFORMER = {"size": LIST_SIZE, "num_layers": 1, "num_heads": 2, "dropout": 0.3}
COSINE = {"similarity": "cosine", "scale": 4.0, "item_bias": True}


@pytest.fixture(scope="module")
def lists():
    """Each user has rated 5 to 9 of the items; the lists have the histories of their users."""
    generator = np.random.default_rng(0)
    items = [1 + generator.choice(NUM_ITEMS - 1, 5 + user % 5, replace=False) for user in range(NUM_USERS)]
    users = np.repeat(np.arange(1, NUM_USERS + 1), [len(row) for row in items]).astype(np.int32)
    items = np.concatenate(items).astype(np.int32)
    ratings = generator.integers(1, 6, len(items)).astype(np.float32)
    times = np.arange(len(items))
    queries = build_queries(
        users, items, ratings, times, num_users=NUM_USERS + 1, history_size=HISTORY_SIZE, features={}
    )
    grouped = group_ratings(users, items, ratings, times, num_users=NUM_USERS + 1, list_order="time")
    return cut_lists(grouped, list_size=LIST_SIZE, list_order="time", query_source=queries)


def build_sampler(num_negatives=8):
    return NegativeSampler(
        np.arange(NUM_ITEMS), num_negatives=num_negatives, popularity_power=0.5, uniform_fraction=0.2, seed=SEED
    )


def build(candidates, **model_options):
    """A model, its objective and what draws its negatives."""
    options = {"embedding_size": 4, "query_embedding": False, "seed": 5, **model_options}
    model = TwoTowerModel(num_queries=NUM_USERS + 1, num_items=NUM_ITEMS, **options)
    shared = {"normalization_power": 0.5, "seed": SEED}
    key = candidates if candidates.endswith("_loss") else "softmax_loss"
    loss_fn = losses.build_loss(
        key,
        global_batch_size=BATCH_SIZE,
        seed=SEED,
        num_negatives=8,
        num_items=NUM_ITEMS,
        margin=0.2,
        negative_weight=2.0,
    )
    if candidates == "rated":
        shared["labels_fn"] = objectives.gains
        return model, Objective(model, objectives.rank_rated(model, loss_fn), **shared), None
    shared["labels_fn"] = objectives.binary_labels(3.0)
    if candidates == "catalogue":
        return model, Objective(model, objectives.rank_catalogue(model, temperature=1.0), **shared), None
    sampler = build_sampler()
    rank_fn = objectives.rank_sampled(model, loss_fn, sampler, logq_correction=key == "softmax_loss")
    return model, Objective(model, rank_fn, **shared), sampler.draw


def batches(lists, first_call, num_calls, negatives_fn, strategy):
    return iter(
        strategy.distribute_datasets_from_function(
            lambda context: input_pipeline.build_train_dataset(
                lists,
                np.arange(first_call, first_call + num_calls) * STEPS_PER_EXECUTION,
                global_batch_size=BATCH_SIZE,
                steps_per_execution=STEPS_PER_EXECUTION,
                seed=SEED,
                context=context,
                negatives_fn=negatives_fn,
            )
        )
    )


class Run:
    """A model and its compiled call under a strategy."""

    def __init__(self, strategy, lists, candidates, model_options):
        with strategy.scope():
            self.model, objective, negatives_fn = build(candidates, **model_options)
            schedule = optimizers.build_schedule("constant", learning_rate=0.1, total_steps=100, warmup_steps=0)
            optimizer = optimizers.build_optimizer("sgd", schedule, tables=self.model.table_variables)
            optimizer.build(self.model.trainable_variables)
        self.train_call = steps.build_train_call(strategy, self.model, optimizer, objective, [])
        self.superbatches = list(itertools.islice(batches(lists, 0, NUM_CALLS, negatives_fn, strategy), NUM_CALLS))

    def take(self, call):
        """Takes the steps of a call. Returns its sums, and the weights after it."""
        first_step = tf.constant(call * STEPS_PER_EXECUTION, tf.int64)
        sums = self.train_call(self.superbatches[call], first_step, tf.constant(STEPS_PER_EXECUTION)).sums.numpy()
        return sums, self.model.get_weights()


MODES = {
    "rated, pooled": ("rated", {"history": CENTERED, "item_prior": np.arange(NUM_ITEMS, dtype=np.float32)}),
    "sampled, own embedding": ("sampled", {"query_embedding": True}),
    "sampled, pooled": ("sampled", {"history": POOLED, **COSINE}),
    "gbce, pooled": ("gbce_loss", {"history": POOLED, **COSINE}),
    "contrastive, pooled": ("cosine_contrastive_loss", {"history": POOLED, "similarity": "cosine"}),
    "sampled, transformer": ("sampled", {"transformer": TRANSFORMER}),
    "catalogue, own embedding": ("catalogue", {"query_embedding": True, "item_bias": True}),
    "catalogue, pooled": ("catalogue", {"history": POOLED, **COSINE}),
    "catalogue, transformer": ("catalogue", {"transformer": TRANSFORMER, **COSINE}),
}


SHORT = ("rated, pooled", "sampled, pooled", "gbce, pooled", "catalogue, pooled", "catalogue, transformer")


@pytest.mark.parametrize(
    ("candidates", "options"),
    [pytest.param(*MODES[name], id=name, marks=[] if name in SHORT else pytest.mark.long) for name in MODES],
)
def test_neither_replicas_nor_a_resume_change_the_training(lists, candidates, options):
    """Two calls of three steps. A resumed run has the weights after the first call and takes the second."""
    run = Run(tf.distribute.get_strategy(), lists, candidates, options)
    _, halfway = run.take(0)
    expected_sums, expected = run.take(1)
    run.model.set_weights(halfway)
    sums, weights = run.take(1)
    np.testing.assert_array_equal(sums, expected_sums)
    for part, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(part, other)
    # A prior is the last weight, and is not trained.
    for part, before in zip(weights[: len(run.model.trainable_variables)], halfway, strict=False):
        assert not np.array_equal(part, before)

    mirrored = Run(mirrored_strategy(4 if candidates == "catalogue" else 2), lists, candidates, options)
    mirrored.take(0)
    sums, weights = mirrored.take(1)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-4)
    for part, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(part, other, atol=1e-5)


def one_batch(lists, negatives_fn):
    superbatch = next(batches(lists, 0, 1, negatives_fn, tf.distribute.get_strategy()))
    return {name: feature[0] for name, feature in superbatch.items()}


def softmax_loss(scores, is_candidate, label_items):
    """Summed over the targets: −log of their share of Σ exp(score) over the candidates."""
    log_total = np.log(np.exp(scores[is_candidate]).sum())
    return sum(log_total - scores[item] for item in label_items)


def test_the_catalogue_is_all_items_that_are_not_in_the_history_and_the_targets(lists):
    """Targets are the items of the list that this step dropped from the history, if they are rated 3 or higher."""
    model, objective, _ = build("catalogue", history=POOLED, **COSINE)
    batch, step = one_batch(lists, None), tf.constant(0, tf.int64)
    draws = Draws(SEED, step, batch[schema.ROWS])
    lists_of_step = model.training_lists(batch, draws)
    candidates = model.catalogue_vectors().numpy()
    kept = model.history.is_kept(batch[schema.ITEMS], draws).numpy()
    expected, equal = [], []
    for row in range(BATCH_SIZE):
        scores = candidates @ lists_of_step.queries[row].numpy()
        items, ratings = batch[schema.ITEMS][row].numpy(), batch[schema.LABELS][row].numpy()
        in_list = (ratings >= 0) & ~kept[row]
        is_candidate = np.ones(NUM_ITEMS, bool)
        is_candidate[batch[schema.HISTORY][row].numpy()] = False
        is_candidate[0] = False
        is_candidate[items[in_list]] = True
        targets = items[in_list & (ratings >= 3)]
        expected.append(softmax_loss(scores, is_candidate, targets) / max(len(targets), 1) ** 0.5)
        equal.append(len(targets) ** 0.5 * np.log(is_candidate.sum()))
    loss, sums, _ = objective(batch, step)
    assert sum(value > 0 for value in expected) >= 3
    np.testing.assert_allclose(sums, [np.sum(expected), np.sum(expected), np.sum(equal)], rtol=1e-5)
    np.testing.assert_allclose(loss, np.sum(expected) / BATCH_SIZE, rtol=1e-5)


def test_sampled_negatives_stand_for_the_catalogue(lists):
    """With many draws and the logQ correction, the sampled loss comes close to the loss over the catalogue."""
    options = {"query_embedding": True, "item_bias": True}
    model, catalogue, _ = build("catalogue", **options)
    _, sampled, _ = build("sampled", **options)
    batch = one_batch(lists, build_sampler(20_000).draw)
    sampler = build_sampler(20_000)
    loss_fn = losses.build_loss("softmax_loss", global_batch_size=BATCH_SIZE)
    rank_fn = objectives.rank_sampled(model, loss_fn, sampler, logq_correction=True)
    sampled = Objective(model, rank_fn, labels_fn=objectives.binary_labels(3.0), normalization_power=0.5)
    np.testing.assert_allclose(
        sampled(batch, tf.constant(0, tf.int64))[0], catalogue(batch, tf.constant(0, tf.int64))[0], rtol=5e-3
    )


def test_the_transformer_predicts_each_item_from_those_before_it(lists):
    model, objective, _ = build("catalogue", transformer={**TRANSFORMER, "dropout": 0.0}, item_bias=True)
    batch = one_batch(lists, None)
    items, ratings = batch[schema.ITEMS].numpy(), batch[schema.LABELS].numpy()
    candidates = model.catalogue_vectors().numpy()
    expected = 0.0
    for row in range(BATCH_SIZE):
        terms = []
        for position in np.flatnonzero(ratings[row] >= 3):
            history = np.zeros([1, LIST_SIZE], np.int32)
            history[0, :position] = items[row, :position]
            features = {schema.HISTORY: tf.constant(history), schema.HISTORY_RATINGS: tf.zeros([1, LIST_SIZE])}
            scores = candidates @ model.query_vectors(features).numpy()[0]
            terms.append(softmax_loss(scores, np.arange(NUM_ITEMS) > 0, [items[row, position]]))
        expected += sum(terms) / max(len(terms), 1) ** 0.5
    np.testing.assert_allclose(objective(batch, tf.constant(0, tf.int64))[1][0], expected, rtol=1e-4)


def test_rated_lists_are_ranked_by_the_gains_of_their_ratings(lists):
    model, objective, _ = build("rated", history=POOLED)
    batch = one_batch(lists, None)
    scores, found = model(batch).numpy(), objective.evaluate(batch).numpy()
    for row, ratings in enumerate(batch[schema.LABELS].numpy()):
        of_list, gains = scores[row][ratings >= 0], 2 ** ratings[ratings >= 0] - 1
        expected = np.sum(gains * (np.log(np.sum(np.exp(of_list))) - of_list)) / np.sum(gains) ** 0.5
        equal = np.sum(gains) ** 0.5 * np.log(len(gains))
        np.testing.assert_allclose(found[row], [expected, expected, equal], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("candidates", ["rated", "sampled", "catalogue"])
def test_a_model_with_equal_scores_has_a_relative_loss_of_one(lists, candidates):
    """Whatever the sizes of the lists and the labels in them. With targets on top it is lower."""
    model, objective, negatives_fn = build(candidates, history=POOLED, item_bias=True, similarity="dot")
    model.set_weights([np.zeros_like(weights) for weights in model.get_weights()])
    batch = one_batch(lists, negatives_fn)
    for sums in (objective(batch, tf.constant(0, tf.int64))[1].numpy(), objective.evaluate(batch).numpy().sum(axis=0)):
        assert sums[1] / sums[2] == pytest.approx(1.0, rel=1e-5) and sums[2] > 0
    relevant = batch[schema.ITEMS][batch[schema.LABELS] >= 4].numpy()
    bias = np.zeros([NUM_ITEMS, 1], np.float32)
    bias[relevant] = 0.1
    model.item_bias.embeddings.assign(bias)
    _, numerator, denominator = objective(batch, tf.constant(0, tf.int64))[1].numpy()
    assert numerator < denominator


def test_the_relative_loss_of_a_loss_that_is_minus_a_metric_is_what_is_missing_to_its_best(lists):
    model, _, _ = build("rated", history=POOLED)
    loss_fn = losses.build_loss("approx_ndcg_loss", global_batch_size=BATCH_SIZE, temperature=0.01)
    objective = Objective(
        model, objectives.rank_rated(model, loss_fn), lowest_loss=losses.lowest_loss("approx_ndcg_loss")
    )
    batch = one_batch(lists, None)
    values, numerators, denominators = objective.evaluate(batch).numpy().T
    np.testing.assert_allclose(numerators, values + 1, rtol=1e-6)
    zeros = tf.zeros_like(batch[schema.LABELS])
    np.testing.assert_allclose(denominators, 1 + loss_fn(batch[schema.LABELS], zeros, 0, batch[schema.ROWS]), rtol=1e-6)
    assert np.all(numerators >= 0) and np.all(denominators >= 0)


def test_validation_ranks_the_list_for_the_whole_history(lists):
    model, objective, _ = build("catalogue", history=POOLED, **COSINE)
    batch = one_batch(lists, None)
    queries, candidates = model.query_vectors(batch).numpy(), model.catalogue_vectors().numpy()
    found = objective.evaluate(batch).numpy()
    for row in range(BATCH_SIZE):
        items, ratings = batch[schema.ITEMS][row].numpy(), batch[schema.LABELS][row].numpy()
        is_candidate = np.arange(NUM_ITEMS) > 0
        is_candidate[batch[schema.HISTORY][row].numpy()] = False
        is_candidate[items[ratings >= 0]] = True
        targets = items[ratings >= 3]
        expected = softmax_loss(candidates @ queries[row], is_candidate, targets) / max(len(targets), 1) ** 0.5
        np.testing.assert_allclose(found[row, :2], expected, rtol=1e-5)
