"""Figures against plain NumPy, on any number of replicas; floors and catalogues with known answers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from settings.errors import ConfigError
from trainer import evaluate, strategy
from trainer.compat import tf
from trainer.data.dataset import load_dataset
from trainer.data.lists import build_lists
from trainer.evaluation import protocols as protocols_lib
from trainer.evaluation.baselines import build_floors
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.metrics import build_metrics
from trainer.evaluation.protocols import catalogue_lists, evaluate_protocols
from trainer.schema import ITEMS, LABELS, UNKNOWN_INDEX
from trainer.serving import export
from trainer.training import run as training_run

NUM_ITEMS = 20
# One score an item, no two alike.
SCORES = np.random.default_rng(5).permutation(NUM_ITEMS).astype(np.float32)
DEFAULT_STRATEGY = tf.distribute.get_strategy()


def mirrored(num_replicas):
    return tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:num_replicas])


def score_items(features):
    return tf.gather(SCORES, features[ITEMS])


def score_labels(features):
    return features[LABELS]


def lists_of(lists, num_items=100):
    """QueryLists of (user, items, labels)."""
    users, items, labels = zip(*lists, strict=True)
    sizes = [len(list_items) for list_items in items]
    return build_lists(np.repeat(users, sizes), np.concatenate(items), np.concatenate(labels), list_size=num_items)


def random_lists(num_lists, list_size, seed=0):
    """Lists of 1 to `list_size` items with labels from 1 to 5; the queries count from 1."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, list_size + 1, num_lists)
    return lists_of(
        [
            (query, rng.choice(np.arange(1, NUM_ITEMS), size, replace=False), rng.integers(1, 6, size))
            for query, size in enumerate(sizes, start=1)
        ]
    )


def dataset_of(num_users, num_items, **ratings):
    """What the module asks of a Dataset, from triples (user, item, rating) of each split."""
    ratings = {
        split: (triples[:, 0].astype(np.int32), triples[:, 1].astype(np.int32), triples[:, 2].astype(np.float32))
        for split, triples in ((split, np.asarray(triples).reshape([-1, 3])) for split, triples in ratings.items())
        if len(triples)
    }
    return SimpleNamespace(
        vocabulary=SimpleNamespace(num_users=num_users, num_items=num_items),
        ratings=ratings,
        lists={split: build_lists(*columns, list_size=num_items) for split, columns in ratings.items()},
    )


def figures_of(lists, scorer, names, *, on=DEFAULT_STRATEGY, list_size=8, batch_size=8, **options):
    metrics = build_metrics(names, relevance_threshold=4.0)
    options = {"list_size": list_size, "global_batch_size": batch_size, **options}
    return Evaluator(on, scorer, lists, metrics, **options).evaluate()


def protocols_of(dataset, scorer, names, *, on=DEFAULT_STRATEGY, num_catalogue_users=-1, seed=0):
    return evaluate_protocols(
        on,
        scorer,
        dataset,
        "test",
        build_metrics(names, relevance_threshold=4.0),
        list_size=dataset.vocabulary.num_items,
        global_batch_size=4,
        num_catalogue_users=num_catalogue_users,
        seed=seed,
    )


def numpy_figures(lists):
    """Name → value and weight of each list by SCORES, straight from the definitions."""
    values = {"loss": [], "ndcg": [], "mrr": [], "ordered_pair_accuracy": []}
    for _, items, labels in (lists[i] for i in range(lists.num_lists)):
        scores = SCORES[items]
        labels = labels[np.argsort(-scores)]
        discounts = 1 / np.log2(np.arange(len(items)) + 2)
        best = np.sort(labels)[::-1]
        ranks = np.flatnonzero(labels >= 4) + 1
        pairs = [(a, b) for a in range(len(labels)) for b in range(len(labels)) if labels[a] > labels[b]]
        values["loss"].append((scores.sum(), 1))
        values["ndcg"].append((((2**labels - 1) @ discounts) / ((2**best - 1) @ discounts), 1))
        values["mrr"].append((1 / ranks[0] if len(ranks) else 0, 1))
        values["ordered_pair_accuracy"].append((np.mean([a < b for a, b in pairs]) if pairs else 0, len(pairs)))
    return values


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_figures_are_the_mean_over_lists_and_its_standard_error(num_replicas):
    lists = random_lists(21, 8)  # In batches of 8: the last has 5 lists, and one of 4 replicas only fillers.
    on = DEFAULT_STRATEGY if num_replicas == 1 else mirrored(num_replicas)

    def loss_fn(labels, scores, step):
        return tf.reduce_sum(tf.where(labels >= 0, scores, 0.0), axis=1)

    actual = figures_of(lists, score_items, ["ndcg", "mrr", "ordered_pair_accuracy"], on=on, loss_fn=loss_fn)
    assert list(actual) == ["loss", "ndcg", "mrr", "ordered_pair_accuracy"]
    for name, pairs in numpy_figures(lists).items():
        values, weights = np.array(pairs, float).T
        mean = np.average(values, weights=weights)
        # Kish's effective sample size; the number of lists where all weigh the same.
        effective = weights.sum() ** 2 / (weights**2).sum()
        error = np.sqrt(np.average((values - mean) ** 2, weights=weights) / effective)
        assert actual[name].value == pytest.approx(mean, rel=1e-5), name
        assert actual[name].standard_error == pytest.approx(error, rel=1e-3), name
        assert actual[name].num_lists == np.count_nonzero(weights), name
        if name != "ordered_pair_accuracy":
            assert error == pytest.approx(np.std(values) / np.sqrt(21))


def test_an_evaluator_sees_the_scorer_as_it_is_now():
    sign = tf.Variable(1.0)
    lists = lists_of([(1, [1, 2], [5, 1]), (2, [3, 4], [4, 2])])
    metrics = build_metrics(["mrr"], relevance_threshold=4.0)
    evaluator = Evaluator(
        DEFAULT_STRATEGY, lambda f: sign * f[LABELS], lists, metrics, list_size=2, global_batch_size=2
    )
    assert evaluator.evaluate()["mrr"].value == 1.0
    sign.assign(-1.0)
    assert evaluator.evaluate()["mrr"].value == 0.5


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_metric_that_no_list_defines_is_not_a_number():
    figure = figures_of(lists_of([(1, [1, 2], [3, 3])]), score_items, ["ordered_pair_accuracy"])
    assert np.isnan(figure["ordered_pair_accuracy"].value)
    assert figure["ordered_pair_accuracy"].num_lists == 0


def random_dataset(seed, num_users=6, num_items=9):
    """Every pair is in one split or none. Indices count from 0; training knows no unknown user or item."""
    rng = np.random.default_rng(seed)
    pairs = np.argwhere(np.ones([num_users, num_items]))
    triples = np.column_stack([pairs, rng.integers(1, 6, len(pairs))])
    # Two items that training has not seen, for some users.
    triples = np.concatenate([triples, triples[(triples[:, 1] == 0) & (rng.random(len(triples)) < 0.5)]])
    part = rng.choice(["train", "validation", "test", "none"], len(triples))
    part[((triples[:, 0] == 0) | (triples[:, 1] == 0)) & (part == "train")] = "none"
    splits = {split: triples[part == split] for split in ("train", "validation", "test")}
    return dataset_of(num_users, num_items, **splits)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), split=st.sampled_from(["validation", "test"]))
def test_catalogues_are_those_of_brute_force(seed, split):
    dataset = random_dataset(seed)
    ratings = {
        name: list(zip(*(c.tolist() for c in columns), strict=True)) for name, columns in dataset.ratings.items()
    }
    assume(split in ratings)
    held_out = ratings[split]
    expected = {}
    for user in {user for user, _, _ in held_out} - {UNKNOWN_INDEX}:
        earlier = ratings.get("train", []) + (ratings.get("validation", []) if split == "test" else [])
        seen = {item for of, item, _ in earlier if of == user}
        labels = {item: 0.0 for item in range(1, dataset.vocabulary.num_items) if item not in seen}
        labels |= {item: rating for of, item, rating in held_out if of == user and item != UNKNOWN_INDEX}
        unknown = [(item, rating) for of, item, rating in held_out if of == user and item == UNKNOWN_INDEX]
        expected[user] = sorted([*labels.items(), *unknown])

    lists = catalogue_lists(dataset, split, num_users=-1, seed=0)
    actual = {query: sorted(zip(items.tolist(), labels.tolist(), strict=True)) for query, items, labels in lists}
    assert actual == expected
    assert lists.num_lists == len(expected)


def test_users_whose_catalogue_is_ranked_are_drawn_by_the_seed():
    dataset = dataset_of(51, 4, train=[(user, 1, 3) for user in range(1, 51)], test=[(u, 2, 4) for u in range(51)])
    everybody = catalogue_lists(dataset, "test", num_users=-1, seed=0)
    assert everybody.queries.tolist() == list(range(1, 51))
    assert catalogue_lists(dataset, "test", num_users=99, seed=0).queries.tolist() == list(range(1, 51))
    assert catalogue_lists(dataset, "test", num_users=0, seed=0).num_lists == 0

    some, again, others = (catalogue_lists(dataset, "test", num_users=10, seed=seed) for seed in (1, 1, 2))
    assert len(set(some.queries)) == some.num_lists == 10
    np.testing.assert_array_equal(some.queries, again.queries)
    assert set(some.queries) != set(others.queries)
    assert some.queries.max() > 20  # Not just the first.
    for query, items, labels in some:
        assert (query in range(1, 51), items.tolist(), labels.tolist()) == (True, [2, 3], [4, 0])


def test_protocols_of_a_known_order():
    """By SCORES: 5 > 4 > 3 > 2 > 1. User 1 has seen item 5, user 2 item 1; relevant are 3 and 4, and 2."""
    dataset = dataset_of(
        3, 6, train=[(1, 5, 5), (2, 1, 1)], test=[(1, 3, 4), (1, 4, 5), (1, 1, 1), (2, 2, 5), (2, 3, 2), (0, 4, 5)]
    )
    protocols = protocols_of(dataset, lambda f: tf.cast(f[ITEMS], tf.float32), ["mrr", "precision@1"])
    assert list(protocols) == ["rated", "catalogue"]
    for by_scorer in protocols.values():
        assert list(by_scorer) == ["model", "popularity", "random"]
    rated, catalogue = (protocols[protocol]["model"] for protocol in ("rated", "catalogue"))
    # Rated, with the unknown user: 4 is the first of (4, 3, 1), 2 the second of (3, 2), 4 the only one.
    assert (rated["mrr"].value, rated["mrr"].num_lists) == (pytest.approx((1 + 1 / 2 + 1) / 3), 3)
    # The catalogue: 4 is the first of (4, 3, 2, 1), 2 the last of (5, 4, 3, 2).
    assert (catalogue["mrr"].value, catalogue["mrr"].num_lists) == (pytest.approx((1 + 1 / 4) / 2), 2)
    assert catalogue["precision@1"].value == 0.5
    # Popularity is the order of the vocabulary, 1 > 2 > ...: 3 is the third of four for user 1, 2 the first for 2.
    assert protocols["catalogue"]["popularity"]["mrr"].value == pytest.approx((1 / 3 + 1) / 2)

    assert protocols_lib.final_scalars(protocols)["catalogue/mrr"] == pytest.approx(5 / 8)
    assert protocols_lib.to_json(protocols)["rated"]["model"]["mrr"]["num_lists"] == 3


def test_an_oracle_is_perfect_in_both_protocols():
    dataset = random_dataset(3)
    # Without unknown items, which even an oracle cannot recommend.
    known = {split: np.column_stack(columns)[columns[1] != UNKNOWN_INDEX] for split, columns in dataset.ratings.items()}
    dataset = dataset_of(6, 9, **known)
    for by_scorer in protocols_of(dataset, score_labels, ["ndcg", "ndcg@3"]).values():
        assert by_scorer["model"]["ndcg"].value == pytest.approx(1.0)
        assert by_scorer["model"]["ndcg@3"].value == pytest.approx(1.0)
        assert by_scorer["random"]["ndcg"].value < 0.99


def test_an_item_that_cannot_be_recommended_counts_as_missed():
    """Whoever ranks, and however high a score the unknown item has: it is the last of four."""
    dataset = dataset_of(2, 4, train=[(1, 1, 3)], test=[(1, UNKNOWN_INDEX, 5), (1, UNKNOWN_INDEX, 1)])
    for unknown_score in (100.0, -100.0):
        scores = tf.constant([unknown_score, 1.0, 2.0, 3.0])
        protocols = protocols_of(dataset, lambda f, scores=scores: tf.gather(scores, f[ITEMS]), ["precision@2", "hits"])
        for who, figures in protocols["catalogue"].items():
            assert (who, figures["precision@2"].value, figures["hits"].value) == (who, 0.0, 1.0)


def test_without_a_known_user_there_is_no_catalogue():
    dataset = dataset_of(2, 4, train=[(1, 1, 3)], test=[(0, 2, 5), (0, 1, 1)])
    assert list(protocols_of(dataset, score_labels, ["mrr"])) == ["rated"]
    dataset = dataset_of(2, 4, train=[(1, 1, 3)], test=[(1, 2, 5)])
    assert list(protocols_of(dataset, score_labels, ["mrr"], num_catalogue_users=0)) == ["rated"]
    assert list(protocols_of(dataset, score_labels, ["mrr"], num_catalogue_users=1)) == ["rated", "catalogue"]


def test_popularity_ranks_by_training_ratings(tiny_config):
    dataset = load_dataset(**evaluate.config_lib.dataset_arguments(tiny_config))
    _, train_items, _ = dataset.ratings["train"]
    counts = np.bincount(train_items, minlength=dataset.vocabulary.num_items)
    assert len(set(counts.tolist())) > 5
    shuffled = np.random.default_rng(0).permutation(dataset.vocabulary.num_items)
    scores = build_floors(seed=0)["popularity"]({ITEMS: tf.constant(shuffled[None], tf.int32)}).numpy()[0]
    ranked = shuffled[np.argsort(-scores)]
    assert (np.diff(counts[ranked]) <= 0).all()
    assert ranked[-1] == UNKNOWN_INDEX
    assert len(set(scores.tolist())) == len(scores)  # No ties, which would be broken by chance.


def test_a_random_order_finds_as_much_as_chance_does():
    """With r of n relevant, precision@k of a random order is r / n on average."""
    lists = lists_of([(query, np.arange(1, 11), [5] * 3 + [1] * 7) for query in range(1, 1501)])
    options = {"list_size": 10, "batch_size": 100}
    figures = [
        figures_of(lists, build_floors(seed=seed)["random"], ["precision@2", "mrr"], **options) for seed in (1, 1, 2)
    ]
    precision = figures[0]["precision@2"]
    # Hits among 2 drawn of 10 are hypergeometric.
    assert precision.standard_error == pytest.approx(np.sqrt(0.3 * 0.7 / 2 * 8 / 9 / 1500), rel=0.05)
    assert abs(precision.value - 0.3) < 4 * precision.standard_error
    assert figures[0] == figures[1]
    assert figures[0] != figures[2]


@pytest.mark.parametrize("who", ["popularity", "random"])
def test_floors_are_the_same_on_any_number_of_replicas(who):
    lists, floor = random_lists(21, 8), build_floors(seed=0)[who]
    one, four = (figures_of(lists, floor, ["mrr"], on=on)["mrr"] for on in (DEFAULT_STRATEGY, mirrored(4)))
    assert four.value == pytest.approx(one.value, rel=1e-6)


def test_evaluating_a_run_gives_the_figures_that_it_ended_with(tiny_config, tmp_path, monkeypatch, capsys):
    tiny_config.train.num_epochs = 1
    tiny_config.eval.metrics = ("ndcg@5", "mrr")
    tiny_config.eval.num_catalogue_users = 20
    workdir = str(tmp_path / "run")
    monkeypatch.setattr(evaluate.flags, "FLAGS", SimpleNamespace(workdir=workdir))
    with pytest.raises(ConfigError, match=workdir):
        evaluate.main()

    # On two replicas, while the evaluation has one.
    monkeypatch.setattr(strategy, "build_strategy", lambda *_, **__: mirrored(2))
    monkeypatch.setattr(export, "_verify", lambda *_: None)
    assert training_run.train_and_evaluate(tiny_config, strategy_name="mirrored", workdir=workdir) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(result["protocols"]) == ["rated", "catalogue"]

    capsys.readouterr()
    found = {}
    print_protocols = protocols_lib.print_protocols

    def print_and_keep(console, split, protocols):
        found[split] = protocols_lib.to_json(protocols)
        print_protocols(console, split, protocols)

    monkeypatch.setattr(evaluate, "print_protocols", print_and_keep)
    assert evaluate.main() == 0
    assert list(found) == [result["held_out"]] == ["test"]
    printed = capsys.readouterr().out
    for protocol, by_scorer in result["protocols"].items():
        assert f"test, {protocol}: {by_scorer['model']['mrr']['num_lists']} lists" in printed
        for who, figures in by_scorer.items():
            again = found["test"][protocol][who]
            for name, figure in figures.items():
                assert again[name] == pytest.approx(figure, rel=1e-5, abs=1e-6), (protocol, who, name)
            cells = [f"{figure['value']:.4f} ± {figure['standard_error']:.4f}" for figure in again.values()]
            assert [who, *" ".join(cells).split()] in [line.split() for line in printed.splitlines()]

    path = tmp_path / "run" / "data.json"
    data = json.loads(path.read_text())
    data["fingerprints"]["test lists"] = "0" * 64
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="test lists"):
        evaluate.main()
