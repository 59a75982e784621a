"""Environments with known answers that a wrong Dreamer fails; the thresholds are below what was measured first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DREAMER_SIZES, timed

from mxnb.agents import foresight
from mxnb.agents.dreamer import DreamerConfig, dreamer
from mxnb.build import make
from mxnb.config import make_config
from mxnb.envs import probes
from mxnb.envs.api import Env, Spec
from mxnb.evaluate import Policy, evaluate

SIZES: dict[str, Any] = DREAMER_SIZES | {
    "num_envs": 8,
    "batch_size": 8,
    "num_steps": 16,
    "train_ratio": 32,
    "starts": 64,
    "horizon": 8,
    "units": 32,
    "hidden_dim": 32,
    "deter": 32,
    "replay_size": 8 * 2000,
    "lr": 1e-3,
}
WIDE = {"deter": 128, "hidden_dim": 64, "stoch": 8, "classes": 8, "blocks": 4, "units": 64, "num_layers": 2}


def trained(env: Env, steps: int, **more: Any) -> Any:
    """(agent, policy) after that many environment steps."""
    return learned(dreamer(DreamerConfig(**SIZES | {"total_timesteps": steps} | more), env))


def learned(agent: Any) -> Any:
    """(agent, policy) after all updates."""
    run = jax.jit(lambda s: jax.lax.fori_loop(0, agent.num_updates, lambda _, s: agent.step(s)[0], s))
    return agent, run(agent.init(jax.random.key(0))).policy


def played(agent: Any, env: Env, policy: Any, episodes: int = 200) -> float:
    player = Policy(env.spec, policy, agent.memory, agent.act)
    return float(evaluate(player, env, episodes, jax.random.key(1)).returns.mean())


def forgetful(agent: Any) -> Any:
    """The same agent with its memory cleared before every step."""

    def act(params: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        return agent.act(params, obs, mask, agent.memory(params), key)

    return replace(agent, act=act)


def lottery() -> Env:
    """One step, which pays 10 in three of ten cases."""

    def step(key: Any, state: Any, action: Any) -> Any:
        pay = jnp.where(jax.random.bernoulli(key, 0.3), 10.0, 0.0)
        return jnp.ones(1), state, pay, jnp.ones((), bool), jnp.zeros((), bool), {}

    return Env(Spec("lottery-v0", (1,), num_actions=2), lambda key: (jnp.zeros(1), jnp.zeros(())), step)


def delayed(steps: int = 10) -> Env:
    """The first action decides on 1 or -1, which is paid `steps` + 1 steps on; time and choice are shown."""

    def look(t: Any, sign: Any) -> Any:
        return jnp.stack([t / steps, sign])

    def step(key: Any, state: Any, action: Any) -> Any:
        t, sign = state
        sign = jnp.where(t == 0, 2.0 * action - 1.0, sign)
        t = t + 1
        over = t > steps
        return look(t, sign), (t, sign), jnp.where(over, sign, 0.0), over, jnp.zeros((), bool), {}

    start = jnp.float32(0), jnp.float32(0)
    return Env(Spec("delayed-v0", (2,), num_actions=2), lambda key: (look(*start), start), step)


def coin() -> Env:
    """Five steps, each of which pays 1 or -1 by chance, whatever is done."""

    def step(key: Any, t: Any, action: Any) -> Any:
        pay = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return jnp.ones(1), t + 1, pay, t + 1 >= 5, jnp.zeros((), bool), {}

    return Env(Spec("coin-v0", (1,), num_actions=2), lambda key: (jnp.ones(1), jnp.int32(0)), step)


def first_value(agent: Any, policy: Any, obs: Any) -> float:
    memory = agent.memory(policy)
    return float(agent.act(policy, obs, None, memory, None)[2]["value"])


@pytest.mark.slow
@pytest.mark.learn
def test_it_remembers_what_it_saw() -> None:
    """The cue is gone when it is needed; the same policy with its memory cleared before every step does not know.

    Measured: 0.89 after 30,000 steps. After 12,000 the model foresees the reward and the policy does not use it yet.
    """
    env = probes.memory()
    more = {"lr": 3e-4, "num_steps": 8, "ent_coef": 3e-3, "prefill": 1024, "replay_size": 8 * 5000}
    agent, policy = trained(env, 30_000, **WIDE | more)
    assert played(agent, env, policy) > 0.75
    assert abs(played(forgetful(agent), env, policy)) < 0.3


@pytest.mark.slow
@pytest.mark.learn
def test_a_chain_of_five_is_remembered() -> None:
    """bsuite's MemoryChain: what the first of seven rows showed must be said in the last one.

    Measured: 0.98, and 0.02 with its memory cleared; at train_ratio 32 nothing is learned in as many steps.
    """
    env = make("MemoryChain-bsuite")
    more = {"batch_size": 16, "train_ratio": 128, "ent_coef": 3e-3, "prefill": 1024, "replay_size": 8 * 5000}
    agent, policy = trained(env, 30_000, **WIDE | more)
    assert played(agent, env, policy) >= 0.8
    assert abs(played(forgetful(agent), env, policy)) < 0.2


@pytest.mark.slow
@pytest.mark.learn
def test_a_choice_is_credited_beyond_the_horizon_of_a_dream() -> None:
    """The reward comes 11 steps after the choice and dreams are 8 long: only the critic can carry it back.

    Measured: 0.99.
    """
    env = delayed()
    agent, policy = trained(env, 30_000)
    assert agent.config.horizon == 8
    assert played(agent, env, policy) >= 0.9


@pytest.mark.slow
@pytest.mark.learn
def test_a_chance_is_expected_at_its_mean() -> None:
    """10 with chance 0.3 is 3, where a mean of logarithms would be about 1. Measured: 3.13."""
    env = lottery()
    agent, policy = trained(env, 8000, lr=3e-4)
    rows = foresight.held_out(agent.config, env, policy["params"], jax.random.key(3), num_envs=32, steps=100)
    told = foresight.expect(agent.config, env, policy["params"], rows, jax.random.key(4))
    last = np.asarray(rows.is_last)
    assert abs(told.reward[last].mean() - 3.0) < 0.3
    assert abs(told.reward[~last].mean()) < 0.3


@pytest.mark.learn
def test_a_time_limit_is_worth_its_future_and_a_death_nothing() -> None:
    """Reward 1 a step, 5 steps, discount 0.9: the start is worth 10 where it is cut off, 4.10 where it ends.

    Measured: 10.10 and 3.95.
    """
    v_cut, v_end = (
        first_value(*trained(timed(5, truncates=cut), 8000, discount=0.9), jnp.ones(2)) for cut in (True, False)
    )
    assert 8.0 < v_cut < 11.0
    assert 3.4 < v_end < 4.8


@pytest.mark.slow
@pytest.mark.learn
def test_where_actions_do_not_matter_it_stays_curious() -> None:
    """Rewards are noise: its entropy stays above 80 % of ln 2 after 10,000 steps.

    Measured: 0.680 of 0.693; 0.528 with ent_coef = 1e-2, since a learned model is never quite right, and an action that
    seems worth 0.01 more outweighs so small a bonus.
    """
    agent, policy = trained(coin(), 10_000, ent_coef=2e-2)
    entropy = float(agent.act(policy, jnp.ones(1), None, agent.memory(policy), None)[2]["entropy"])
    assert entropy > 0.8 * np.log(2)


@pytest.mark.slow
@pytest.mark.learn
def test_catch_is_solved() -> None:
    """The `probe` preset, 20,000 steps; random play is near -0.6. Measured: 1.00."""
    config = make_config(DreamerConfig, preset="probe", env_id="catch")
    env = make(config.env_id)
    agent, policy = learned(dreamer(config, env))
    assert played(agent, env, policy) >= 0.9
