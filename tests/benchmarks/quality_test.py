"""The comparison with peers: peers with a planted answer, and equal treatment of all methods."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

pytest.importorskip("implicit", reason="implicit is not installed; `pip install '.[bench]'` installs it")

from optuna.distributions import FloatDistribution

from benchmarks.quality import methods, protocols, report, run, tuning
from benchmarks.quality.data import Interactions, Split, TrainingData, published
from benchmarks.quality.method import Fitted, Method, same_for_all
from benchmarks.quality.protocols import Protocol, Target
from benchmarks.quality.records import TEST, TRIAL, Records
from settings.errors import DataError, DivergedError, StorageError
from tests.benchmarks.helpers import interactions


def training_data(chosen: Interactions, num_users: int, num_items: int) -> TrainingData:
    return TrainingData(
        num_users=num_users,
        num_items=num_items,
        has_ratings=True,
        relevance_threshold=4.0,
        vector_size=None,
        rated=False,
        interactions=chosen,
        seed=0,
    )


class TestPeers:
    def test_ease_solves_its_least_squares_problem(self):
        """Each column of B is the ridge regression of an item on all others."""
        rng = np.random.default_rng(1)
        matrix = rng.random([40, 7]) < 0.4
        data = training_data(interactions(np.argwhere(matrix).tolist()), 40, 7)

        scores = methods.METHODS["ease"].fit(data, {"l2": 3.0}).scores(np.arange(40))

        x = matrix.astype(float)
        for item in range(7):
            others = [other for other in range(7) if other != item]
            a = x[:, others]
            weights = np.linalg.solve(a.T @ a + 3.0 * np.eye(6), a.T @ x[:, item])
            assert scores[:, item] == pytest.approx(a @ weights, abs=1e-5)

    def test_ease_of_positives_ignores_low_ratings(self):
        pairs = [(user, item) for user in range(6) for item in range(3)]
        stars = [5.0 if item < 2 else 1.0 for _, item in pairs]
        data = training_data(interactions(pairs, stars), 6, 3)
        scores = methods.METHODS["ease_positives"].fit(data, {"l2": 1.0}).scores(np.arange(6))
        assert np.all(scores[:, 2] == 0) and np.all(scores[:, :2] > 0.5)

    def test_item_knn_sums_the_shrunk_cosines_of_the_nearest_items(self):
        # Item 0 is rated by users 0 to 3, item 1 by 0 to 2, item 2 by 3 and 4. User 5 has item 0 alone.
        pairs = [(0, 0), (1, 0), (2, 0), (3, 0), (5, 0), (0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]
        data = training_data(interactions(pairs), 6, 3)
        fitted = methods.METHODS["item_knn"].fit(data, {"k": 1, "shrinkage": 2.0, "weighting": "none", "input": "all"})
        # Each item's nearest is item 0 or, for item 0, item 1.
        near, far = 3 / (np.sqrt(5 * 3) + 2), 1 / (np.sqrt(5 * 2) + 2)
        assert fitted.scores(np.array([5]))[0] == pytest.approx([0, near, far])
        assert fitted.scores(np.array([0]))[0] == pytest.approx([near, near, far])

    def test_tf_idf_weighs_users_with_few_items_more(self):
        # Items 0 and 1 share user 0, who has four items; items 0 and 2 share user 1, who has two.
        pairs = [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0), (1, 2)]
        data = training_data(interactions(pairs), 3, 6)
        similarity = {
            weighting: methods.METHODS["item_knn"]
            .fit(data, {"k": 6, "shrinkage": 1.0, "weighting": weighting, "input": "all"})
            .scores(np.array([1]))[0]
            for weighting in ("none", "tf_idf")
        }
        assert similarity["none"][1] == pytest.approx(similarity["none"][2])
        assert similarity["tf_idf"][2] > similarity["tf_idf"][1]

    @pytest.mark.parametrize("name", ["item_knn", "ease", "ials", "bpr"])
    def test_finds_the_taste_of_two_groups(self, name):
        """Even users like even items. Each user lacks one of them, which has to come first."""
        pairs = [
            (user, item) for user in range(40) for item in range(20) if item % 2 == user % 2 and item // 2 != user // 4
        ]
        data = training_data(interactions(pairs, [5.0] * len(pairs)), 40, 20)
        method = methods.METHODS[name]
        scores = method.fit(data, tuning.propose(method, data, [])).scores(np.arange(40))
        scores = np.where(data.matrix().toarray() > 0, -np.inf, scores)
        missing = [2 * (user // 4) + user % 2 for user in range(40)]
        assert np.mean(scores.argmax(axis=1) == missing) > 0.9

    def test_item_mean_is_damped(self):
        data = training_data(interactions([(0, 0), (1, 1), (2, 1)], [5.0, 4.0, 4.5]), 3, 3)
        scores = methods.METHODS["item_mean"].fit(data, {"damping": 2.0}).scores(np.array([0]))[0]
        assert scores == pytest.approx([(5 + 2 * 4.5) / 3, (8.5 + 2 * 4.5) / 4, 4.5])


class TestOurs:
    @pytest.mark.slow
    def test_scores_are_those_of_the_trained_model(self):
        """Two groups as above. Item 20 has only low ratings, item 21 has none, and user 40 has rated only item 20."""
        pairs = [
            (user, item) for user in range(40) for item in range(20) if item % 2 == user % 2 and item // 2 != user // 4
        ]
        low = [(user, 20) for user in range(41)]
        data = training_data(interactions(pairs + low, [5.0] * len(pairs) + [1.0] * len(low)), 41, 22)
        method = methods.METHODS["pooled"]

        fitted = method.fit(data, {**method.start(data), "input": "positives", "train.num_epochs": 20})

        scores = fitted.scores(np.arange(41))
        assert np.all(scores[:40, 20:] == -np.inf) and np.all(np.isfinite(scores[:, :20]))
        # No model knows the user, who gets the most popular items.
        assert scores[40, :20].tolist() == np.bincount(data.interactions.items)[:20].tolist()
        scores = np.where(data.matrix().toarray() > 0, -np.inf, scores)[:40]
        assert np.mean(scores.argmax(axis=1) == [2 * (user // 4) + user % 2 for user in range(40)]) > 0.9


class TestPublishedSplits:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "published" / "tiny"
        folder.mkdir(parents=True)
        (folder / "train.txt").write_text("0 " + " ".join(map(str, range(20))) + "\n1 3\n")
        (folder / "test.txt").write_text("0 25\n1 4 5\n")
        return folder

    def test_validation_comes_from_train(self, tmp_path, folder):
        split = published(tmp_path, 0, name="tiny")
        assert (split.num_users, split.num_items, split.has_ratings) == (2, 26, False)
        assert sorted(split.test.items) == [4, 5, 25]
        # A tenth of the first user's; the only item of the second stays.
        assert split.validation.users.tolist() == [0, 0]
        assert sorted([*split.train.items, *split.validation.items]) == sorted([*range(20), 3])

    def test_an_overlap_is_refused(self, tmp_path, folder):
        (folder / "test.txt").write_text("1 3\n")
        with pytest.raises(DataError, match=r"in train\.txt and in test\.txt"):
            published(tmp_path, 0, name="tiny")


class Spy:
    """A method that ranks the last item higher the closer its hyperparameter is to 3. It records what it is given."""

    def __init__(self):
        self.seen: list[tuple[TrainingData, dict]] = []
        self.fails_at = -1

    def __call__(self, data, hyperparameters):
        self.seen.append((data, dict(hyperparameters)))
        if len(self.seen) - 1 == self.fails_at:
            raise DivergedError("planted")
        scores = -0.6 * np.arange(data.num_items)
        scores[-1] = -abs(hyperparameters["x"] - 3)
        return Fitted(same_for_all(scores.astype(np.float32)))


def planted_split(data_dir, seed: int) -> Split:
    """Item 5, the last, is relevant in the validation ratings and item 4 in the test ratings. Item 1 is disliked."""
    del data_dir
    users = range(8)
    return Split(
        num_users=8,
        num_items=6,
        has_ratings=True,
        train=interactions([(user, 0) for user in users], [5.0] * 8),
        validation=interactions([(user, 5 if user < 4 else 1) for user in users], [4.0] * 4 + [1.0] * 4),
        test=interactions([(user, 1 if user < 4 else 4) for user in users], [1.0] * 4 + [5.0] * 4),
    )


# The spy ranks the items 5, 2, 3 and 4 for the users 4 to 7 in the test: they have seen the items 0 and 1.
TEST_NDCG = 1 / np.log2(1 + 4)


@pytest.fixture
def spy(monkeypatch):
    spy = Spy()
    method = Method("spy", spy, lambda data: {"x": FloatDistribution(0, 10)}, lambda data: {"x": 9.0})
    protocol = Protocol(
        title="planted",
        folder="",
        load=planted_split,
        seeds=(0, 1),
        metrics=("binary_ndcg@5", "recall@1"),
        relevance_threshold=4.0,
        methods=("spy",),
        reference=("spy",),
        targets=(Target("binary_ndcg@5", 0.9),),
        published=(("Someone", (0.5, None)),),
    )
    monkeypatch.setitem(methods.METHODS, "spy", method)
    monkeypatch.setitem(protocols.PROTOCOLS, "planted", protocol)
    monkeypatch.setattr(report, "OURS", ("spy",))
    return spy


class TestRun:
    def run(self, tmp_path, num_trials=12):
        run.run_method("planted", "spy", data_dir=tmp_path, output=tmp_path, num_trials=num_trials)

    def test_tunes_on_validation_and_refits_on_all_but_test(self, spy, tmp_path):
        self.run(tmp_path)
        trials, tests = spy.seen[:12], spy.seen[12:]
        assert len(tests) == 2
        split = planted_split(tmp_path, 0)
        for data, _ in trials:
            assert sorted(data.interactions.items) == sorted(split.train.items)
        for data, _ in tests:
            assert sorted(data.interactions.items) == sorted([*split.train.items, *split.validation.items])
        # The usual value first, then the search, which comes close to the planted optimum.
        assert trials[0][1] == {"x": 9.0}
        best = max(range(12), key=lambda number: -(abs(trials[number][1]["x"] - 3) // 0.6))
        assert all(hyperparameters == trials[best][1] for _, hyperparameters in tests)
        assert abs(tests[0][1]["x"] - 3) < 0.6

    def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(self, spy, tmp_path):
        self.run(tmp_path)
        expected = [hyperparameters for _, hyperparameters in spy.seen]
        lines = (tmp_path / "results.jsonl").read_text().splitlines()
        spy.seen.clear()
        (tmp_path / "results.jsonl").write_text("\n".join(lines[:5]) + "\n")
        self.run(tmp_path)
        assert [hyperparameters for _, hyperparameters in spy.seen][:7] == expected[5:12]

        spy.seen.clear()
        self.run(tmp_path)
        assert spy.seen == []

    def test_a_line_that_was_cut_off_is_replaced(self, spy, tmp_path):
        self.run(tmp_path, num_trials=3)
        path = tmp_path / "results.jsonl"
        whole = path.read_text()
        path.write_text(whole[:-10])
        spy.seen.clear()
        self.run(tmp_path, num_trials=3)
        assert len(spy.seen) == 1
        assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [TRIAL] * 3 + [TEST] * 2

    def test_a_damaged_line_is_refused(self, spy, tmp_path):
        self.run(tmp_path, num_trials=2)
        path = tmp_path / "results.jsonl"
        path.write_text(path.read_text().replace('"kind"', "kind", 1))
        with pytest.raises(StorageError, match="line 1 is not JSON"):
            self.run(tmp_path, num_trials=2)

    def test_a_trial_that_fails_is_a_result(self, spy, tmp_path):
        spy.fails_at = 1
        self.run(tmp_path, num_trials=3)
        values = [record["value"] for record in Records(tmp_path).find(TRIAL)]
        errors = [record["error"] for record in Records(tmp_path).find(TRIAL)]
        assert [value is None for value in values] == [False, True, False]
        assert errors == [None, "DivergedError: planted", None]

    def test_results_of_another_split_are_not_used(self, spy, tmp_path, monkeypatch):
        self.run(tmp_path, num_trials=2)
        spy.seen.clear()
        other = dataclasses.replace(
            protocols.PROTOCOLS["planted"],
            load=lambda data_dir, seed: dataclasses.replace(
                planted_split(data_dir, seed), test=interactions([(0, 4)], [5.0])
            ),
        )
        monkeypatch.setitem(protocols.PROTOCOLS, "planted", other)
        self.run(tmp_path, num_trials=2)
        assert len(spy.seen) == 4

    def test_the_table(self, spy, tmp_path, monkeypatch):
        monkeypatch.setattr(report, "CEILING", methods.METHODS["spy"])
        self.run(tmp_path)
        protocol = protocols.PROTOCOLS["planted"]
        (row,) = report.load_rows(Records(tmp_path), "planted", protocol)
        assert row.values["binary_ndcg@5"][4:] == pytest.approx([TEST_NDCG] * 4)
        assert np.all(np.isnan(row.values["binary_ndcg@5"][:4]))

        lines = report.results("planted", protocol, [row]).splitlines()

        # The search has found a value close enough to 3, so the validation value is 1.
        assert pytest.approx(0.4307, abs=1e-4) == TEST_NDCG
        assert lines[4].startswith("| spy | 0.4307 ± 0.0000 | 0.0000 ± 0.0000 | 1.000 |  | 100.0% |")
        assert lines[5].startswith("| Someone (published) | 0.5000 |  |")
        assert lines[-1] == "- Target binary_ndcg@5 ≥ 0.9: missed by spy, with 0.4307."
        lines = report.details("planted", protocol, [row]).splitlines()
        assert lines[4].startswith("| spy | 1.0000 | 12 |") and lines[6].startswith("- spy: ")

    def test_the_difference_is_ours_minus_theirs(self):
        ours, theirs = np.array([0.5, 0.7, 0.9, np.nan, 0.4]), np.array([0.4, 0.7, 0.7, 0.1, np.nan])
        found = report.paired(ours, theirs)
        assert (found.value, found.num_queries) == (pytest.approx(0.1), 3)


class TestCeiling:
    def test_is_far_above_popularity(self):
        protocol = protocols.PROTOCOLS["synthetic"]
        split = protocol.load(pathlib.Path(), 0)
        data = run.training_data(protocol, split, 0, is_final=True)
        ceiling, popularity = (
            np.mean(
                run.evaluate(protocol, split, methods.METHODS[name].fit(data, {}).scores, is_final=True)[1]["recall@20"]
            )
            for name in ("ceiling", "popularity")
        )
        assert ceiling > 1.5 * popularity
