"""From metric sums to rows on disk, and from rows to a judgement in words."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

_WINDOW = 10  # rows that a judgement looks at


def to_rows(metrics: dict[str, Any], count: int) -> list[dict[str, float]]:
    """Rows of plain floats from stacked Mean and Max metrics, whose leaves are NumPy arrays [>= count].

    A Mean without samples is left out of its row; a value that is not finite becomes None (JSON's null).
    """
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in sorted(metrics):
        metric = metrics[name]
        for i, row in enumerate(rows):
            if hasattr(metric, "total"):
                if metric.count[i] == 0:
                    continue
                value = float(metric.total[i]) / float(metric.count[i])
            else:
                value = float(metric.value[i])
            row[name] = value if math.isfinite(value) else None
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]], at: int) -> int:
    """Puts rows into a JSON-lines file at byte `at` and hands them to the system; returns where they end.

    What stands behind `at` is the half of an earlier attempt that failed, and is replaced.
    """
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.seek(min(at, file.seek(0, os.SEEK_END)))
        file.truncate()
        file.write("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())
        return file.tell()


def cut_back(path: Path, offset: int, update: int) -> int:
    """Removes the rows behind a checkpoint, which stands at byte `offset` and `update`; returns where the file ends.

    A torn last row goes too. The offset alone would not do where the file came from an archive, another sitting's.
    """
    path.touch()
    text = path.read_bytes()[:offset]
    end = 0
    for line in text[: text.rfind(b"\n") + 1].splitlines(keepends=True):
        with suppress(ValueError, TypeError, KeyError):
            if json.loads(line)["update"] > update:
                break
        end += len(line)
    os.truncate(path, end)
    return end


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl that can be read; [] when there is none yet."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def final_metrics(rows: Sequence[dict[str, Any]], share: float = 0.1) -> dict[str, float]:
    """Each metric's mean over the last tenth of the updates; episode statistics are weighted by episodes."""
    tail = rows[-max(1, round(len(rows) * share)) :]
    result = {}
    for name in sorted({name for row in tail for name in row}):
        pairs = [
            (row[name], row.get("train/num_episodes", 1.0) if _per_episode(name) else 1.0)
            for row in tail
            if row.get(name) is not None
        ]
        weights = sum(w for _, w in pairs)
        if weights and "/" in name and not name.startswith(("time/", "memory/")):
            result[name] = sum(v * w for v, w in pairs) / weights
    return result


def _per_episode(name: str) -> bool:
    return name.startswith("stats/") or name.startswith("train/mean_episode")


def judge(rules: Sequence[Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with the latest rows, in words with the cure; [] when all is well.

    rules: Health records of the agent. Besides: NaN, nothing learned (KL and clip fraction both exactly 0),
    and a return that stayed flat from the first tenth of a run of at least 50 updates to its last.
    """
    tail, words = rows[-_WINDOW:], []
    if not tail:
        return words
    broken = sorted({name for row in tail for name, value in row.items() if value is None})
    if broken:
        words.append(f"{', '.join(broken[:3])} is not a number. Cure: lower lr or max_grad_norm, and check rewards")
    for rule in rules:
        values = [row[rule.metric] for row in tail if row.get(rule.metric) is not None]
        if values and not rule.low <= (mean := float(np.mean(values))) <= rule.high:
            words.append(f"{rule.metric} is {mean:.3g}: {rule.words}. Cure: {rule.cure}")
    moves = [row.get(name) for row in tail for name in ("train/approx_kl", "train/clip_frac")]
    if len(tail) == _WINDOW and all(value == 0 for value in moves):
        words.append("KL and clip fraction are both 0: nothing is learned. Cure: raise lr; check that rewards vary")
    tenth = len(rows) // 10
    if tenth >= 5:
        first, last = final_metrics(rows[:tenth], 1.0), final_metrics(rows[-tenth:], 1.0)
        name = "train/mean_episode_return"
        spread = float(np.std([r[name] for r in rows[:tenth] if r.get(name) is not None] or [0.0]))
        if name in first and name in last and last[name] <= first[name] + spread / math.sqrt(tenth):
            words.append(
                f"the return is flat: {first[name]:.3g} at first, {last[name]:.3g} now. "
                "Cure: train longer, raise lr or ent_coef, look at an episode"
            )
    return words
