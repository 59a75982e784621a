"""Diagonal Gaussians over continuous actions, in units where the allowed range is [-1, 1]."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def gaussian(head: Float[Array, "*B twoD"]) -> distrax.MultivariateNormalDiag:
    """N(mean, diag(exp(log_std))^2) from a head [*B, 2 D] that holds mean and log_std side by side."""
    mean, log_std = jnp.split(head, 2, axis=-1)
    return distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))


def sample_gaussian(key: PRNGKeyArray, head: Float[Array, "*B twoD"]) -> Float[Array, "*B D"]:
    """mean + exp(log_std) * noise, one draw a row; `key` is consumed."""
    mean, log_std = jnp.split(head, 2, axis=-1)
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)


def to_bounds(action: Float[Array, "*B D"], low: tuple[float, ...], high: tuple[float, ...]) -> Float[Array, "*B D"]:
    """Clips to [-1, 1] and maps that range to [low, high], entry by entry."""
    middle = jnp.asarray([(a + b) / 2 for a, b in zip(low, high, strict=True)])
    half = jnp.asarray([(b - a) / 2 for a, b in zip(low, high, strict=True)])
    shape = (1,) * (action.ndim - 1) + (len(low),)
    return middle.reshape(shape) + half.reshape(shape) * jnp.clip(action, -1.0, 1.0)
