"""Finding run folders: the newest one, one by its name, and a table of all."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from mxnb.config import policy_file, run_root
from mxnb.run.lock import held


def runs_in(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Run folders below `root` with their status.json, the newest first."""
    runs = []
    for path in root.rglob("status.json"):
        try:
            status = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if (path.parent / "config.json").exists():
            runs.append((path.parent, status))
    return sorted(runs, key=lambda run: -run[1].get("time", 0.0))


def run_named(name: str) -> Path:
    """The run folder of that name: latest, a path, or as `table` lists it; FileNotFoundError where there is none."""
    run = _latest() if name == "latest" else Path(name)
    run = run if run.is_dir() else run_root() / name
    run = run if run.is_dir() else next(run_root().parent.glob(f"*/{name}/job.json"), run / "none").parent  # of a sweep
    if not run.is_dir():
        raise FileNotFoundError(f"there is no folder {name}; `python -m mxnb runs` lists the runs")
    return run


def _latest() -> Path:
    root = run_root()
    for run, _ in runs_in(root):
        if policy_file(run).exists() and not _is_part(run, root):  # a notebook's side runs are no run
            return run
    raise FileNotFoundError(f"no run with a policy in {root}; train one first, or name its folder")


def _is_part(run: Path, root: Path) -> bool:
    """Whether a run lies inside another run's folder."""
    return any((folder / "config.json").exists() for folder in run.parents if folder.is_relative_to(root))


def table(root: Path) -> str:
    """The runs below `root` in lines to read, the newest first; killed: it says running, and nobody holds it."""
    rows = [("status", "agent", "environment", "seed", "update", "return", "age", "folder")]
    for run, status in runs_in(root):
        config = json.loads((run / "config.json").read_text())
        result = run / "result.json"
        metrics = json.loads(result.read_text())["metrics"] if result.exists() else {}
        value = metrics.get("train/mean_episode_return")
        shown = "" if value is None else f"{value:.2f}"
        hours = (time.time() - status.get("time", 0.0)) / 3600
        age = f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} d"
        folder = str(run.relative_to(root)) if run != root else str(run)
        seed, update = str(config["seed"]), f"{status['update']:,}"
        state = status["status"]
        state = "killed" if state == "running" and not held(run) else state
        rows.append((state, config["agent"], config["env"], seed, update, shown, age, folder))
    if len(rows) == 1:
        return f"no runs in {root}"
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join([f"runs in {root}, the newest first", *(f"  {line}" for line in lines)])
