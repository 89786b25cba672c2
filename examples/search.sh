#!/usr/bin/env bash
# Search for better values of config fields, then look at the best trial.
#
#   examples/search.sh
#
# PYTHON is the Python with Listwise, and RUNS the folder for what it writes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
runs=${RUNS:-runs/examples}

$python examples/write_shop.py "$runs/shop.csv"

# Five trials by their validation metric. Only the best one is evaluated on the test ratings.
$python -m trainer.tune --config.data.source="$runs/shop.csv" --config.train.num_epochs=20 \
    --space=configs/tune/default.py --workdir="$runs/search" --num_trials=5 --evaluate_best

# Each trial is a run with a workdir of its own. best.json names the best one, and the flags that train it again.
cat "$runs/search/best.json"
