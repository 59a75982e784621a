"""HackMatrix against the plain-Python reference beside this file, on 1,024 random boards for each rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from games import ACTION, BOARDS, LANES, boards, compiled, copies, plain, stack, step, steps, take
from reference import (
    CELLS,
    PULL,
    PUSH,
    Board,
    board_of,
    enemy_phase,
    exit_distance,
    legal_move,
    places,
    push_or_pull,
    scan,
    siphon_quality,
    valid_layout,
    walk,
)

from mxnb.envs.hackmatrix import layouts, make_state

WAIT = ACTION["WAIT"]


def differences(wanted: Board, after: Any, lane: int) -> list[str]:
    """Where a state is not the reference's board."""
    got = board_of(after, lane)
    names = ("player", "hp", "walls", "enemies", "transmissions")
    pairs = [(name, getattr(got, name), getattr(wanted, name)) for name in names]
    return [f"board {lane}: {name} {a}, not {b}" for name, a, b in pairs if a != b]


def look(state: Any) -> Any:
    """(mask, observation, distance) of all boards."""
    parts = [plain(compiled("look")(take(state, slice(i, i + LANES)))) for i in range(0, BOARDS, LANES)]
    return [np.concatenate([part[i] for part in parts]) for i in (0, 2)]


def test_the_distance_to_the_exit() -> None:
    state = boards()
    _, distance = look(state)
    wanted = []
    for lane in range(BOARDS):
        board = board_of(state, lane)
        wanted.append(exit_distance(board.player, (state.exit_row[lane], state.exit_col[lane]), board.walls))
    assert distance.tolist() == wanted
    assert {-1, 0, 1, 5, 10} <= set(wanted)


def test_siphon_quality() -> None:
    state = boards()
    parts = [plain(compiled("quality")(take(state, slice(i, i + LANES)))) for i in range(0, BOARDS, LANES)]
    got = [tuple(int(x) for x in row) for part in parts for row in zip(*part, strict=True)]
    wanted = [siphon_quality(state, lane) for lane in range(BOARDS)]
    assert got == wanted
    assert 100 < sum(found for found, *_ in wanted) < BOARDS - 100
    siphons = state.replace(data_siphons=np.ones(BOARDS, np.int32))
    paid = steps(siphons, ACTION["siphon"])[5]["siphon_quality"]
    np.testing.assert_allclose(paid, [-0.5 * 0.05 * (c + e) for _, c, e in wanted], atol=1e-6)


def test_a_data_block_without_points_holds_no_program() -> None:
    """14.2: its data is a zero like the padding, and (0, 0) would have brought 2 credits more. Play has none."""
    board = make_state(
        data_siphons=1, blocks=[{"row": 4, "col": 3, "kind": 1}], resources=[{"row": 0, "col": 0, "credits": 2}]
    )
    state = copies(board)
    assert siphon_quality(state, 0) == (True, 2, 0)
    assert [int(x[0]) for x in plain(compiled("quality")(state))] == [1, 2, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_enemies_phase(seed: int) -> None:
    """Ticking, hatching, both sub-steps and the end of stuns, after WAIT with no task on the stage."""
    state = boards(seed=seed)
    _, after, *_, info = steps(state, WAIT)
    problems, moved, stayed = [], 0, 0
    for lane in range(BOARDS):
        board = board_of(state, lane)
        enemy_phase(board)
        problems += differences(board, after, lane)
        assert int(info["dropped_spawns"][lane]) == board.dropped
        pairs = [(a, b) for a, b in zip(board_of(state, lane).enemies, board.enemies) if a and b]
        moved += sum(a[1:3] != b[1:3] for a, b in pairs)
        stayed += sum(a[1:3] == b[1:3] for a, b in pairs)
    assert not problems, problems[:3]
    assert moved > 1000 and stayed > 1000


def test_step_holds_back_moves_and_attacks_only() -> None:
    state = boards().replace(step_active=np.ones(BOARDS, bool))
    after = steps(state, WAIT)[1]
    for lane in range(BOARDS):
        board = board_of(state, lane)
        enemy_phase(board, step_active=True)
        assert not differences(board, after, lane)
    assert not after.step_active.any()


@pytest.mark.parametrize("action", [PUSH, PULL])
def test_push_and_pull(action: int) -> None:
    state = boards()
    after = steps(state, action)[1]
    problems, moved = [], 0
    for lane in range(BOARDS):
        board, before = board_of(state, lane), board_of(state, lane)
        push_or_pull(board, action)
        problems += differences(board, after, lane)
        moved += board != before
    assert not problems, problems[:3]
    assert moved > BOARDS // 2


@pytest.mark.parametrize("direction", range(4))
def test_moves_and_attacks(direction: int) -> None:
    """The mask, what the line of sight hits, and the enemies' answer."""
    state = boards()
    mask, _ = look(state)
    _, after, *_, info = steps(state, direction)
    completed, problems, hits = info["completed"], [], []
    for lane in range(BOARDS):
        board = board_of(state, lane)
        exit_cell = (int(state.exit_row[lane]), int(state.exit_col[lane]))
        assert mask[lane, direction] == legal_move(board, direction), lane
        if legal_move(board, direction):
            target = scan(board, direction)
            hits.append(target[0] if target else "move")
            paid = 0.3 * (walk(board, direction) is False)
            assert abs(info["kills"][lane] - paid) < 1e-6, lane
            if target is None and board.player == exit_cell:
                assert completed[lane]
                continue
            enemy_phase(board)
        assert not completed[lane]
        problems += differences(board, after, lane)
    assert not problems, problems[:3]
    assert min(hits.count(kind) for kind in ("move", "enemy", "transmission")) > 50


def test_a_transmission_is_hit_before_an_enemy_in_its_cell() -> None:
    """Play never reaches this; the scan still has a rule for it."""
    for glitch_on_wall in (False, True):
        foe = {"type": 2, "row": 4, "col": 1, "hp": 1}
        sent = {"row": 4, "col": 1, "timer": 3, "type": 0}
        wall = [{"row": 4, "col": 1, "kind": 1}] if glitch_on_wall else []
        state = make_state(player=(1, 1), enemies=[foe], transmissions=[sent], blocks=wall, calm=True)
        board = board_of(stack([state]), 0)
        assert scan(board, 0) == ("transmission", 0)
        after = step(copies(state), 0)[1]
        assert not after.trans_mask.any() and after.enemy_mask[:, 0].all()


def test_where_a_task_puts_its_transmission() -> None:
    """In a random eligible cell out of the line of fire after the enemies have moved, or else in any eligible one."""
    state = boards(turn=11, calm=False)
    _, after, *_, info = steps(state, WAIT)
    inside = outside = 0
    for lane in range(BOARDS):
        board = board_of(state, lane)
        enemy_phase(board)
        better, worse = places(board)
        cells = better or worse
        slot = board.transmissions.index(None)
        row = board_of(after, lane).transmissions[slot]
        assert bool(row) == bool(cells)
        assert int(info["dropped_spawns"][lane]) == board.dropped + (not cells)
        if cells:
            assert tuple(row[:2]) in cells and row[2] == 1 and row[4:] == [0, 1], lane
            board.transmissions[slot] = row
        inside, outside = inside + (not better and bool(worse)), outside + bool(better and worse)
        assert not differences(board, after, lane)
    assert outside > 500
    assert (after.next_scheduled_task_turn == 24).all()


def test_a_task_uses_every_cell_out_of_the_line_of_fire() -> None:
    """Each of 8 boards 256 times: every such cell is met, and only these."""
    state = boards(turn=11, calm=False)
    tried = 0
    for lane in range(BOARDS):
        board = board_of(state, lane)
        enemy_phase(board)
        better, worse = places(board)
        if len(better) > 15 or not (better and worse):
            continue
        slot = board.transmissions.index(None)
        after = step(copies(take(state, lane)), WAIT, seed=lane)[1]
        assert {tuple(row[:2]) for row in after.transmissions[:, slot].tolist()} == set(better)
        tried += 1
        if tried == 8:
            return
    raise AssertionError(f"{tried} boards have few such cells")


def test_the_line_of_fire_is_used_last() -> None:
    """Two cells are left: (0, 4) behind a wall is taken before (2, 0), which the player at (0, 0) sees."""
    gaps = {(0, 0), (0, 4), (2, 0), (1, 0)}
    blocks = [{"row": r, "col": c, "kind": 1} for r, c in CELLS if (r, c) not in gaps]
    sent = [{"row": 1, "col": 0, "timer": 9, "type": 0}]
    for gone, wanted in (((), (0, 4)), (((0, 4),), (2, 0))):
        walls = blocks + [{"row": r, "col": c, "kind": 1} for r, c in gone]
        state = make_state(player=(0, 0), owned=[5], energy=1, turn=11, blocks=walls, transmissions=sent)
        after = step(copies(state), WAIT)[1]
        assert {tuple(row[:2]) for row in after.transmissions[:, 1].tolist()} == {wanted}


@pytest.mark.parametrize("count", range(5, 12))
def test_every_layout_of_the_bank(count: int) -> None:
    bank = layouts.bank()
    assert bank.shape == (7, 1024, 36)
    found = [{divmod(int(cell), 6) for cell in np.flatnonzero(layout)} for layout in bank[count - 5]]
    assert {len(layout) for layout in found} == {count}
    assert len({frozenset(layout) for layout in found}) == 1024
    assert all(valid_layout(layout) for layout in found)


def test_layouts_that_are_not_valid_are_told_apart() -> None:
    """The reference itself: one layout against each of L1 to L3, and one that only just holds."""
    cut = {(2, c) for c in range(6)}
    cornered = {(0, 1), (1, 0)}
    buried = {(3, 3), (4, 3), (2, 3), (3, 2), (3, 4)}
    assert not any(valid_layout(blocks) for blocks in (cut, cornered, buried, {(0, 0)}))
    assert valid_layout({(2, c) for c in range(5)}) and valid_layout({(0, 1)})
