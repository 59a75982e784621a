"""The recurrent state-space model's parts against their equations in NumPy."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.networks.rssm import (
    EPSILON,
    MLP,
    UNIMIX,
    BlockGRU,
    Layer,
    dense,
    divergence,
    latent_entropy,
    sample_latent,
    unimix,
)

D, Z, A, H, G, B = 8, 6, 3, 5, 2, 4


@cache
def core() -> Any:
    """(network, params with no zeros among them, h, z, action)."""
    network = BlockGRU(D, H, G)
    keys = jax.random.split(jax.random.key(0), 4)
    h, z, action = (jax.random.normal(k, (B, n)) for k, n in zip(keys, (D, Z, A), strict=False))
    params = network.init(keys[3], h, z, action)
    return network, jax.tree.map(lambda p: p + 0.1, params), h, z, action


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def layer(p: Any, x: np.ndarray) -> np.ndarray:
    """silu(norm(W x + b)) in NumPy."""
    return silu_norm(x @ p["dense"]["kernel"] + p["dense"]["bias"], p["norm"]["scale"])


def silu_norm(y: np.ndarray, scale: np.ndarray) -> np.ndarray:
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + EPSILON) * scale
    return y * sigmoid(y)


def test_the_core_in_plain_loops() -> None:
    network, params, h, z, action = core()
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    h, z, action = (np.asarray(x, np.float64) for x in (h, z, action))
    x = np.concatenate([layer(p["from_deter"], h), layer(p["from_stoch"], z), layer(p["from_action"], action)], -1)
    part = D // G
    inputs = x @ p["block_inputs"]["kernel"] + p["block_inputs"]["bias"]
    own = np.concatenate([h[:, g * part : (g + 1) * part] @ p["block"][g] for g in range(G)], -1)
    y = silu_norm(inputs + own, p["norm"]["scale"])
    expected = []
    for g in range(G):
        mine = slice(g * part, (g + 1) * part)
        r, c, u = np.split(y[:, mine] @ p["gates"][g], 3, axis=-1)
        update = sigmoid(u - 1)
        expected.append(update * np.tanh(sigmoid(r) * c) + (1 - update) * h[:, mine])
    found = network.apply(params, *core()[2:])
    np.testing.assert_allclose(found, np.concatenate(expected, -1), rtol=2e-5, atol=1e-6)


def test_a_new_core_keeps_most_of_its_state() -> None:
    """The update gate begins near sigmoid(-1) = 0.27, so that a gradient reaches far back."""
    network = BlockGRU(D, H, G)
    _, _, h, z, action = core()
    params = network.init(jax.random.key(5), h, z, action)
    kept = jax.jacobian(lambda h: network.apply(params, h, z[0], action[0]))(h[0])
    assert 0.4 < float(jnp.diag(kept).mean()) < 1.0


def test_no_input_does_not_blow_up_the_gradient() -> None:
    """Everything is 0 at an episode's first row; a norm's slope there is 1 / sqrt(EPSILON), 100."""
    network, params, *_ = core()
    zeros = jnp.zeros((1, D)), jnp.zeros((1, Z)), jnp.zeros((1, A))
    params = network.init(jax.random.key(1), *zeros)
    grads = jax.grad(lambda p: network.apply(p, *zeros).sum())(params)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) < 1e3


def test_first_weights_follow_the_inputs() -> None:
    for inputs in (16, 256):
        kernel = dense(512, "d").init(jax.random.key(0), jnp.zeros(inputs))["params"]["kernel"]
        assert float(kernel.std()) == pytest.approx(inputs**-0.5, rel=0.05)


def test_an_output_of_scale_0_begins_at_0() -> None:
    network, x = MLP(4, 2, 3, 0.0), jnp.ones((2, 5))
    params = network.init(jax.random.key(0), x)
    assert not network.apply(params, x).any()
    assert list(params["params"]) == ["layer_0", "layer_1", "out"]
    bare = MLP(4, 2)
    assert bare.apply(bare.init(jax.random.key(0), x), x).shape == (2, 4)


def test_a_layer_by_hand() -> None:
    x = jax.random.normal(jax.random.key(2), (3, 4))
    params = Layer(6).init(jax.random.key(0), x)
    expected = layer(jax.tree.map(np.asarray, params["params"]), np.asarray(x))
    np.testing.assert_allclose(Layer(6).apply(params, x), expected, rtol=2e-5, atol=1e-6)


def test_no_class_is_ever_impossible() -> None:
    probs = jnp.exp(unimix(jnp.array([[100.0, 0.0, 0.0, -100.0], [0.0, 0.0, 0.0, 0.0]])))
    np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(probs[0], [1 - UNIMIX * 3 / 4, *[UNIMIX / 4] * 3], rtol=1e-4)
    np.testing.assert_allclose(probs[1], 0.25, rtol=1e-6)


def some_latents(*lead: int) -> Any:
    """Log-probabilities [*lead, 3 groups, 4 classes]."""
    return unimix(jax.random.normal(jax.random.key(8), (*lead, 3, 4)))


def test_latents_come_as_often_as_their_chances() -> None:
    log_prob, many = some_latents(), 20_000
    uniform = jax.random.uniform(jax.random.key(1), (many, 3))
    z = sample_latent(jnp.broadcast_to(log_prob, (many, 3, 4)), uniform).reshape(many, 3, 4)
    assert set(np.unique(np.asarray(z).round(6))) == {0.0, 1.0}
    np.testing.assert_allclose(z.sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(z.mean(0), jnp.exp(log_prob), atol=5 * 0.5 / many**0.5)


def test_the_largest_uniform_number_still_picks_a_class() -> None:
    log_prob = some_latents()
    z = sample_latent(log_prob, jnp.full(3, np.nextafter(np.float32(1), np.float32(0)))).reshape(3, 4)
    np.testing.assert_allclose(z.argmax(-1), 3)
    assert float(z.sum()) == pytest.approx(3.0)


def test_without_a_draw_the_likeliest_class_is_taken() -> None:
    log_prob = some_latents(5)
    z = sample_latent(log_prob, None).reshape(5, 3, 4)
    np.testing.assert_array_equal(z.argmax(-1), log_prob.argmax(-1))


def test_gradients_pass_as_if_the_chances_were_the_latents() -> None:
    log_prob, weight = some_latents(), jax.random.normal(jax.random.key(3), (12,))
    uniform = jnp.array([0.1, 0.5, 0.9])
    drawn = jax.grad(lambda x: (sample_latent(x, uniform) * weight).sum())(log_prob)
    chances = jax.grad(lambda x: (jnp.exp(x).reshape(-1) * weight).sum())(log_prob)
    np.testing.assert_allclose(drawn, chances, rtol=1e-5)


def test_divergence_and_entropy_by_hand() -> None:
    p, q = np.array([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]), np.array([[1 / 3] * 3, [0.1, 0.1, 0.8]])
    log_p, log_q = jnp.log(jnp.asarray(p, jnp.float32)), jnp.log(jnp.asarray(q, jnp.float32))
    assert float(divergence(log_p, log_q)) == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)
    assert float(divergence(log_p, log_p)) == 0.0
    assert float(latent_entropy(log_p)) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-5)
    assert float(latent_entropy(log_q[:1])) == pytest.approx(np.log(3), rel=1e-5)
