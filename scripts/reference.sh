#!/usr/bin/env bash
# Makes papermill_runs/reference/NOTEBOOK anew: the executed notebook with a stamp, and its pictures.
#   bash scripts/reference.sh [NOTEBOOK] [PRESET]      6 to 10 minutes for 02_masked_ppo on 2 cores, 12 for 04, 25 for 03, 37 for 06
# 09_sweep_report tells of papermill_runs/sweeps/ppo_entropy.yaml at 250,000 steps a run: 13 minutes, if it is not done yet.
set -euo pipefail
cd "$(dirname "$0")/.."
notebook=${1:-02_masked_ppo} preset=${2:-cpu}
out=papermill_runs/reference
run=papermill_runs/local/reference/$notebook
more=()
if [ "$notebook" = 09_sweep_report ]; then
    .venv/bin/python -m mxnb sweep run papermill_runs/sweeps/ppo_entropy.yaml -p preset "$preset" -p total_timesteps 250000
    more=(-p sweep_dir ppo_entropy)
fi
rm -rf "$run" && mkdir -p "$out/$notebook" "$run"
MXNB_WIDGETS=off MXNB_RUN_DIR=$run .venv/bin/papermill "notebooks/$notebook.ipynb" "$run.ipynb" \
    -p preset "$preset" "${more[@]}" --no-progress-bar --log-level WARNING
.venv/bin/python scripts/stamp.py "$run.ipynb" "$out/$notebook.ipynb" "notebooks/$notebook.ipynb" "$preset"
find "$run/figures" -maxdepth 2 -name '*.png' -exec cp {} "$out/$notebook/" \;
echo "wrote $out/$notebook.ipynb"
