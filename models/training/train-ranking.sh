#!/usr/bin/env bash
# Trains the MovieLens ranking bundle from nothing but Python 3.11 and pip; --smoke --out FOLDER a toy in a minute, --stream also block by block.
set -euo pipefail
root="$(pwd)"
cd "$(dirname "$0")"
if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
fi
if ! cmp --silent requirements.txt .venv/installed.txt; then
  .venv/bin/pip install --quiet --no-deps --requirement requirements.txt
  cp requirements.txt .venv/installed.txt
fi
export OMP_NUM_THREADS=1
here="$(pwd)"
cd "$root" # so that paths among the options mean what the caller meant
exec env PYTHONPATH="$here" "$here/.venv/bin/python" "$here/train_ranking.py" "$@"
