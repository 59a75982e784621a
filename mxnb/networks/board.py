"""The eye for observations that hold a board: every cell is read in the same way, those near the player once more."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import initializers as init
from jaxtyping import Array, Float

REACH = 2  # cells around the player that are seen from where it stands, either way


class BoardReader(nn.Module):
    """A flat observation with a board in it, as one row of features.

    A layer of `cell_dim` rectified units, one for all cells (a 1 x 1 convolution), reads the channels of each cell.
    Then come, side by side: all that is beside the board, the player's cell as a one-hot, every cell at its own place,
    and the cells around the player by where they lie from it; a cell outside the board is zeros there. So what stands
    to the player's left meets the same weights wherever the player is.

    board: (offset, rows, columns, channels) in the observation, row-major. player: indices of the entries that hold the
    player's row and column as shares of the last. cell_dim: units for each cell. dtype: what the layer computes in.
    """

    cell_dim: int
    board: tuple[int, int, int, int]
    player: tuple[int, int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, obs: Float[Array, "*L D"]) -> Float[Array, "*L F"]:
        """obs -> features; F = D - the board + cells (1 + cell_dim) + (2 REACH + 1)^2 cell_dim."""
        offset, rows, columns, channels = self.board
        cells, lead = rows * columns, obs.shape[:-1]
        obs = obs.reshape(-1, obs.shape[-1])
        end = offset + cells * channels
        layer = nn.Dense(self.cell_dim, dtype=self.dtype, kernel_init=init.orthogonal(math.sqrt(2.0)), name="cell")
        read = nn.relu(layer(obs[:, offset:end].reshape(-1, cells, channels))).astype(jnp.float32)
        row, column = (
            jnp.round(obs[:, index] * (size - 1)).astype(jnp.int32)
            for index, size in zip(self.player, (rows, columns), strict=True)
        )
        at = jnp.clip(row * columns + column, 0, cells - 1)
        outside = jnp.zeros_like(read[:, :1])
        around = jnp.asarray(_around(rows, columns))[at]
        near = jnp.take_along_axis(jnp.concatenate([read, outside], 1), around[:, :, None], 1)
        beside = jnp.concatenate([obs[:, :offset], obs[:, end:], jax.nn.one_hot(at, cells)], -1)
        parts = [beside, *(x.reshape(len(x), -1) for x in (read, near))]
        return jnp.concatenate(parts, -1).reshape(*lead, -1)


def _around(rows: int, columns: int) -> np.ndarray:
    """int32[cells, (2 REACH + 1)^2]: the cells around each, row by row; `cells` stands for one outside the board."""
    steps = np.arange(-REACH, REACH + 1)
    row = (np.arange(rows)[:, None] + steps)[:, None, :, None]
    column = (np.arange(columns)[:, None] + steps)[None, :, None, :]
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    return np.where(inside, row * columns + column, rows * columns).reshape(rows * columns, -1).astype(np.int32)
