"""Craftax-Classic drawn from its symbolic observation, so that what a world model predicts can be looked at."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from mxnb.envs.craftax import load_textures

ROWS, COLUMNS, BLOCKS = 7, 9, 17
MOBS = ("zombie", "cow", "skeleton", "arrow")
_ENTRIES = ROWS * COLUMNS * (BLOCKS + len(MOBS))
_DIRECTION = slice(_ENTRIES + 16, _ENTRIES + 20)  # behind 12 of the inventory and 4 of the body
_SIZE = 16  # pixels a tile


@functools.cache
def _textures() -> dict[str, Any]:
    import craftax.craftax_classic.constants as module

    constants: Any = module
    load_textures(constants)
    return constants.load_all_textures()[_SIZE]


def picture(obs: Any) -> np.ndarray:
    """uint8[112, 144, 3]: the map around the player from an observation [1345] of Craftax-Classic.

    Bits may be chances: a tile shows its likeliest block and every mob of a chance above a half; where no block has
    such a chance, it stays black. Night is not drawn: the observation shows everything. Raises ValueError for another
    length.
    """
    obs = np.asarray(obs, np.float32)
    if obs.shape != (1345,):
        raise ValueError(f"an observation of Craftax-Classic-Symbolic has shape (1345,); got {obs.shape}")
    textures = _textures()
    tiles = obs[:_ENTRIES].reshape(ROWS, COLUMNS, BLOCKS + len(MOBS))
    chances, mobs = tiles[..., :BLOCKS], tiles[..., BLOCKS:]
    blocks = np.asarray(textures["block_textures"], np.float32)[chances.argmax(-1)]
    blocks = np.where((chances.max(-1) > 0.5)[..., None, None, None], blocks, 0.0)
    for i, name in enumerate(MOBS):
        there = (mobs[..., i] > 0.5)[..., None, None, None]
        blocks = np.where(there, _over(textures, name, blocks), blocks)
    centre = (ROWS // 2, COLUMNS // 2)
    player = np.asarray(textures["player_textures"][int(obs[_DIRECTION].argmax())], np.float32)
    alpha = player[..., 3:] / 255.0 if player.shape[-1] == 4 else np.ones((*player.shape[:2], 1), np.float32)
    blocks[centre] = (1 - alpha) * blocks[centre] + alpha * player[..., :3]
    return np.clip(np.rint(blocks.transpose(0, 2, 1, 3, 4).reshape(ROWS * _SIZE, COLUMNS * _SIZE, 3)), 0, 255).astype(
        np.uint8
    )


def _over(textures: dict[str, Any], name: str, blocks: np.ndarray) -> np.ndarray:
    """A mob's texture in front of every tile."""
    mob, alpha = (np.asarray(textures[f"{name}_texture{kind}"], np.float32) for kind in ("", "_alpha"))
    return (1 - alpha) * blocks + alpha * mob
