#!/usr/bin/env bash
# Makes papermill_runs/reference/NOTEBOOK anew: the executed notebook with a stamp, and its pictures.
#   bash scripts/reference.sh [NOTEBOOK] [PRESET]      6 to 10 minutes for 02_masked_ppo on 2 cores
set -euo pipefail
cd "$(dirname "$0")/.."
notebook=${1:-02_masked_ppo} preset=${2:-cpu}
out=papermill_runs/reference
run=papermill_runs/local/reference/$notebook
rm -rf "$run" && mkdir -p "$out/$notebook" "$run"
MXNB_RUN_DIR=$run .venv/bin/papermill "notebooks/$notebook.ipynb" "$run.ipynb" \
    -p preset "$preset" --no-progress-bar --log-level WARNING
.venv/bin/python - "$run.ipynb" "$out/$notebook.ipynb" "$preset" <<'PYTHON'
import datetime
import subprocess
import sys
from importlib.metadata import version

import nbformat

source, target, preset = sys.argv[1:]
commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown CPU")
stamp = (
    f"*Executed {datetime.date.today()} at commit `{commit.stdout.strip()}` with preset `{preset}` on "
    f"{cpu}, jax {version('jax')}. Made by `scripts/reference.sh`; the notebook itself is in `notebooks/`.*"
)
notebook = nbformat.read(source, 4)
for cell in notebook.cells:
    cell.source = cell.source.replace("](../", "](../../")  # it lies one folder deeper than notebooks/
notebook.cells.insert(0, nbformat.v4.new_markdown_cell(stamp, id="stamp"))
nbformat.write(notebook, target)
PYTHON
if compgen -G "$run/figures/*.png" > /dev/null; then cp "$run"/figures/*.png "$out/$notebook/"; fi
echo "wrote $out/$notebook.ipynb"
