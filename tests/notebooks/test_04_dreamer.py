"""Notebook 04's exercises, answered rightly and wrongly."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import nbformat

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04_dreamer.ipynb"

RIGHT = """
def dream_returns(r, c, v, lam):
    found, after = [], v[-1]
    for k in reversed(range(len(r) - 1)):
        after = r[k + 1] + c[k + 1] * ((1 - lam) * v[k + 1] + lam * after)
        found.append(after)
    return jnp.stack(found[::-1])

def weights(c):
    return jnp.cumprod(c[:-1])

def two_bins(x, bins):
    i = np.searchsorted(bins, x) - 1
    code = np.zeros(len(bins))
    code[i + 1] = (x - bins[i]) / (bins[i + 1] - bins[i])
    code[i] = 1 - code[i + 1]
    return code
"""

WRONG = """
def dream_returns(r, c, v, lam):
    found, after = [], v[-1]
    for k in reversed(range(len(r) - 1)):
        after = r[k] + c[k] * ((1 - lam) * v[k + 1] + lam * after)  # the start's own reward
        found.append(after)
    return jnp.stack(found[::-1])

def weights(c):
    return jnp.cumprod(c[1:])  # the outcome's own chance

def two_bins(x, bins):
    code = np.zeros(len(bins))
    code[np.abs(bins - x).argmin()] = 1  # the nearest alone
    return code
"""

OPEN = """
def dream_returns(r, c, v, lam):
    return None

def weights(c):
    return None

def two_bins(x, bins):
    return None
"""


def check_exercises(answers: str) -> list[str]:
    """What the notebook's check cell prints for these answers, one line per exercise."""
    cells = nbformat.read(NOTEBOOK, 4).cells
    (checks,) = [cell.source for cell in cells if "checks" in cell.metadata.get("tags", [])]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("import jax.numpy as jnp\nimport numpy as np\n" + answers + checks, {})
    return printed.getvalue().splitlines()


def test_right_answers_are_right() -> None:
    assert [line.split(": ")[1] for line in check_exercises(RIGHT)] == ["right"] * 3


def test_wrong_answers_get_a_hint() -> None:
    lines = check_exercises(WRONG)
    assert len(lines) == 3
    assert all("not yet. " in line and len(line) > 40 for line in lines)


def test_open_ones_say_so() -> None:
    assert all("still open" in line for line in check_exercises(OPEN)) and len(check_exercises(OPEN)) == 3
