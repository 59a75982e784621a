"""What imagined and replayed futures are worth, for one stream of states s_0 .. s_H, and the scale of advantages.

Everywhere r_k is the reward on arriving at s_k, and c_k in [0, 1] the chance that the future goes on at s_k times the
discount. Source: Hafner et al. 2023, arXiv:2301.04104, section "Actor critic learning".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def lambda_returns(
    reward: Float[Array, "S"], cont: Float[Array, "S"], value: Float[Array, "S"], *, lambda_: float
) -> Float[Array, "H"]:
    """R_k = r_{k+1} + c_{k+1} ((1 - lambda) v_{k+1} + lambda R_{k+1}) for k = 0 .. H - 1, with R_H = v_H and S = H + 1.

    r_0 and c_0, of the state that imagination starts from, do not matter here.
    """

    def back(after: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        r, c, v = now
        here = r + c * ((1.0 - lambda_) * v + lambda_ * after)
        return here, here

    return jax.lax.scan(back, value[-1], (reward[1:], cont[1:], value[1:]), reverse=True)[1]


def alive_weights(cont: Float[Array, "S"]) -> Float[Array, "H"]:
    """w_k = c_0 c_1 .. c_k for k = 0 .. H - 1: how much of the future is left when the k-th action is chosen.

    c_0 counts, so nothing is learned from what is imagined after a terminal state; c_{k+1}, the outcome of the k-th
    action, does not.
    """
    return jnp.cumprod(cont[:-1])


def replay_returns(
    reward: Float[Array, "T"],
    is_terminal: Bool[Array, "T"],
    is_last: Bool[Array, "T"],
    boot: Float[Array, "T"],
    *,
    discount: float,
    lambda_: float,
) -> Float[Array, "U"]:
    """Returns of replayed rows 0 .. T - 2 (U = T - 1), bootstrapped from `boot`, what imagination says of each row.

    R_t = r_{t+1} + discount (1 - terminal_{t+1}) ((1 - l) boot_{t+1} + l R_{t+1}), l = lambda (1 - last_{t+1}), with
    R_{T-1} = boot_{T-1}. A row that is last but not terminal (a time limit) ends the trace and keeps its bootstrap.
    """
    go_on = discount * (1.0 - is_terminal.astype(reward.dtype))
    trace = lambda_ * (1.0 - is_last.astype(reward.dtype))

    def back(after: Array, now: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        r, c, weight, b = now
        here = r + c * ((1.0 - weight) * b + weight * after)
        return here, here

    return jax.lax.scan(back, boot[-1], (reward[1:], go_on[1:], trace[1:], boot[1:]), reverse=True)[1]


class Spread(NamedTuple):
    """Running percentiles of returns."""

    low: Any  # float32 scalar
    high: Any  # float32 scalar


def no_spread() -> Spread:
    """Before any return was seen."""
    return Spread(jnp.zeros(()), jnp.zeros(()))


def learn_spread(spread: Spread, returns: Float[Array, "*B"], *, rate: float = 0.01) -> Spread:
    """The 5th and the 95th percentile of `returns`, averaged exponentially with weight `rate` for the newest."""
    low, high = jnp.percentile(returns, jnp.array([5.0, 95.0]))
    return Spread(spread.low + rate * (low - spread.low), spread.high + rate * (high - spread.high))


def spread_scale(spread: Spread) -> Float[Array, ""]:
    """max(1, high - low): large returns are scaled down, small ones, which may be noise, never up."""
    return jnp.maximum(1.0, spread.high - spread.low)
