"""Running means and deviations of a stream of batches."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Running(NamedTuple):
    """What was seen so far, entry by entry."""

    count: Any  # float32 scalar: rows, or the horizon once it is reached
    mean: Any  # float32[*S]
    variance: Any  # float32[*S]


def empty(shape: tuple[int, ...]) -> Running:
    """Nothing seen: mean 0, variance 1, so that scaling by it changes nothing."""
    return Running(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def merge(seen: Running, batch: Float[Array, "B *S"], *, horizon: float = math.inf) -> Running:
    r"""`seen` with the rows of `batch` [B, *S] added.

    With n rows before, delta = mean_B - mean and w = B / (n + B):
    mean' = mean + w delta,  var' = (1 - w) var + w var_B + w (1 - w) delta^2.
    horizon: n counts for no more than this, so that older rows fade; inf never forgets.
    Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    rows = jnp.float32(batch.shape[0])
    before = jnp.minimum(seen.count, horizon)
    weight = rows / (before + rows)
    delta = batch.mean(0) - seen.mean
    variance = (1.0 - weight) * seen.variance + weight * batch.var(0) + weight * (1.0 - weight) * jnp.square(delta)
    return Running(before + rows, seen.mean + weight * delta, variance)


def deviation(seen: Running) -> Float[Array, "*S"]:
    """The standard deviation, at least 1e-4."""
    return jnp.sqrt(jnp.maximum(seen.variance, 1e-8))
