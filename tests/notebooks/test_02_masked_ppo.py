"""Notebook 02 through papermill's door, and its exercises answered rightly and wrongly."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02_masked_ppo.ipynb"

RIGHT = """
def masked_probabilities(logits, mask):
    e = jnp.where(mask, jnp.exp(logits - jnp.where(mask, logits, -jnp.inf).max()), 0.0)
    return e / e.sum()

def td_error(reward, value, next_value, terminated, truncated, discount):
    return reward + discount * (1 - terminated) * next_value - value

def earns_gradient(ratio, advantage, clip_eps):
    return jnp.where(advantage > 0, ratio < 1 + clip_eps, ratio > 1 - clip_eps)
"""

WRONG = """
def masked_probabilities(logits, mask):
    return jnp.exp(logits) * mask / (jnp.exp(logits) * mask).sum()  # overflows

def td_error(reward, value, next_value, terminated, truncated, discount):
    return reward + discount * (1 - (terminated | truncated)) * next_value - value  # a limit is no death

def earns_gradient(ratio, advantage, clip_eps):
    return jnp.abs(ratio - 1) < clip_eps  # forgets on which side
"""


def check_exercises(answers: str) -> list[str]:
    """What the notebook's check cell prints for these answers, one line per exercise."""
    cells = nbformat.read(NOTEBOOK, 4).cells
    (checks,) = [cell.source for cell in cells if "checks" in cell.metadata.get("tags", [])]
    setting = "import jax, jax.numpy as jnp\nfrom mxnb.kernels.losses import ppo_policy_loss\n"
    setting += "from mxnb.kernels.returns import gae\n"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(setting + answers + checks, {})
    return printed.getvalue().splitlines()


def test_right_answers_are_right():
    assert [line.split(": ")[1] for line in check_exercises(RIGHT)] == ["right"] * 3


def test_wrong_answers_get_a_hint():
    lines = check_exercises(WRONG)
    assert len(lines) == 3
    assert all("not yet. " in line and len(line) > 40 for line in lines)


def test_mistakes_are_refused_before_training(tmp_path):
    given = {"presett": "smoke", "seed": 1.5, "resume": "true", "lr": 0.1, "run_dir": str(tmp_path / "run")}
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(NOTEBOOK, tmp_path / "out.ipynb", given, progress_bar=False)
    said = str(caught.value)
    assert "4 mistakes" in said
    for words in ("did you mean preset", "lr: unknown parameter", "put it into overrides", "seed: expected a whole"):
        assert words in said
    assert "resume: expected True or False" in said
    assert not (tmp_path / "run").exists()


def test_runs_headless_and_goes_on(tmp_path):
    given = {"preset": "smoke", "seed": 3, "run_dir": str(tmp_path / "run")}
    papermill.execute_notebook(NOTEBOOK, tmp_path / "out.ipynb", given, progress_bar=False)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "done"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 3
    again = papermill.execute_notebook(NOTEBOOK, tmp_path / "again.ipynb", given, progress_bar=False)
    assert "nothing is trained" in json.dumps(again)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == rows
    for name in ("curves", "achievements", "masked_unmasked", "episode", "learned", "update"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 5000
    assert "mxnb-player" in (tmp_path / "run" / "page.html").read_text()
