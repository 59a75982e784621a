"""Numbers of any size as classes: symlog, bins that are exactly symmetric, and the two-hot code of a number.

Source: Hafner et al. 2023, arXiv:2301.04104, section "Robust predictions".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LIMIT = 20.0  # of the bins in symlog's units: 485 million


def symlog(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """sign(x) ln(1 + |x|): the identity near 0, a logarithm far from it."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """sign(x) (exp(|x|) - 1), the inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def make_bins(count: int) -> Float[Array, "K"]:
    """`count` bins, symexp of equal steps from -20 to 20; bin i is exactly minus bin count - 1 - i, the middle is 0.

    Raises ValueError unless count is odd and at least 3.
    """
    if count < 3 or count % 2 == 0:
        raise ValueError(f"{count} bins have no middle or no sides; use an odd number of at least 3 (255 is usual)")
    half = np.expm1(np.linspace(0.0, LIMIT, count // 2 + 1)).astype(np.float32)
    return jnp.asarray(np.concatenate([-half[:0:-1], half]))


def two_hot(x: Float[Array, "*B"], bins: Float[Array, "K"]) -> Float[Array, "*B K"]:
    """Probabilities of the two bins around x whose mean is x; x beyond the outer bins is taken as they are.

    For b_i <= x <= b_{i+1}: p_i = (b_{i+1} - x) / (b_{i+1} - b_i) and p_{i+1} = 1 - p_i.
    """
    x = jnp.clip(x, bins[0], bins[-1])
    below = jnp.clip(jnp.searchsorted(bins, x, side="right") - 1, 0, len(bins) - 2)
    share = (x - bins[below]) / (bins[below + 1] - bins[below])
    code = lambda i: jax.nn.one_hot(i, len(bins), dtype=x.dtype)
    return code(below) * (1.0 - share)[..., None] + code(below + 1) * share[..., None]


def expected(logits: Float[Array, "*B K"], bins: Float[Array, "K"]) -> Float[Array, "*B"]:
    """sum_i p_i b_i with p = softmax(logits), summed by pairs of opposite bins: equal logits give exactly 0."""
    half = len(bins) // 2
    probs = jax.nn.softmax(logits, axis=-1)
    differences = probs[..., half + 1 :] - probs[..., :half][..., ::-1]
    # Accelerators multiply in half precision unless told: bins span ten orders of magnitude.
    return jnp.matmul(differences, bins[half + 1 :], precision=jax.lax.Precision.HIGHEST)


def two_hot_loss(
    logits: Float[Array, "*B K"], target: Float[Array, "*B"], bins: Float[Array, "K"]
) -> Float[Array, "*B"]:
    """Cross entropy between the two-hot code of `target` and softmax(logits), in nats; no gradient to the target."""
    code = jax.lax.stop_gradient(two_hot(target, bins))
    return -(code * jax.nn.log_softmax(logits, axis=-1)).sum(-1)
