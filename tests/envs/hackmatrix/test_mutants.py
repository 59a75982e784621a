"""Likely bugs of the game, put in one at a time: the boards and references of this folder must see each."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from games import LANES, boards, plain, take
from referee import mask, observation
from reference import board_of, enemy_phase
from tiny import mutant

from mxnb.envs.hackmatrix import actions, enemies

observe = importlib.import_module("mxnb.envs.hackmatrix.observe")  # the package has a function of that name
pytestmark = pytest.mark.brief


@cache
def some() -> Any:
    few = np.random.default_rng(0).integers(0, 7, (2, LANES)).astype(np.int32)
    return take(boards(seed=3), slice(LANES)).replace(credits=few[0], energy=few[1])


@cache
def after_the_phase() -> list[Any]:
    """What the plain reference makes of the boards."""
    found = [board_of(some(), lane) for lane in range(LANES)]
    for board in found:
        enemy_phase(board)
    return found


def wrong_masks(module: Any) -> int:
    got = plain(jax.jit(jax.vmap(module.action_mask))(some()))
    return int((got != mask(some())).any(1).sum())


def wrong_observations(module: Any) -> int:
    got = plain(jax.jit(jax.vmap(lambda state: module.flatten(module.observe(state))))(some()))
    return int((np.abs(got - observation(some())) > 1e-5).any(1).sum())


def wrong_phases(module: Any) -> int:
    keys = jax.random.split(jax.random.key(0), LANES)
    state, _ = plain(jax.jit(jax.vmap(module.phase, (0, 0, None)))(keys, some(), True))
    pairs = zip((board_of(state, lane) for lane in range(LANES)), after_the_phase(), strict=True)
    alike = lambda one, other: all(
        getattr(one, name) == getattr(other, name) for name in ("hp", "enemies", "transmissions")
    )
    return sum(not alike(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("check", "module"), [(wrong_masks, actions), (wrong_observations, observe), (wrong_phases, enemies)]
)
def test_as_it_is_nothing_is_wrong(check: Any, module: Any) -> None:
    assert check(module) == 0


MUTANTS = [
    (wrong_masks, actions, "nobody is attacked in a wall", "~blocks | enemies | sent", "~blocks"),
    (wrong_masks, actions, "the last energy buys nothing", "state.energy >= ENERGY", "state.energy > ENERGY"),
    (wrong_masks, actions, "COL looks along the row", "_COL(state.col)", "_ROW(state.row)"),
    (wrong_observations, observe, "hidden cryptogs are seen", "(kind != CRYPTOG) |", "(kind == kind) |"),
    (wrong_observations, observe, "what lies under blocks is seen", "bare = (block == 0)", "bare = (block == block)"),
    (wrong_observations, observe, "rows and columns are swapped", "SIZE * row + col)[None]", "SIZE * col + row)[None]"),
    (wrong_phases, enemies, "the stunned act", "(foes[:, STUNNED] == 0) & ", ""),
    (wrong_phases, enemies, "hatchlings act at once", " & (foes[:, DISABLED] == 0)", ""),
    (wrong_phases, enemies, "all move twice", "as_bits(able & (foes[:, TYPE] == VIRUS))", "as_bits(able)"),
    (wrong_phases, enemies, "a virus bites and acts again", "(turn_one & ~attacks, second,", "(turn_one, second,"),
    (wrong_phases, enemies, "who left bars the cell still", "(there & ~bits.one(cell)) |", "there |"),
    (wrong_phases, enemies, "a tie is a step aside", "jnp.abs(down) >= ", "jnp.abs(down) > "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "module", "old", "new"), [(a, b, *c) for a, b, _, *c in MUTANTS], ids=[m[2] for m in MUTANTS]
)
def test_a_bug_is_seen(check: Any, module: Any, old: str, new: str) -> None:
    assert check(mutant(module, old, new)) > 0
