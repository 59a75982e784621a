"""A player who only walks to the exit: what an agent that has learned the game must beat."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mxnb.envs.hackmatrix import bits
from mxnb.envs.hackmatrix.observe import CHANNELS
from mxnb.envs.hackmatrix.tables import CELLS, NEIGHBOURS, SIZE

_BLOCKS, _EXIT = slice(7, 10), 40  # channels: data, program and question blocks; the exit


def walk(obs: Any, mask: Any) -> Any:
    """obs float32[1545], mask bool[28] -> the action that goes a shortest way to the exit around blocks.

    Whoever stands in the way is attacked, as any move at one in line of sight is. Of several shortest ways the first in
    the order up, down, left, right; the first legal action where there is no way. For
    `mxnb.evaluate.rule_policy`.
    """
    grid = obs[-CELLS * CHANNELS :].reshape(CELLS, CHANNELS)
    blocks, goal = bits.pack((grid[:, _BLOCKS] > 0).any(1)), bits.pack(grid[:, _EXIT] > 0)
    row, col = jnp.round(obs[:2] * (SIZE - 1)).astype(jnp.int32)
    player = bits.one(SIZE * row + col)
    beside = bits.spread(player) & (~blocks | goal)
    wave, _ = bits.search(goal, ~blocks & ~player, beside)
    ways = jnp.asarray(NEIGHBOURS)[SIZE * row + col]
    nearest = wave & beside
    good = bits.has(nearest, ways) & mask[:4]
    return jnp.where(good.any(), jnp.argmax(good), jnp.argmax(mask)).astype(jnp.int32)
