"""Replay in device memory: every environment's last rows in a ring, observations at one bit each where they are bits.

A row holds an observation, what arriving there paid, and what was done there (`mxnb.agents.dreamer` draws it). Rings
are [N, capacity]: the environments write in step, so one head serves all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mxnb.envs.api import Spec
from mxnb.kernels.packing import Packed, pack, unpack

_FIRST, _LAST, _TERMINAL = 1, 2, 4


class Row(NamedTuple):
    """Rows [*L] as agents use them."""

    obs: Any  # [*L, *obs_shape]
    action: Any  # int32[*L] or float32[*L, A]: chosen at obs; 0 on last rows
    reward: Any  # float32[*L]: received on arriving at obs; 0 on first rows
    is_first: Any  # bool[*L]: obs begins an episode
    is_last: Any  # bool[*L]: obs is its episode's last
    is_terminal: Any  # bool[*L]: obs is the last, and the future is worth nothing
    mask: Any = None  # bool[*L, A] of legal actions, where they are kept


class Stored(NamedTuple):
    """The same as they lie in memory."""

    obs: Any  # Packed: bits uint8, the numbers beside them float16; without bits as in the environment
    action: Any  # uint8 up to 256 actions
    reward: Any  # float32
    flags: Any  # uint8
    mask: Any  # uint8[*L, ceil(A / 8)] or None


@struct.dataclass
class Replay:
    """All environments' rings."""

    rows: Any  # Stored [N, capacity, ...]
    head: Any  # int32: where the next rows go
    filled: Any  # int32: rows that count, the newest ones


def store(spec: Spec, row: Row) -> Stored:
    """Rows as they are kept. Numbers beside bits become float16, which Craftax makes them of."""
    packed = pack(row.obs, spec.num_binary, spec.obs_shape)
    rest = packed.rest
    if spec.num_binary and rest is not None:
        rest = rest.astype(jnp.float16)
    action = row.action.astype(jnp.uint8) if 0 < spec.num_actions <= 256 else row.action
    flags = row.is_first * _FIRST + row.is_last * _LAST + row.is_terminal * _TERMINAL
    mask = None if row.mask is None else jnp.packbits(row.mask, axis=-1)
    return Stored(Packed(packed.bits, rest), action, row.reward.astype(jnp.float32), flags.astype(jnp.uint8), mask)


def load(spec: Spec, stored: Stored) -> Row:
    """The rows again."""
    rest = stored.obs.rest
    if spec.num_binary and rest is not None:
        rest = rest.astype(jnp.float32)
    obs = unpack(Packed(stored.obs.bits, rest), spec.num_binary, spec.obs_shape)
    action = stored.action.astype(jnp.int32) if spec.num_actions else stored.action
    flag = lambda bit: (stored.flags & bit) > 0
    mask = stored.mask
    if mask is not None:
        mask = jnp.unpackbits(mask, axis=-1, count=spec.num_actions).astype(bool)
    return Row(obs, action, stored.reward, flag(_FIRST), flag(_LAST), flag(_TERMINAL), mask)


def empty_replay(example: Stored, capacity: int) -> Replay:
    """Rings of `capacity` rows for each environment, all 0; example: one row of each, [N, ...]."""
    rows = jax.tree.map(lambda x: jnp.zeros((x.shape[0], capacity, *x.shape[1:]), x.dtype), example)
    return Replay(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def row_bytes(example: Stored) -> int:
    """Bytes of one environment's row."""
    return sum(x.dtype.itemsize * x.size // x.shape[0] for x in jax.tree.leaves(example))


def write(replay: Replay, stored: Stored) -> Replay:
    """One more row for each environment, [N, ...], in place of the oldest where the ring is full."""
    capacity = replay.rows.reward.shape[1]
    put = lambda ring, new: jax.lax.dynamic_update_index_in_dim(ring, new, replay.head, 1)
    return Replay(
        jax.tree.map(put, replay.rows, stored),
        (replay.head + 1) % capacity,
        jnp.minimum(replay.filled + 1, capacity),
    )


def sample(replay: Replay, key: Any, batch_size: int, length: int) -> Stored:
    """`batch_size` windows of `length` rows that follow each other, time first: [T, B, ...].

    Environment and start are uniform over the windows that lie between the oldest and the newest row, so none crosses
    the head; the last window of the batch is the newest of its environment, so that what was just seen is learned from
    at once. `filled` must be at least `length`.
    """
    num_envs, capacity = replay.rows.reward.shape[:2]
    env_key, start_key = jax.random.split(key)
    env = jax.random.randint(env_key, (batch_size,), 0, num_envs)
    choices = replay.filled - length + 1
    start = jax.random.randint(start_key, (batch_size,), 0, choices)
    start = start.at[-1].set(choices - 1)
    oldest = replay.head - replay.filled
    at = (oldest + start[None] + jnp.arange(length)[:, None]) % capacity
    return jax.tree.map(lambda ring: ring[env[None], at], replay.rows)
