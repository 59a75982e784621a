"""Stamp an executed notebook: what ran, with which parameters and versions, where. `scripts/reference.sh` calls it.

    python scripts/stamp.py EXECUTED TARGET SOURCE PRESET

The stamp stands in words in a first cell and, for programs, in the metadata under "mxnb". Its `code` is a hash of
the source's code cells: an executed notebook is stale where its source has another one.
"""

from __future__ import annotations

import datetime
import hashlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import nbformat

PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "craftax")


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """sha256 of the code cells of a notebook; words, and how mxnb is installed, change without making results stale."""
    written = (cell for cell in notebook.cells if cell.cell_type == "code")
    cells = [
        cell.source for cell in written if not {"setup", "injected-parameters"} & set(cell.metadata.get("tags", ()))
    ]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()


def described() -> str:
    """The commit, with -dirty where a tracked file differs from it, but for the executed notebooks themselves."""
    git = lambda *words: subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!papermill_runs/reference")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def main(executed: str, target: str, source: str, preset: str) -> None:
    """Writes the stamped notebook; its links fit one folder deeper than notebooks/."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    notebook = nbformat.read(executed, 4)
    told = {
        "code": code_hash(nbformat.read(source, 4)),
        "preset": preset,
        "parameters": dict(notebook.metadata.get("papermill", {}).get("parameters", {})),
        "commit": described(),
        "date": datetime.date.today().isoformat(),
        "device": device if (device := jax.devices()[0].device_kind) != "cpu" else cpu,
        "versions": {name: version(name) for name in PACKAGES},
    }
    for cell in notebook.cells:
        cell.source = cell.source.replace("](../", "](../../")
    words = (
        f"*Executed {told['date']} at commit `{told['commit']}` with preset `{preset}` on {told['device']}, "
        f"jax {version('jax')}. Made by `scripts/reference.sh`; the notebook itself is in `notebooks/`.*"
    )
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(words, id="stamp"))
    notebook.metadata["mxnb"] = told
    nbformat.write(notebook, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
