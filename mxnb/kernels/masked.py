"""Categorical distributions over the legal actions only."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

# Far below any legal logit, so that exp() is exactly 0, yet finite, so that 0 * logit and gradients stay finite.
_ILLEGAL = -1e9


def mask_logits(logits: Float[Array, "*B A"], mask: Bool[Array, "*B A"] | None) -> Float[Array, "*B A"]:
    """Logits with the largest legal one at 0 and illegal ones so low that their probability is exactly 0.

    softmax is unchanged by the shift; the gradient with respect to illegal logits is exactly 0.

    Args:
      logits: any finite numbers.
      mask: True where legal; None when all are.

    Raises:
      ValueError: a concrete (not traced) mask has a row without a legal action.
    """
    if mask is None:
        return logits - logits.max(-1, keepdims=True)
    if not isinstance(mask, Tracer) and not np.asarray(mask).any(-1).all():
        raise ValueError(
            "the action mask has a state without any legal action; keep one action (NOOP, say) always legal"
        )
    top = jnp.where(mask, logits, -jnp.inf).max(-1, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    return jnp.where(mask, logits - top, _ILLEGAL)


def masked_categorical(logits: Float[Array, "*B A"], mask: Bool[Array, "*B A"] | None) -> distrax.Categorical:
    """The categorical distribution over legal actions; finite for 1 to A legal ones.

    p(a) = mask(a) exp(l(a)) / sum_b mask(b) exp(l(b)); log_prob and entropy are distrax's. With one legal
    action, entropy and its log-probability are 0. Source: Huang & Ontanon 2022, arXiv:2006.14171.
    """
    return distrax.Categorical(logits=mask_logits(logits, mask))


def sample_masked(
    key: PRNGKeyArray, logits: Float[Array, "*B A"], mask: Bool[Array, "*B A"] | None
) -> Int[Array, "*B"]:
    """One legal action for each row by the Gumbel-max trick; `key` is consumed."""
    return jax.random.categorical(key, mask_logits(logits, mask), axis=-1)
