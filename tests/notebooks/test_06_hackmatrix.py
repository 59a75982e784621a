"""What notebook 06 says of its hand-built board and of the programs is what the game does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import nbformat
import numpy as np
import pytest

import mxnb
from mxnb.envs.hackmatrix import tables
from mxnb.recipes import RECIPES

ROOT = Path(__file__).parents[2]
SOURCE = (ROOT / "notebooks" / "06_hackmatrix.py").read_text()


def cell(words: str) -> str:
    """The one code cell that contains the words."""
    (found,) = [part for part in re.split(r"^# %%.*$", SOURCE, flags=re.M) if words in part]
    return found


@pytest.fixture(scope="module")
def board() -> Any:
    made: dict[str, Any] = {}
    exec(cell("board = make_state(").split("first = ")[0], made)
    return made["board"]


def test_six_actions_are_legal_on_the_first_board(board: Any) -> None:
    mask = np.asarray(mxnb.make("hackmatrix-v1").action_mask(board))
    assert [tables.ACTIONS[i] for i in np.flatnonzero(mask)] == ["down", "right", "siphon", "PUSH", "CRASH", "ROW"]


@pytest.mark.brief
def test_the_siphon_and_the_attack_go_as_it_is_told(board: Any) -> None:
    """Four transmissions for two points, RESET, two credits and three energy; then the virus is hit and they hatch."""
    step = jax.jit(mxnb.make("hackmatrix-v1").step)
    first, second = jax.random.split(jax.random.key(0))
    _, drained, _, _, _, told = step(first, board, tables.SIPHON)
    assert (int(drained.score), int(drained.credits), int(drained.energy)) == (2, 6, 7)
    assert bool(drained.owned_programs[tables.RESET - 5]) and float(told["new_programs"]) == 1
    assert int(drained.trans_mask.sum()) == 4 and int(drained.enemy_mask.sum()) == 4 and int(drained.hp) == 3
    assert np.asarray(drained.enemies)[0, 1:4].tolist() == [2, 3, 2]  # the virus, beside the player
    _, after, _, _, _, _ = step(second, drained, tables.RIGHT)
    assert (int(after.row), int(after.col)) == (2, 2) and int(after.hp) == 3
    assert np.asarray(after.enemies)[0, 1:4].tolist() == [2, 3, 1]
    assert int(after.trans_mask.sum()) == 0 and int(after.enemy_mask.sum()) == 8


def test_the_programs_cost_what_the_table_says() -> None:
    """Names in the game's order, credits, energy, and what their blocks release."""
    rows = re.findall(r"^# \| ([A-Z_+-]+) \| ([\dce ]+) \| (\d+) \|", SOURCE, re.M)
    assert [name for name, *_ in rows] == list(tables.PROGRAMS)
    for (name, price, spawns), credits, energy, count in zip(
        rows, tables.CREDITS, tables.ENERGY, tables.SPAWNS, strict=True
    ):
        words = [f"{amount}{unit}" for amount, unit in ((credits, "c"), (energy, "e")) if amount]
        assert (price, int(spawns)) == (" ".join(words), count), name


def test_the_table_of_parts_names_all_fifteen() -> None:
    table = SOURCE.split("# | part | pays |")[1].split("# Read it as")[0]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(tables.COMPONENTS)
    stages = re.search(r"`stage_completion` \| ([\d, ]+) for", table)
    assert stages and [int(x) for x in stages[1].split(",")] == tables.STAGE_REWARD.tolist()


def test_what_to_try_names_the_recipes_weights() -> None:
    """The literal that a reader shall put into the parameters cell: the recipe's, but for the one that is taken out."""
    weights = RECIPES[("ppo", "hackmatrix-v1")][0]["reward_scale"]
    text = SOURCE.split("Do programs pay in the long run?")[1].replace("\n#  ", "")
    literal = re.search(r'"reward_scale": (\{[^}]*\})', text)
    assert literal and json.loads(literal[1]) == weights | {"new_programs": 0.0}


def test_the_table_of_what_was_tried_is_the_benchmarks() -> None:
    """Rows, stages and shares of benchmarks/results/hackmatrix_learning.json, which is of the recipe as it is."""
    measured = json.loads((ROOT / "benchmarks" / "results" / "hackmatrix_learning.json").read_text())
    rows = re.findall(r"^# \| (.+?) \| (\d\.\d\d), (\d\.\d\d) \| (\d\.\d) % \| (\d\.\d) % \|$", SOURCE, re.M)
    percent = lambda share: f"{100 * share:.1f}"
    assert rows == [
        (row["what"], *(f"{stage:.2f}" for stage in row["stages"]), percent(row["siphon"]), percent(row["program"]))
        for row in measured["table"]
    ]
    (weights,) = [
        row["changes"]["reward_scale"] for row in measured["table"] if row["what"] == "1 for each new program"
    ]
    assert weights == RECIPES[("ppo", "hackmatrix-v1")][0]["reward_scale"] | {"new_programs": 1.0}
    assert f"reaches {measured['walker']['stage']:.2f} there" in SOURCE.replace("\n# ", " ")
    told = SOURCE.replace("\n# ", " ")
    (later,) = [row for row in measured["table"][1:] if row["commit"] == measured["commit"]]
    assert f"is of commit {later['commit']}, at which the recipe came to the same stages again" in told
    (first,) = {row["commit"] for row in measured["table"][1:] if row is not later}
    assert f"this one is of commit {first}. The row of {later['changes']['ent_coef']} is of" in told
    halves = [run["stage_half_interval"] for run in measured["runs"]]
    assert f"{min(halves):.2f} to {max(halves):.2f})" in SOURCE


def printed(words: str) -> str:
    """The output of the executed notebook's cell that begins with the words."""
    executed = nbformat.read(ROOT / "papermill_runs" / "reference" / "06_hackmatrix.ipynb", 4)
    streams = [out.text for part in executed.cells for out in part.get("outputs", ()) if out.output_type == "stream"]
    (found,) = [text for text in streams if text.startswith(words)]
    return found


def test_readme_tells_what_the_executed_notebook_printed_and_it_is_learned() -> None:
    """The aims: 0.5 of a stage above the walker, 3.0, 1 % of siphons and of programs, half an hour a seed, 3 seeds."""
    number = r"(\d+\.\d\d)"
    table = printed("512 episodes each")
    stages = {
        name.strip(): (float(a), float(b)) for name, a, b in re.findall(rf"^(\S.*?) +{number} ± {number} ", table, re.M)
    }
    row = rf"^seed (\d) +{number} ± {number} +([+-]{number}) +{number} % +{number} % +{number} +(\d+\.\d)$"
    seeds = re.findall(row, table, re.M)
    (walker, margin), (random, _) = stages["walker"], stages["random, legal"]
    assert len(seeds) == 3 and walker > random + 1
    readme = (ROOT / "README.md").read_text()
    for which, stage, error, paid, _, siphons, programs, _, minutes in seeds:
        assert float(stage) - float(error) > walker + margin and float(stage) > max(3.0, walker + 0.5)
        assert float(siphons) > 1 and float(programs) > 1 and float(minutes) < 30
        told = (
            rf"seed {which} \| \*\*{stage}\*\* ± {error} \| {re.escape(paid)} \| {siphons} %[a-z ]* \| {programs} % \|"
        )
        assert re.search(told, readme), told
    for name, words in (("walker", "a script that walks to the exit"), ("random, legal", "random, legal actions")):
        assert f"| {words} | {stages[name][0]:.2f} ± {stages[name][1]:.2f} |" in readme
    slowest = max(float(minutes) for *_, minutes in seeds)
    least, most = re.search(r"10M steps in (\d+) to (\d+) minutes a seed", readme).groups()
    assert int(least) <= slowest <= int(most)
