#!/usr/bin/env bash
# From a CSV file of your own to recommendations that a service can serve.
#
#   examples/own_csv.sh
#
# PYTHON is the Python with Listwise, and RUNS the folder for what it writes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
runs=${RUNS:-runs/examples}

# The file has the columns Customer, Product, Product Name, Stars, Date and Channel. Their names are recognized.
$python examples/write_shop.py "$runs/shop.csv"
head -n 3 "$runs/shop.csv"

# Two models on the same ratings. Each run ends with its verdict, and writes report.html into its folder.
$python -m trainer.main --workdir="$runs/a" --config.data.source="$runs/shop.csv"
$python -m trainer.main --workdir="$runs/b" --config.data.source="$runs/shop.csv" --config.history.weights=equal

# Is the difference more than chance?
$python -m trainer.compare "$runs/a" "$runs/b"
$python -m trainer.report "$runs/a" "$runs/b" --output="$runs/report.html"

# Recommend to one customer, and to all.
$python -m trainer.recommend --workdir="$runs/a" --user_id=c42 --k=5
$python -m trainer.recommend --workdir="$runs/a" --all_users --k=10 --output="$runs/recommendations.csv"
head -n 3 "$runs/recommendations.csv"

# The model for a server, and what a server answers. This needs nothing of Listwise.
$python -m trainer.export --workdir="$runs/a" --output="$runs/serving/listwise"
$python examples/ask_model.py "$runs/serving/listwise/1" c42
