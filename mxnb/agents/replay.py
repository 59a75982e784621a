"""Replay in device memory: every environment's last rows in a ring, observations at one bit each where they are bits.

A row holds an observation, what arriving there paid, and what was done there (`mxnb.agents.dreamer` draws it). Rings
are [N, capacity]: the environments write in step, so one head serves all.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, UInt8

from mxnb.envs.api import Spec
from mxnb.kernels.packing import unpack_bits

_FIRST, _LAST, _TERMINAL = 1, 2, 4
_LARGEST = 65504.0  # that float16 holds


class Row(NamedTuple):
    """Rows [*L] as agents use them."""

    obs: Any  # [*L, *obs_shape]
    action: Any  # int32[*L] or float32[*L, A]: chosen at obs; 0 on last rows
    reward: Any  # float32[*L]: received on arriving at obs; 0 on first rows
    is_first: Any  # bool[*L]: obs begins an episode
    is_last: Any  # bool[*L]: obs is its episode's last
    is_terminal: Any  # bool[*L]: obs is the last, and the future is worth nothing
    mask: Any = None  # bool[*L, A] of legal actions, where they are kept


@struct.dataclass
class Replay:
    """All environments' rings."""

    rows: Any  # uint8[N, capacity, bytes of a row]
    head: Any  # int32: where the next rows go
    filled: Any  # int32: rows that count, the newest ones


def _layout(spec: Spec, has_mask: bool) -> list[tuple[Any, tuple[int, ...]]]:
    """(dtype, shape) of what a row's bytes hold, in order: bits, the other entries, action, reward, flags, mask."""
    bits, entries = spec.num_binary, math.prod(spec.obs_shape)
    number = jnp.float16 if bits else spec.obs_dtype
    few = 0 < spec.num_actions <= 256
    action = (
        ((jnp.uint8 if few else jnp.int32), ()) if spec.num_actions else (jnp.float32, (len(spec.action_low or ()),))
    )
    legal = [(jnp.uint8, (-(-spec.num_actions // 8),))] if has_mask else []
    seen = [(jnp.uint8, (-(-bits // 8),)), (number, (entries - bits,))]
    return [*seen, action, (jnp.float32, ()), (jnp.uint8, ()), *legal]


def row_bytes(spec: Spec, has_mask: bool = False) -> int:
    """Bytes of one stored row."""
    return sum(jnp.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in _layout(spec, has_mask))


def store(spec: Spec, row: Row) -> UInt8[Array, "*L bytes"]:
    """Rows as bytes. Numbers beside bits become float16: Craftax's counts are, its light level is rounded.

    One array, so that a step writes once and a batch is gathered once.
    """
    lead = row.reward.shape
    flat = row.obs.reshape(*lead, -1)
    rest = flat[..., spec.num_binary :]
    if spec.num_binary:
        rest = jnp.clip(rest, -_LARGEST, _LARGEST)
    bits = jnp.packbits(flat[..., : spec.num_binary] != 0, axis=-1)
    flags = row.is_first * _FIRST + row.is_last * _LAST + row.is_terminal * _TERMINAL
    parts = [bits, rest, row.action, row.reward, flags]
    parts += [] if row.mask is None else [jnp.packbits(row.mask, axis=-1)]
    layout = _layout(spec, row.mask is not None)
    as_bytes = lambda x: x if x.dtype == jnp.uint8 else jax.lax.bitcast_convert_type(x, jnp.uint8)
    stored = [as_bytes(x.astype(dtype)) for x, (dtype, _) in zip(parts, layout, strict=True)]
    return jnp.concatenate([x.reshape(*lead, -1) for x in stored], -1)


def load(spec: Spec, stored: UInt8[Array, "*L bytes"], has_mask: bool = False) -> Row:
    """The rows again."""
    lead, at, parts = stored.shape[:-1], 0, []
    for dtype, shape in _layout(spec, has_mask):
        width, count = jnp.dtype(dtype).itemsize, math.prod(shape)
        part = stored[..., at : at + width * count]
        at += width * count
        if dtype != jnp.uint8:
            part = part.reshape(*lead, count) if width == 1 else part.reshape(*lead, count, width)
            part = jax.lax.bitcast_convert_type(part, dtype)
        parts.append(part.reshape(*lead, *shape))
    bits, rest, action, reward, flags, *legal = parts
    obs = rest
    if spec.num_binary:
        obs = jnp.concatenate([unpack_bits(bits, spec.num_binary), rest.astype(jnp.float32)], -1)
    flag = lambda bit: (flags & bit) > 0
    mask = jnp.unpackbits(legal[0], axis=-1, count=spec.num_actions).astype(bool) if has_mask else None
    action = action.astype(jnp.int32) if spec.num_actions else action
    return Row(obs.reshape(*lead, *spec.obs_shape), action, reward, flag(_FIRST), flag(_LAST), flag(_TERMINAL), mask)


def empty_replay(num_envs: int, capacity: int, width: int) -> Replay:
    """Rings of `capacity` rows of `width` bytes for each environment, all 0."""
    zero = jnp.zeros((), jnp.int32)
    return Replay(jnp.zeros((num_envs, capacity, width), jnp.uint8), zero, zero)


def write(replay: Replay, stored: UInt8[Array, "T N bytes"]) -> Replay:
    """T more rows of each environment in place of the oldest where the ring is full; T is at most the capacity.

    Rows are gathered first and written at once: a ring that rides through a scan over steps would be copied in each.
    """
    capacity, count = replay.rows.shape[1], stored.shape[0]
    at = (replay.head + jnp.arange(count)) % capacity
    rows = replay.rows.at[:, at].set(jnp.moveaxis(stored, 0, 1), unique_indices=True)
    return Replay(rows, (replay.head + count) % capacity, jnp.minimum(replay.filled + count, capacity))


def sample(replay: Replay, key: Any, batch_size: int, length: int) -> UInt8[Array, "T B bytes"]:
    """`batch_size` windows of `length` rows that follow each other, time first.

    Environment and start are uniform over the windows that lie between the oldest and the newest row, so none crosses
    the head; the last window of the batch is the newest of its environment, so that what was just seen is learned from
    at once. `filled` must be at least `length`.
    """
    num_envs, capacity = replay.rows.shape[:2]
    env_key, start_key = jax.random.split(key)
    env = jax.random.randint(env_key, (batch_size,), 0, num_envs)
    choices = replay.filled - length + 1
    start = jax.random.randint(start_key, (batch_size,), 0, choices)
    start = start.at[-1].set(choices - 1)
    oldest = replay.head - replay.filled
    at = (oldest + start[None] + jnp.arange(length)[:, None]) % capacity
    return replay.rows[env[None], at]
