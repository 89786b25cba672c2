"""Which errors of remote paths are tried again, when, and for how long."""

import pytest
from absl import logging

from settings.errors import StorageError
from trainer import storage
from trainer.compat import tf
from trainer.retries import MAX_SECONDS, PAUSES, retry

REMOTE = "gs://bucket/file"


def tensorflow_error(name):
    return getattr(tf.errors, name)(None, None, "planted.\nSecond line")


class HttpError(Exception):
    """Like gcsfs's."""

    def __init__(self, code):
        super().__init__(f"status {code}")
        self.code = code


PASSING = [
    *map(tensorflow_error, ["UnavailableError", "DeadlineExceededError", "AbortedError", "InternalError"]),
    *(ConnectionResetError("planted"), TimeoutError("planted"), HttpError(500), HttpError(503)),
]
PERMANENT = [
    *map(tensorflow_error, ["NotFoundError", "PermissionDeniedError", "ResourceExhaustedError", "DataLossError"]),
    *(OSError(28, "No space left on device"), HttpError(404), HttpError(412), ValueError("planted")),
]


class Attempts:
    """Fails some times, each after some seconds. Its clock tells the pauses."""

    def __init__(self, error, num_failures, seconds=0.0):
        self.error, self.num_failures, self.seconds = error, num_failures, seconds
        self.number, self.now, self.pauses = 0, 100.0, []

    def __call__(self):
        self.number += 1
        self.now += self.seconds
        if self.number <= self.num_failures:
            raise self.error
        return self.number

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def retry(self, path=REMOTE):
        return retry(path, self, sleep=self.sleep, clock=lambda: self.now)


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: lines.append(message % values))
    return lines


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_an_error_that_may_pass_is_tried_again_after_growing_pauses(warned, error):
    attempts = Attempts(error, num_failures=3)
    assert attempts.retry() == 4
    assert attempts.pauses == list(PAUSES[:3]) == sorted(attempts.pauses)
    assert len(warned) == 3
    first_line = str(error).splitlines()[0].rstrip(".")
    assert warned[1] == f"{REMOTE}: {first_line}. Trying again in 2 s (2 of {len(PAUSES)})."


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_an_error_that_will_not_pass_is_raised_at_once(warned, error):
    attempts = Attempts(error, num_failures=1)
    with pytest.raises(type(error)) as raised:
        attempts.retry()
    assert raised.value is error
    assert (attempts.number, attempts.pauses, warned) == (1, [], [])


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_on_a_local_path_nothing_is_tried_again(warned, error):
    attempts = Attempts(error, num_failures=1)
    with pytest.raises(type(error)):
        attempts.retry("/local/file")
    assert (attempts.number, attempts.pauses, warned) == (1, [], [])


def test_the_last_error_is_raised_after_a_few_tries(warned):
    attempts = Attempts(PASSING[0], num_failures=100)
    with pytest.raises(tf.errors.UnavailableError):
        attempts.retry()
    assert attempts.pauses == list(PAUSES) and attempts.number == len(PAUSES) + 1


@pytest.mark.parametrize(("seconds", "number"), [(MAX_SECONDS, 1), (MAX_SECONDS / 2 - 1, 2), (MAX_SECONDS / 3 - 2, 3)])
def test_waiting_is_not_multiplied_if_each_try_takes_long(warned, seconds, number):
    """TensorFlow has tried for minutes when it raises an error of gs://."""
    attempts = Attempts(PASSING[0], num_failures=100, seconds=seconds)
    with pytest.raises(tf.errors.UnavailableError):
        attempts.retry()
    assert attempts.number == number


@pytest.fixture
def flaky(monkeypatch, warned):
    """Makes a function of TensorFlow's files fail some times."""
    monkeypatch.setattr(retry, "__kwdefaults__", {**retry.__kwdefaults__, "sleep": lambda seconds: None})

    def make(owner, name, num_failures, error="UnavailableError"):
        function, left = getattr(owner, name), [num_failures]

        def fail(*arguments, **options):
            if left[0]:
                left[0] -= 1
                raise tensorflow_error(error)
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, fail)

    return make


FUNCTIONS = {
    "exists": tf.io.gfile,
    "isdir": tf.io.gfile,
    "listdir": tf.io.gfile,
    "makedirs": tf.io.gfile,
    "remove": tf.io.gfile,
    "rename": tf.io.gfile,
    "stat": tf.io.gfile,
    "read": tf.io.gfile.GFile,
    "close": tf.io.gfile.GFile,
}


def use_every_operation(folder):
    storage.make_folder(folder)
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"content")
    assert storage.exists(path) and storage.is_folder(folder) and storage.list_folder(folder) == ["file"]
    assert storage.read_bytes(path) == b"content" and storage.size(path) == 7
    storage.rename(path, path + "-2")
    storage.remove(path + "-2")
    assert storage.list_folder(folder) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_operation_on_a_remote_path_is_tried_again(tmp_path, flaky, warned, name):
    flaky(FUNCTIONS[name], name, 2)
    use_every_operation(f"ram://{tmp_path.name}")
    assert len(warned) == 2


@pytest.mark.parametrize("name", ["close", "rename"])
@pytest.mark.parametrize(
    ("error", "num_failures"), [("UnavailableError", 100), ("PermissionDeniedError", 1)], ids=["too often", "permanent"]
)
def test_a_write_that_fails_leaves_the_old_content(tmp_path, flaky, name, error, num_failures):
    path = f"ram://{tmp_path.name}/file"
    storage.make_folder(f"ram://{tmp_path.name}")
    storage.write_bytes(path, b"old")
    with pytest.MonkeyPatch.context() as patch:
        function = getattr(FUNCTIONS[name], name)
        flaky(FUNCTIONS[name], name, num_failures, error)
        with pytest.raises(StorageError, match=r"file cannot be written: planted\."):
            storage.write_bytes(path, b"new")
        patch.setattr(FUNCTIONS[name], name, function)
        assert storage.read_bytes(path) == b"old"
        assert storage.list_folder(f"ram://{tmp_path.name}") == ["file"]


def test_a_rename_whose_answer_was_lost_counts(tmp_path, flaky, monkeypatch):
    folder = f"ram://{tmp_path.name}"
    storage.make_folder(folder)
    rename = tf.io.gfile.rename

    def rename_and_lose_the_answer(*arguments, **options):
        monkeypatch.setattr(tf.io.gfile, "rename", rename)
        rename(*arguments, **options)
        raise tensorflow_error("UnavailableError")

    flaky(tf.io.gfile, "exists", 0)
    monkeypatch.setattr(tf.io.gfile, "rename", rename_and_lose_the_answer)
    storage.write_bytes(f"{folder}/file", b"new")
    assert storage.read_bytes(f"{folder}/file") == b"new"
    with pytest.raises(FileNotFoundError):
        storage.rename(f"{folder}/none", f"{folder}/other")
