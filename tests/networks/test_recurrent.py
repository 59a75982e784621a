"""The recurrent unit against its equations in NumPy, and what it may and may not remember."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.networks.actor_critic import ActorCritic, Convolutions
from mxnb.networks.recurrent import GRU, RecurrentActorCritic

T, B, D, H = 6, 3, 4, 5


@cache
def unit() -> Any:
    network = GRU(H)
    x = jax.random.normal(jax.random.key(1), (T, B, D))
    first = jax.random.bernoulli(jax.random.key(2), 0.3, (T, B))
    memory = jax.random.normal(jax.random.key(3), (B, H))
    params = network.init(jax.random.key(0), memory, x, first)
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases that are not 0
    return network, params, memory, x, first


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_equations_in_plain_loops() -> None:
    network, params, memory, x, first = unit()
    last, after = network.apply(params, memory, x, first)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    w, b = p["inputs"]["kernel"], p["inputs"]["bias"]
    h = np.asarray(memory, np.float64)
    for t in range(T):
        h = np.where(np.asarray(first)[t][:, None], 0, h)
        wx = np.asarray(x, np.float64)[t] @ w + b
        r = sigmoid(wx[:, :H] + h @ p["gates"][:, :H])
        z = sigmoid(wx[:, H : 2 * H] + h @ p["gates"][:, H:])
        n = np.tanh(wx[:, 2 * H :] + r * (h @ p["candidate"] + p["candidate_bias"]))
        h = (1 - z) * n + z * h
        np.testing.assert_allclose(after[t], h, atol=1e-6)
    np.testing.assert_array_equal(last, after[-1])


def test_nothing_is_remembered_across_a_beginning() -> None:
    network, params, memory, x, first = unit()
    first = jnp.zeros((T, B), bool).at[3, 1].set(True)
    _, base = network.apply(params, memory, x, first)
    _, changed = network.apply(params, memory + 1, x.at[:3].add(1.0), first)
    np.testing.assert_array_equal(base[3:, 1], changed[3:, 1])
    assert (base[3:, 0] != changed[3:, 0]).any()
    _, other = network.apply(params, memory, x.at[:, 2].add(1.0), first)  # no lane sees another
    np.testing.assert_array_equal(base[:, :2], other[:, :2])


def test_a_sequence_may_be_cut_anywhere() -> None:
    network, params, memory, x, first = unit()
    last, after = network.apply(params, memory, x, first)
    for cut in range(1, T):
        middle, left = network.apply(params, memory, x[:cut], first[:cut])
        end, right = network.apply(params, middle, x[cut:], first[cut:])
        np.testing.assert_allclose(jnp.concatenate([left, right]), after, atol=1e-6)
        np.testing.assert_allclose(end, last, atol=1e-6)


def test_one_time_by_one_is_the_sequence() -> None:
    network = RecurrentActorCritic(4, H, 2, shared_layers=1)
    x = jax.random.normal(jax.random.key(1), (T, B, D))
    first = jnp.zeros((T, B), bool).at[0].set(True).at[4, 0].set(True)
    memory = jnp.zeros((B, H))
    params = network.init(jax.random.key(0), memory, x, first)
    assert set(params["params"]) == {"encoder", "gru", "first", "actor_1", "critic_1", "logits", "value"}
    _, head, value = network.apply(params, memory, x, first)
    assert head.shape == (T, B, 4) and value.shape == (T, B)
    for t in range(T):
        memory, one, v = network.apply(params, memory, x[t : t + 1], first[t : t + 1])
        np.testing.assert_allclose(one[0], head[t], atol=1e-6)
        np.testing.assert_allclose(v[0], value[t], atol=1e-6)


@pytest.mark.parametrize(("side", "layers"), [(10, 1), (30, 1), (35, 1), (36, 3), (63, 3)])
def test_pictures_pass_through_convolutions(side: int, layers: int) -> None:
    network = ActorCritic(4, H, obs_ndim=3)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, side, side, 3), jnp.uint8))
    assert len(shapes["params"]["eye"]) == layers
    assert shapes["params"]["first"]["kernel"].shape[0] > 0  # a picture too small for its filters leaves nothing
    eye = Convolutions()
    picture = jax.random.randint(jax.random.key(1), (2, 3, side, side, 3), 0, 256).astype(jnp.uint8)
    params = eye.init(jax.random.key(0), picture)
    out = eye.apply(params, picture)
    np.testing.assert_allclose(out, eye.apply(params, picture.astype(jnp.float32) / jnp.float32(255)), atol=1e-5)
    np.testing.assert_allclose(out[1, 2], eye.apply(params, picture[1, 2]), atol=1e-4)


def test_a_gaussian_head_holds_means_and_one_deviation_for_all_states() -> None:
    network = ActorCritic(2, H, gaussian=True)
    obs = jax.random.normal(jax.random.key(1), (7, D))
    params = network.init(jax.random.key(0), obs)
    head, _ = network.apply(params, obs)
    assert head.shape == (7, 4) and (head[:, 2:] == 0).all() and params["params"]["log_std"].shape == (2,)
    assert len(np.unique(np.asarray(head[:, 0]))) == 7
