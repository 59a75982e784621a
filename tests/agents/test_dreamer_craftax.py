"""Dreamer in its cpu preset on Craftax-Classic: what its world model must know, and that it beats chance."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from scipy import stats

from mxnb.agents.dreamer import DreamerConfig
from mxnb.agents.foresight import held_out, judge_model
from mxnb.build import build
from mxnb.config import make_config
from mxnb.evaluate import Policy, evaluate, random_policy

pytestmark = [pytest.mark.slow, pytest.mark.learn, pytest.mark.timeout(7200)]
SEEDS, EPISODES = (0, 1, 2), 128
AGENT, ENV = build(make_config(DreamerConfig, preset="cpu"))


class Trained(NamedTuple):
    policy: Any
    metrics: dict[str, np.ndarray]  # one number an update
    judged: dict[str, float]  # on episodes that it was not trained on


@cache
def trained(seed: int) -> Trained:
    step = jax.jit(AGENT.step, donate_argnums=0)
    state = jax.jit(AGENT.init)(jax.random.key(seed))
    rows = []
    for _ in range(AGENT.num_updates):
        state, seen = step(state)
        rows.append({name: value.total / value.count for name, value in seen.items()})
    metrics = {name: np.asarray([float(row[name]) for row in rows]) for name in rows[0]}
    params = state.policy["params"]
    played = held_out(AGENT.config, ENV, params, jax.random.key(200 + seed))
    judged = judge_model(AGENT.config, ENV, params, played, jax.random.key(300 + seed))
    return Trained(state.policy, metrics, judged)


def test_open_loop_foresees_better_than_the_shares_of_the_bits() -> None:
    """C1: at each horizon that is told, against each bit at its mean."""
    judged = trained(0).judged
    for k in (1, 5, 15):
        assert judged[f"bits_model_{k}"] < judged[f"bits_marginal_{k}"]


def test_rewards_are_foreseen() -> None:
    """C2: a model that knows rewards only after having seen them fails the second line."""
    judged = trained(0).judged
    assert judged["reward_auc"] >= 0.8
    assert judged["reward_before_auc"] >= 0.7
    assert 0.7 <= judged["reward_share"] <= 1.4


def test_the_end_is_recognised() -> None:
    """C3."""
    judged = trained(0).judged
    assert judged["cont_auc"] >= 0.8
    assert abs(judged["cont_gap"]) < 0.002


def test_latents_say_something_and_not_everything() -> None:
    """C4: the clipped share is of rows whose divergence is below the free nat."""
    judged = trained(0).judged
    assert 1.0 < judged["kl"] < 30.0
    assert judged["posterior_entropy"] > 0.0
    assert 1.0 - judged["free_share"] > 0.2


def test_dreams_rank_futures() -> None:
    """C5."""
    assert trained(0).judged["dream_rank"] >= 0.3


def test_the_policy_has_neither_collapsed_nor_stayed_even() -> None:
    """C6."""
    last = trained(0).metrics["train/entropy_frac"][-AGENT.num_updates // 10 :]
    assert 0.05 < np.median(last) < 0.98


def test_losses_fall() -> None:
    """C8."""
    metrics, tenth = trained(0).metrics, AGENT.num_updates // 10
    obs = metrics["train/obs_loss"]
    assert np.median(obs[-tenth:]) < 0.7 * np.median(obs[:tenth])
    assert np.median(metrics["train/reward_loss"][-tenth:]) < np.median(metrics["train/reward_loss"][:tenth])


def test_it_is_better_than_random() -> None:
    """C7: one-sided Mann-Whitney at p < 0.01 and half a point more, in two of three seeds."""
    chance = evaluate(random_policy(ENV.spec), ENV, EPISODES, jax.random.key(100)).returns
    better = []
    for seed in SEEDS:
        player = Policy(ENV.spec, trained(seed).policy, AGENT.memory, AGENT.act)
        returns = evaluate(player, ENV, EPISODES, jax.random.key(101 + seed)).returns
        told = stats.mannwhitneyu(returns, chance, alternative="greater")
        better.append(float(told.pvalue) < 0.01 and returns.mean() - chance.mean() >= 0.5)
        print(f"seed {seed}: {returns.mean():.2f} against {chance.mean():.2f}, p = {told.pvalue:.1e}")
    assert sum(better) >= 2
