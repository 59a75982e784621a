"""A dense layer on one-hot tiles as a table lookup.

Craftax's map view is a grid of tiles, each a one-hot block and a few bits. A dense layer on a one-hot vector
picks one row of its kernel, so the tiles' share of `obs @ kernel` is a sum of gathered rows:

    y = sum_t K[t, id_t] + flags @ K_flags + rest @ K_rest

the same function as the dense layer, in value and in gradient, with fewer multiplications. On a CPU it is not
faster (`benchmarks/first_layer.py`: half the speed on Classic, nine tenths on full Craftax), so no network here
uses it yet.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


class Layout(NamedTuple):
    """The leading entries of an observation: `tiles` tiles of `blocks` one-hot entries and `flags` bits each."""

    tiles: int
    blocks: int
    flags: int

    @property
    def width(self) -> int:
        """How many entries the tiles take."""
        return self.tiles * (self.blocks + self.flags)


CRAFTAX_CLASSIC = Layout(tiles=63, blocks=17, flags=4)
CRAFTAX = Layout(tiles=99, blocks=37, flags=46)


class Tiled(NamedTuple):
    """An observation by tiles."""

    ids: Any  # uint8[*B, tiles]: the block of each tile; `blocks` where it is none (darkness)
    flags: Any  # float32[*B, tiles * flags]
    rest: Any  # float32[*B, R]: what follows the tiles


def tile_ids(obs: Float[Array, "*B D"], layout: Layout) -> Tiled:
    """Splits obs [*B, D] by `layout`; exact where each tile's blocks are one-hot or all 0."""
    grid = obs[..., : layout.width].reshape(*obs.shape[:-1], layout.tiles, -1)
    blocks, flags = grid[..., : layout.blocks], grid[..., layout.blocks :]
    ids = jnp.where(blocks.any(-1), blocks.argmax(-1), layout.blocks).astype(jnp.uint8)
    return Tiled(ids, flags.reshape(*obs.shape[:-1], -1), obs[..., layout.width :])


def lookup_dense(
    ids: UInt8[Array, "*B T"],
    flags: Float[Array, "*B F"],
    rest: Float[Array, "*B R"],
    kernel: Float[Array, "D H"],
    layout: Layout,
) -> Float[Array, "*B H"]:
    """`obs @ kernel` for a tiled observation, the tiles by lookup."""
    hidden = kernel.shape[-1]
    grid = kernel[: layout.width].reshape(layout.tiles, layout.blocks + layout.flags, hidden)
    dark = jnp.zeros((layout.tiles, 1, hidden), kernel.dtype)
    table = jnp.concatenate([grid[:, : layout.blocks], dark], axis=1).reshape(-1, hidden)
    first = jnp.arange(layout.tiles, dtype=jnp.int32) * (layout.blocks + 1)
    rows = ids.astype(jnp.int32) + jnp.broadcast_to(first, ids.shape)
    tiles = table[rows].sum(-2)
    return tiles + flags @ grid[:, layout.blocks :].reshape(-1, hidden) + rest @ kernel[layout.width :]
