"""Gaussians over actions against their formulas."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.kernels.gaussian import gaussian, sample_gaussian, to_bounds

MEAN, LOG_STD = np.array([0.5, -1.0]), np.array([-0.5, 0.3])
HEAD = jnp.asarray(np.concatenate([MEAN, LOG_STD]), jnp.float32)


def test_log_prob_and_entropy() -> None:
    x = np.array([0.7, 0.2])
    std = np.exp(LOG_STD)
    log_prob = (-0.5 * ((x - MEAN) / std) ** 2 - LOG_STD - 0.5 * math.log(2 * math.pi)).sum()
    entropy = (LOG_STD + 0.5 * math.log(2 * math.pi * math.e)).sum()
    dist = gaussian(HEAD)
    np.testing.assert_allclose(dist.log_prob(jnp.asarray(x, jnp.float32)), log_prob, rtol=1e-5)
    np.testing.assert_allclose(dist.entropy(), entropy, rtol=1e-5)


def test_samples_have_the_mean_and_deviation() -> None:
    draws = np.asarray(jax.vmap(lambda k: sample_gaussian(k, HEAD))(jax.random.split(jax.random.key(0), 20_000)))
    error = np.exp(LOG_STD) / math.sqrt(20_000)
    assert (np.abs(draws.mean(0) - MEAN) < 4 * error).all()
    assert (np.abs(draws.std(0) / np.exp(LOG_STD) - 1) < 0.03).all()
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03


def test_bounds() -> None:
    action = jnp.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.5], [-9.0, 9.0]])
    scaled = to_bounds(action, (-2.0, 0.0), (2.0, 10.0))
    np.testing.assert_allclose(scaled, [[-2, 0], [2, 10], [0, 7.5], [-2, 10]])
    np.testing.assert_allclose(to_bounds(action[2], (-2.0, 0.0), (2.0, 10.0)), [0, 7.5])
