"""Dreamer at the cpu preset's sizes on Craftax-Classic: what its model must know, and that 10,000 steps beat chance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from scipy import stats

from mxnb.agents.dreamer import DreamerConfig
from mxnb.agents.foresight import held_out, judge_model, nats_of_bits, open_loop
from mxnb.build import build
from mxnb.config import make_config
from mxnb.evaluate import Policy, evaluate, random_policy

pytestmark = [pytest.mark.slow, pytest.mark.learn, pytest.mark.timeout(7200)]
SEEDS, EPISODES = (0, 1, 2), 128
CONFIG = make_config(DreamerConfig, preset="cpu")
AGENT, ENV = build(CONFIG)


class Trained(NamedTuple):
    policy: Any
    metrics: dict[str, np.ndarray]  # one number an update
    rows: Any  # of episodes that it was not trained on
    judged: dict[str, float]  # on them


def learned(agent: Any, seed: int) -> tuple[Any, dict[str, np.ndarray]]:
    """(policy, metrics) after all updates."""
    step = jax.jit(agent.step, donate_argnums=0)
    state = jax.jit(agent.init)(jax.random.key(seed))
    rows = []
    for _ in range(agent.num_updates):
        state, seen = step(state)
        rows.append({name: value.total / value.count for name, value in seen.items()})
    return state.policy, {name: np.asarray([float(row[name]) for row in rows]) for name in rows[0]}


@cache
def trained() -> Trained:
    policy, metrics = learned(AGENT, 0)
    rows = held_out(CONFIG, ENV, policy["params"], jax.random.key(200))
    return Trained(policy, metrics, rows, judge_model(CONFIG, ENV, policy["params"], rows, jax.random.key(300)))


def test_open_loop_foresees_better_than_the_shares_of_the_bits() -> None:
    """C1: at each of 15 horizons, against each bit at its mean."""
    told = open_loop(CONFIG, ENV, trained().policy["params"], trained().rows, jax.random.key(1))
    nats = nats_of_bits(told, ENV.spec.num_binary, trained().rows)
    assert (nats["model"][:15] < nats["marginal"][:15]).all(), nats


def test_rewards_are_foreseen() -> None:
    """C2: a model that knows rewards only after having seen them fails the second and the last line.

    The mean expected one step ahead was 0.34 to 0.52 of the real one before `foresee_coef`, and 0.60 to 0.81 since.
    """
    judged = trained().judged
    assert judged["reward_auc"] >= 0.8
    assert judged["reward_before_auc"] >= 0.7
    assert 0.7 <= judged["reward_share"] <= 1.4
    assert 0.55 <= judged["reward_before_share"] <= 1.4


def test_the_end_is_recognised() -> None:
    """C3."""
    judged = trained().judged
    assert judged["cont_auc"] >= 0.8
    assert abs(judged["cont_gap"]) < 0.002


def test_latents_say_something_and_not_everything() -> None:
    """C4: the clipped share is of rows whose divergence is below the free nat."""
    judged = trained().judged
    assert 1.0 < judged["kl"] < 30.0
    assert 0.02 < judged["posterior_entropy"] / (CONFIG.stoch * np.log(CONFIG.classes)) < 0.9
    assert 1.0 - judged["free_share"] > 0.2


def test_dreams_rank_futures() -> None:
    """C5."""
    assert trained().judged["dream_rank"] >= 0.3


def test_the_policy_has_neither_collapsed_nor_stayed_even() -> None:
    """C6."""
    last = trained().metrics["train/entropy_frac"][-AGENT.num_updates // 10 :]
    assert 0.05 < np.median(last) < 0.98


def test_losses_fall() -> None:
    """C8."""
    metrics, tenth = trained().metrics, AGENT.num_updates // 10
    obs = metrics["train/obs_loss"]
    assert np.median(obs[-tenth:]) < 0.7 * np.median(obs[:tenth])
    counts = np.unique(np.asarray(trained().rows.reward).round(2), return_counts=True)[1]
    assert np.median(metrics["train/reward_loss"][-tenth:]) < stats.entropy(counts)


def test_10_000_steps_beat_chance() -> None:
    """C7: one-sided Mann-Whitney at p < 0.01, in two of three seeds. Measured: 1.1, 1.3 and 0.2 above random play."""
    agent = build(replace(CONFIG, total_timesteps=10_000, train_ratio=64))[0]
    chance = evaluate(random_policy(ENV.spec), ENV, EPISODES, jax.random.key(100)).returns
    better = []
    for seed in SEEDS:
        player = Policy(ENV.spec, learned(agent, seed)[0], agent.memory, agent.act)
        returns = evaluate(player, ENV, EPISODES, jax.random.key(101 + seed)).returns
        told = stats.mannwhitneyu(returns, chance, alternative="greater")
        better.append(float(told.pvalue) < 0.01)
        print(f"seed {seed}: {returns.mean():.2f} against {chance.mean():.2f}, p = {told.pvalue:.1e}")
    assert sum(better) >= 2
