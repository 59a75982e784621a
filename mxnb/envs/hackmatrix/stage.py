"""What a stage is made of, how it begins, and where new transmissions appear (specification, sections 5 and 12)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.hackmatrix import bits
from mxnb.envs.hackmatrix.layouts import FEWEST, LAYOUTS, MOST, bank
from mxnb.envs.hackmatrix.state import GRIDS, State, blank, cell_of, square
from mxnb.envs.hackmatrix.tables import (
    ALIGNED,
    BETWEEN,
    CELLS,
    CORNERS,
    DATA,
    E_COL,
    E_ROW,
    IS_CORNER,
    MAX_HP,
    PROGRAM,
    PROGRAMS,
    QUESTION,
    SIZE,
    SLOTS,
    SPAWNS,
    STAGES,
    T_COL,
    T_ROW,
    TIMER,
)

_CELLS = np.arange(CELLS)


def blocks_of(state: Any) -> bits.Bits:
    """The cells with a block, siphoned or not."""
    return bits.pack(state.block_type.reshape(CELLS) != 0)


def enemies_of(state: Any) -> bits.Bits:
    """The cells with an enemy."""
    return bits.union(SIZE * state.enemies[:, E_ROW] + state.enemies[:, E_COL], state.enemy_mask)


def transmissions_of(state: Any) -> bits.Bits:
    """The cells with a transmission."""
    return bits.union(SIZE * state.transmissions[:, T_ROW] + state.transmissions[:, T_COL], state.trans_mask)


def rank(scores: Any) -> Any:
    """int32[n]: how many are smaller, or equal and earlier; in a batch this is faster than a sort."""
    at = np.arange(scores.shape[0])
    before = (scores[None] < scores[:, None]) | ((scores[None] == scores[:, None]) & (at[None] < at[:, None]))
    return before.sum(1, dtype=jnp.int32)


def in_fire(player: Any, blocks: bits.Bits, enemies: bits.Bits) -> Any:
    """bool[36]: cells in the player's row or column with neither block nor enemy strictly between."""
    low, high = bits.constant(BETWEEN)(player)
    shields = blocks | enemies
    return jnp.asarray(ALIGNED)[player] & ((low & shields.low) | (high & shields.high) == 0)


def place(
    key: Any, state: State, count: Any, *, corners: bool, shun_fire: bool, siphon: int = 0, task: int = 0
) -> tuple[Any, Any, Any]:
    """New transmissions on random free cells: (transmissions, trans_mask, how many had no cell or slot).

    corners: whether they may appear on corners. shun_fire: whether cells outside of the player's line of fire are used
    up first. siphon, task: their flags. Section 5.4.
    """
    player, blocks, enemies = cell_of(state), blocks_of(state), enemies_of(state)
    taken = bits.unpack(blocks | enemies | transmissions_of(state)) | (player == _CELLS)
    eligible = ~taken if corners else ~taken & ~IS_CORNER
    cell_key, type_key = jax.random.split(key)
    score = (jax.random.bits(cell_key, (CELLS,)) >> 8).astype(jnp.int32)
    score += ~eligible * np.int32(1 << 25)
    if shun_fire:
        score += in_fire(player, blocks, enemies) * np.int32(1 << 24)
    order = rank(score)
    slot = jnp.cumsum(~state.trans_mask) - 1
    goes = (order[None] == slot[:, None]) & (eligible & (order < count))[None] & ~state.trans_mask[:, None]  # [20, 36]
    new = goes.any(1)
    cell = (goes * _CELLS[None]).sum(1)
    kind = jax.random.randint(type_key, (SLOTS,), 0, 4)
    flags = [jnp.full(SLOTS, siphon), jnp.full(SLOTS, task)]
    rows = jnp.stack([cell // SIZE, cell % SIZE, jnp.full(SLOTS, TIMER), kind, *flags], 1).astype(jnp.int32)
    return jnp.where(new[:, None], rows, state.transmissions), state.trans_mask | new, count - new.sum(dtype=jnp.int32)


def furnish(key: Any, state: State) -> tuple[State, Any]:
    """A new stage around the player and whoever survived: (state, transmissions that had no place). Section 5.2."""
    keys = iter(jax.random.split(key, 11))
    player = cell_of(state)
    others = jnp.asarray(CORNERS) != player
    nth = jax.random.randint(next(keys), (), 0, others.sum())
    exit_cell = (jnp.asarray(CORNERS) * (others & (jnp.cumsum(others) - 1 == nth))).sum().astype(jnp.int32)
    pickup = IS_CORNER & (player != _CELLS) & (exit_cell != _CELLS)
    count, which = (jax.random.randint(next(keys), (), 0, most) for most in (MOST - FEWEST + 1, LAYOUTS))
    layout = bits.constant(bank().reshape(-1, CELLS))(LAYOUTS * count + which)
    alive = enemies_of(state) | transmissions_of(state) | bits.one(player)
    block = bits.unpack(layout & ~alive)

    hidden = jax.random.uniform(next(keys), (CELLS,)) < 0.1
    data = block & (jax.random.uniform(next(keys), (CELLS,)) < 0.5)
    points = jnp.where(data, jax.random.randint(next(keys), (CELLS,), 1, 10), 0)
    program = block & ~data
    deal = rank(jax.random.bits(next(keys), (len(PROGRAMS),)))  # a program's place in a shuffled deck
    drawn = (deal[None] == (jnp.cumsum(program) - 1)[:, None]) & program[:, None]  # [36, 23]
    index = (drawn * np.arange(len(PROGRAMS))[None]).sum(1)
    spawns = points + (drawn * SPAWNS[None]).sum(1)

    rich = (~block & ~IS_CORNER) | pickup
    luck = jax.random.uniform(next(keys), (CELLS,))
    amount = jnp.where(rich, 1 + (luck >= 0.45) + (luck >= 0.9), 0)
    credits = jax.random.bernoulli(next(keys), 0.5, (CELLS,))
    kind = jnp.where(block, jnp.where(hidden, QUESTION, jnp.where(data, DATA, PROGRAM)), 0)
    whole = lambda cells: square(cells.astype(jnp.int32))
    nothing = jnp.zeros((SIZE, SIZE), bool)
    state = state.replace(
        exit_row=exit_cell // SIZE, exit_col=exit_cell % SIZE,
        block_type=whole(kind), block_points=whole(points), block_program=whole(index), block_spawn_count=whole(spawns),
        siphoned=nothing, siphon_center=nothing, res_credits=whole(jnp.where(credits, amount, 0)),
        res_energy=whole(jnp.where(credits, 0, amount)), data_siphon=square(pickup),
    )  # fmt: skip
    sent, mask, dropped = place(next(keys), state, state.stage, corners=False, shun_fire=True)
    return state.replace(transmissions=sent, trans_mask=mask), dropped


def reset_state(key: Any) -> State:
    """A new game. Section 5.1."""
    corner_key, bonus_key, stage_key = jax.random.split(key, 3)
    corner = jnp.asarray(CORNERS, jnp.int32)[jax.random.randint(corner_key, (), 0, 4)]
    bonus = jax.random.randint(bonus_key, (), 0, 3)
    extra = lambda kind, amount: jnp.where(bonus == kind, amount, 0).astype(jnp.int32)
    state = blank().replace(
        row=corner // SIZE, col=corner % SIZE, credits=extra(0, 10), energy=extra(1, 11), data_siphons=extra(2, 1)
    )
    return furnish(stage_key, state)[0]


def advance(key: Any, state: State) -> tuple[State, Any]:
    """The stage is completed: on to the next one, or, after the last, won; (state, what had no place). Section 12."""
    stage = state.stage + 1
    interval = 13 - stage
    no = jnp.zeros((), bool)
    on = state.replace(
        stage=stage, hp=jnp.minimum(state.hp + 1, MAX_HP), turn=jnp.zeros_like(state.turn),
        scheduled_task_interval=interval, next_scheduled_task_turn=interval, show_activated=no,
        scheduled_tasks_disabled=no, step_active=no, atk_plus_uses=jnp.zeros_like(stage),
        pending_siphon_transmissions=jnp.zeros_like(stage), snapshot_valid=no,
        undo_accumulator=jnp.zeros_like(state.undo_accumulator),
        **{name: jnp.zeros_like(getattr(state, name)) for name in GRIDS},
    )  # fmt: skip
    new, dropped = furnish(key, on)
    won = stage > STAGES
    return jax.tree.map(lambda a, b: jnp.where(won, a, b), on, new), jnp.where(won, 0, dropped)
