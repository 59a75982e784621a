"""HackMatrix's mask, observation, rewards and invariants in NumPy for a batch of boards, after the specification.

Numbers in docstrings are the specification's sections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from games import ACTION, COMPONENTS, ENDS_TURN

CREDITS = np.array([0, 0, 3, 2, 1, 0, 3, 3, 3, 1, 0, 5, 4, 2, 0, 2, 3, 1, 3, 0, 2, 4, 2])
ENERGY = np.array([2, 2, 2, 2, 1, 1, 0, 1, 1, 0, 3, 0, 0, 0, 4, 4, 0, 2, 0, 5, 1, 4, 2])
SPAWNS = np.array([4, 4, 6, 5, 3, 1, 4, 2, 2, 3, 4, 7, 3, 2, 2, 6, 4, 4, 4, 5, 3, 8, 4])
FULL_HP = np.array([2, 3, 2, 2])
STAGE_REWARD = np.array([1, 2, 4, 8, 16, 32, 64, 100])
CORNER = np.zeros((6, 6), bool)
CORNER[::5, ::5] = True


def marked(rows: Any, cols: Any, there: Any) -> Any:
    """bool[n, 6, 6]: the cells of the entities that are there."""
    count = np.zeros((len(rows), 6, 6), int)
    lanes = np.broadcast_to(np.arange(len(rows))[:, None], there.shape)[there]
    np.add.at(count, (lanes, rows[there], cols[there]), 1)
    return count


def crowd(state: Any) -> tuple[Any, Any]:
    """How many enemies and how many transmissions each cell has."""
    foes, sent = state.enemies, state.transmissions
    return marked(foes[..., 1], foes[..., 2], state.enemy_mask), marked(sent[..., 0], sent[..., 1], state.trans_mask)


def spot(row: Any, col: Any) -> Any:
    """bool[n, 6, 6]: one cell of each board."""
    return marked(row[:, None], col[:, None], np.ones((len(row), 1), bool)) > 0


def beside(cells: Any) -> Any:
    """bool[n, 6, 6]: neighbours of the cells."""
    board = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
    return board[:, 2:, 1:-1] | board[:, :-2, 1:-1] | board[:, 1:-1, 2:] | board[:, 1:-1, :-2]


def moves_from(start: Any, enterable: Any) -> Any:
    """int[n, 6, 6]: moves from the start over enterable cells, -1 where there is no way."""
    far, front = np.where(start, 0, -1), start
    for wave in range(1, 36):
        front = beside(front) & enterable & (far < 0)
        far = np.where(front, wave, far)
    return far


def exit_distance(state: Any) -> Any:
    """14.1 for the exit."""
    out = spot(state.exit_row, state.exit_col)
    far = moves_from(spot(state.row, state.col), out | (state.block_type == 0))
    return far[out]


def mask(state: Any) -> Any:
    """bool[n, 28]: section 10."""
    foes, sent = (there > 0 for there in crowd(state))
    player, walls = spot(state.row, state.col), state.block_type > 0
    enterable = np.pad(~walls | foes | sent, ((0, 0), (1, 1), (1, 1)))
    lanes, r, c = np.arange(len(state.row)), state.row + 1, state.col + 1
    moves = [enterable[lanes, r + a, c + b] for a, b in ((1, 0), (-1, 0), (0, -1), (0, 1))]
    near = lambda at: np.abs(np.arange(6) - at[:, None]) <= 1
    around = near(state.row)[:, :, None] & near(state.col)[:, None] & ~player
    some = lambda cells: cells.any((1, 2))
    kind = lambda code: (state.enemy_mask & (state.enemies[..., 0] == code)).any(1)
    same_row = (state.enemy_mask & (state.enemies[..., 1] == state.row[:, None])).any(1)
    same_col = (state.enemy_mask & (state.enemies[..., 2] == state.col[:, None])).any(1)
    enemy, yes = some(foes), np.ones(len(lanes), bool)
    atk_plus = (state.atk_plus_uses < 2) & (state.attack_damage < 3)
    conditions = [
        enemy, enemy, some(around & (walls | foes | sent)), enemy | some(sent), enemy, yes, some(foes & walls),
        same_row, same_col, state.snapshot_valid, yes, yes, yes, ~state.show_activated, state.hp < 3,
        ~state.scheduled_tasks_disabled, kind(1), some(sent), kind(0), state.stage < 8,
        some(walls & ~state.siphoned & (state.block_spawn_count > 0)), atk_plus, some(state.siphoned),
    ]  # fmt: skip
    paid = (state.credits[:, None] >= CREDITS) & (state.energy[:, None] >= ENERGY)
    programs = state.owned_programs & paid & np.stack(conditions, 1)
    return np.concatenate([np.stack([*moves, state.data_siphons > 0], 1), programs], 1)


def observation(state: Any) -> Any:
    """float[n, 1545]: section 13."""
    n = len(state.row)
    numbers = (
        (state.row, 5), (state.col, 5), (state.hp, 3), (state.credits, 50), (state.energy, 50), (state.stage - 1, 7),
        (state.data_siphons, 10), (state.attack_damage - 1, 2), (state.show_activated, 1),
        (state.scheduled_tasks_disabled, 1),
    )  # fmt: skip
    player = np.stack([np.asarray(value) / whole for value, whole in numbers], 1)
    grid = np.zeros((n, 6, 6, 42))
    for slot in range(20):
        foe = state.enemies[:, slot]
        aligned = (foe[:, 1] == state.row) | (foe[:, 2] == state.col) | state.show_activated
        lanes = np.flatnonzero(state.enemy_mask[:, slot] & ((foe[:, 0] != 3) | aligned))
        kind, r, c, hp, _, stunned, siphon, _ = foe[lanes].T
        grid[lanes, r, c, kind] = 1
        grid[lanes, r, c, 4], grid[lanes, r, c, 5], grid[lanes, r, c, 6] = hp / 3, stunned, siphon
        lanes = np.flatnonzero(state.trans_mask[:, slot])
        r, c, turns = state.transmissions[lanes, slot, :3].T
        grid[lanes, r, c, 36] = turns / 4
    kind = state.block_type
    for code in (1, 2, 3):
        grid[..., 6 + code] = kind == code
    grid[..., 10] = (kind == 1) * state.block_points / 9
    grid[..., 11] = state.siphoned
    for program in range(23):
        grid[..., 12 + program] = (kind == 2) & (state.block_program == program)
    grid[..., 35] = ((kind == 1) | (kind == 2)) * state.block_spawn_count / 9
    bare = (kind == 0) | state.siphoned
    grid[..., 37], grid[..., 38] = bare * state.res_credits / 3, bare * state.res_energy / 3
    grid[..., 39] = state.data_siphon
    grid[..., 40], grid[..., 41] = spot(state.exit_row, state.exit_col), state.siphon_center
    whole = np.concatenate([player, state.owned_programs, grid.reshape(n, -1)], 1)
    return np.clip(whole, 0, 1)


def rewards(before: Any, action: Any, after: Any, info: Any) -> dict[str, Any]:
    """15.1 for legal actions but UNDO; `kills` for free programs only, `siphon_quality` for other actions than it."""
    done, died, won = (info[name] > 0 for name in ("completed", "died", "won"))
    more = {name: getattr(after, name) - getattr(before, name) for name in ("score", "hp", "credits", "energy")}
    d0, d1 = exit_distance(before), exit_distance(after)
    closer = np.where((d0 < 0) | (d1 < 0) | died, 0, np.maximum(d0 - d1, 0))
    stage = before.stage - 1
    foes, _ = crowd(after.replace(enemy_mask=after.enemy_mask & (after.enemies[..., 6] > 0)))
    siphon_death = died & (beside(spot(after.row, after.col)) & (foes > 0)).any((1, 2))
    gone = (before.enemy_mask & ~after.enemy_mask & (before.enemies[..., 7] == 0)).sum(1)
    gone += (before.trans_mask & ~after.trans_mask & (before.transmissions[..., 5] == 0)).sum(1)
    # On completion new transmissions may take the slot of one that WARP destroyed.
    kills = np.where(ENDS_TURN[action] | done, info["kills"], 0.3 * gone)
    reset = (action == ACTION["RESET"]) & (before.hp == 2)
    values = [
        np.full(len(action), -0.01), done * STAGE_REWARD[stage], 0.5 * more["score"], kills,
        np.maximum(after.data_siphons - before.data_siphons, 0), 0.05 * np.where(done, np.maximum(d0, 0), closer),
        np.minimum(more["hp"], 0), np.maximum(more["hp"], 0), won * (500.0 + 100 * after.score),
        died * -0.5 * (np.cumsum(STAGE_REWARD)[stage] - STAGE_REWARD[stage]), -10.0 * siphon_death,
        0.05 * (more["credits"] + more["energy"]), 0.01 * done * (after.credits + after.energy), -0.3 * reset,
        np.where(action == ACTION["siphon"], info["siphon_quality"], 0),
    ]  # fmt: skip
    return dict(zip(COMPONENTS, values, strict=True))


def broken(before: Any, action: Any, after: Any) -> Iterator[tuple[str, Any]]:
    """18, items 1 to 4: (what does not hold, bool[n] where) after legal actions; nothing where all is well."""
    foes, sent = crowd(after)
    player, walls = spot(after.row, after.col), after.block_type > 0
    out, alive, ends = spot(after.exit_row, after.exit_col), after.hp > 0, ENDS_TURN[action]
    some = lambda cells: cells.any((1, 2))
    within = lambda x, low, high: (x < low) | (x > high)
    yield "hp", within(after.hp, 0, 3)
    for name in ("credits", "energy", "data_siphons", "score"):
        yield name, getattr(after, name) < 0
    yield "attack", within(after.attack_damage, 1, 3)
    yield "interval", within(after.scheduled_task_interval, 4, 12)
    yield "pending", after.pending_siphon_transmissions != 0
    yield "step_active", after.step_active & ends
    rows, there = after.enemies, after.enemy_mask
    kind = np.clip(rows[..., 0], 0, 3)
    yield "enemy's numbers", (there & (within(rows[..., 1:3], 0, 5).any(2) | within(rows[..., 0], 0, 3))).any(1)
    yield "enemy's hp", (there & within(rows[..., 3], 1, FULL_HP[kind])).any(1)
    late, sending = after.transmissions, after.trans_mask
    yield "transmission", (sending & (within(late[..., :2], 0, 5).any(2) | (late[..., 2] < 1))).any(1)
    yield "two in a cell", some(foes + sent > 1)
    yield "entity on the player", alive & some((foes + sent > 0) & player)
    yield "transmission on a block", some((sent > 0) & walls)
    lanes = np.arange(len(walls))[:, None]
    on_wall = there & (kind != 2) & walls[lanes, rows[..., 1], rows[..., 2]]
    stood = before.enemy_mask & (before.enemies[..., 1:3] == rows[..., 1:3]).all(2)
    yield "only glitches step onto blocks", (on_wall & ~stood).any(1) & (action != ACTION["UNDO"])
    yield "exit", ~some(out & CORNER) | some(out & walls)
    yield "block on a corner", some(walls & CORNER)
    yield "blocks", walls.sum((1, 2)) > 11
    came = ((after.row != before.row) | (after.col != before.col)) & ~np.isin(action, [ACTION["WARP"], ACTION["UNDO"]])
    yield "player walked onto a block", some(walls & player) & came
    over = after.stage > 8  # of a won game nothing is generated, and its exit is where the player stands
    new = (after.stage != before.stage) & ~over
    lone = new & ~after.enemy_mask.any(1) & (after.trans_mask.sum(1) == after.stage)
    yield "blocks of a new stage", lone & within(walls.sum((1, 2)), 5, 11)
    far = moves_from(player, ~walls & ~out)
    yield "free cells reached", some(~walls & (far < 0) & ~out) & ~over
    yield "exit distance", exit_distance(after) < 0
    yield "an action", ~mask(after).any(1)
