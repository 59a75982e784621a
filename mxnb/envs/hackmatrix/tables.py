"""HackMatrix's constants, and what follows from the board's geometry alone.

The board is 6 x 6; cell = 6 * row + col, row 0 is the bottom one. Directions are up, down, left, right.
"""

from __future__ import annotations

import numpy as np

SIZE = 6
CELLS = SIZE * SIZE
SLOTS = 20  # of enemies, and of transmissions
STAGES = 8
MAX_HP = 3
MAX_ATTACK = 3
ATK_PLUS_USES = 2
TIMER = 1  # turns until a new transmission hatches
SIPHON_DELAY = 5
MIN_INTERVAL = 4
MAX_STEPS = 1000

UP, DOWN, LEFT, RIGHT, SIPHON = range(5)
PROGRAMS = (
    "PUSH", "PULL", "CRASH", "WARP", "POLY", "WAIT", "DEBUG", "ROW", "COL", "UNDO", "STEP", "SIPH+", "EXCH", "SHOW",
    "RESET", "CALM", "D_BOM", "DELAY", "ANTI-V", "SCORE", "REDUC", "ATK+", "HACK",
)  # fmt: skip
(PUSH, PULL, CRASH, WARP, POLY, WAIT, DEBUG, ROW, COL, UNDO, STEP, SIPH, EXCH, SHOW, RESET, CALM, D_BOM, DELAY, ANTI_V,
 SCORE, REDUC, ATK, HACK) = range(5, 28)  # fmt: skip
ACTIONS = ("up", "down", "left", "right", "siphon", *PROGRAMS)
CREDITS = np.array([0, 0, 3, 2, 1, 0, 3, 3, 3, 1, 0, 5, 4, 2, 0, 2, 3, 1, 3, 0, 2, 4, 2], np.int32)
ENERGY = np.array([2, 2, 2, 2, 1, 1, 0, 1, 1, 0, 3, 0, 0, 0, 4, 4, 0, 2, 0, 5, 1, 4, 2], np.int32)
SPAWNS = np.array([4, 4, 6, 5, 3, 1, 4, 2, 2, 3, 4, 7, 3, 2, 2, 6, 4, 4, 4, 5, 3, 8, 4], np.int32)
"""What a program costs, and how many transmissions a block that holds it releases when it is siphoned."""

ENEMIES = ("virus", "daemon", "glitch", "cryptog")
VIRUS, DAEMON, GLITCH, CRYPTOG = range(4)
ENEMY_HP = np.array([2, 3, 2, 2], np.int32)
NOTHING, DATA, PROGRAM, QUESTION = range(4)  # kinds of block

TYPE, E_ROW, E_COL, HP, DISABLED, STUNNED, FROM_SIPHON, FROM_TASK = range(8)  # columns of State.enemies
T_ROW, T_COL, TURNS, T_TYPE, T_FROM_SIPHON, T_FROM_TASK = range(6)  # columns of State.transmissions

COMPONENTS = (
    "step_penalty", "stage_completion", "score_gain", "kills", "data_siphon", "distance_shaping", "damage_penalty",
    "hp_recovery", "victory", "death_penalty", "siphon_death_penalty", "resource_gain", "resource_holding",
    "program_waste", "siphon_quality",
)  # fmt: skip
STAGE_REWARD = np.array([1, 2, 4, 8, 16, 32, 64, 100], np.float32)

ROWS, COLS = np.divmod(np.arange(CELLS), SIZE)
CORNERS = np.array([0, 5, 30, 35])
_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1))


def _cell(row: int, col: int) -> int:
    return SIZE * row + col if 0 <= row < SIZE and 0 <= col < SIZE else -1


RAYS = np.array(
    [[[_cell(r + i * a, c + i * b) for i in range(1, SIZE)] for a, b in _DIRECTIONS] for r, c in zip(ROWS, COLS)],
    np.int32,
)
"""int32[36, 4, 5]: the cells from a cell to the edge, nearest first; -1 beyond it."""
NEIGHBOURS = RAYS[:, :, 0]
ACROSS = np.abs(ROWS[:, None] - ROWS) + np.abs(COLS[:, None] - COLS)
"""[36, 36] Manhattan distances."""
AROUND = np.maximum(np.abs(ROWS[:, None] - ROWS), np.abs(COLS[:, None] - COLS)) == 1
"""bool[36, 36]: one king's move apart."""
CROSS = ACROSS <= 1
"""bool[36, 36]: the cell itself or a neighbour: what a siphon drains."""
IS_CORNER = np.isin(np.arange(CELLS), CORNERS)
ALIGNED = ((ROWS[:, None] == ROWS) | (COLS[:, None] == COLS)) & ~np.eye(CELLS, dtype=bool)
BETWEEN = np.zeros((CELLS, CELLS, CELLS), bool)
"""[from, to, cell]: strictly between two cells of a row or a column."""
for _from in range(CELLS):
    for _ray in RAYS[_from]:
        for _i, _to in enumerate(_ray):
            if _to >= 0:
                BETWEEN[_from, _to, _ray[:_i]] = True
