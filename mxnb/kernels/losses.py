"""Losses, as means over the batch they are given."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class PolicyLoss(NamedTuple):
    """The clipped surrogate and what it says about the step; scalars."""

    loss: Float[Array, ""]
    approx_kl: Float[Array, ""]  # mean of (ratio - 1) - log(ratio), an estimate of KL(old || new) in nats
    clip_frac: Float[Array, ""]  # share of samples with |ratio - 1| > clip_eps


def ppo_policy_loss(
    log_prob: Float[Array, "B"],
    old_log_prob: Float[Array, "B"],
    advantage: Float[Array, "B"],
    weight: Float[Array, "B"] | None = None,
    *,
    clip_eps: float,
) -> PolicyLoss:
    """PPO's clipped surrogate: -mean(min(ratio A, clip(ratio, 1 - eps, 1 + eps) A)), ratio = pi / pi_old.

    weight: means weigh each sample by this; None: all alike.
    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7; the KL estimate is Schulman's k3
    (joschu.net/blog/kl-approx.html), never negative.
    """
    log_ratio = log_prob - old_log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    loss = -weighted_mean(jnp.minimum(ratio * advantage, clipped * advantage), weight)
    approx_kl = weighted_mean((ratio - 1.0) - log_ratio, weight)
    clip_frac = weighted_mean((jnp.abs(ratio - 1.0) > clip_eps).astype(ratio.dtype), weight)
    return PolicyLoss(loss, approx_kl, clip_frac)


def value_loss(value: Float[Array, "B"], value_target: Float[Array, "B"]) -> Float[Array, ""]:
    """Half the mean squared error, mean((V - target)^2) / 2."""
    return 0.5 * jnp.square(value - value_target).mean()


def clipped_value_loss(
    value: Float[Array, "B"],
    old_value: Float[Array, "B"],
    value_target: Float[Array, "B"],
    *,
    clip_eps: float,
) -> Float[Array, ""]:
    """Half the mean of the larger of two squared errors: V's own, and V's kept within clip_eps of the old value.

    mean(max((V - target)^2, (V_old + clip(V - V_old, -eps, eps) - target)^2)) / 2. Source: the PPO of OpenAI
    baselines, described in Engstrom et al. 2020, arXiv:2005.12729; Andrychowicz et al. 2021, arXiv:2006.05990,
    found that it does not help. clip_eps has the unit of the values.
    """
    kept = old_value + jnp.clip(value - old_value, -clip_eps, clip_eps)
    return 0.5 * jnp.maximum(jnp.square(value - value_target), jnp.square(kept - value_target)).mean()


def weighted_mean(x: Float[Array, "B"], weight: Float[Array, "B"] | None) -> Float[Array, ""]:
    """sum(weight x) / sum(weight), 0 where no sample counts; the mean where weight is None."""
    return x.mean() if weight is None else (weight * x).sum() / jnp.maximum(weight.sum(), 1e-8)


def normalise(advantage: Float[Array, "B"], weight: Float[Array, "B"] | None = None) -> Float[Array, "B"]:
    """Shifts and scales to mean 0 and standard deviation 1 (biased, plus 1e-8), over the samples that count."""
    centred = advantage - weighted_mean(advantage, weight)
    centred = centred - weighted_mean(centred, weight)  # equal ones leave rounding errors, which would be blown up
    if weight is None:
        return centred / (advantage.std() + 1e-8)
    return centred / (jnp.sqrt(weighted_mean(jnp.square(centred), weight)) + 1e-8)


def explained_variance(value: Float[Array, "B"], value_target: Float[Array, "B"]) -> Float[Array, ""]:
    """1 - Var(target - V) / Var(target): 1 is a perfect critic, 0 one that predicts the mean.

    0 when the targets do not vary: their standard deviation is within 1e-5 of their size, which rounding alone
    can make.
    """
    variance = value_target.var()
    varies = variance > 1e-10 * jnp.square(value_target).mean()
    return jnp.where(varies, 1.0 - (value_target - value).var() / jnp.where(varies, variance, 1.0), 0.0)
