"""What the player may do and what it does: moves, siphon, programs (specification, sections 7 to 10)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.hackmatrix import bits
from mxnb.envs.hackmatrix.enemies import as_bits, lowest, pick, put
from mxnb.envs.hackmatrix.stage import blocks_of, enemies_of, transmissions_of
from mxnb.envs.hackmatrix.state import State, cell_of, flat, square
from mxnb.envs.hackmatrix.tables import (
    ACROSS,
    ANTI_V,
    AROUND,
    ATK,
    ATK_PLUS_USES,
    CALM,
    CELLS,
    COL,
    COLS,
    CRASH,
    CREDITS,
    CROSS,
    D_BOM,
    DAEMON,
    DATA,
    DEBUG,
    DELAY,
    E_COL,
    E_ROW,
    ENEMY_HP,
    ENERGY,
    EXCH,
    FROM_TASK,
    GLITCH,
    HACK,
    HP,
    MAX_ATTACK,
    MAX_HP,
    MIN_INTERVAL,
    NEIGHBOURS,
    POLY,
    PROGRAM,
    PROGRAMS,
    PULL,
    PUSH,
    QUESTION,
    RAYS,
    REDUC,
    RESET,
    ROW,
    ROWS,
    SCORE,
    SHOW,
    SIPH,
    SIPHON,
    SIPHON_DELAY,
    SIZE,
    SLOTS,
    STAGES,
    STEP,
    STUNNED,
    T_COL,
    T_FROM_TASK,
    T_ROW,
    TURNS,
    TYPE,
    UNDO,
    VIRUS,
    WAIT,
    WARP,
)

_SLOTS = np.arange(SLOTS)
_AROUND, _ROW, _COL = (
    bits.constant(table) for table in (AROUND, np.arange(SIZE)[:, None] == ROWS, np.arange(SIZE)[:, None] == COLS)
)


def action_mask(state: State) -> Any:
    """bool[28]: the legal actions. Section 10."""
    player, blocks = cell_of(state), blocks_of(state)
    enemies, sent = enemies_of(state), transmissions_of(state)
    ways = jnp.asarray(NEIGHBOURS)[player]
    enterable = ~blocks | enemies | sent
    moves = bits.has(enterable, ways)
    foes, alive = state.enemies, state.enemy_mask
    kind, some_foe, some_sent = foes[:, TYPE], alive.any(), state.trans_mask.any()
    rewritable = (state.block_type != 0) & ~state.siphoned & (state.block_spawn_count > 0)
    yes = jnp.ones((), bool)
    conditions = {
        PUSH: some_foe, PULL: some_foe, CRASH: bits.some((blocks | enemies | sent) & _AROUND(player)),
        WARP: some_foe | some_sent, POLY: some_foe, DEBUG: bits.some(enemies & blocks),
        ROW: bits.some(enemies & _ROW(state.row)), COL: bits.some(enemies & _COL(state.col)),
        SHOW: ~state.show_activated, RESET: state.hp < MAX_HP, CALM: ~state.scheduled_tasks_disabled,
        D_BOM: (alive & (kind == DAEMON)).any(), DELAY: some_sent, ANTI_V: (alive & (kind == VIRUS)).any(),
        SCORE: state.stage < STAGES, UNDO: state.snapshot_valid, REDUC: rewritable.any(), HACK: state.siphoned.any(),
        ATK: (state.atk_plus_uses < ATK_PLUS_USES) & (state.attack_damage < MAX_ATTACK),
    }  # fmt: skip
    fits = jnp.stack([conditions.get(action, yes) for action in range(5, 5 + len(PROGRAMS))])
    paid = state.owned_programs & (state.credits >= CREDITS) & (state.energy >= ENERGY)
    return jnp.concatenate([moves, (state.data_siphons > 0)[None], paid & fits])


class Done(NamedTuple):
    """What an action did."""

    state: State
    moved: Any  # bool: a step, not an attack
    kills: Any  # int32: enemies and transmissions removed that no scheduled task had sent


def act(key: Any, state: State, action: Any) -> Done:
    """A legal action other than UNDO, before the enemies act. Sections 7 to 9.

    In a batch every action is computed in every lane, so all that damages is one pipeline of masks over slots.
    """
    player, program = cell_of(state), jnp.clip(action - 5, 0, len(PROGRAMS) - 1)
    is_program = action >= 5
    target = _scan(state, player, action)
    state = _siphon(state, player, action == SIPHON)
    state = state.replace(
        credits=state.credits - jnp.where(is_program, jnp.asarray(CREDITS)[program], 0),
        energy=state.energy - jnp.where(is_program, jnp.asarray(ENERGY)[program], 0),
    )
    state, warped, kills = _strike(key, state, player, action, target)
    moved = (action < SIPHON) & ~target.foe & ~target.sent
    to = jnp.where(moved, target.step, jnp.where(action == WARP, warped, player))
    found = moved & flat(state.data_siphon)[to]
    took = (np.arange(CELLS) == to) & found
    state = _simple(_clear(_push(state, player, action), player, action), action)
    state = state.replace(
        row=to // SIZE, col=to % SIZE, data_siphons=state.data_siphons + found,
        data_siphon=state.data_siphon & ~square(took),
        turn=state.turn + ((action <= SIPHON) | (action == WAIT)),
    )  # fmt: skip
    return Done(state, moved, kills)


class Target(NamedTuple):
    """What lies in the direction of a move: an enemy, a transmission, or neither and then the next cell."""

    foe: Any  # bool
    sent: Any  # bool
    cell: Any  # int32: of the target
    step: Any  # int32: the neighbour


def _scan(state: State, player: Any, action: Any) -> Target:
    """Looks along the direction of a move; nothing for other actions. Section 7."""
    ray = jnp.asarray(RAYS)[player, jnp.clip(action, 0, 3)]
    sent = bits.has(transmissions_of(state), ray) & (action < SIPHON)
    foe = bits.has(enemies_of(state), ray) & (action < SIPHON)
    walls = jnp.cumsum(bits.has(blocks_of(state), ray))
    seen = (sent | foe) & (jnp.concatenate([jnp.zeros(1, walls.dtype), walls[:-1]]) == 0)
    at = jnp.argmax(seen)
    any_sent = seen.any() & sent[at]
    return Target(seen.any() & ~any_sent, any_sent, ray[at], jnp.maximum(ray[0], 0))


def _strike(key: Any, state: State, player: Any, action: Any, target: Target) -> tuple[State, Any, Any]:
    """All that damages, stuns or removes: (state, WARP's cell, kills)."""
    foes, alive, sent = state.enemies, state.enemy_mask, state.transmissions
    cells, sent_cells = SIZE * foes[:, E_ROW] + foes[:, E_COL], SIZE * sent[:, T_ROW] + sent[:, T_COL]
    first = lambda mask: mask & (jnp.cumsum(mask) == 1)
    around = _AROUND(player)

    # WARP's target and POLY's new types: nothing is drawn where nobody in the batch casts them
    def draw(_: Any) -> Any:
        warp_key, poly_key = jax.random.split(key)
        chance = jax.random.randint(warp_key, (), 0, jnp.maximum(alive.sum() + state.trans_mask.sum(), 1))
        return chance.astype(jnp.int32), jax.random.randint(poly_key, (SLOTS,), 1, 4)

    lucky = (action == WARP) | (action == POLY)
    chance, shift = bits.when(lucky, draw, (jnp.zeros((), jnp.int32), jnp.zeros(SLOTS, jnp.int32)))
    both = jnp.concatenate([alive, state.trans_mask])
    chosen = both & (jnp.cumsum(both) - 1 == chance) & (action == WARP)
    warped = (chosen * jnp.concatenate([cells, sent_cells])).sum().astype(jnp.int32)

    daemon = alive & (foes[:, TYPE] == DAEMON) & (action == D_BOM)
    far = jnp.asarray(ACROSS, jnp.int32)[player][cells]
    bombed = daemon & (jnp.argmin(jnp.where(daemon, far, CELLS)) == _SLOTS)
    splash = bits.has(_AROUND((bombed * cells).sum()), cells) & daemon.any() & ~bombed

    siphoned, blocks = bits.pack(flat(state.siphoned)), blocks_of(state)
    full = first(alive & (cells == target.cell) & target.foe)
    full |= (action == DEBUG) & bits.has(blocks, cells) | (action == HACK) & bits.has(siphoned, cells)
    full |= (action == ROW) & (foes[:, E_ROW] == state.row) | (action == COL) & (foes[:, E_COL] == state.col)
    light = splash | (action == ANTI_V) & (foes[:, TYPE] == VIRUS)
    crash = action == CRASH
    gone = bombed | chosen[:SLOTS] | crash & bits.has(around, cells)
    sent_gone = first(state.trans_mask & (sent_cells == target.cell) & target.sent) | chosen[SLOTS:]
    sent_gone = state.trans_mask & (sent_gone | crash & bits.has(around, sent_cells))

    best = jnp.asarray(ENEMY_HP)
    kind = jnp.where(action == POLY, (foes[:, TYPE] + shift) % 4, foes[:, TYPE])
    changed = foes[:, HP] - best[foes[:, TYPE]] + best[kind]
    hurt = jnp.where(full, state.attack_damage, light.astype(jnp.int32))
    hp = jnp.maximum(jnp.where(action == POLY, changed, foes[:, HP]) - hurt, 0)
    dead = alive & (gone | ((full | light | (action == POLY)) & (hp == 0)))
    stunned = foes[:, STUNNED] | (alive & (full | light) & ~dead).astype(jnp.int32)
    foes = put(put(put(foes, TYPE, kind), HP, hp), STUNNED, stunned)
    kills = (dead & (foes[:, FROM_TASK] == 0)).sum(dtype=jnp.int32)
    kills += (sent_gone & (sent[:, T_FROM_TASK] == 0)).sum(dtype=jnp.int32)
    state = state.replace(
        enemies=jnp.where((alive & ~dead)[:, None], foes, state.enemies), enemy_mask=alive & ~dead,
        trans_mask=state.trans_mask & ~sent_gone,
    )  # fmt: skip
    return state, warped, kills


def _siphon(state: State, player: Any, runs: Any) -> State:
    """Drains the cross around the player. Section 8."""
    cross = jnp.asarray(CROSS)[player] & ~flat(state.siphoned) & runs
    points, kind = flat(state.block_points), flat(state.block_type)
    block = cross & (kind != 0)
    kind = jnp.where(block & (kind == QUESTION), jnp.where(points > 0, DATA, PROGRAM), kind)
    taken = block & (kind == PROGRAM)
    index = flat(state.block_program)[:, None] == np.arange(len(PROGRAMS))[None]
    total = lambda cells, grid: jnp.where(cells, flat(grid), 0).sum()
    free, one = cross & ~block, runs.astype(jnp.int32)
    center = (np.arange(CELLS) == player) & runs
    return state.replace(
        block_type=square(kind), score=state.score + total(block & (kind == DATA), state.block_points),
        owned_programs=state.owned_programs | (taken[:, None] & index).any(0),
        pending_siphon_transmissions=state.pending_siphon_transmissions + total(block, state.block_spawn_count),
        block_spawn_count=jnp.where(square(block), 0, state.block_spawn_count),
        credits=state.credits + total(free, state.res_credits), energy=state.energy + total(free, state.res_energy),
        res_credits=jnp.where(square(free), 0, state.res_credits),
        res_energy=jnp.where(square(free), 0, state.res_energy),
        siphoned=state.siphoned | square(cross), siphon_center=state.siphon_center | square(center),
        data_siphons=state.data_siphons - one,
        next_scheduled_task_turn=state.next_scheduled_task_turn + SIPHON_DELAY * one,
        scheduled_task_interval=jnp.where(
            runs, jnp.maximum(state.scheduled_task_interval - 1, MIN_INTERVAL), state.scheduled_task_interval),
    )  # fmt: skip


def _clear(state: State, player: Any, action: Any) -> State:
    """CRASH and HACK remove blocks, REDUC makes them less dangerous."""
    block = state.block_type != 0
    around = square(bits.unpack(_AROUND(player)))
    gone = block & ((action == CRASH) & around | (action == HACK) & state.siphoned)
    fewer = (action == REDUC) & block & ~state.siphoned
    spawns = jnp.maximum(state.block_spawn_count - fewer, 0)
    none = lambda grid: jnp.where(gone, 0, grid)
    return state.replace(
        block_type=none(state.block_type), block_points=none(state.block_points),
        block_program=none(state.block_program), block_spawn_count=none(spawns), siphoned=state.siphoned & ~gone,
    )  # fmt: skip


def _simple(state: State, action: Any) -> State:
    """The programs that change numbers alone. Section 9.1."""
    add = lambda name, amount: (action == name) * jnp.asarray(amount, jnp.int32)
    turns = state.transmissions[:, TURNS] + jnp.where(state.trans_mask, add(DELAY, 3), 0)
    return state.replace(
        data_siphons=state.data_siphons + add(SIPH, 1), energy=state.energy + add(EXCH, 4),
        score=state.score + add(SCORE, STAGES - state.stage), hp=jnp.where(action == RESET, MAX_HP, state.hp),
        attack_damage=jnp.minimum(state.attack_damage + add(ATK, 1), MAX_ATTACK),
        atk_plus_uses=state.atk_plus_uses + add(ATK, 1), step_active=state.step_active | (action == STEP),
        show_activated=state.show_activated | (action == SHOW),
        scheduled_tasks_disabled=state.scheduled_tasks_disabled | (action == CALM),
        transmissions=put(state.transmissions, TURNS, turns),
    )  # fmt: skip


def _push(state: State, player: Any, action: Any) -> State:
    """PUSH and PULL, one enemy after another; no round of the loop where nobody casts them. Section 9.2."""
    runs = (action == PUSH) | (action == PULL)
    foes = state.enemies
    cells = SIZE * foes[:, E_ROW] + foes[:, E_COL]
    sign = jnp.where(action == PUSH, 1, -1)
    walls = bits.only(runs, blocks_of(state))
    taken = transmissions_of(state) | bits.one(player)
    near = jnp.asarray(ACROSS, jnp.int32)[player]

    def move(carry: Any) -> Any:
        cells, there, todo = carry
        slot = lowest(todo)
        cell, kind = pick(cells, slot), pick(foes[:, TYPE], slot)
        row, col = cell // SIZE, cell % SIZE
        down, across = sign * jnp.sign(row - state.row), sign * jnp.sign(col - state.col)
        rows = jnp.stack([row + down, row + down, row])
        cols = jnp.stack([col + across, col, col + across])
        inside = (rows >= 0) & (rows < SIZE) & (cols >= 0) & (cols < SIZE)
        to = jnp.where(inside, SIZE * rows + cols, -1)
        shut = there | taken | bits.only(kind != GLITCH, walls)
        steps = jnp.stack([(down != 0) & (across != 0), down != 0, across != 0])
        open_ = steps & inside & ~bits.has(shut, to)
        gain = jnp.where(open_, sign * (near[to] - near[cell]), 0)
        best = jnp.argmax(gain)
        new = jnp.where(gain[best] > 0, to[best], cell)
        there = (there & ~bits.one(cell)) | bits.one(new)
        return jnp.where(slot == _SLOTS, new, cells), there, todo & (todo - 1)

    carry = cells, enemies_of(state), as_bits(state.enemy_mask & runs)
    cells, *_ = jax.lax.while_loop(lambda c: c[2] != 0, move, carry)
    moved = put(put(foes, E_ROW, cells // SIZE), E_COL, cells % SIZE)
    return state.replace(enemies=jnp.where((state.enemy_mask & runs)[:, None], moved, foes))
