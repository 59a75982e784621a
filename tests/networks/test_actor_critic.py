"""Shapes, orthogonal weights, and two towers that share nothing."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mxnb.networks.actor_critic import ActorCritic

D, A, H = 12, 5, 16


def make(key: Any, num_layers: int = 2, **sizes: int) -> tuple[ActorCritic, Any]:
    network = ActorCritic(sizes.get("actions", A), sizes.get("hidden", H), num_layers)
    return network, network.init(key, jnp.zeros((1, sizes.get("inputs", D))))


@pytest.mark.parametrize("lead", [(), (7,), (3, 4)], ids=str)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_shapes(key: Any, lead: tuple[int, ...], num_layers: int) -> None:
    network, params = make(key, num_layers)
    logits, value = network.apply(params, jnp.ones((*lead, D)))
    assert logits.shape == (*lead, A) and value.shape == lead
    assert logits.dtype == value.dtype == jnp.float32


def orthogonal(weights: Any, gain: float) -> None:
    """The shorter side's vectors have length `gain` and right angles."""
    w = np.asarray(weights, np.float64)
    square = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(square, gain**2 * np.eye(len(square)), atol=1e-5)


@pytest.mark.parametrize("inputs", [D, 40])  # fewer inputs than units, and more
def test_every_layer_of_each_tower_is_orthogonal_with_its_gain(key: Any, inputs: int) -> None:
    params = make(key, 3, inputs=inputs)[1]["params"]
    root2 = math.sqrt(2)
    assert params["first"]["kernel"].shape == (inputs, 2 * H)
    orthogonal(params["first"]["kernel"][:, :H], root2)
    orthogonal(params["first"]["kernel"][:, H:], root2)
    for tower in ("actor", "critic"):
        for layer in (1, 2):
            assert params[f"{tower}_{layer}"]["kernel"].shape == (H, H)
            orthogonal(params[f"{tower}_{layer}"]["kernel"], root2)
    orthogonal(params["logits"]["kernel"], 0.01)
    orthogonal(params["value"]["kernel"], 1.0)
    assert all((layer["bias"] == 0).all() for layer in params.values())


def test_the_two_halves_of_the_first_layer_are_drawn_apart(key: Any) -> None:
    first = make(key)[1]["params"]["first"]["kernel"]
    assert np.abs(first[:, :H] - first[:, H:]).max() > 0.1


def test_the_first_policy_is_nearly_uniform(key: Any) -> None:
    network, params = make(key)
    p = jax.nn.softmax(network.apply(params, jax.random.normal(key, (100, D)))[0])
    assert np.abs(p - 1 / A).max() < 0.02


def test_the_towers_share_nothing(key: Any) -> None:
    network, params = make(key, 3)
    obs = jax.random.normal(key, (6, D))
    of_logits = jax.grad(lambda p: jnp.square(network.apply(p, obs)[0]).sum())(params)["params"]
    of_value = jax.grad(lambda p: jnp.square(network.apply(p, obs)[1]).sum())(params)["params"]
    for leaf in ("kernel", "bias"):
        assert (of_logits["first"][leaf][..., H:] == 0).all() and (of_logits["first"][leaf][..., :H] != 0).any()
        assert (of_value["first"][leaf][..., :H] == 0).all() and (of_value["first"][leaf][..., H:] != 0).any()
        for actor, critic in (("actor_1", "critic_1"), ("actor_2", "critic_2"), ("logits", "value")):
            assert (of_logits[critic][leaf] == 0).all() and (of_logits[actor][leaf] != 0).any()
            assert (of_value[actor][leaf] == 0).all() and (of_value[critic][leaf] != 0).any()


def test_against_two_plain_perceptrons(key: Any) -> None:
    network, params = make(key, 2)
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), params)  # biases that matter
    obs = np.asarray(jax.random.normal(key, (6, D)), np.float64)
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])

    def tower(half: slice, middle: str, last: str) -> np.ndarray:
        x = np.tanh(obs @ w["first"]["kernel"][:, half] + w["first"]["bias"][half])
        x = np.tanh(x @ w[middle]["kernel"] + w[middle]["bias"])
        return x @ w[last]["kernel"] + w[last]["bias"]

    logits, value = network.apply(params, jnp.asarray(obs, jnp.float32))
    np.testing.assert_allclose(logits, tower(slice(0, H), "actor_1", "logits"), atol=1e-5)
    np.testing.assert_allclose(value, tower(slice(H, None), "critic_1", "value")[:, 0], atol=1e-5)


def test_parameter_count_of_craftax_classic(key: Any) -> None:
    # a tower: 1345 * 256 + 256 = 344,576 and 256 * 256 + 256 = 65,792; logits 256 * 17 + 17 = 4,369; value 257
    network = ActorCritic(17, 256, 2)
    shapes = jax.eval_shape(network.init, key, jnp.zeros((1, 1345)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 2 * (344_576 + 65_792) + 4_369 + 257 == 825_362


def test_rows_do_not_leak_into_each_other(key: Any) -> None:
    network, params = make(key)
    apply = jax.jit(network.apply)
    obs = jax.random.normal(key, (4, D))
    before, after = apply(params, obs), apply(params, obs.at[1].set(jnp.nan))
    rows = jnp.array([0, 2, 3])
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x[rows], y[rows])
    assert np.isnan(after[1][1])


def test_same_with_and_without_jit_and_under_vmap(key: Any) -> None:
    network, params = make(key)
    obs = jax.random.normal(key, (4, D))
    plain = network.apply(params, obs)
    for other in (jax.jit(network.apply), jax.vmap(network.apply, in_axes=(None, 0))):
        for x, y in zip(plain, other(params, obs), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-6)


def test_types_are_checked(key: Any) -> None:
    network, params = make(key)
    with pytest.raises(Exception, match="Type-check"):
        network.apply(params, jnp.ones((3, D), jnp.int32))
