# Everything runs in .venv, but for Beam in .venv-beam. This Makefile makes and owns both; it needs nothing else but a
# Python.

PYTHON ?= python3
SUPPORTED_PYTHONS := 3.10 3.11 3.12 3.13

# The container engine, what it builds, and what that is called: name a repository here to push to it.
DOCKER ?= docker
DOCKERFILE ?= Dockerfile
REVISION = $(shell git describe --always --abbrev=12 --dirty)
IMAGE ?= listwise:$(REVISION)

PYTHON_VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
BIN := .venv/bin
# Without --use-pep517 the pip that comes with Python 3.10 warns about `promise`, a source archive.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517

# A stamp is written last, so what was interrupted is done again. The name of the first one holds the
# version: another Python finds no stamp of its own and makes .venv anew.
CREATED := .venv/.python-$(PYTHON_VERSION)
TRAIN_INSTALLED := .venv/.train-installed
TEST_INSTALLED := .venv/.test-installed
LAUNCH_INSTALLED := .venv/.launch-installed
BENCH_INSTALLED := .venv/.bench-installed
PEERS_INSTALLED := .venv/.peers-installed

# Beam cannot be installed beside TensorFlow, and data preparation needs none: these packages are left out.
BEAM_BIN := .venv-beam/bin
BEAM_INSTALLED := .venv-beam/.installed-$(PYTHON_VERSION)
NOT_FOR_BEAM := jinja2 matplotlib optuna tensorboard tensorflow tensorflow-datasets tensorflow-metadata tensorflow-ranking tf-keras

# Where bench finds tfds/, and bench-quality ml-100k/ and published/. What the latter writes: the same folder resumes.
DATA_DIR ?= ../shared/data
BENCH_OUTPUT ?= runs/quality

# The tests of a file share what they have trained, so they run in one process.
PARALLEL := --numprocesses=auto --dist=loadfile

# Two installations at once would spoil .venv.
.NOTPARALLEL:

.PHONY: help setup setup-beam train test test-long test-reliability test-examples test-launch test-beam lint bench bench-quality image image-check
.PHONY: constraints supported-python

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(TRAIN_INSTALLED)  ## Create .venv with all that training needs.

setup-beam: $(BEAM_INSTALLED)  ## Create .venv-beam with all that preparing data on Apache Beam needs.

train: setup  ## Train on the embedded ratings, then recommend five items to user 42.
	$(BIN)/python -m trainer.main --strategy=mirrored --workdir=runs/default
	$(BIN)/python -m trainer.recommend --workdir=runs/default --user_id=42 --k=5

test: $(TEST_INSTALLED)  ## Run the tests.
	$(BIN)/python -m pytest $(PARALLEL)

test-long: $(TEST_INSTALLED)  ## Run the tests that repeat others in more modes and processes; takes some minutes.
	$(BIN)/python -m pytest $(PARALLEL) -m long

test-reliability: $(TEST_INSTALLED)  ## Kill, stop and resume runs in every way that the promises name; takes 20 minutes.
	$(BIN)/python -m pytest $(PARALLEL) --dist=worksteal -m 'promise or reliability'

test-examples: $(LAUNCH_INSTALLED)  ## Run the examples and the commands of the documents; takes a quarter of an hour.
	$(BIN)/python -m pytest tests/examples -m ""

test-launch: $(LAUNCH_INSTALLED)  ## Run the tests of the launchers, with the client of Vertex AI.
	$(BIN)/python -m pytest tests/launch -m ""

# The fixtures of the other tests need TensorFlow.
test-beam: $(BEAM_INSTALLED)  ## Run the tests of preparing data on Apache Beam.
	$(BEAM_BIN)/python -m pytest --noconftest tests/data/prepared/beam

lint: $(TEST_INSTALLED)  ## Check format, style and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(PEERS_INSTALLED)  ## Compare speed and memory with other tools; takes a quarter of an hour.
	$(BIN)/python -m benchmarks.step --data_dir=$(wildcard $(DATA_DIR)/tfds)
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.saving
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.recommending
	$(BIN)/python -m benchmarks.whole_job
	$(BIN)/python -m benchmarks.finite_check --data_dir=$(wildcard $(DATA_DIR)/tfds)
	$(BIN)/python -m benchmarks.reduction --data_dir=$(wildcard $(DATA_DIR)/tfds)
	$(BIN)/python -m benchmarks.replicas --data_dir=$(wildcard $(DATA_DIR)/tfds)

bench-quality: $(BENCH_INSTALLED)  ## Compare the rankings with those of other methods; takes hours.
	$(BIN)/python -m benchmarks.quality --data_dir=$(DATA_DIR) --output=$(BENCH_OUTPUT)

# TPUs and the GPU machines of clouds are amd64, whatever this machine is.
image:  ## Build the container image, for GPUs; with DOCKERFILE=Dockerfile.tpu, for TPUs.
	$(DOCKER) build --platform linux/amd64 --file $(DOCKERFILE) --build-arg REVISION=$(REVISION) --tag $(IMAGE) .

image-check:  ## Build the GPU image without Docker and train in it; needs root, buildah and debootstrap.
	image/check.sh

# There is no TPU build of TensorFlow 2.21, and with it a newer libtpu ends the process on import.
constraints: $(CREATED)  ## Resolve every dependency anew and write all files of constraints.
	$(PIP_INSTALL) uv
	@echo "# The full set of versions the project is tested with, for CPython 3.10 to 3.13. \`make constraints\` writes it anew." > .venv/constraints.txt
	$(BIN)/uv pip compile --quiet --python $(BIN)/python --universal --python-version 3.10 \
	    --extra gpu --extra vertex --extra serving --extra test --extra bench --extra peers \
	    --no-annotate --no-header setup.py >> .venv/constraints.txt
	mv .venv/constraints.txt constraints.txt
	@echo "# All that Dockerfile.tpu installs, for CPython 3.12 on Linux. \`make constraints\` writes it anew." > .venv/constraints.txt
	printf '%s\n' tensorflow==2.20.0 tensorflow-tpu==2.20.0 libtpu==0.0.14 | $(BIN)/uv pip compile --quiet \
	    --python-version 3.12 --python-platform x86_64-manylinux_2_31 \
	    --no-emit-package tensorflow --no-annotate --no-header setup.py - >> .venv/constraints.txt
	mv .venv/constraints.txt constraints-tpu.txt
	@echo "# All that .venv-beam and Dockerfile.beam install, for CPython 3.10 to 3.13. \`make constraints\` writes it anew." > .venv/constraints.txt
	printf "%s; sys_platform == 'never'\n" $(NOT_FOR_BEAM) > .venv/overrides.txt
	$(BIN)/uv pip compile --quiet --python $(BIN)/python --universal --python-version 3.10 --extra beam \
	    --override .venv/overrides.txt --no-annotate --no-header setup.py > .venv/resolved.txt
	grep -v "'never'" .venv/resolved.txt >> .venv/constraints.txt
	mv .venv/constraints.txt constraints-beam.txt

$(CREATED): | supported-python
	$(PYTHON) -m venv --clear .venv
	@touch $@

$(TRAIN_INSTALLED): setup.py constraints.txt $(CREATED)
	@echo "Installing TensorFlow and the rest of what training needs into .venv; this takes a minute or two."
	$(PIP_INSTALL) --constraint constraints.txt --editable .
	@touch $@

$(TEST_INSTALLED): setup.py constraints.txt $(CREATED)
	@echo "Installing what training and the tests need into .venv; this takes a minute or two."
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[test]'
	@touch $(TRAIN_INSTALLED) $@

$(LAUNCH_INSTALLED): $(TEST_INSTALLED)
	@echo "Installing the client of Vertex AI into .venv; this takes half a minute."
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[test,vertex]'
	@touch $@

$(BENCH_INSTALLED): setup.py constraints.txt $(CREATED)
	@echo "Installing what training and the comparison with other methods need into .venv; this takes a minute or two."
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[bench]'
	@touch $(TRAIN_INSTALLED) $@

$(PEERS_INSTALLED): setup.py constraints.txt $(CREATED)
	@echo "Installing PyTorch, JAX and the rest of what is compared into .venv: 5 GB on Linux, which takes a few minutes."
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[peers]'
	@touch $(TRAIN_INSTALLED) $(BENCH_INSTALLED) $@

# What runs the tests has the versions of constraints.txt.
$(BEAM_INSTALLED): setup.py constraints-beam.txt constraints.txt | supported-python
	@echo "Installing Apache Beam and the rest of what it needs into .venv-beam; this takes a minute or two."
	$(PYTHON) -m venv --clear .venv-beam
	grep -E '^(hypothesis|pytest)==' constraints.txt > .venv-beam/tests.txt
	$(BEAM_BIN)/python -m pip install --quiet --disable-pip-version-check --requirement constraints-beam.txt \
	    --requirement .venv-beam/tests.txt
	$(BEAM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

supported-python:
	$(if $(PYTHON_VERSION),,$(error $(PYTHON) does not run: name a Python of 3.10 to 3.13, as in `make train PYTHON=python3.12`))
	$(if $(filter $(SUPPORTED_PYTHONS:=.%),$(PYTHON_VERSION)),,$(error $(PYTHON) is Python $(PYTHON_VERSION), which the project does not support: name one of 3.10 to 3.13, as in `make train PYTHON=python3.12`))
