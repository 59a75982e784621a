"""The optimiser against the same in NumPy, and what each part is for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.kernels.optim import clip_by_tensor, laprop, scale_by_laprop


def tree(seed: int, size: float = 1.0) -> Any:
    rng = np.random.default_rng(seed)
    return {
        "wide": jnp.float32(size * rng.normal(size=(3, 4))),
        "bias": jnp.float32(size * rng.normal(size=(4,)) * 1e-5),
    }


def test_a_gradient_is_at_most_a_share_of_its_own_tensor() -> None:
    params, grads = tree(0), tree(1, 100.0)
    clipped, _ = clip_by_tensor(0.3).update(grads, clip_by_tensor(0.3).init(params), params)
    for name, p in params.items():
        g, limit = np.asarray(grads[name]), 0.3 * max(1e-3, float(np.linalg.norm(p)))
        expected = g / max(1.0, np.linalg.norm(g) / limit)
        np.testing.assert_allclose(clipped[name], expected, rtol=1e-5)
    assert np.linalg.norm(clipped["wide"]) == pytest.approx(0.3 * float(np.linalg.norm(params["wide"])), rel=1e-5)
    small, _ = clip_by_tensor(0.3).update(tree(1, 1e-9), (), params)
    np.testing.assert_array_equal(small["wide"], tree(1, 1e-9)["wide"])


def test_clipping_needs_the_parameters() -> None:
    with pytest.raises(ValueError, match="needs the parameters"):
        clip_by_tensor(0.3).update(tree(0), ())


def test_laprop_is_momentum_of_normalised_gradients() -> None:
    params = tree(0)
    optimiser = scale_by_laprop()
    state = optimiser.init(params)
    v = {n: np.zeros(p.shape) for n, p in params.items()}
    m = {n: np.zeros(p.shape) for n, p in params.items()}
    for t in range(1, 6):
        grads = tree(t, 10.0 ** (t - 3))
        step, state = optimiser.update(grads, state)
        for name, g in grads.items():
            g = np.asarray(g, np.float64)
            v[name] = 0.999 * v[name] + 0.001 * g * g
            unit = g / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-20)
            m[name] = 0.9 * m[name] + 0.1 * unit
            np.testing.assert_allclose(step[name], m[name] / (1 - 0.9**t), rtol=2e-4)


def test_an_entry_without_a_gradient_stays() -> None:
    step, _ = scale_by_laprop().update({"p": jnp.zeros(3)}, scale_by_laprop().init({"p": jnp.zeros(3)}))
    np.testing.assert_array_equal(step["p"], 0.0)


def test_the_step_size_rises_and_then_stays() -> None:
    """With gradients that stay alike the normalised step is 1, so the parameters show the schedule itself."""
    params = {"p": jnp.ones(4)}
    optimiser = laprop(0.1, warmup=5, clip=1e9)
    state, moved = optimiser.init(params), []
    for _ in range(8):
        updates, state = optimiser.update({"p": jnp.full(4, 2.0)}, state, params)
        moved.append(float(-updates["p"][0]))
    np.testing.assert_allclose(moved, [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1], rtol=1e-4, atol=1e-7)


def test_it_finds_the_bottom_of_a_bowl() -> None:
    optimiser = laprop(0.05)
    slope = jax.grad(lambda p: ((p["x"] - 3.0) ** 2).sum())

    def one(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = optimiser.update(slope(params), state, params)
        return (jax.tree.map(jnp.add, params, updates), state), None

    params = {"x": jnp.ones(2)}
    (params, _), _ = jax.lax.scan(one, (params, optimiser.init(params)), None, 400)
    np.testing.assert_allclose(params["x"], 3.0, atol=0.2)
