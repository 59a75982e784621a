"""The enemies' phase: what hatches, moves, attacks and is sent (specification, section 11)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.hackmatrix import bits
from mxnb.envs.hackmatrix.bits import Bits
from mxnb.envs.hackmatrix.stage import blocks_of, enemies_of, place, transmissions_of
from mxnb.envs.hackmatrix.state import State, cell_of
from mxnb.envs.hackmatrix.tables import (
    ACROSS,
    ALIGNED,
    COLS,
    CRYPTOG,
    DISABLED,
    E_COL,
    E_ROW,
    ENEMY_HP,
    GLITCH,
    NEIGHBOURS,
    ROWS,
    SIZE,
    SLOTS,
    STUNNED,
    T_COL,
    T_FROM_SIPHON,
    T_FROM_TASK,
    T_ROW,
    T_TYPE,
    TURNS,
    TYPE,
    VIRUS,
)

_SLOTS = np.arange(SLOTS)
_ALIGNED = bits.constant(ALIGNED)


def put(table: Any, column: int, values: Any) -> Any:
    """The table with another column."""
    return jnp.where((np.arange(table.shape[1]) == column)[None], values[:, None], table)


def pick(values: Any, slot: Any) -> Any:
    """values[slot], as a sum, which is faster than a gather in lanes."""
    return jnp.where(slot == _SLOTS, values, 0).sum()


def lowest(todo: Any) -> Any:
    """The index of the lowest bit that is set."""
    return jax.lax.population_count((todo & (~todo + 1)) - 1).astype(jnp.int32)


def as_bits(mask: Any) -> Any:
    """bool[20] as a number."""
    return jnp.where(mask, np.uint32(1) << _SLOTS.astype(np.uint32), np.uint32(0)).sum(dtype=jnp.uint32)


def phase(key: Any, state: State, runs: Any) -> tuple[State, Any]:
    """One phase, where `runs`: (state, how many had no place). Meaningless where it does not run, but cheap."""
    siphon_key, task_key = jax.random.split(key)
    state, lost = _tick(state)
    state = _act(state, runs & ~state.step_active)

    due = ~state.scheduled_tasks_disabled & (state.turn >= state.next_scheduled_task_turn)
    sent, mask, dropped = place(task_key, state, due.astype(jnp.int32), corners=True, shun_fire=True, task=1)
    again = jnp.where(due, state.turn + state.scheduled_task_interval, state.next_scheduled_task_turn)
    state = state.replace(transmissions=sent, trans_mask=mask, next_scheduled_task_turn=again)

    def siphoned(carry: Any) -> Any:
        now = state.replace(transmissions=carry[0], trans_mask=carry[1])
        return place(siphon_key, now, state.pending_siphon_transmissions, corners=True, shun_fire=False, siphon=1)

    pending = runs & (state.pending_siphon_transmissions > 0)
    before = state.transmissions, state.trans_mask, jnp.zeros((), jnp.int32)
    sent, mask, more = bits.when(pending, siphoned, before)
    foes = put(state.enemies, STUNNED, jnp.zeros(SLOTS, jnp.int32))
    foes = put(foes, DISABLED, jnp.maximum(foes[:, DISABLED] - 1, 0))
    state = state.replace(
        transmissions=sent, trans_mask=mask, pending_siphon_transmissions=jnp.zeros_like(state.turn), enemies=foes,
        step_active=jnp.zeros((), bool),
    )  # fmt: skip
    return state, lost + dropped + more


def _tick(state: State) -> tuple[State, Any]:
    """Transmissions come nearer; those that are due hatch into the first free slots. Section 11.1."""
    left = state.transmissions[:, TURNS] - 1
    hatch = state.trans_mask & (left <= 0)
    free = ~state.enemy_mask
    into = (jnp.cumsum(hatch)[None] == jnp.cumsum(free)[:, None]) & hatch[None] & free[:, None]  # [enemy, transmission]
    born = into.any(1)
    of = lambda column: (into * state.transmissions[:, column][None]).sum(1)
    kind, none = of(T_TYPE), jnp.zeros(SLOTS, jnp.int32)
    hp = (kind[:, None] == np.arange(4)[None]).astype(jnp.int32) @ ENEMY_HP
    rows = jnp.stack([kind, of(T_ROW), of(T_COL), hp, none + 1, none, of(T_FROM_SIPHON), of(T_FROM_TASK)], 1)
    state = state.replace(
        enemies=jnp.where(born[:, None], rows, state.enemies), enemy_mask=state.enemy_mask | born,
        transmissions=put(state.transmissions, TURNS, left), trans_mask=state.trans_mask & ~hatch,
    )  # fmt: skip
    return state, hatch.sum(dtype=jnp.int32) - born.sum(dtype=jnp.int32)


def _act(state: State, runs: Any) -> State:
    """Both sub-steps: those who can act attack or come nearer, one after another in slot order. Section 11.2."""
    player, blocks = cell_of(state), blocks_of(state)
    foes = state.enemies
    able = state.enemy_mask & (foes[:, STUNNED] == 0) & (foes[:, DISABLED] == 0) & runs
    near = jnp.asarray(ACROSS, jnp.int32)[player]  # [36] to the player
    sent = transmissions_of(state)

    def visit(carry: Any) -> Any:
        cells, there, hp, first, second = carry
        turn_one = first != 0
        slot = lowest(jnp.where(turn_one, first, second))
        bit = np.uint32(1) << slot.astype(jnp.uint32)
        cell, kind = pick(cells, slot), pick(foes[:, TYPE], slot)
        attacks = near[cell] == 1
        to = jnp.where(near[cell] > 1, _step_to(cell, kind, player, blocks, there | sent), cell)
        there = (there & ~bits.one(cell)) | bits.one(to)
        cells = jnp.where(slot == _SLOTS, to, cells)
        hp = jnp.where(attacks, jnp.maximum(hp - 1, 0), hp)
        second = jnp.where(turn_one & ~attacks, second, second & ~bit)
        return cells, there, hp, jnp.where(turn_one, first & ~bit, first), second

    cells = SIZE * foes[:, E_ROW] + foes[:, E_COL]
    first, second = as_bits(able), as_bits(able & (foes[:, TYPE] == VIRUS))
    carry = cells, enemies_of(state), state.hp, first, second
    cells, _, hp, *_ = jax.lax.while_loop(lambda c: (c[3] | c[4]) != 0, visit, carry)
    foes = put(put(foes, E_ROW, cells // SIZE), E_COL, cells % SIZE)
    return state.replace(enemies=jnp.where(state.enemy_mask[:, None], foes, state.enemies), hp=hp)


def _step_to(cell: Any, kind: Any, player: Any, blocks: Bits, occupied: Bits) -> Any:
    """Where an enemy goes that is not beside the player; its own cell where it cannot come nearer.

    A search from the player is over as soon as a wave touches the enemy's passable neighbours: those it touches are the
    nearest. To block the enemy's own cell, though it counts as passable, leaves the same ones.
    """
    here, at = bits.one(player), bits.one(cell)
    enterable = bits.where(kind == GLITCH, ~here, ~(blocks | here))
    beside = bits.spread(at)
    passable = enterable & ~occupied
    wave, _ = bits.search(here, passable & ~at, beside & passable)
    reached = wave & beside & passable
    # No way between the others: as if they were not there, but only onto a cell that is free now.
    alone, _ = bits.search(here, enterable, bits.only(~bits.some(reached), beside & enterable))
    choice = bits.where(bits.some(reached), reached, alone & beside & passable)

    hidden = choice & ~_ALIGNED(player)
    choice = bits.where((kind == CRYPTOG) & bits.some(hidden), hidden, choice)
    inside = choice & blocks
    choice = bits.where((kind == GLITCH) & bits.some(inside), inside, choice)
    rows, cols = jnp.asarray(ROWS, jnp.int32), jnp.asarray(COLS, jnp.int32)
    down, across = rows[player] - rows[cell], cols[player] - cols[cell]
    primary = cell + jnp.where(jnp.abs(down) >= jnp.abs(across), SIZE * jnp.sign(down), jnp.sign(across))
    ways = jnp.asarray(NEIGHBOURS)[cell]
    open_ = bits.has(choice, ways)
    first = ways[jnp.argmax(open_)]
    return jnp.where(bits.has(choice, primary), primary, jnp.where(open_.any(), first, cell)).astype(jnp.int32)
