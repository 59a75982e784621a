"""Observations whose leading entries are 0 or 1, stored at one bit each.

A Craftax-Classic observation is 1,323 bits and 22 numbers: 5,380 bytes as float32, 254 bytes packed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


class Packed(NamedTuple):
    """A packed observation: `bits` holds the binary entries, eight to a byte; `rest` the others."""

    bits: Any  # uint8[*B, ceil(num_binary / 8)], or with num_binary 0 None
    rest: Any  # [*B, D - num_binary]; with num_binary 0 the whole observation, with num_binary D None


def pack(obs: Any, num_binary: int, obs_shape: tuple[int, ...] = ()) -> Packed:
    """Packs obs [*B, *obs_shape]; exact where its first `num_binary` entries are 0 or 1, the rest is kept as it is.

    obs_shape: shape of one observation, () for a flat one [*B, D]; entries count in row-major order. With
    num_binary 0 any shape passes through unchanged.
    """
    if num_binary == 0:
        return Packed(None, obs)
    flat = obs.reshape(*obs.shape[: obs.ndim - len(obs_shape)], -1) if len(obs_shape) > 1 else obs
    rest = flat[..., num_binary:] if flat.shape[-1] > num_binary else None
    return Packed(jnp.packbits(flat[..., :num_binary] != 0, axis=-1), rest)


def unpack_bits(bits: UInt8[Array, "*B bytes"], num_binary: int) -> Float[Array, "*B num_binary"]:
    """The binary entries as float32 0.0 and 1.0."""
    return jnp.unpackbits(bits, axis=-1, count=num_binary).astype(jnp.float32)


def unpack(packed: Packed, num_binary: int, obs_shape: tuple[int, ...] = ()) -> Any:
    """The observation again, [*B, *obs_shape], float32 where it was packed."""
    if num_binary == 0:
        return packed.rest
    flat = unpack_bits(packed.bits, num_binary)
    flat = flat if packed.rest is None else jnp.concatenate([flat, packed.rest], axis=-1)
    return flat.reshape(*flat.shape[:-1], *obs_shape) if len(obs_shape) > 1 else flat
