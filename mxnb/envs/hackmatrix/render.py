"""The board for people: drawn on the host, 48 pixels a cell, with the player's numbers and programs below it."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mxnb.envs.hackmatrix.actions import action_mask
from mxnb.envs.hackmatrix.state import State
from mxnb.envs.hackmatrix.tables import (
    CREDITS,
    CRYPTOG,
    DATA,
    E_COL,
    E_ROW,
    ENEMY_HP,
    ENERGY,
    FROM_SIPHON,
    HP,
    MAX_HP,
    PROGRAM,
    PROGRAMS,
    SIZE,
    STAGES,
    STUNNED,
    T_COL,
    T_ROW,
    TURNS,
    TYPE,
)

CELL = 48
_FINE = 2  # drawn so much larger, then made smaller, so that edges are smooth
_EDGE, _PANEL = 8, 232
_WIDTH, _HEIGHT = SIZE * CELL + 2 * _EDGE, SIZE * CELL + 2 * _EDGE + _PANEL  # no wider than a phone shows
_NIGHT, _FLOOR, _WET, _LINE, _TEXT, _DIM = "#0d1117", "#1b222c", "#15535d", "#2d3846", "#e6edf3", "#a3aebb"
_LACK = "#758190"
_BLUE, _VIOLET, _GREY, _GREEN, _YELLOW, _CYAN = "#1f6feb", "#8957e5", "#586069", "#3fb950", "#e3b341", "#56d4dd"
_FOES = ("#f85149", "#f0883e", "#db61a2", "#bc8cff")  # virus, daemon, glitch, cryptog
_SHAPES = (
    [(0, -15), (15, 11), (-15, 11)],
    [(-13, -13), (13, -13), (13, 13), (-13, 13)],
    [(-15, -9), (-5, -13), (3, -6), (14, -13), (10, 0), (15, 11), (4, 7), (-4, 13), (-8, 5), (-15, 8)],
)  # virus, daemon, glitch

Draw = ImageDraw.ImageDraw


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size * _FINE)


def _text(draw: Draw, x: float, y: float, words: str, size: int, colour: str = _TEXT, anchor: str = "mm") -> None:
    draw.text((x * _FINE, y * _FINE), words, fill=colour, font=_font(size), anchor=anchor)


def _box(
    draw: Draw, x: float, y: float, width: float, height: float, fill: str | None, line: str | None = None
) -> None:
    corners = [x * _FINE, y * _FINE, (x + width) * _FINE, (y + height) * _FINE]
    draw.rounded_rectangle(corners, 4 * _FINE, fill=fill, outline=line, width=2 * _FINE)


def _disc(draw: Draw, x: float, y: float, radius: float, fill: str | None, line: str | None = None) -> None:
    corners = [(x - radius) * _FINE, (y - radius) * _FINE, (x + radius) * _FINE, (y + radius) * _FINE]
    draw.ellipse(corners, fill=fill, outline=line, width=2 * _FINE)


def _polygon(draw: Draw, points: list[tuple[float, float]], fill: str | None, line: str | None = None) -> None:
    draw.polygon([(x * _FINE, y * _FINE) for x, y in points], fill=fill, outline=line, width=2 * _FINE)


def render(state: State) -> np.ndarray:
    """uint8[536, 304, 3]: the board, row 0 at the bottom, and a panel below it.

    Blocks show data points (blue), a program's name (violet) or ? (grey), hollow once siphoned, below them the number
    of transmissions that they would release, or the resource that a siphon laid bare. Enemies: virus a triangle, daemon
    a square, glitch a zigzag, cryptog an eye, hollow where the agent does not see it; dots are their HP, z means
    stunned, a teal rim called by a siphon; they are smaller where something lies under them. A ring with a number is a
    transmission. In the panel a dot marks the programs that are owned; those that can be cast now are bright.
    """
    now = jax.tree.map(np.asarray, state)
    legal = np.asarray(_legal(state))
    image = Image.new("RGB", (_WIDTH * _FINE, _HEIGHT * _FINE), _NIGHT)
    draw = ImageDraw.Draw(image)
    crowded = {(int(foe[E_ROW]), int(foe[E_COL])) for foe in now.enemies[now.enemy_mask]}
    crowded |= {(int(line[T_ROW]), int(line[T_COL])) for line in now.transmissions[now.trans_mask]}
    crowded.add((int(now.row), int(now.col)))
    for row in range(SIZE):
        for col in range(SIZE):
            _floor(draw, now, row, col, (row, col) in crowded)
    for slot in np.flatnonzero(now.trans_mask):
        line = now.transmissions[slot]
        x, y = _corner(line[T_ROW], line[T_COL])
        low = _low(now, line[T_ROW], line[T_COL])
        _disc(draw, x + 24, y + low, 15, _NIGHT, _TEXT)
        _text(draw, x + 24, y + low, str(line[TURNS]), 16)
    for slot in np.flatnonzero(now.enemy_mask):
        _enemy(draw, now, now.enemies[slot])
    x, y = _corner(now.row, now.col)
    low = _low(now, now.row, now.col)
    _disc(draw, x + 24, y + low, 16, _TEXT, _CYAN)
    _text(draw, x + 24, y + low, "@", 17, _NIGHT)
    _panel(draw, now, legal)
    # Plain means: a sharper filter rings, and frames that ring take three times the bytes.
    return np.asarray(image.reduce(_FINE))


_legal = jax.jit(action_mask)


def _corner(row: Any, col: Any) -> tuple[float, float]:
    """The upper left corner of a cell in pixels."""
    return _EDGE + CELL * int(col), _EDGE + CELL * (SIZE - 1 - int(row))


def _low(now: Any, row: Any, col: Any) -> int:
    """How far down in its cell a round thing is drawn: lower below words."""
    return 28 if now.res_credits[row, col] or now.res_energy[row, col] else 24


def _floor(draw: Draw, now: Any, row: int, col: int, crowded: bool) -> None:
    """A cell without who is on it; where it is `crowded` by the player, an enemy or a transmission, words give way."""
    x, y = _corner(row, col)
    siphoned, kind = bool(now.siphoned[row, col]), int(now.block_type[row, col])
    draw.rectangle(
        [x * _FINE, y * _FINE, (x + CELL) * _FINE, (y + CELL) * _FINE],
        fill=_WET if siphoned else _FLOOR, outline=_LINE, width=_FINE,
    )  # fmt: skip
    if (int(now.exit_row), int(now.exit_col)) == (row, col):
        _box(draw, x + 3, y + 3, CELL - 6, CELL - 6, None, _GREEN)
        _text(draw, x + 24, y + 13, "EXIT", 11, _GREEN)
    if now.siphon_center[row, col]:
        _disc(draw, x + 24, y + 24, 6, None, _CYAN)
    if kind:
        colour = _BLUE if kind == DATA else _VIOLET if kind == PROGRAM else _GREY
        _box(draw, x + 4, y + 4, CELL - 8, CELL - 8, None if siphoned else colour, colour)
        name = PROGRAMS[int(now.block_program[row, col])]
        words = name if kind == PROGRAM else str(now.block_points[row, col]) if kind == DATA else "?"
        size = 10 if len(words) > 4 else 12
        if crowded:
            _text(draw, x + 24, y + 11, words, size)
        else:
            _text(draw, x + 24, y + (18 if kind == PROGRAM else 19), words, size if kind == PROGRAM else 20)
        if not siphoned and kind in (DATA, PROGRAM):
            at, size = ((x + 11, y + 27), 11) if crowded else ((x + 24, y + 35), 13)
            _text(draw, *at, f"+{now.block_spawn_count[row, col]}", size)
    if kind and not siphoned:
        return  # what lies under it shows once it is siphoned
    height, size = (36, 10) if kind else (7, 11) if crowded else (40, 12)
    for grid, colour, at, word in ((now.res_credits, _YELLOW, 12, "c"), (now.res_energy, _GREEN, 36, "e")):
        if grid[row, col]:
            _text(draw, x + at, y + height, f"{grid[row, col]}{word}", size, colour)
    if now.data_siphon[row, col]:
        a, b, r = (x + 40, y + 8, 6) if crowded else (x + 24, y + 24, 9)
        _polygon(draw, [(a, b - r), (a + r, b), (a, b + r), (a - r, b)], _CYAN)


def _enemy(draw: Draw, now: Any, foe: Any) -> None:
    kind, (x, y) = int(foe[TYPE]), _corner(foe[E_ROW], foe[E_COL])
    cell = int(foe[E_ROW]), int(foe[E_COL])
    if now.block_type[cell]:
        x, y, size, below = x + 28, y + 27, 0.6, 13
    elif now.res_credits[cell] or now.res_energy[cell] or now.data_siphon[cell]:
        x, y, size, below = x + 24, y + 26, 0.8, 16
    else:
        x, y, size, below = x + 24, y + 21, 1.0, 20
    colour = _FOES[kind]
    seen = kind != CRYPTOG or now.show_activated or foe[E_ROW] == now.row or foe[E_COL] == now.col
    rim = _CYAN if foe[FROM_SIPHON] else None
    if kind < CRYPTOG:
        _polygon(draw, [(x + size * a, y + size * b) for a, b in _SHAPES[kind]], colour, rim or _NIGHT)
    else:
        _disc(draw, x, y, 14 * size, colour if seen else None, rim or colour)
        if not foe[STUNNED]:  # an eye that sleeps has no pupil: the z takes its place
            _disc(draw, x, y, 5 * size, _NIGHT if seen else None, _NIGHT if seen else colour)
    if foe[STUNNED]:
        _text(draw, x, y - 1, "z", 15, _NIGHT if seen else colour)
    for i in range(int(ENEMY_HP[kind])):
        left = x + 8 * (i - (ENEMY_HP[kind] - 1) / 2)
        _disc(draw, left, y + below, 3, colour if i < foe[HP] else _NIGHT, colour)


def _panel(draw: Draw, now: Any, legal: np.ndarray) -> None:
    """The player's numbers, and the programs: a dot where owned, bright where they can be cast now."""
    left, right, y = _EDGE, _WIDTH - _EDGE, SIZE * CELL + 2 * _EDGE + 8
    stage = "won" if now.stage > STAGES else f"stage {int(now.stage)} of {STAGES}"
    _text(draw, left, y, stage, 15, anchor="lm")
    _text(draw, right, y, f"score {int(now.score)}", 15, anchor="rm")
    _text(draw, left, y + 23, "HP", 13, _DIM, "lm")
    for i in range(MAX_HP):
        _disc(draw, left + 32 + 16 * i, y + 23, 5, "#f85149" if i < now.hp else None, "#f85149")
    _text(draw, left + 100, y + 23, f"attack {int(now.attack_damage)}", 13, anchor="lm")
    _text(draw, right, y + 23, f"turn {int(now.turn)}", 13, _DIM, "rm")
    _text(draw, left, y + 45, f"{int(now.credits)} credits", 13, _YELLOW, "lm")
    _text(draw, left + 100, y + 45, f"{int(now.energy)} energy", 13, _GREEN, "lm")
    _text(draw, right, y + 45, f"{int(now.data_siphons)} siphons", 13, _CYAN, "rm")
    due = "tasks off" if now.scheduled_tasks_disabled else f"next task at turn {int(now.next_scheduled_task_turn)}"
    _text(draw, left, y + 66, due + (", enemies miss a turn" if now.step_active else ""), 12, _DIM, "lm")
    for index, name in enumerate(PROGRAMS):
        column, row = divmod(index, 8)
        x, top = left + 99 * column, y + 90 + 17 * row
        owned, castable = bool(now.owned_programs[index]), bool(legal[5 + index])
        colour = _TEXT if castable else _DIM if owned else _LACK
        if owned:
            _disc(draw, x + 3, top, 3, _CYAN if castable else _DIM)
        _text(draw, x + 9, top, name, 12, colour, "lm")
        _text(draw, x + 90, top, f"{CREDITS[index]}c {ENERGY[index]}e", 10, colour, "rm")
