#!/usr/bin/env bash
# Makes papermill_runs/reference/NOTEBOOK anew: the executed notebook with a stamp, and its pictures.
#   bash scripts/reference.sh [NOTEBOOK] [PRESET]      6 to 10 minutes for 02_masked_ppo on 2 cores, 12 for 04, 25 for 03
set -euo pipefail
cd "$(dirname "$0")/.."
notebook=${1:-02_masked_ppo} preset=${2:-cpu}
out=papermill_runs/reference
run=papermill_runs/local/reference/$notebook
rm -rf "$run" && mkdir -p "$out/$notebook" "$run"
MXNB_WIDGETS=off MXNB_RUN_DIR=$run .venv/bin/papermill "notebooks/$notebook.ipynb" "$run.ipynb" \
    -p preset "$preset" --no-progress-bar --log-level WARNING
.venv/bin/python scripts/stamp.py "$run.ipynb" "$out/$notebook.ipynb" "notebooks/$notebook.ipynb" "$preset"
if compgen -G "$run/figures/*.png" > /dev/null; then cp "$run"/figures/*.png "$out/$notebook/"; fi
echo "wrote $out/$notebook.ipynb"
