r"""Average reward over one stream in time: advantages without a discount, and estimates of the gain.

The gain rho is the mean reward per step in the long run, V a differential value (bias): what a state is worth beyond
rho a step. V is known up to a constant, and nothing here depends on that constant.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RHOS = ("ema", "ratio", "batch", "td")
"""The ways to estimate the gain; see `learn_rho`."""


def passed(duration: Float[Array, "*T"], discount: float) -> Float[Array, "*T"]:
    r"""1 + discount + ... over `duration` steps: (1 - discount^duration) / (1 - discount), or duration itself at 1."""
    if discount == 1.0:
        return duration
    return (1.0 - jnp.power(discount, duration)) / (1.0 - discount)


def differential_td(
    reward: Float[Array, "T"],
    value: Float[Array, "T"],
    next_value: Float[Array, "T"],
    duration: Float[Array, "T"],
    rho: Float[Array, ""],
    *,
    discount: float = 1.0,
) -> Float[Array, "T"]:
    r"""delta_t = r_t - rho tau_t + V(s_{t+1}) - V(s_t) for transitions that take tau_t steps.

    With a discount: r_t - rho (1 + discount + ... + discount^(tau_t - 1)) + discount^tau_t V(s_{t+1}) - V(s_t).
    A death is a transition like any other: next_value is V of the state that follows it. Adding a constant to V
    changes nothing when discount = 1. Source: Wan, Naik & Sutton 2021, arXiv:2006.16318, equation 2; the
    semi-Markov form is Puterman 1994, chapter 11.
    """
    return reward - rho * passed(duration, discount) + jnp.power(discount, duration) * next_value - value


def differential_gae(
    delta: Float[Array, "T"],
    duration: Float[Array, "T"],
    cut: Bool[Array, "T"],
    *,
    lambda_: float,
    discount: float = 1.0,
) -> Float[Array, "T"]:
    r"""A_t = delta_t + (discount lambda)^tau_t (1 - cut_t) A_{t+1}, A_T = 0.

    `cut` is where the stream jumps without a transition: at a time limit or a win, whose next_value is V of the final
    observation. Deaths are not cut. lambda alone sets the horizon, about 1 / (1 - lambda) steps, so lambda = 1 has
    no bound on its variance here. Source: Schulman et al. 2016, arXiv:1506.02438, without the discount as in
    Zhang & Ross 2021, arXiv:2106.07329.
    """
    weight = jnp.power(discount * lambda_, duration) * (1.0 - cut.astype(delta.dtype))

    def backward(carry: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, weight_t = x
        advantage = delta_t + weight_t * carry
        return advantage, advantage

    return jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, weight), reverse=True)[1]


def centre(value_target: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Targets of mean 0 over the batch.

    The constant of V is free, and an error e of the gain moves all targets by e each step, without an end. This holds
    V in place and changes no advantage. Source: the average-value constraint of Ma et al. 2021, arXiv:2106.03442,
    with nu = 1.
    """
    return value_target - value_target.mean()


class Gain(NamedTuple):
    """What an estimate of the gain remembers; `rho` is the estimate."""

    reward: Any  # float32 scalar: mean reward of a transition, or of a step (ema, td)
    duration: Any  # float32 scalar: mean steps of a transition, or 1 (ema, td)
    batches: Any  # float32 scalar: batches seen

    @property
    def rho(self) -> Any:
        """The gain, in reward a step."""
        return self.reward / self.duration


def no_gain() -> Gain:
    """Nothing seen: a gain of 0."""
    return Gain(jnp.zeros(()), jnp.ones(()), jnp.zeros(()))


def learn_rho(
    gain: Gain,
    reward: Float[Array, "*B"],
    duration: Float[Array, "*B"],
    *,
    how: str,
    beta: float,
) -> Gain:
    r"""The gain after one more batch of transitions, before the batch's own advantages are computed.

    ratio: moving averages of reward and duration, rho = E r / E tau (a long-run ratio, exact for semi-Markov streams);
    ema: a moving average of the batch's own mean(r) / mean(tau); batch: that ratio alone. Moving averages weigh
    the newest of n batches max(beta, 1 / n), so that the first estimate is the first batch, not 0.
    "td" is `step_rho`, after the advantages. Source: section 11.4 of Puterman 1994 (renewal-reward).
    """
    batches = gain.batches + 1.0
    weight = jnp.maximum(beta, 1.0 / batches)
    reward, duration = reward.mean(), duration.mean()
    if how == "td":
        return gain._replace(batches=batches)
    if how == "batch":
        return Gain(reward, duration, batches)
    if how == "ema":
        reward, duration = reward / duration, jnp.ones(())
    mix = lambda old, new: old + weight * (new - old)
    return Gain(mix(gain.reward, reward), mix(gain.duration, duration), batches)


def step_rho(gain: Gain, delta: Float[Array, "*B"], duration: Float[Array, "*B"], *, beta: float) -> Gain:
    """rho + beta mean(delta) / mean(tau): the gain learned from the differential TD error, sharing its fixed point.

    mean(delta) holds -rho mean(tau), so without the division long transitions would make rho swing. Also right for data
    of another policy, when delta is weighted by its ratios. Source: Wan, Naik & Sutton 2021, arXiv:2006.16318,
    equation 4.
    """
    return gain._replace(reward=gain.rho + beta * delta.mean() / duration.mean(), duration=jnp.ones(()))
