"""The hard parts of HackMatrix in plain Python, word for word after the specification: queues, sets and loops.

Nothing here looks at `mxnb.envs.hackmatrix`. Numbers in docstrings are the specification's sections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Cell = tuple[int, int]
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1))  # up, down, left, right
CELLS = [(r, c) for r in range(6) for c in range(6)]
CORNERS = [(0, 0), (0, 5), (5, 0), (5, 5)]
VIRUS, DAEMON, GLITCH, CRYPTOG = range(4)
FULL_HP, SPEED = (2, 3, 2, 2), (2, 1, 1, 1)
E_TYPE, E_ROW, E_COL, E_HP, E_DISABLED, E_STUNNED, E_SIPHON, E_TASK = range(8)
T_ROW, T_COL, T_TURNS, T_TYPE, T_SIPHON, T_TASK = range(6)
PUSH, PULL = 5, 6


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


def inside(cell: Cell) -> bool:
    return 0 <= cell[0] < 6 and 0 <= cell[1] < 6


def neighbours(cell: Cell) -> list[Cell]:
    """Inside the board, in direction order."""
    return [to for a, b in DIRECTIONS if inside(to := (cell[0] + a, cell[1] + b))]


def across(one: Cell, other: Cell) -> int:
    """Manhattan distance."""
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def flood(start: Cell, enterable: Callable[[Cell], bool]) -> dict[Cell, int]:
    """Moves from `start` to each cell that can be reached over enterable cells."""
    found, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        for to in neighbours(cell):
            if to not in found and enterable(to):
                found[to] = found[cell] + 1
                queue.append(to)
    return found


@dataclass
class Board:
    """What the functions below read and change; `enemies` and `transmissions` have a row or None for each slot."""

    player: Cell
    hp: int
    attack: int
    walls: set[Cell]
    enemies: list[list[int] | None]
    transmissions: list[list[int] | None]
    dropped: int = 0

    def enemy_at(self, cell: Cell) -> int | None:
        return next((slot for slot, row in enumerate(self.enemies) if row and (row[E_ROW], row[E_COL]) == cell), None)

    def transmission_at(self, cell: Cell) -> int | None:
        return next((slot for slot, row in enumerate(self.transmissions) if row and tuple(row[:2]) == cell), None)

    def occupied(self, cell: Cell, besides: int | None = None) -> bool:
        """By a transmission, or by an enemy of another slot than `besides`."""
        return self.transmission_at(cell) is not None or self.enemy_at(cell) not in (None, besides)


def board_of(state: Any, lane: int) -> Board:
    """One lane of a batch of states."""
    rows = lambda table, mask: [row.tolist() if there else None for row, there in zip(table[lane], mask[lane])]
    return Board(
        (int(state.row[lane]), int(state.col[lane])), int(state.hp[lane]), int(state.attack_damage[lane]),
        {tuple(cell) for cell in np.argwhere(state.block_type[lane]).tolist()},
        rows(state.enemies, state.enemy_mask), rows(state.transmissions, state.trans_mask),
    )  # fmt: skip


# -------------------------------------------------------------------------------- 14: distance and siphon quality


def exit_distance(start: Cell, target: Cell, walls: set[Cell]) -> int:
    """14.1: the target can always be entered, the start may be a wall, -1 where there is no way."""
    return flood(start, lambda cell: cell == target or cell not in walls).get(target, -1)


def siphon_yield(state: Any, lane: int, cell: Cell) -> tuple[list[int], set[int], int, int]:
    """14.2: data values, programs that are new, credits and energy of the cross of a cell."""
    data, programs, credits, energy = [], set(), 0, 0
    for at in [cell, *neighbours(cell)]:
        here = (lane, *at)
        if state.siphoned[here]:
            continue
        kind, points = state.block_type[here], int(state.block_points[here])
        if kind == 0:
            credits, energy = credits + int(state.res_credits[here]), energy + int(state.res_energy[here])
        elif kind == 1 or (kind == 3 and points > 0):
            data.append(points)
        elif not state.owned_programs[lane][state.block_program[here]]:
            programs.add(int(state.block_program[here]))
    return sorted(value for value in data if value), programs, credits, energy


def siphon_quality(state: Any, lane: int) -> tuple[bool, int, int]:
    """14.3: whether a free cell gives the same data and programs and more resources, and how much more."""
    here = siphon_yield(state, lane, (int(state.row[lane]), int(state.col[lane])))
    more = []
    for cell in CELLS:
        if state.block_type[(lane, *cell)] == 0:
            there = siphon_yield(state, lane, cell)
            credits, energy = there[2] - here[2], there[3] - here[3]
            if there[:2] == here[:2] and credits >= 0 and energy >= 0 and (credits > 0 or energy > 0):
                more.append((credits, energy))
    return bool(more), max((m[0] for m in more), default=0), max((m[1] for m in more), default=0)


# ------------------------------------------------------------------------------------------- 7: the player's line


def legal_move(board: Board, direction: int) -> bool:
    """10: the neighbour is inside, and free or occupied."""
    to = (board.player[0] + DIRECTIONS[direction][0], board.player[1] + DIRECTIONS[direction][1])
    return inside(to) and (to not in board.walls or board.occupied(to))


def scan(board: Board, direction: int) -> tuple[str, int] | None:
    """7: what the player hits in a direction."""
    (r, c), (a, b) = board.player, DIRECTIONS[direction]
    while inside((r + a, c + b)):
        r, c = r + a, c + b
        if (slot := board.transmission_at((r, c))) is not None:
            return "transmission", slot
        if (slot := board.enemy_at((r, c))) is not None:
            return "enemy", slot
        if (r, c) in board.walls:
            return None
    return None


def walk(board: Board, direction: int) -> bool | None:
    """7: an attack, or a move. Tells of what was destroyed whether it came from a scheduled task."""
    target = scan(board, direction)
    if target is None:
        board.player = (board.player[0] + DIRECTIONS[direction][0], board.player[1] + DIRECTIONS[direction][1])
    elif target[0] == "transmission":
        sent, board.transmissions[target[1]] = board.transmissions[target[1]], None
        return bool(sent[T_TASK])
    else:
        enemy = board.enemies[target[1]]
        enemy[E_HP] = max(enemy[E_HP] - board.attack, 0)
        if enemy[E_HP] == 0:
            board.enemies[target[1]] = None
            return bool(enemy[E_TASK])
        enemy[E_STUNNED] = 1
    return None


# ------------------------------------------------------------------------------------------------ 9.2: PUSH, PULL


def push_or_pull(board: Board, action: int) -> None:
    """9.2: each enemy in slot order, with the positions so far."""
    for slot, enemy in enumerate(board.enemies):
        if not enemy:
            continue
        r, c = enemy[E_ROW], enemy[E_COL]
        a, b = sign(r - board.player[0]), sign(c - board.player[1])
        if action == PULL:
            a, b = -a, -b
        candidates = [(r + a, c + b)] if a and b else []
        candidates += [(r + a, c)] if a else []
        candidates += [(r, c + b)] if b else []
        best, best_distance = None, across((r, c), board.player)
        for cell in candidates:
            if not inside(cell) or cell == board.player or board.occupied(cell, besides=slot):
                continue
            if cell in board.walls and enemy[E_TYPE] != GLITCH:
                continue
            far = across(cell, board.player)
            if far > best_distance if action == PUSH else far < best_distance:
                best, best_distance = cell, far
        if best:
            enemy[E_ROW], enemy[E_COL] = best


# ---------------------------------------------------------------------------------------------- 11: the enemies


def enemy_step(board: Board, slot: int) -> None:
    """11.2: the movement step."""
    enemy = board.enemies[slot]
    x, p, glitch = (enemy[E_ROW], enemy[E_COL]), board.player, enemy[E_TYPE] == GLITCH
    open_ground = lambda q: q != p and (glitch or q not in board.walls)
    passable = lambda q: open_ground(q) and not board.occupied(q, besides=slot)
    beside = [q for q in neighbours(x) if passable(q)]
    far = flood(p, lambda q: q == x or passable(q))
    found = [far[q] for q in beside if q in far]
    if not found:
        far = flood(p, lambda q: q == x or open_ground(q))
        found = [far[q] for q in beside if q in far]
        if not found or not (x not in far or min(found) < far[x]):
            return
    candidates = [q for q in beside if far.get(q) == min(found)]
    if enemy[E_TYPE] == CRYPTOG:
        candidates = [q for q in candidates if q[0] != p[0] and q[1] != p[1]] or candidates
    if glitch:
        candidates = [q for q in candidates if q in board.walls] or candidates
    dr, dc = p[0] - x[0], p[1] - x[1]
    primary = (x[0] + sign(dr), x[1]) if abs(dr) >= abs(dc) else (x[0], x[1] + sign(dc))
    enemy[E_ROW], enemy[E_COL] = primary if primary in candidates else candidates[0]


def tick(board: Board) -> None:
    """11.1: transmissions come closer to hatching, and hatch."""
    for slot, sent in enumerate(board.transmissions):
        if not sent:
            continue
        sent[T_TURNS] -= 1
        if sent[T_TURNS] > 0:
            continue
        board.transmissions[slot] = None
        if None in board.enemies:
            kind = sent[T_TYPE]
            hatched = [kind, sent[T_ROW], sent[T_COL], FULL_HP[kind], 1, 0, sent[T_SIPHON], sent[T_TASK]]
            board.enemies[board.enemies.index(None)] = hatched
        else:
            board.dropped += 1


def enemy_phase(board: Board, step_active: bool = False) -> None:
    """11 without the scheduled task and the siphon's transmissions."""
    tick(board)
    attacked: set[int] = set()
    for k in (0, 1) if not step_active else ():
        for slot, enemy in enumerate(board.enemies):
            if not enemy or enemy[E_STUNNED] or enemy[E_DISABLED] or SPEED[enemy[E_TYPE]] <= k or slot in attacked:
                continue
            far = across((enemy[E_ROW], enemy[E_COL]), board.player)
            if far == 1:
                board.hp = max(board.hp - 1, 0)
                attacked.add(slot)
            elif far > 1:
                enemy_step(board, slot)
    for enemy in board.enemies:
        if enemy:
            enemy[E_STUNNED], enemy[E_DISABLED] = 0, max(enemy[E_DISABLED] - 1, 0)


# ------------------------------------------------------------------------------------ 5: placement, and layouts


def in_line_of_fire(board: Board, cell: Cell) -> bool:
    """5.4: in the player's row or column, with no block and no enemy strictly between."""
    p = board.player
    if cell[0] != p[0] and cell[1] != p[1]:
        return False
    a, b = sign(p[0] - cell[0]), sign(p[1] - cell[1])
    between = [(cell[0] + i * a, cell[1] + i * b) for i in range(1, across(cell, p))]
    return not any(q in board.walls or board.enemy_at(q) is not None for q in between)


def places(board: Board, allowed: Iterable[Cell] = CELLS) -> list[list[Cell]]:
    """5.4: eligible cells outside the line of fire, which are used up first, and those inside."""
    fit = [q for q in allowed if q != board.player and q not in board.walls and not board.occupied(q)]
    fire = {q for q in fit if in_line_of_fire(board, q)}
    return [[q for q in fit if q not in fire], [q for q in fit if q in fire]]


def valid_layout(blocks: set[Cell]) -> bool:
    """5.3: L1 to L3, for blocks none of which is a corner."""
    free = [cell for cell in CELLS if cell not in blocks and cell not in CORNERS]
    connected = set(flood(free[0], lambda cell: cell in free)) == set(free)
    corners = all(any(q not in blocks for q in neighbours(corner)) for corner in CORNERS)
    siphonable = all(any(q in free for q in neighbours(block)) for block in blocks)
    return not blocks & set(CORNERS) and connected and corners and siphonable
