"""Advantages and value targets, over one stream in time; callers vmap over environments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gae(
    reward: Float[Array, "T"],
    value: Float[Array, "T"],
    next_value: Float[Array, "T"],
    terminated: Bool[Array, "T"],
    truncated: Bool[Array, "T"],
    *,
    discount: float,
    lambda_: float,
) -> tuple[Float[Array, "T"], Float[Array, "T"]]:
    r"""Generalised advantage estimation that tells time limits from deaths.

    delta_t = r_t + discount (1 - terminated_t) next_value_t - value_t
    A_t = delta_t + discount lambda (1 - terminated_t or truncated_t) A_{t+1},  A_T = 0

    `next_value[t]` is V of the observation that step t led to, before any reset: for a truncated step V of
    the final observation, not of the next episode's first one. So a time limit bootstraps and a death does
    not, while both cut the trace. Source: Schulman et al. 2016, arXiv:1506.02438; Pardo et al. 2018,
    arXiv:1712.00378.

    Returns:
      advantage and value_target = advantage + value, each [T].
    """
    alive = 1.0 - terminated.astype(value.dtype)
    trace = 1.0 - (terminated | truncated).astype(value.dtype)
    delta = reward + discount * alive * next_value - value

    def backward(carry: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, trace_t = x
        advantage = delta_t + discount * lambda_ * trace_t * carry
        return advantage, advantage

    _, advantage = jax.lax.scan(backward, jnp.zeros_like(value[0]), (delta, trace), reverse=True)
    return advantage, advantage + value
