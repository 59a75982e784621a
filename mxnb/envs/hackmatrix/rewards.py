"""The fifteen parts of the reward, and the searches that two of them need (specification, sections 14 and 15)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from mxnb.envs.hackmatrix import bits
from mxnb.envs.hackmatrix.stage import blocks_of
from mxnb.envs.hackmatrix.state import State, cell_of, flat
from mxnb.envs.hackmatrix.tables import (
    ACROSS,
    CROSS,
    E_COL,
    E_ROW,
    FROM_SIPHON,
    PROGRAM,
    PROGRAMS,
    QUESTION,
    RESET,
    SIPHON,
    SIZE,
    STAGE_REWARD,
    STAGES,
)

_BELOW = np.concatenate([[0.0], np.cumsum(STAGE_REWARD)])[: STAGES + 1].astype(np.float32)


def exit_distance(state: State) -> Any:
    """int32: moves from the player to the exit around blocks, which entities do not bar; -1 without a way."""
    return exit_distances(state)[0]


def exit_distances(*states: State) -> Any:
    """int32[n]: `exit_distance` of several states, in one search."""
    stack = lambda each: bits.Bits(*(jnp.stack(words) for words in zip(*map(each, states), strict=True)))
    exits = stack(lambda s: bits.one(SIZE * s.exit_row + s.exit_col))
    return bits.distance(stack(lambda s: bits.one(cell_of(s))), exits, stack(blocks_of))


def siphon_quality(state: State) -> tuple[Any, Any, Any]:
    """(whether a siphon elsewhere would bring the same data and programs and more besides, credits, energy missed).

    Each of the two is the most that one better cell has over the player's, on its own. Sections 14.2 and 14.3.
    """
    block, fresh = flat(state.block_type) != 0, ~flat(state.siphoned)
    cross = jnp.asarray(CROSS)
    over = lambda cells, grid: (cross & cells[None]).astype(jnp.int32) @ flat(grid)
    credits, energy = (over(fresh & ~block, grid) for grid in (state.res_credits, state.res_energy))
    points = jnp.where(block & fresh, flat(state.block_points), 0)
    data = jnp.sort(jnp.where(cross, points[None], 0), -1)[:, -5:]  # a cross has five cells
    kind = flat(state.block_type)
    program = fresh & ((kind == PROGRAM) | ((kind == QUESTION) & (flat(state.block_points) == 0)))
    bit = np.uint32(1) << flat(state.block_program).astype(jnp.uint32)
    owned = jnp.where(state.owned_programs, np.uint32(1) << np.arange(len(PROGRAMS), dtype=np.uint32), np.uint32(0))
    held = jnp.bitwise_or.reduce(jnp.where(cross & program[None], bit[None], np.uint32(0)), axis=-1) & ~owned.sum(
        dtype=jnp.uint32
    )
    here = cell_of(state)
    same = (data == data[here][None]).all(-1) & (held == held[here]) & ~block
    extra_credits, extra_energy = credits - credits[here], energy - energy[here]
    better = same & (extra_credits >= 0) & (extra_energy >= 0) & (extra_credits + extra_energy > 0)
    most = lambda extra: jnp.where(better, extra, 0).max()
    return better.any(), most(extra_credits), most(extra_energy)


def components(
    start: State, state: State, action: Any, kills: Any, completed: Any, died: Any, distances: Any, missed: Any
) -> Any:
    """float32[15]: the parts of the reward of a legal step that was not UNDO, in the order of COMPONENTS.

    distances: to the exit at the start and after the step. missed: what a better siphon would have brought, 0 for other
    actions. Section 15.1.
    """
    gain = lambda name: getattr(state, name) - getattr(start, name)
    before, after = distances
    known = (before >= 0) & (completed | (after >= 0)) & ~died
    shorter = jnp.where(known, jnp.maximum(before - jnp.where(completed, 0, after), 0), 0)
    stage = jnp.asarray(STAGE_REWARD)[jnp.clip(start.stage - 1, 0, STAGES - 1)]
    cells = SIZE * state.enemies[:, E_ROW] + state.enemies[:, E_COL]
    beside = state.enemy_mask & (jnp.asarray(ACROSS)[cell_of(state)][cells] == 1)
    siphoned = (beside & (state.enemies[:, FROM_SIPHON] == 1)).any()
    wealth = 0.01 * state.credits + 0.01 * state.energy
    parts = [
        -0.01,
        jnp.where(completed, stage, 0.0),
        0.5 * gain("score"),
        0.3 * kills,
        jnp.maximum(gain("data_siphons"), 0),
        0.05 * shorter,
        jnp.minimum(gain("hp"), 0),
        jnp.maximum(gain("hp"), 0),
        jnp.where(state.stage > STAGES, 500.0 + 100.0 * state.score, 0.0),
        jnp.where(died, -0.5 * jnp.asarray(_BELOW)[jnp.clip(state.stage - 1, 0, STAGES)], 0.0),
        jnp.where(died & siphoned, -10.0, 0.0),
        0.05 * (gain("credits") + gain("energy")),
        jnp.where(completed, wealth, 0.0),
        jnp.where((action == RESET) & (start.hp == 2), -0.3, 0.0),
        jnp.where(action == SIPHON, -0.025 * missed, 0.0),
    ]
    return jnp.stack([jnp.asarray(part, jnp.float32) for part in parts])
