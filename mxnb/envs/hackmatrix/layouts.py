"""The bank of block layouts: found once by rejection, so that nothing is rejected while the game runs.

A layout is valid where (L1) its free cells other than corners are connected among themselves, (L2) each corner has a
free neighbour, and (L3) each block has a free neighbour that is no corner. That stays so when blocks are removed.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mxnb.envs.hackmatrix.tables import CELLS, CORNERS, IS_CORNER

FEWEST, MOST = 5, 11
LAYOUTS = 1024  # for each number of blocks


def _beside(cells: np.ndarray) -> np.ndarray:
    """bool[n, 36]: cells with a neighbour in the set."""
    board = np.pad(cells.reshape(-1, 6, 6), ((0, 0), (1, 1), (1, 1)))
    near = board[:, 2:, 1:-1] | board[:, :-2, 1:-1] | board[:, 1:-1, 2:] | board[:, 1:-1, :-2]
    return near.reshape(-1, CELLS)


def valid(blocks: np.ndarray) -> np.ndarray:
    """bool[n]: which of the layouts bool[n, 36] hold L1 to L3."""
    free = ~blocks & ~IS_CORNER
    right = _beside(free)[:, CORNERS].all(1) & (~blocks | _beside(free)).all(1)
    reached = np.zeros_like(free)
    first = free.argmax(1)
    reached[np.arange(len(free)), first] = free[np.arange(len(free)), first]
    while True:
        wider = free & (reached | _beside(reached))
        if (wider == reached).all():
            return right & (reached == free).all(1)
        reached = wider


@cache
def bank() -> np.ndarray:
    """bool[7, 1024, 36]: distinct valid layouts of 5 to 11 blocks, always the same ones."""
    dice = np.random.default_rng(20_240_607)
    inner = np.flatnonzero(~IS_CORNER)
    found = []
    for count in range(FEWEST, MOST + 1):
        seen: dict[bytes, np.ndarray] = {}
        while len(seen) < LAYOUTS:
            chosen = inner[np.argsort(dice.random((2000, len(inner))), 1)[:, :count]]
            blocks = np.zeros((2000, CELLS), bool)
            np.put_along_axis(blocks, chosen, True, 1)
            for layout in blocks[valid(blocks)]:
                seen.setdefault(layout.tobytes(), layout)
        found.append(list(seen.values())[:LAYOUTS])
    return np.array(found)
