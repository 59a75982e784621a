"""Packed observations come back bit for bit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.kernels.packing import Packed, pack, unpack, unpack_bits

SIZES = (0, 1, 7, 8, 9, 1323)
OTHERS = 22


def observations(num_binary: int, lead: tuple[int, ...] = (5,), others: int = OTHERS) -> np.ndarray:
    rng = np.random.default_rng(num_binary)
    bits = rng.integers(0, 2, (*lead, num_binary)).astype(np.float32)
    return np.concatenate([bits, rng.normal(size=(*lead, others)).astype(np.float32)], axis=-1)


def same_bits(a: Any, b: Any) -> None:
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("num_binary", SIZES)
@pytest.mark.parametrize("lead", [(), (5,), (3, 4)], ids=str)
def test_exact(num_binary: int, lead: tuple[int, ...]) -> None:
    obs = observations(num_binary, lead)
    for there, back in ((pack, unpack), (jax.jit(pack, static_argnums=1), jax.jit(unpack, static_argnums=1))):
        same_bits(back(there(jnp.asarray(obs), num_binary), num_binary), obs)


@pytest.mark.parametrize("num_binary", SIZES[1:])
def test_size_and_layout(num_binary: int) -> None:
    obs = observations(num_binary)
    packed = pack(jnp.asarray(obs), num_binary)
    assert packed.bits.shape == (5, -(-num_binary // 8)) and packed.bits.dtype == jnp.uint8
    np.testing.assert_array_equal(packed.bits, np.packbits(obs[:, :num_binary].astype(bool), axis=-1))
    same_bits(packed.rest, obs[:, num_binary:])
    same_bits(unpack_bits(packed.bits, num_binary), obs[:, :num_binary])


def test_a_craftax_observation_takes_254_bytes() -> None:
    packed = pack(jnp.asarray(observations(1323)), 1323)
    assert sum(x.nbytes for x in packed) == 5 * 254  # 166 bytes of bits, 22 float32


@pytest.mark.parametrize("num_binary", SIZES[1:])
def test_all_0_and_all_1(num_binary: int) -> None:
    for bit in (0.0, 1.0):
        obs = jnp.full((2, num_binary + 1), bit)
        same_bits(unpack(pack(obs, num_binary), num_binary), obs)


def test_nothing_but_bits() -> None:
    obs = observations(9, others=0)
    same_bits(unpack(pack(jnp.asarray(obs), 9), 9), obs)


def test_the_rest_is_kept_as_it_is() -> None:
    obs = observations(8)
    obs[0, 8:12] = np.nan, np.inf, -0.0, 1e-40
    same_bits(unpack(pack(jnp.asarray(obs), 8), 8), obs)


@pytest.mark.parametrize("obs", [jnp.arange(24, dtype=jnp.uint8).reshape(2, 3, 4), jnp.ones((2, 3))])
def test_without_bits_any_shape_and_dtype_passes(obs: Any) -> None:
    same_bits(unpack(pack(obs, 0), 0), obs)


@pytest.mark.parametrize("num_binary", SIZES)
def test_rollouts_can_be_flattened_and_indexed(num_binary: int) -> None:
    # As PPO does: [T, N, ...] to [T N, ...], then rows.
    obs = observations(num_binary, (3, 4))
    packed = jax.vmap(lambda x: pack(x, num_binary))(jnp.asarray(obs))  # one tick after the other, like a scan
    flat = jax.tree.map(lambda x: x.reshape(12, *x.shape[2:])[jnp.array([11, 0])], packed)
    assert isinstance(flat, Packed)
    same_bits(unpack(flat, num_binary), obs.reshape(12, -1)[[11, 0]])


def test_environments_do_not_leak_into_each_other() -> None:
    obs = observations(9)
    other = obs.copy()
    other[2] = 1.0 - other[2]
    ours, theirs = (unpack(pack(jnp.asarray(x), 9), 9) for x in (obs, other))
    changed = (np.asarray(ours) != np.asarray(theirs)).any(-1)
    np.testing.assert_array_equal(changed, [False, False, True, False, False])
