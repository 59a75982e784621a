"""Notebook 03's exercises, answered rightly and wrongly."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import nbformat

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_average_reward.ipynb"

RIGHT = """
def gain_and_price(p, R):
    gain = (1 / p) / (1 / p + R)
    return gain, gain * R

def surprise(reward, value, next_value, duration, rho):
    return reward - rho * duration + next_value - value

def next_values(value, last, final, died, limit):
    return jnp.where(limit, final, jnp.append(value[1:], last))
"""

WRONG = """
def gain_and_price(p, R):
    gain = (1 / p) / (1 / p + R)
    return gain, R  # a death costs no more than what would have been earned

def surprise(reward, value, next_value, duration, rho):
    return reward - rho + next_value - value  # a long transition owes more

def next_values(value, last, final, died, limit):
    return jnp.where(limit, final, jnp.where(died, 0.0, jnp.append(value[1:], last)))  # the bug
"""

OPEN = """
def gain_and_price(p, R):
    return None

def surprise(reward, value, next_value, duration, rho):
    return None

def next_values(value, last, final, died, limit):
    return None
"""


def check_exercises(answers: str) -> list[str]:
    """What the notebook's check cell prints for these answers, one line per exercise."""
    cells = nbformat.read(NOTEBOOK, 4).cells
    (checks,) = [cell.source for cell in cells if "checks" in cell.metadata.get("tags", [])]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("import jax.numpy as jnp\n" + answers + checks, {})
    return printed.getvalue().splitlines()


def test_right_answers_are_right() -> None:
    assert [line.split(": ")[1] for line in check_exercises(RIGHT)] == ["right"] * 3


def test_wrong_answers_get_a_hint() -> None:
    lines = check_exercises(WRONG)
    assert len(lines) == 3
    assert all("not yet. " in line and len(line) > 40 for line in lines)


def test_open_ones_say_so() -> None:
    assert all("still open" in line for line in check_exercises(OPEN)) and len(check_exercises(OPEN)) == 3
