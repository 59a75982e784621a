"""Shapes, orthogonal weights, and two towers that share their first layer and nothing else."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.networks.actor_critic import ActorCritic

D, A, H = 12, 5, 16


@cache
def make(num_layers: int = 2, inputs: int = D) -> tuple[ActorCritic, Any]:
    network = ActorCritic(A, H, num_layers)
    return network, jax.jit(network.init)(jax.random.key(3), jnp.zeros((1, inputs)))


@pytest.mark.parametrize("lead", [(), (7,), (3, 4)], ids=str)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_shapes(key: Any, lead: tuple[int, ...], num_layers: int) -> None:
    network, obs = ActorCritic(A, H, num_layers), jnp.ones((*lead, D))
    (logits, value), params = jax.eval_shape(network.init_with_output, key, obs)
    assert logits.shape == (*lead, A) and value.shape == lead
    assert logits.dtype == value.dtype == jnp.float32
    assert len(params["params"]) == 1 + 2 * (num_layers - 1) + 2


def orthogonal(weights: Any, gain: float) -> None:
    """The shorter side's vectors have length `gain` and right angles."""
    w = np.asarray(weights, np.float64)
    square = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(square, gain**2 * np.eye(len(square)), atol=1e-5)


@pytest.mark.parametrize("inputs", [D, 40])  # fewer inputs than units, and more
def test_every_layer_of_each_tower_is_orthogonal_with_its_gain(inputs: int) -> None:
    params = make(3, inputs)[1]["params"]
    root2 = math.sqrt(2)
    assert params["first"]["kernel"].shape == (inputs, H)
    orthogonal(params["first"]["kernel"], root2)
    for tower in ("actor", "critic"):
        for layer in (1, 2):
            assert params[f"{tower}_{layer}"]["kernel"].shape == (H, H)
            orthogonal(params[f"{tower}_{layer}"]["kernel"], root2)
    orthogonal(params["logits"]["kernel"], 0.01)
    orthogonal(params["value"]["kernel"], 1.0)
    assert all((layer["bias"] == 0).all() for layer in params.values())


def test_the_layers_are_drawn_apart() -> None:
    params = make(3)[1]["params"]
    square = [params[f"{tower}_{layer}"]["kernel"] for tower in ("actor", "critic") for layer in (1, 2)]
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(square) for b in square[:i])


def test_the_first_policy_is_nearly_uniform(key: Any) -> None:
    network, params = make()
    p = jax.nn.softmax(jax.jit(network.apply)(params, jax.random.normal(key, (100, D)))[0])
    assert np.abs(p - 1 / A).max() < 0.02


def test_the_towers_share_the_first_layer_and_nothing_else(key: Any) -> None:
    network, params = make(3)
    obs = jax.random.normal(key, (6, D))
    of_logits, of_value = (
        jax.device_get(jax.jit(jax.grad(lambda p, i=i: jnp.square(network.apply(p, obs)[i]).sum()))(params))["params"]
        for i in (0, 1)
    )
    for leaf in ("kernel", "bias"):
        assert (of_logits["first"][leaf] != 0).any() and (of_value["first"][leaf] != 0).any()
        for actor, critic in (("actor_1", "critic_1"), ("actor_2", "critic_2"), ("logits", "value")):
            assert (of_logits[critic][leaf] == 0).all() and (of_logits[actor][leaf] != 0).any()
            assert (of_value[actor][leaf] == 0).all() and (of_value[critic][leaf] != 0).any()


def test_separate_towers_share_nothing(key: Any) -> None:
    network = ActorCritic(A, H, num_layers=2, shared_layers=0)
    obs = jax.random.normal(key, (6, D))
    params = network.init(jax.random.key(0), obs)
    for i, theirs in ((0, ("critic_0", "critic_1", "value")), (1, ("actor_0", "actor_1", "logits"))):
        grads = jax.grad(lambda p, i=i: jnp.square(network.apply(p, obs)[i]).sum())(params)["params"]
        for name, layer in grads.items():
            assert (np.asarray(layer["kernel"]) == 0).all() == (name in theirs), name


def test_against_two_plain_perceptrons() -> None:
    network, params = make(2)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), params)  # biases that matter
    obs = rng.normal(size=(6, D))
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])

    def tower(middle: str, last: str) -> np.ndarray:
        x = np.tanh(obs @ w["first"]["kernel"] + w["first"]["bias"])
        x = np.tanh(x @ w[middle]["kernel"] + w[middle]["bias"])
        return x @ w[last]["kernel"] + w[last]["bias"]

    logits, value = jax.jit(network.apply)(params, jnp.asarray(obs, jnp.float32))
    np.testing.assert_allclose(logits, tower("actor_1", "logits"), atol=1e-5)
    np.testing.assert_allclose(value, tower("critic_1", "value")[:, 0], atol=1e-5)


def test_parameter_count_of_craftax_classic(key: Any) -> None:
    # first 1345 * 256 + 256 = 344,576; actor and critic 256 * 256 + 256 = 65,792 each; logits 256 * 17 + 17 = 4,369;
    # value 256 + 1 = 257
    network = ActorCritic(17, 256, 2)
    shapes = jax.eval_shape(network.init, key, jnp.zeros((1, 1345)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 344_576 + 2 * 65_792 + 4_369 + 257 == 480_786


def test_rows_do_not_leak_into_each_other(key: Any) -> None:
    network, params = make()
    apply = jax.jit(network.apply)
    obs = jax.random.normal(key, (4, D))
    before, after = apply(params, obs), apply(params, obs.at[1].set(jnp.nan))
    rows = [0, 2, 3]
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.asarray(x)[rows], np.asarray(y)[rows])
    assert np.isnan(after[1][1])


def test_same_with_and_without_jit_and_under_vmap(key: Any) -> None:
    network, params = make()
    obs = jax.random.normal(key, (4, D))
    plain = network.apply(params, obs)
    for other in (jax.jit(network.apply), jax.vmap(network.apply, in_axes=(None, 0))):
        for x, y in zip(plain, other(params, obs), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-6)


def test_types_are_checked() -> None:
    network, params = make()
    with pytest.raises(Exception, match="Type-check"):
        jax.eval_shape(network.apply, params, jnp.ones((3, D), jnp.int32))
