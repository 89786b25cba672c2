"""How the commands of the documents are run: in a folder with small files of the names that the documents use."""

import re
import shlex

RUN = "run"

_RUN = re.compile(r"^([A-Z_]+=\S+ )?(python -m (trainer|launch)\.|python -m benchmarks\.\S+ --help|listwise )")

# What a command needs that a test does not have → the commands. The reason is what matters: no command is skipped
# without one.
_NEEDS = {
    "the cloud": r"gs://|python -m launch\.vertex (submit|status|logs|cancel|tune|upload|deploy|predict)?(?!.*--dry_run)",
    "other machines, a TPU or GPUs": r"TF_CONFIG=|--strategy=tpu --workdir|--extra gpu|'\.\[gpu\]'",
    "a container engine or a server": r"^(docker|curl|gcloud|make image)",
    "a browser": r"^tensorboard ",
    "hours, or peers: tests/benchmarks has what can be tested of it": r"^make bench|^python -m benchmarks\.",
    "an installation: CI makes it": r"^make |^pip ",
    "minutes: tests/examples runs it": r"^examples/",
    "Apache Beam: make test-beam": r"--runner=",
}


def kind_of(command: str) -> str | None:
    """RUN, or what the command needs that a test does not have. None for a command that nobody has thought of."""
    for need, pattern in _NEEDS.items():
        if re.search(pattern, command):
            return need
    return RUN if _RUN.match(command) else None


def shortened(command: str) -> list[str]:
    """The arguments of a command, with few epochs if it trains and does not set their number."""
    words = shlex.split(command)
    trains = re.match(r"^(python -m (trainer\.(main|tune)|launch\.local)|listwise (train|tune))", command)
    if trains and "--help" not in words and not any("train.num_epochs" in word for word in words):
        words.append("--config.train.num_epochs=2")
    return words
