"""What lives tell of the long run, in NumPy: the gain with its interval, and the survival curve; cut lives count."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    mean: float
    low: float
    high: float


def renewal_gain(steps: Shaped[np.ndarray, "L"], died: Bool[np.ndarray, "L"], r_reset: int) -> Estimate:
    r"""Mean reward a step of an endless stream of such lives: g = sum L / (sum L + r_reset deaths).

    A life cut off by a limit, a win or the end of the evaluation counts with its steps and costs nothing; leaving
    them out would favour short lives. With z_i = L_i - g (L_i + r_reset died_i), the standard error is
    sqrt(mean(z^2) / n) / mean(L + r_reset died) (the delta method for a ratio; Asmussen & Glynn 2007, section IV.4).
    Without a death, low is the gain at the largest hazard that 95 % of such samples would not hide, 3 / sum L.
    """
    if not died.any():
        return Estimate(1.0, 1.0 / (1.0 + r_reset * 3.0 / float(steps.sum())), 1.0)
    return _ratio(steps.astype(np.float64), steps + r_reset * died, 1.0)


def reward_rate(
    rewards: Shaped[np.ndarray, "L"], steps: Shaped[np.ndarray, "L"], died: Bool[np.ndarray, "L"], r_reset: int
) -> Estimate:
    """What such lives earn a step of the endless stream: sum(rewards) / (sum L + r_reset deaths), as `renewal_gain`."""
    return _ratio(rewards.astype(np.float64), steps + r_reset * died, np.inf, -np.inf)


def mean_life(steps: Shaped[np.ndarray, "L"], died: Bool[np.ndarray, "L"]) -> Estimate:
    """Steps lived for each death: exact for a constant hazard where lives are cut off, the plain mean where none is.

    Without a death the mean is infinite and low is sum L / 3.
    """
    if not died.any():
        return Estimate(np.inf, float(steps.sum()) / 3.0, np.inf)
    return _ratio(steps.astype(np.float64), died.astype(np.float64), np.inf)


def _ratio(above: Float[np.ndarray, "L"], below: Shaped[np.ndarray, "L"], most: float, least: float = 0.0) -> Estimate:
    """sum(above) / sum(below), from `least` to `most`; one life alone says nothing of the spread."""
    value = float(above.sum() / below.sum())
    if len(above) < 2:
        return Estimate(value, least, most)
    rest = above - value * below
    half = 1.96 * float(np.sqrt(np.mean(rest**2) / len(above)) / below.mean())
    return Estimate(value, max(least, value - half), min(most, value + half))


class Curve(NamedTuple):
    """A survival curve, a row for each time at which somebody died."""

    times: Float[np.ndarray, "D"]
    share: Float[np.ndarray, "D"]  # still alive after it
    low: Float[np.ndarray, "D"]  # of the 95 % interval, point by point
    high: Float[np.ndarray, "D"]


def survival_curve(steps: Shaped[np.ndarray, "L"], died: Bool[np.ndarray, "L"]) -> Curve:
    r"""S(t) = prod over t_i <= t of (1 - deaths_i / alive_i).

    A life cut off at step t was alive until then, and says nothing of what follows. Source: Kaplan & Meier 1958; the
    interval is S^exp(+-1.96 sqrt(V) / ln S) with Greenwood's V = sum deaths / (alive (alive - deaths)) (Kalbfleisch &
    Prentice 2002, section 1.4), which stays within 0 and 1.
    """
    times = np.unique(steps[died]).astype(np.float64)
    deaths = np.array([(steps[died] == t).sum() for t in times], np.float64)
    alive = np.array([(steps >= t).sum() for t in times], np.float64)
    share = np.cumprod(1.0 - deaths / np.maximum(alive, 1.0))
    spread = np.sqrt(np.cumsum(deaths / np.maximum(alive * (alive - deaths), 1e-9)))
    inside = (share > 0.0) & (share < 1.0)
    log = np.log(np.where(inside, share, 0.5))
    powers = [np.exp(sign * 1.96 * np.where(inside, spread, 0.0) / -log) for sign in (1, -1)]
    low, high = (np.where(inside, np.where(inside, share, 0.5) ** power, share) for power in powers)
    return Curve(times, share, low, high)


def median_life(steps: Shaped[np.ndarray, "L"], died: Bool[np.ndarray, "L"]) -> float:
    """The step by which half have died; infinite where fewer have."""
    times, share, *_ = survival_curve(steps, died)
    return float(times[share <= 0.5][0]) if (share <= 0.5).any() else float(np.inf)
