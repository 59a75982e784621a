"""Reading a run folder: its rows of metrics, its JSON files, and means that respect how many episodes count."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TAIL = 0.1  # "now" is the last tenth of a run
EPISODES = "train/num_episodes"
# Averages over ended episodes: a row in which 40 episodes ended weighs 40 times one in which 1 did.
PER_EPISODE = ("train/mean_episode_", "stats/")


def run_path(run: Any) -> Path:
    """The folder of a run given as a path or as the `Result` of `fit` (anything with `.run_dir`)."""
    return Path(getattr(run, "run_dir", run))


def read_metrics(run_dir: Any) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, one dict per update, oldest first.

    A last line that is still being written is ignored; a damaged line in the middle is skipped with a
    warning. The list is empty when no update has ended yet.

    Args:
        run_dir: the run folder, or the `Result` of `fit`.

    Raises:
        FileNotFoundError: there is no `metrics.jsonl` in that folder.
    """
    path = run_path(run_dir) / "metrics.jsonl"
    if not path.exists():
        raise FileNotFoundError(
            f"no metrics in {path}: give the folder that fit(agent, run_dir) wrote to, or train first."
        )
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    rows, damaged = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:  # also a multi-byte character cut in two
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            damaged.append(number)
    if damaged:
        which = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        say = (
            f"line {which} is damaged and was"
            if len(damaged) == 1
            else f"{len(damaged)} lines ({which}) are damaged and were"
        )
        warnings.warn(f"{path}, {say} skipped.", stacklevel=2)
    return rows


def some_rows(run: Any) -> list[dict[str, Any]]:
    """`read_metrics`, but an empty list is an error that says what to do."""
    rows = read_metrics(run)
    if not rows:
        raise ValueError(
            f"{run_path(run) / 'metrics.jsonl'} holds no complete row yet: the first is written when the first "
            "update ends. Wait for it, or train with fit(agent, run_dir)."
        )
    return rows


def not_whole(run: Any, rows: Sequence[dict[str, Any]]) -> int:
    """How many lines of `metrics.jsonl` are not among its rows: damaged ones, and one that is still being written."""
    path = run_path(run) / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return sum(1 for line in lines if line.strip()) - len(rows)


def read_json(run: Any, name: str) -> dict[str, Any]:
    """One JSON file of the run folder; {} when it is missing or half-written."""
    try:
        value = json.loads((run_path(run) / name).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def checkpoints(run: Any) -> list[int | str]:
    """Updates whose checkpoint is still there, the newest first, and "best" where there is one."""
    folder = run_path(run) / "checkpoints"
    found = sorted((int(p.name) for p in folder.glob("steps/*") if p.name.isdigit()), reverse=True)
    return [*found, *(["best"] if (folder / "best" / "params.npz").exists() else [])]


def number(row: dict[str, Any], key: str) -> float | None:
    """A row's metric as a float, NaN where the row has null (JSON has no NaN); None where it has no such metric."""
    value = row.get(key, "")
    if value is None:
        return math.nan
    return None if isinstance(value, str | bool | list | dict) else float(value)


def weight(row: dict[str, Any], key: str) -> float:
    """How much a row counts when `key` is averaged: its ended episodes for per-episode metrics, else 1."""
    if not key.startswith(PER_EPISODE):
        return 1.0
    episodes = number(row, EPISODES)
    # A per-episode value without a count comes from a file that has no counts: rows count alike.
    return 1.0 if episodes is None or not math.isfinite(episodes) or episodes <= 0 else episodes


def tail(rows: Sequence[dict[str, Any]], share: float = TAIL) -> Sequence[dict[str, Any]]:
    """The last `share` of the rows, at least one."""
    return rows[-max(1, round(share * len(rows))) :] if rows else rows


def pooled_mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """The mean of a metric over the rows that have it, pooled over episodes; None when no row has it."""
    pairs = [(value, weight(row, key)) for row in rows if (value := number(row, key)) is not None]
    if not pairs:
        return None
    return sum(value * w for value, w in pairs) / sum(w for _, w in pairs)
