"""HackMatrix's chance: the specification's appendix A.15 for 256 keys each, and A.16 for 4,096.

Shares are held to 4 standard errors at fixed keys.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from games import ACTION, LANES, compiled, copies, plain, reset, step
from referee import CORNER, SPAWNS, crowd, exit_distance, mask, moves_from, spot
from reference import CELLS, CORNERS, FULL_HP, board_of, in_line_of_fire, valid_layout

from mxnb.envs.hackmatrix import make_state

BATCHES = 16
SIPHON, POLY, WARP, WAIT, RIGHT = ACTION["siphon"], ACTION["POLY"], ACTION["WARP"], ACTION["WAIT"], ACTION["right"]
DATA_9 = {"row": 4, "col": 3, "kind": 1, "points": 9, "spawn_count": 9}


def daemon(row: int, col: int, hp: int = 3) -> dict[str, int]:
    return {"type": 1, "row": row, "col": col, "hp": hp}


def virus(row: int, col: int, hp: int = 2, stunned: int = 0) -> dict[str, int]:
    return {"type": 0, "row": row, "col": col, "hp": hp, "stunned": stunned}


def likely(count: Any, n: int, share: float) -> None:
    """A count of n draws that have this chance."""
    error = np.sqrt(n * share * (1 - share))
    assert (np.abs(np.asarray(count) - n * share) <= 4 * error).all(), (count, n * share, error)


def cells(rows: Any) -> Any:
    """The cells of rows of transmissions, as 6 * row + col."""
    return 6 * rows[..., 0] + rows[..., 1]


def joined(states: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *states)


@cache
def new_games() -> Any:
    return joined([reset(16, number) for number in range(BATCHES)])


# --------------------------------------------------------------------------------------------------------- A.15


def test_what_a_siphon_releases_hatches_where_it_lay() -> None:
    """RA-01 and RA-02."""
    start = copies(make_state(data_siphons=1, blocks=[DATA_9], owned=[5], energy=1))
    _, sent, *_ = step(start, SIPHON, 1)
    rows = sent.transmissions[:, :9]
    assert (sent.trans_mask == (np.arange(20) < 9)).all() and not sent.enemy_mask.any()
    assert (rows[..., 2] == 1).all() and (rows[..., 4] == 1).all() and (rows[..., 5] == 0).all()
    assert all(len(set(lane)) == 9 for lane in cells(rows).tolist())
    assert set(cells(rows).ravel().tolist()) == set(range(36)) - {6 * 3 + 3, 6 * 4 + 3}
    assert set(rows[..., 3].ravel().tolist()) == {0, 1, 2, 3}
    _, hatched, *_ = step(sent, WAIT, 2)
    foes = hatched.enemies[:, :9]
    assert (hatched.enemy_mask == (np.arange(20) < 9)).all() and not hatched.trans_mask.any()
    assert (foes[..., 1:3] == rows[..., :2]).all() and (foes[..., 0] == rows[..., 3]).all()
    assert (foes[..., 3] == np.array(FULL_HP)[foes[..., 0]]).all() and (foes[..., 6] == 1).all()
    assert (hatched.hp == 3).all()


def test_siphons_do_not_prefer_cells_out_of_the_line_of_fire() -> None:
    """8.: every eligible cell is equally likely, unlike for a scheduled task."""
    start = copies(make_state(data_siphons=1, blocks=[{**DATA_9, "spawn_count": 1}]))
    sent = joined([step(start, SIPHON, 3, number)[1] for number in range(BATCHES)])
    count = np.bincount(cells(sent.transmissions[:, 0]), minlength=36)
    assert count[6 * 3 + 3] == count[6 * 4 + 3] == 0
    likely(np.delete(count, [6 * 3 + 3, 6 * 4 + 3]), BATCHES * LANES, 1 / 34)


def test_a_task_keeps_out_of_the_line_of_fire() -> None:
    """RA-03 and RA-04."""
    board: dict[str, Any] = {"player": (0, 0), "owned": [5], "energy": 9, "turn": 11}
    after = step(copies(make_state(**board)), WAIT, 3)[1]
    row = after.transmissions[:, 0]
    assert (after.trans_mask.sum(1) == 1).all() and (row[:, :2] > 0).all()
    assert (row[:, 2] == 1).all() and (row[:, 5] == 1).all() and (row[:, 4] == 0).all()
    blocks = [{"row": r, "col": c, "kind": 1} for r, c in CELLS if r > 0 and c > 0]
    after = step(copies(make_state(**board, blocks=blocks)), WAIT, 4)[1]
    row = after.transmissions[:, 0]
    assert (after.trans_mask.sum(1) == 1).all() and ((row[:, 0] == 0) | (row[:, 1] == 0)).all()
    assert len(set(cells(row).tolist())) == 10


def test_poly() -> None:
    """RA-05."""
    foes = [virus(3, 5, 1), daemon(0, 0, 2), {"type": 2, "row": 5, "col": 0, "hp": 2}]
    start = copies(make_state(credits=1, energy=1, owned=[4], enemies=foes))
    _, after, reward, *_ = step(start, POLY, 5)
    kinds, hp = after.enemies[:, :3, 0], after.enemies[:, :3, 3]
    assert (after.enemy_mask.sum(1) == 3).all() and (kinds != [0, 1, 2]).all()
    assert (hp[:, 0] == np.where(kinds[:, 0] == 1, 2, 1)).all() and (hp[:, 1] == 1).all()
    assert (hp[:, 2] == np.where(kinds[:, 2] == 1, 3, 2)).all()
    for slot in range(3):
        likely(np.delete(np.bincount(kinds[:, slot], minlength=4), slot), LANES, 1 / 3)
    np.testing.assert_allclose(reward, -0.11, atol=1e-6)
    pairs = np.bincount(((kinds[:, 0] - 0) % 4 - 1) * 3 + (kinds[:, 1] - 1) % 4 - 1, minlength=9)
    likely(pairs, LANES, 1 / 9)  # each enemy draws for itself


def test_warp() -> None:
    """RA-06."""
    sent = [{"row": 0, "col": 5, "timer": 2, "type": 0}]
    board = make_state(
        credits=2, energy=2, owned=[3], enemies=[virus(5, 5), daemon(0, 0)], transmissions=sent, exit=(3, 0)
    )
    _, after, *_, info = step(copies(board), WARP, 6)
    there = np.stack([after.enemy_mask[:, 0], after.enemy_mask[:, 1], after.trans_mask[:, 0]], 1)
    assert (there.sum(1) == 2).all() and (after.enemy_mask.sum(1) + after.trans_mask.sum(1) == 2).all()
    goal = (~there).argmax(1)
    assert (np.stack([after.row, after.col], 1) == np.array([(5, 5), (0, 0), (0, 5)])[goal]).all()
    likely(np.bincount(goal), LANES, 1 / 3)
    np.testing.assert_allclose(info["kills"], 0.3, atol=1e-6)


def test_a_new_stage_around_survivors() -> None:
    """RA-07."""
    sent = [{"row": 3, "col": 3, "timer": 2, "type": 0}]
    board = copies(make_state(player=(5, 4), enemies=[daemon(2, 2)], transmissions=sent))
    _, after, *_, info = step(board, RIGHT, 7)
    assert (after.stage == 2).all() and (info["completed"] == 1).all()
    out, me = spot(after.exit_row, after.exit_col), spot(after.row, after.col)
    assert me[:, 5, 5].all() and not out[:, 5, 5].any()
    likely([out[:, r, c].sum() for r, c in CORNERS[:3]], LANES, 1 / 3)
    assert (after.data_siphon == (CORNER & ~out & ~me)).all()
    amount = after.res_credits + after.res_energy
    assert not ((after.res_credits > 0) & (after.res_energy > 0)).any()
    assert ((amount > 0) == ((after.block_type == 0) & (~CORNER | after.data_siphon))).all()
    assert not after.block_type[:, 2, 2].any() and not after.block_type[:, 3, 3].any()
    assert (after.trans_mask == (np.arange(20) < 3)).all()
    assert (after.transmissions[:, 0, :3] == [3, 3, 2]).all() and (after.transmissions[:, 1:3, 2] == 1).all()
    foes, sent_now = crowd(after)
    assert (foes + sent_now <= 1).all() and not (sent_now[:, CORNER]).any()
    assert not ((sent_now > 0) & (after.block_type > 0)).any()
    assert (after.enemies[:, 0] == board.enemies[:, 0]).all() and (after.enemy_mask.sum(1) == 1).all()


def test_a_new_stage_among_seven_daemons() -> None:
    """RA-08."""
    where = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 1), (3, 4), (1, 4)]
    board = copies(make_state(player=(5, 4), enemies=[daemon(*cell) for cell in where]))
    after = step(board, RIGHT, 8)[1]
    walls, (foes, _) = after.block_type > 0, crowd(after)
    out, me = spot(after.exit_row, after.exit_col), spot(after.row, after.col)
    assert (walls.sum((1, 2)) <= 11).all() and not (walls & (foes > 0)).any()
    assert ((moves_from(me, ~walls & ~out) >= 0) | walls | out).all() and (exit_distance(after) > 0).all()
    assert mask(after).any(1).all()
    assert (after.enemies[:, :7] == board.enemies[:, :7]).all() and (after.enemy_mask == (np.arange(20) < 7)).all()


def test_reset() -> None:
    """RA-09, for all keys."""
    state = new_games()
    n = len(state.row)
    corner = np.array([CORNERS.index(cell) for cell in zip(state.row.tolist(), state.col.tolist())])
    likely(np.bincount(corner), n, 1 / 4)
    bonus = np.stack([state.credits, state.energy, state.data_siphons], 1)
    assert ((bonus == [10, 0, 0]).all(1) | (bonus == [0, 11, 0]).all(1) | (bonus == [0, 0, 1]).all(1)).all()
    likely((bonus > 0).sum(0), n, 1 / 3)
    assert (state.stage == 1).all() and (state.turn == 0).all() and (state.scheduled_task_interval == 12).all()
    assert (state.next_scheduled_task_turn == 12).all() and (state.hp == 3).all() and (state.attack_damage == 1).all()
    assert (state.trans_mask == (np.arange(20) < 1)).all() and not state.enemy_mask.any()
    sent, out = state.transmissions[:, 0], crowd(state)[1]
    assert (sent[:, 2] == 1).all() and not sent[:, 4:].any() and not state.owned_programs.any()
    assert not out[:, CORNER].any() and not ((out > 0) & (state.block_type > 0)).any()
    for lane in range(0, n, 16):  # plain Python
        assert not in_line_of_fire(board_of(state, lane), tuple(sent[lane, :2].tolist()))
    assert not (state.snapshot_valid | state.siphoned.any((1, 2)) | state.siphon_center.any((1, 2))).any()
    assert (state.score == 0).all() and (state.episode_step == 0).all()
    assert mask(state).any(1).all() and (exit_distance(state) >= 5).all()


def test_a_survivor_shields_from_the_line_of_fire() -> None:
    """RA-10."""
    board = copies(make_state(player=(5, 4), enemies=[virus(4, 5, stunned=1)]))
    after = joined([step(board, RIGHT, 10, number)[1] for number in range(4)])
    sent = crowd(after)[1]
    walls = after.block_type > 0
    assert sent[:, [3, 2, 1], 5].any(0).all() and (after.trans_mask.sum(1) == 2).all()
    for col in range(1, 5):
        assert not (sent[:, 5, col].astype(bool) & ~walls[:, 5, col + 1 : 5].any(1)).any()
    assert sent[:, 5, 1:4].any()


# --------------------------------------------------------------------------------------------------------- A.16


def test_how_many_blocks() -> None:
    """GE-01 and GE-06."""
    state = new_games()
    walls = state.block_type > 0
    count = walls.sum((1, 2))
    assert not walls[:, CORNER].any() and set(count.tolist()) == set(range(5, 12))
    likely(np.bincount(count - 5), len(count), 1 / 7)
    assert all(valid_layout({tuple(cell) for cell in np.argwhere(lane).tolist()}) for lane in walls)
    met = {lane.tobytes() for lane in walls}
    assert len(met) > 2900  # of 7 x 1,024 layouts in 4,096 draws, about 3,130


def test_what_blocks_hold() -> None:
    """GE-02."""
    state = new_games()
    kind, points, program, spawn = state.block_type, state.block_points, state.block_program, state.block_spawn_count
    walls, question = kind > 0, kind == 3
    data = walls & (points > 0)
    assert (data[kind == 1]).all() and not data[kind == 2].any() and not (points[~walls].any() or spawn[~walls].any())
    n = int(walls.sum())
    likely(question.sum(), n, 0.1)
    likely(data.sum(), n, 0.5)
    likely((data & question).sum(), int(question.sum()), 0.5)
    likely(np.bincount(points[data], minlength=10)[1:], int(data.sum()), 1 / 9)
    assert points[data].max() == 9 and (spawn[data] == points[data]).all()
    holds = walls & ~data
    assert (spawn[holds] == SPAWNS[program[holds]]).all() and (program[data] == 0).all()
    likely(np.bincount(program[holds], minlength=23), int(holds.sum()), 1 / 23)
    for lane in range(len(kind)):
        inside = program[lane][holds[lane]].tolist()
        assert len(inside) == len(set(inside))


def test_what_lies_on_the_floor() -> None:
    """GE-03."""
    state = new_games()
    out, me = spot(state.exit_row, state.exit_col), spot(state.row, state.col)
    pickup = CORNER & ~out & ~me
    assert (state.data_siphon == pickup).all()
    given = np.where(CORNER, pickup, state.block_type == 0)
    assert (((state.res_credits > 0) ^ (state.res_energy > 0)) == given).all()
    assert not ((state.res_credits > 0) & (state.res_energy > 0)).any()
    for kind in (state.res_credits, state.res_energy):
        assert kind.max() == 3
        likely(np.bincount(kind[given], minlength=4)[1:], int(given.sum()), np.array([0.225, 0.225, 0.05]))


def test_where_games_begin_and_lead() -> None:
    """GE-04: all pairs of a first corner and another as the exit; the bonus has nothing to do with them."""
    state = new_games()
    assert set(zip(state.exit_row.tolist(), state.exit_col.tolist())) == set(CORNERS)
    corner = lambda row, col: 2 * (row > 0) + (col > 0)
    pair = 4 * corner(state.row, state.col) + corner(state.exit_row, state.exit_col)
    count = np.bincount(pair, minlength=16)
    assert not count[::5].any()
    likely(np.delete(count, [0, 5, 10, 15]), len(pair), 1 / 12)
    bonus = (state.energy > 0) + 2 * (state.data_siphons > 0)
    likely(np.bincount(bonus * 4 + corner(state.row, state.col)), len(pair), 1 / 12)


@pytest.mark.parametrize("stage", range(2, 9))
def test_transmissions_of_a_stage(stage: int) -> None:
    """GE-05, and GE-06 on later stages."""
    board = copies(make_state(player=(5, 4), stage=stage - 1))
    after = joined([step(board, RIGHT, 50 + stage, number)[1] for number in range(BATCHES)])
    n = len(after.row)
    assert (after.stage == stage).all() and (after.trans_mask == (np.arange(20) < stage)).all()
    blocks = (after.block_type > 0).sum((1, 2))
    assert blocks.min() == 5 and blocks.max() == 11
    rows, sent = after.transmissions[:, :stage], crowd(after)[1]
    assert (sent <= 1).all() and not sent[:, CORNER].any() and not ((sent > 0) & (after.block_type > 0)).any()
    assert (rows[..., 2] == 1).all() and not rows[..., 4:].any()
    likely(np.bincount(rows[..., 3].ravel(), minlength=4), n * stage, 1 / 4)
    for lane in range(0, n, 4):  # plain Python
        there = board_of(after, lane)
        assert valid_layout(there.walls)
        assert not any(in_line_of_fire(there, (row[0], row[1])) for row in there.transmissions if row)
    assert (after.scheduled_task_interval == 13 - stage).all() and (after.next_scheduled_task_turn == 13 - stage).all()


def survivors(*where: tuple[int, int]) -> list[dict[str, int]]:
    """Stunned viruses on these cells."""
    return [virus(*cell, stunned=1) for cell in where]


def test_a_stage_uses_the_line_of_fire_last() -> None:
    """GE-05's other half: a transmission in it, where survivors leave few cells, means that no other cell is free."""
    inner = [cell for cell in CELLS if 5 not in cell and cell not in CORNERS]
    board = copies(make_state(player=(5, 4), stage=7, enemies=survivors(*inner[:16])))
    _, after, *_, info = step(board, RIGHT, 58)
    crowded = 0
    for lane in range(LANES):
        there = board_of(after, lane)
        sent = {(row[0], row[1]) for row in there.transmissions if row}
        assert len(sent) + info["dropped_spawns"][lane] == 8 and not sent & set(CORNERS)
        free = set(CELLS) - set(CORNERS) - there.walls - sent - set(inner[:16])
        free -= {cell for cell in free if in_line_of_fire(there, cell)}
        in_fire = {cell for cell in sent if in_line_of_fire(there, cell)}
        assert not (free and in_fire)
        crowded += bool(in_fire)
    assert crowded > 0


def test_a_stage_counts_the_transmissions_that_have_no_place() -> None:
    """Sections 5.4 and 17: two slots for five on stage 5; then at most one cell, where no block lies."""
    inner = [cell for cell in CELLS if cell not in CORNERS and cell != (5, 4)]
    sent = [{"row": row, "col": col, "timer": 4, "type": 0} for row, col in inner[:18]]
    _, after, *_, info = step(copies(make_state(player=(5, 4), stage=4, transmissions=sent)), RIGHT, 59)
    assert after.trans_mask.all() and (info["dropped_spawns"] == 3).all()
    board = copies(make_state(player=(5, 4), stage=4, transmissions=sent, enemies=survivors(*inner[18:])))
    _, after, *_, info = step(board, RIGHT, 60)
    placed = after.block_type[:, 5, 4] == 0
    assert (after.trans_mask.sum(1) == 18 + placed).all() and (info["dropped_spawns"] == 5 - placed).all()
    assert placed.any() and not placed.all()


def test_the_same_key_gives_the_same_game() -> None:
    """GE-07; that batches and jit change nothing is in test_invariants.py."""
    for one, other in zip(jax.tree.leaves(reset(0)), jax.tree.leaves(reset(0)), strict=True):
        assert (one == other).all()
    seen = plain(compiled("reset")(jax.random.split(jax.random.key(0), LANES)))[0]
    assert len({lane.tobytes() for lane in seen}) == LANES
