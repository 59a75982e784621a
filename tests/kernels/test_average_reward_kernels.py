"""Differential advantages and gains: by hand, by their definition, and by what must not change them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.envs import chains
from mxnb.kernels import tabular
from mxnb.kernels.average_reward import (
    RHOS,
    centre,
    differential_gae,
    differential_td,
    learn_rho,
    no_gain,
    passed,
    step_rho,
)
from mxnb.kernels.returns import gae

F = jnp.float32


def stream(seed: int, length: int = 23) -> dict[str, Any]:
    """A random stream with cuts, whose next_value is that of a final observation, and some long transitions."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=length + 1).astype(np.float32)
    cut = rng.random(length) < 0.2
    duration = np.where(rng.random(length) < 0.2, 5, 1).astype(np.float32)
    final = rng.normal(size=length).astype(np.float32)
    found = {
        "reward": rng.normal(size=length).astype(np.float32),
        "value": value[:-1],
        "next_value": np.where(cut, final, value[1:]).astype(np.float32),
        "duration": duration,
        "cut": cut,
    }
    return {name: jnp.asarray(x) for name, x in found.items()}


def advantage(s: dict[str, Any], gain: float = 0.3, lambda_: float = 0.9, discount: float = 1.0) -> Any:
    delta = differential_td(s["reward"], s["value"], s["next_value"], s["duration"], F(gain), discount=discount)
    return differential_gae(delta, s["duration"], s["cut"], lambda_=lambda_, discount=discount)


def reference(s: dict[str, Any], gain: float, lambda_: float, discount: float) -> Any:
    """The O(T^2) sum of the definition, float64."""
    x = {name: np.asarray(a, np.float64) for name, a in s.items()}
    length = len(x["reward"])
    tolls = [sum(discount**k for k in range(int(d))) for d in x["duration"]]
    delta = x["reward"] - gain * np.array(tolls) + discount ** x["duration"] * x["next_value"] - x["value"]
    found = np.zeros(length)
    for t in range(length):
        weight = 1.0
        for k in range(t, length):
            found[t] += weight * delta[k]
            weight *= (discount * lambda_) ** x["duration"][k]
            if x["cut"][k]:
                break
    return found


def test_by_hand() -> None:
    # gain = lambda = 1/2; a death (transition 1, as any other), a limit (2), a win (4); every number is exact.
    #   t  r  V  V'  cut        delta = r - 1/2 + V' - V     A = delta + 1/2 A'
    #   0  1  1  2              1 - 1/2 + 2 - 1 = 1.5        1.5 + 1/2 * -1 = 1
    #   1  1  2  0   (death)    1 - 1/2 + 0 - 2 = -1.5       -1.5 + 1/2 * 1 = -1
    #   2  0  0  1.5 limit      0 - 1/2 + 1.5 - 0 = 1        1
    #   3  1  3  1              1 - 1/2 + 1 - 3 = -1.5       -1.5 + 1/2 * 4.5 = 0.75
    #   4  1  1  5   win        1 - 1/2 + 5 - 1 = 4.5        4.5
    s = {
        "reward": jnp.array([1.0, 1.0, 0.0, 1.0, 1.0]),
        "value": jnp.array([1.0, 2.0, 0.0, 3.0, 1.0]),
        "next_value": jnp.array([2.0, 0.0, 1.5, 1.0, 5.0]),
        "duration": jnp.ones(5),
        "cut": jnp.array([False, False, True, False, True]),
    }
    np.testing.assert_array_equal(advantage(s, 0.5, 0.5), [1.0, -1.0, 1.0, 0.75, 4.5])


@pytest.mark.parametrize("length", [1, 2, 23])
@pytest.mark.parametrize(("lambda_", "discount"), [(0.95, 1.0), (0.0, 1.0), (0.8, 0.97)])
def test_the_scan_is_the_definition(length: int, lambda_: float, discount: float) -> None:
    for seed in range(4):
        s = stream(seed, length)
        np.testing.assert_allclose(
            advantage(s, 0.3, lambda_, discount), reference(s, 0.3, lambda_, discount), atol=2e-6, rtol=2e-6
        )


def test_a_constant_in_the_values_changes_nothing() -> None:
    for seed in range(5):
        s = stream(seed)
        shifted = s | {name: s[name] + 7.3 for name in ("value", "next_value")}
        np.testing.assert_allclose(advantage(shifted), advantage(s), atol=1e-5)
        assert np.abs(advantage(shifted, discount=0.9) - advantage(s, discount=0.9)).max() > 0.1  # the control


def test_without_a_gain_and_with_a_discount_it_is_gae() -> None:
    s = stream(3) | {"duration": jnp.ones(23)}
    never = jnp.zeros(23, bool)
    usual = gae(s["reward"], s["value"], s["next_value"], never, s["cut"], discount=0.97, lambda_=0.9)[0]
    np.testing.assert_allclose(advantage(s, 0.0, 0.9, 0.97), usual, atol=1e-6)


def test_splitting_a_stream_changes_nothing_at_a_cut() -> None:
    s = stream(2) | {"cut": jnp.zeros(23, bool).at[10].set(True)}
    whole = advantage(s)
    parts = [advantage({k: v[a:b] for k, v in s.items()}) for a, b in ((0, 11), (11, 23))]
    np.testing.assert_array_equal(whole, jnp.concatenate(parts))


@pytest.mark.parametrize("name", ["two-states", "cycle", "control", "hazard"])
def test_with_the_exact_values_the_mean_delta_is_the_advantage(name: str) -> None:
    """Over sampled steps, state by state and action by action; within 5 standard errors."""
    mdp = chains.MAKERS[name]()
    rng = np.random.default_rng(0)
    policy = tabular.softmax(rng.normal(size=mdp.reward.shape))
    found = tabular.evaluate_policy(mdp, policy)
    exact = tabular.advantages(mdp, found)
    draws = 2000
    for state, action in np.ndindex(*mdp.reward.shape):
        after = rng.choice(len(mdp.reward), size=draws, p=mdp.transition[state, action])
        h = lambda states: jnp.asarray(found.bias[states], F)
        reward = jnp.full(draws, mdp.reward[state, action], F)
        delta = differential_td(reward, h(np.full(draws, state)), h(after), jnp.ones(draws), F(found.gain))
        error = float(delta.std()) / np.sqrt(draws)
        assert abs(float(delta.mean()) - exact[state, action]) <= 5 * error + 1e-5
        if name == "hazard" and state:  # nothing is random while dead: no surprise either
            np.testing.assert_allclose(delta, 0.0, atol=1e-5)


def test_a_collapsed_death_is_its_chain_in_one_transition() -> None:
    """One transition of 1 + R steps, traced by lambda^(1 + R), against the R + 1 steps, whose values are exact."""
    rng, reset, gain, respawn = np.random.default_rng(0), 7, 0.4, 1.7
    lives = [rng.normal(size=n).astype(np.float32) for n in (4, 1, 6)]
    explicit: dict[str, list[float]] = {"reward": [], "value": []}
    collapsed: dict[str, list[float]] = {"reward": [], "value": [], "duration": []}
    alive: list[int] = []
    for life in lives:
        life[0] = respawn
        alive += range(len(explicit["value"]), len(explicit["value"]) + len(life))
        explicit["value"] += [*life, *(respawn - gain * k for k in range(reset, 0, -1))]
        explicit["reward"] += [1.0] * len(life) + [0.0] * reset
        collapsed["value"] += [*life]
        collapsed["reward"] += [1.0] * len(life)
        collapsed["duration"] += [1.0] * (len(life) - 1) + [1.0 + reset]
    found = []
    for s in (explicit, collapsed):
        arrays = {name: jnp.asarray(x, F) for name, x in s.items()}
        length = len(s["reward"])
        following = jnp.append(arrays["value"][1:], F(respawn))
        rest = {"next_value": following, "cut": jnp.zeros(length, bool)}
        found.append(advantage({"duration": jnp.ones(length)} | arrays | rest, gain, 0.95))
    np.testing.assert_allclose(found[0][jnp.array(alive)], found[1], atol=1e-5)
    rates = [sum(explicit["reward"]) / len(explicit["reward"]), sum(collapsed["reward"]) / sum(collapsed["duration"])]
    assert rates[0] == pytest.approx(rates[1])


def test_centred_targets() -> None:
    target = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(centre(target).mean(), 0.0, atol=1e-6)
    np.testing.assert_allclose(centre(target + 5.0), centre(target), atol=1e-6)


def test_steps_passed() -> None:
    np.testing.assert_array_equal(passed(jnp.array([1.0, 51.0]), 1.0), [1.0, 51.0])
    np.testing.assert_allclose(passed(jnp.array([1.0, 3.0]), 0.5), [1.0, 1.75], rtol=1e-6)


def batch(rewards: Any, durations: Any) -> tuple[Any, Any]:
    return jnp.array(rewards, F), jnp.array(durations, F)


def test_gains_by_hand() -> None:
    first, second = batch([1.0, 1.0], [1.0, 3.0]), batch([0.0, 2.0], [1.0, 1.0])  # ratios 1/2 and 1
    rates = {}
    for how in ("ema", "ratio", "batch"):
        one = learn_rho(no_gain(), *first, how=how, beta=0.25)
        assert one.rho == pytest.approx(0.5), how  # the first batch itself, not a step from 0 towards it
        two = learn_rho(one, *second, how=how, beta=0.25)
        rates[how] = float(two.rho)
    # the second of two batches weighs max(1/4, 1/2): ema (1/2 + 1) / 2, ratio (1 + 1) / (2 + 1)
    assert rates == pytest.approx({"ema": 0.75, "ratio": 2 / 3, "batch": 1.0})
    assert set(RHOS) == {*rates, "td"}


def test_the_newest_batch_weighs_beta_in_the_end() -> None:
    gain = no_gain()
    for _ in range(20):
        gain = learn_rho(gain, *batch([1.0], [2.0]), how="ratio", beta=0.1)
    assert gain.rho == pytest.approx(0.5)
    after = learn_rho(gain, *batch([0.0], [2.0]), how="ratio", beta=0.1)
    assert after.rho == pytest.approx(0.45)


def test_the_td_gain_moves_with_the_surprise() -> None:
    gain = learn_rho(no_gain(), *batch([1.0], [1.0]), how="td", beta=0.1)
    assert gain.rho == 0.0
    assert step_rho(gain, jnp.array([0.5, 1.5]), jnp.ones(2), beta=0.1).rho == pytest.approx(0.1)
    assert step_rho(gain, jnp.array([0.5, 1.5]), jnp.array([1.0, 501.0]), beta=0.1).rho == pytest.approx(0.1 / 251)


@pytest.mark.parametrize("how", ["ema", "ratio", "batch"])
def test_the_gain_of_a_long_stream(how: str) -> None:
    """A hazard of 0.1 and deaths of 1 + 50 steps: 1 / (1 + 0.1 * 50) = 1/6, within 5 standard errors."""
    rng, gain, rates = np.random.default_rng(0), no_gain(), []
    learn = jax.jit(learn_rho, static_argnames=("how", "beta"))
    for _ in range(60):
        deaths = rng.random(4096) < 0.1
        gain = learn(gain, jnp.ones(4096), jnp.asarray(np.where(deaths, 51.0, 1.0), F), how=how, beta=0.1)
        rates.append(float(gain.rho))
    # sd of tau is 50 * 0.3 = 15, its mean 6: the ratio's error is 15 / 6 / 6 / sqrt(n)
    n = 4096 * (1 if how == "batch" else 19)  # an average with weight 0.1 is worth (2 - 0.1) / 0.1 batches
    assert rates[-1] == pytest.approx(1 / 6, abs=5 * 15 / 36 / np.sqrt(n) + 1e-4)
