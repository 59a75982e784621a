"""Run folders as `fit` writes them, made by hand: these tests train nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

RULES = [
    dict(zip(("metric", "low", "high", "words", "cure"), rule, strict=True))
    for rule in (
        ("train/entropy_frac", 0.1, 1.0, "It stopped exploring.", "Raise <ent_coef>."),
        ("train/approx_kl", None, 0.06, "Steps are too big.", "Lower lr."),
        ("train/clip_frac", 0.0, 0.3, "Much is clipped.", "Lower lr."),
    )
]


def make_rows(n: int, start: float = 1.0) -> list[dict[str, Any]]:
    """n rows of 100 steps whose return grows by 1 a row; every third row has no ended episode."""
    rows = []
    for u in range(1, n + 1):
        row = {
            "update": u,
            "timesteps": 100 * u,
            "train/entropy_frac": 0.8,
            "train/approx_kl": 0.01,
            "train/clip_frac": 0.1,
            "train/num_episodes": 0.0,
            "actions/noop": 0.25,
            "actions/do": 0.75,
        }
        if u % 3 or n < 3:
            row |= {"train/num_episodes": 2.0, "train/mean_episode_return": start + u, "stats/collect_wood": 0.4}
            row["stats/place_table"] = 0.9
        rows.append(row)
    return rows


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "run", rows: Any = 12, end: str = "", rules: Any = RULES, start: float = 1.0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rows = make_rows(rows, start) if isinstance(rows, int) else rows
        text = "".join(json.dumps(row) + "\n" for row in rows) + end
        (folder / "metrics.jsonl").write_text(text)
        config = {"agent": "ppo", "env": "craftax-classic-symbolic-v1", "preset": "smoke", "seed": 0, "health": rules}
        (folder / "config.json").write_text(json.dumps(config | {"config": {"total_timesteps": 100 * len(rows)}}))
        (folder / "status.json").write_text(json.dumps({"status": "running"}))
        return folder

    return make


@pytest.fixture
def recording() -> SimpleNamespace:
    """50 steps; achievements at 7 and 23, a small reward at 30."""
    rewards = np.zeros(50)
    rewards[[7, 23, 30]] = 1.0, 1.1, -0.1
    return SimpleNamespace(
        frames=np.random.default_rng(0).integers(0, 255, (51, 9, 7, 3), dtype=np.uint8),
        actions=np.arange(50) % 3,
        rewards=rewards,
        values=np.linspace(0, 5, 50),
        entropies=np.full(50, np.log(3)),
        probs=np.full((50, 3), 1 / 3),
        masks=None,
        action_names=("noop", "make_wood_pickaxe", "an_action_with_a_very_long_name"),
        info={},
        infos={},
        terminated=False,
        truncated=False,
    )


def _texts(fig: Any) -> list[str]:
    """Every word in a figure."""
    from matplotlib.text import Text

    return [t.get_text() for t in fig.findobj(Text) if t.get_text()]


def _cut_off(fig: Any) -> dict[str, float]:
    """How far anything drawn sticks out of the figure, in inches, by side; {} when nothing does."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    box = fig.get_tightbbox(canvas.get_renderer())
    width, height = fig.get_size_inches()
    out = {"left": -box.x0, "bottom": -box.y0, "right": box.x1 - width, "top": box.y1 - height}
    return {side: by for side, by in out.items() if by > 0.01}


@pytest.fixture
def texts() -> Callable[[Any], list[str]]:
    """Every word in a figure."""
    return _texts


@pytest.fixture
def cut_off() -> Callable[[Any], dict[str, float]]:
    """How far things stick out of a figure."""
    return _cut_off
