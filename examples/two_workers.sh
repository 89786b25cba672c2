#!/usr/bin/env bash
# Train with two processes on this machine, as several machines would. The result is that of one process.
#
#   examples/two_workers.sh
#
# PYTHON is the Python with Listwise, and RUNS the folder for what it writes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
runs=${RUNS:-runs/examples}

$python examples/write_shop.py "$runs/shop.csv"
flags=(--config.data.source="$runs/shop.csv" --config.train.num_epochs=10)

$python -m launch.local --num_workers=2 -- --workdir="$runs/two_workers" "${flags[@]}"
$python -m trainer.main --workdir="$runs/one_process" "${flags[@]}"

# Both have the same test set, so their metrics can be compared user by user. They differ by rounding at most.
$python -m trainer.compare "$runs/one_process" "$runs/two_workers"
