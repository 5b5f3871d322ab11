#!/usr/bin/env bash
# Trains the MovieLens bundle from nothing but Python 3.11 and pip: environment, training, evaluation, export.
set -euo pipefail
cd "$(dirname "$0")"
if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
fi
.venv/bin/pip install --quiet --no-deps --requirement requirements.txt
export OMP_NUM_THREADS=1
exec .venv/bin/python train_movielens.py
