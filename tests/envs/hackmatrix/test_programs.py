"""The programs of HackMatrix and its siphon on 1,024 random boards each, after sections 8 and 9.1 of the specification.

The reference changes one board at a time, in loops over slots and cells, and every field of the state is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from games import ACTION, BOARDS, boards, steps, take
from referee import CREDITS, ENERGY, mask
from reference import CELLS, DAEMON, FULL_HP, GLITCH, VIRUS, across, board_of, neighbours, places, siphon_quality

CONTENT = ("block_type", "block_points", "block_program", "block_spawn_count")
RANDOM = {"PUSH", "PULL", "WARP", "POLY", "WAIT", "UNDO"}  # chance, or in another test
TABLES = {"enemies", "enemy_mask", "transmissions", "trans_mask"}
BOOKS = {"snapshot", "snapshot_valid", "undo_accumulator", "episode_step"}


def single(state: Any, lane: int) -> SimpleNamespace:
    """One board that can be changed."""
    names = [name for name in state.__dataclass_fields__ if name not in BOOKS]
    return SimpleNamespace(**{name: np.array(getattr(state, name)[lane]) for name in names}, kills=0)


def position(row: Any) -> tuple[int, int]:
    return int(row[1]), int(row[2])


def foes(s: Any) -> list[int]:
    return [slot for slot in range(20) if s.enemy_mask[slot]]


def remove(s: Any, slot: int) -> None:
    s.enemy_mask[slot] = False
    s.kills += not s.enemies[slot][7]


def hit(s: Any, damage: int, whom: Callable[[Any], bool]) -> None:
    """Damage d, stun survivors."""
    for slot in foes(s):
        row = s.enemies[slot]
        if whom(row):
            row[3] = max(row[3] - damage, 0)
            if row[3] == 0:
                remove(s, slot)
            else:
                row[5] = 1


def clear(s: Any, cell: tuple[int, int]) -> None:
    for name in CONTENT:
        getattr(s, name)[cell] = 0
    s.siphoned[cell] = False


def around(cell: tuple[int, int], other: tuple[int, int]) -> bool:
    return max(abs(cell[0] - other[0]), abs(cell[1] - other[1])) == 1


def crash(s: Any) -> None:
    for cell in [cell for cell in CELLS if around(cell, (s.row, s.col))]:
        for slot in foes(s):
            if position(s.enemies[slot]) == cell:
                remove(s, slot)
        for slot in range(20):
            if s.trans_mask[slot] and tuple(s.transmissions[slot][:2]) == cell:
                s.trans_mask[slot] = False
                s.kills += not s.transmissions[slot][5]
        if s.block_type[cell]:
            clear(s, cell)


def bomb(s: Any) -> None:
    far = lambda slot: across(position(s.enemies[slot]), (int(s.row), int(s.col)))
    nearest = min((slot for slot in foes(s) if s.enemies[slot][0] == DAEMON), key=far)
    centre = position(s.enemies[nearest])
    remove(s, nearest)
    hit(s, 1, lambda row: around(position(row), centre))


def hack(s: Any) -> None:
    hit(s, s.attack_damage, lambda row: s.siphoned[position(row)])
    for cell in CELLS:
        if s.block_type[cell] and s.siphoned[cell]:
            clear(s, cell)


def reduce(s: Any) -> None:
    for cell in CELLS:
        if s.block_type[cell] and not s.siphoned[cell]:
            s.block_spawn_count[cell] = max(s.block_spawn_count[cell] - 1, 0)


def cast(s: Any, name: str) -> None:
    """9.1 for the programs that are neither random nor a turn."""
    program = ACTION[name] - 5
    s.credits, s.energy = s.credits - CREDITS[program], s.energy - ENERGY[program]
    if name in ("CRASH", "D_BOM", "HACK", "REDUC"):
        {"CRASH": crash, "D_BOM": bomb, "HACK": hack, "REDUC": reduce}[name](s)
    elif name == "DEBUG":
        hit(s, s.attack_damage, lambda row: s.block_type[position(row)] > 0)
    elif name == "ROW":
        hit(s, s.attack_damage, lambda row: row[1] == s.row)
    elif name == "COL":
        hit(s, s.attack_damage, lambda row: row[2] == s.col)
    elif name == "ANTI-V":
        hit(s, 1, lambda row: row[0] == VIRUS)
    elif name == "STEP":
        s.step_active = True
    elif name == "SIPH+":
        s.data_siphons = s.data_siphons + 1
    elif name == "EXCH":
        s.energy = s.energy + 4
    elif name == "SHOW":
        s.show_activated = True
    elif name == "RESET":
        s.hp = 3
    elif name == "CALM":
        s.scheduled_tasks_disabled = True
    elif name == "DELAY":
        s.transmissions[s.trans_mask, 2] += 3
    elif name == "SCORE":
        s.score = s.score + 8 - s.stage
    elif name == "ATK+":
        s.attack_damage, s.atk_plus_uses = min(s.attack_damage + 1, 3), s.atk_plus_uses + 1


def siphon(s: Any) -> None:
    """8."""
    for cell in [(int(s.row), int(s.col)), *neighbours((int(s.row), int(s.col)))]:
        if s.siphoned[cell]:
            continue
        if s.block_type[cell] == 3:
            s.block_type[cell] = 1 if s.block_points[cell] > 0 else 2
        if s.block_type[cell] == 1:
            s.score = s.score + s.block_points[cell]
        elif s.block_type[cell] == 2:
            s.owned_programs[s.block_program[cell]] = True
        if s.block_type[cell]:
            s.pending_siphon_transmissions = s.pending_siphon_transmissions + s.block_spawn_count[cell]
            s.block_spawn_count[cell] = 0
        else:
            s.credits, s.energy = s.credits + s.res_credits[cell], s.energy + s.res_energy[cell]
            s.res_credits[cell] = s.res_energy[cell] = 0
        s.siphoned[cell] = True
    s.siphon_center[s.row, s.col] = True
    s.data_siphons = s.data_siphons - 1
    s.next_scheduled_task_turn = s.next_scheduled_task_turn + 5
    s.scheduled_task_interval = max(4, s.scheduled_task_interval - 1)
    s.turn = s.turn + 1


def differences(wanted: Any, got: Any, lane: int) -> list[str]:
    """Fields of a state that are not the reference's; of inactive slots nothing is compared."""
    fields = [name for name in vars(wanted) if name not in TABLES | {"kills"}]
    problems = [name for name in fields if not np.array_equal(getattr(wanted, name), getattr(got, name)[lane])]
    for table, there in (("enemies", "enemy_mask"), ("transmissions", "trans_mask")):
        on = getattr(wanted, there)
        same = np.array_equal(on, getattr(got, there)[lane])
        if not same or not np.array_equal(getattr(wanted, table)[on], getattr(got, table)[lane][on]):
            problems.append(table)
    return [f"board {lane}: {name}" for name in problems]


def varied() -> Any:
    """The random boards on all stages, with enough to pay but for a few, some of their flags set."""
    rng, state = np.random.default_rng(9), boards()
    number = lambda low, high: rng.integers(low, high, BOARDS).astype(np.int32)
    return state.replace(
        credits=number(3, 12), energy=number(3, 12), data_siphons=number(0, 3), stage=number(1, 9),
        atk_plus_uses=number(0, 3), score=number(0, 50), scheduled_task_interval=number(4, 13),
        show_activated=rng.random(BOARDS) < 0.3, siphon_center=rng.random((BOARDS, 6, 6)) < 0.1,
        scheduled_tasks_disabled=rng.random(BOARDS) < 0.3, step_active=rng.random(BOARDS) < 0.3,
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in ACTION if ACTION[name] > 4 and name not in RANDOM])
def test_a_program(name: str) -> None:
    state = varied()
    able = mask(state)[:, ACTION[name]]
    _, after, *_, info = steps(state, ACTION[name])
    assert ((info["invalid_action"] == 0) == able).all() and able.sum() > 100 and not info["completed"].any()
    problems = []
    for lane in np.flatnonzero(able):
        wanted = single(state, lane)
        cast(wanted, name)
        problems += differences(wanted, after, lane)
        assert abs(info["kills"][lane] - 0.3 * wanted.kills) < 1e-5, lane
    assert not problems, problems[:5]


def test_poly_and_warp() -> None:
    """What is not chance about them: damage carries over; the target under the player is gone and nothing else."""
    state = varied()
    _, after, *_, info = steps(state, ACTION["POLY"])
    for lane in np.flatnonzero(mask(state)[:, ACTION["POLY"]]):
        for slot in range(20):
            old, new = state.enemies[lane, slot], after.enemies[lane, slot]
            if not state.enemy_mask[lane, slot]:
                assert not after.enemy_mask[lane, slot]
            elif after.enemy_mask[lane, slot]:
                hurt = FULL_HP[old[0]] - old[3]
                assert new[0] != old[0] and new[3] == FULL_HP[new[0]] - hurt > 0
                assert (new[[1, 2, 4, 5, 6, 7]] == old[[1, 2, 4, 5, 6, 7]]).all()
            else:
                assert old[3] == 1 and old[0] == DAEMON  # two lost is all that others have
    _, after, *_, info = steps(state, ACTION["WARP"])
    where = mask(state)[:, ACTION["WARP"]] & (info["completed"] == 0)
    for lane in np.flatnonzero(where):
        wanted, goal = single(state, lane), (int(after.row[lane]), int(after.col[lane]))
        enemy, sent = board_of(state, lane).enemy_at(goal), board_of(state, lane).transmission_at(goal)
        assert (enemy is None) != (sent is None)
        if enemy is not None:
            remove(wanted, enemy)
        else:
            wanted.trans_mask[sent] = False
            wanted.kills += not wanted.transmissions[sent][5]
        wanted.row, wanted.col = goal
        wanted.credits, wanted.energy = wanted.credits - 2, wanted.energy - 2
        assert not differences(wanted, after, lane)
        assert abs(info["kills"][lane] - 0.3 * wanted.kills) < 1e-5
    assert where.sum() > 500 and (state.enemies[..., 0] == GLITCH).any()


def test_the_siphon() -> None:
    """Everything but where its transmissions land; enemies hold still in this test."""
    state = varied()
    still = state.enemies.copy()
    still[..., 4] = 2
    timers = state.transmissions.copy()
    timers[..., 2] += 5
    state = state.replace(enemies=still, transmissions=timers, scheduled_tasks_disabled=np.ones(BOARDS, bool))
    able = state.data_siphons > 0
    _, after, *_, info = steps(state, ACTION["siphon"])
    assert ((info["invalid_action"] == 0) == able).all() and not info["completed"].any()
    dropped = 0
    for lane in np.flatnonzero(able):
        wanted = single(state, lane)
        siphon(wanted)
        count, room = int(wanted.pending_siphon_transmissions), int((~wanted.trans_mask).sum())
        fit = {cell for part in places(board_of(state, lane)) for cell in part}
        placed = min(count, room, len(fit))
        slots = np.flatnonzero(~wanted.trans_mask)[:placed]
        new = after.transmissions[lane, slots]
        assert {tuple(row[:2]) for row in new.tolist()} <= fit
        assert (new[:, [2, 4, 5]] == [[1, 1, 0]]).all() and ((new[:, 3] >= 0) & (new[:, 3] < 4)).all()
        wanted.transmissions[wanted.trans_mask, 2] -= 1
        wanted.trans_mask[slots], wanted.transmissions[slots] = True, new
        wanted.enemies[wanted.enemy_mask, 4] -= 1
        wanted.enemies[wanted.enemy_mask, 5] = 0
        wanted.pending_siphon_transmissions, wanted.step_active = 0, False
        assert not differences(wanted, after, lane)
        assert info["dropped_spawns"][lane] == count - placed
        dropped += count - placed
        found = siphon_quality(take(state, slice(lane, lane + 1)), 0)
        assert abs(info["siphon_quality"][lane] + 0.025 * (found[1] + found[2])) < 1e-6
    assert dropped > 0
