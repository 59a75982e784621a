"""Whole first episodes and nothing else; recordings that fit together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BITS, assert_same_bits, compilations, driven, masked, timed

import mxnb
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.envs.api import Spec
from mxnb.envs.hackmatrix import hackmatrix
from mxnb.envs.vector import make_worlds
from mxnb.evaluate import Episodes, Policy, as_text, evaluate, noop_policy, periodic, random_policy, record

LENGTHS = timed(20, shortest=1, truncates=False)


def worlds_of(env: Any, key: Any, count: int) -> Any:
    return make_worlds(env, jax.random.split(key)[1], count)


def test_counts_exactly_each_first_episode() -> None:
    key, count = jax.random.key(0), 1024
    episodes = evaluate(random_policy(LENGTHS.spec), LENGTHS, count, key)
    _, state = worlds_of(LENGTHS, key, count)
    np.testing.assert_array_equal(episodes.lengths, state.length)
    np.testing.assert_array_equal(episodes.returns, np.asarray(state.length, np.float32))
    assert episodes.terminated.all() and not episodes.truncated.any()
    # unbiased: uniform on 1..20; counting whatever ends within a fixed time would favour the short ones
    standard_error = np.sqrt((20**2 - 1) / 12 / count)
    assert abs(episodes.lengths.mean() - 10.5) < 4 * standard_error


def test_summary() -> None:
    key = jax.random.key(1)
    episodes = evaluate(random_policy(LENGTHS.spec), LENGTHS, 64, key)
    summary = episodes.summary()
    assert summary["episodes"] == 64 and summary["length"] == summary["return"] == episodes.lengths.mean()
    expected = np.std(episodes.returns, ddof=1) / 8
    assert summary["return_standard_error"] == pytest.approx(expected, rel=1e-6)
    one = evaluate(random_policy(LENGTHS.spec), LENGTHS, 1, key)
    assert np.isnan(one.summary()["return_standard_error"])


def test_max_steps_stops() -> None:
    episodes = evaluate(random_policy(LENGTHS.spec), LENGTHS, 64, jax.random.key(0), max_steps=7)
    _, state = worlds_of(LENGTHS, jax.random.key(0), 64)
    length = np.asarray(state.length)
    np.testing.assert_array_equal(episodes.lengths, np.minimum(length, 7))
    np.testing.assert_array_equal(episodes.terminated, length <= 7)
    assert not episodes.truncated.any()


def test_time_limits_are_truncations() -> None:
    episodes = evaluate(random_policy(timed(5).spec), timed(5, reward=2.0), 4, jax.random.key(0))
    assert episodes.truncated.all() and not episodes.terminated.any()
    assert episodes.lengths.tolist() == [5] * 4 and episodes.returns.tolist() == [10.0] * 4


def test_info_is_that_of_the_last_step() -> None:
    env = driven()
    episodes = evaluate(random_policy(env.spec), env, 32, jax.random.key(0))
    np.testing.assert_allclose(episodes.info["total"], episodes.returns, rtol=1e-6)
    assert (episodes.terminated | episodes.truncated).all()
    assert (episodes.terminated & episodes.truncated).any()
    assert episodes.summary()["total"] == pytest.approx(episodes.returns.mean(), rel=1e-6)
    assert len(set(episodes.lengths.tolist())) > 3


def test_the_same_key_plays_the_same_and_compiles_once() -> None:
    env, policy = driven(), random_policy(driven().spec)
    first = evaluate(policy, env, 8, jax.random.key(0))
    with compilations() as names:
        again = evaluate(policy, env, 8, jax.random.key(0))
    assert "jit(_play)" not in names and not any("_play" in name for name in names)
    assert_same_bits(vars(first), vars(again))
    other = evaluate(policy, env, 8, jax.random.key(1))
    assert (first.returns != other.returns).any()


def favourite(spec: Any, probs: list[float]) -> Policy:
    """Samples from `probs`; greedy takes the likeliest."""
    logits = jnp.log(jnp.array(probs))

    def act(params: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        action = params.argmax() if key is None else jax.random.categorical(key, params)
        extras = {"value": obs.sum(), "log_prob": params[action], "entropy": jnp.zeros(()), "probs": jnp.exp(params)}
        return action, memory + 1, extras

    return Policy(spec, logits, lambda params: jnp.int32(0), act)


def test_greedy_and_sampled_actions() -> None:
    env = driven()
    policy = favourite(env.spec, [0.3, 0.4, 0.2, 0.1])
    greedy = evaluate(policy, env, 256, jax.random.key(0), greedy=True)
    assert greedy.lengths.tolist() == [1] * 256 and greedy.terminated.all() and not greedy.truncated.any()
    sampled = evaluate(policy, env, 256, jax.random.key(0))
    assert sampled.lengths.max() > 1  # geometric: 0.7 end at each step, of which a seventh by both flags
    assert abs(sampled.lengths.mean() - 1 / 0.7) < 4 * np.sqrt(0.3) / 0.7 / 16
    assert abs(sampled.terminated.mean() - 5 / 7) < 4 * np.sqrt(5 / 7 * 2 / 7 / 256)


def test_another_environments_policy_is_refused() -> None:
    policy, env, key = random_policy(driven().spec), masked(), jax.random.key(0)
    for play in (lambda: evaluate(policy, env, 2, key), lambda: record(policy, env, key)):
        with pytest.raises(
            ValueError, match=r"made for driven-v0 \(observation \(5,\), 4 actions\), masked-v0 has .*13"
        ):
            play()


# ---------------------------------------------------------------------------------------------- random policy


def test_random_policy_with_and_without_the_mask() -> None:
    env, key = masked(), jax.random.key(0)
    mask = jnp.array([True, False, True, False])

    def frequencies(policy: Policy, mask: Any) -> np.ndarray:
        act = lambda key: policy.act(policy.params, jnp.zeros(13), mask, (), key)
        actions, _, extras = jax.jit(jax.vmap(act))(jax.random.split(key, 4096))
        np.testing.assert_allclose(extras["log_prob"], jnp.log(extras["probs"][0])[actions], rtol=1e-5)
        np.testing.assert_allclose(extras["entropy"][0], np.log((extras["probs"][0] > 0).sum()), rtol=1e-5)
        return np.bincount(actions, minlength=4) / 4096

    open_, legal = random_policy(env.spec), random_policy(env.spec, use_mask=True)
    assert open_.act is legal.act  # one compiled program for both
    four = 4 * np.sqrt(0.25 * 0.75 / 4096)
    assert np.abs(frequencies(open_, mask) - 0.25).max() < four
    assert np.abs(frequencies(open_, None) - 0.25).max() < four
    of_two = frequencies(legal, mask)
    assert of_two[1] == of_two[3] == 0 and np.abs(of_two[[0, 2]] - 0.5).max() < 4 * 0.5 / 64
    assert np.abs(frequencies(legal, None) - 0.25).max() < four
    unmasked, with_mask = evaluate(open_, env, 256, key), evaluate(legal, env, 256, key)
    assert unmasked.returns.min() < 0 <= with_mask.returns.min()  # an illegal action costs 1


# -------------------------------------------------------------------------------------------------- recordings


def test_recording_of_the_masked_environment() -> None:
    env = masked()
    policy = random_policy(env.spec, use_mask=True)
    lengths = []
    for seed in range(4):
        r = record(policy, env, jax.random.key(seed), max_steps=20)
        steps = len(r.actions)
        lengths.append(steps)
        assert r.terminated != r.truncated and steps <= 7
        assert r.frames.shape == (steps + 1, 3, BITS, 3) and r.frames.dtype == np.uint8
        assert r.masks.shape == (steps, 4) and r.probs.shape == (steps, 4)
        assert len(r.rewards) == len(r.values) == len(r.entropies) == steps
        # frame t shows the state that action t was chosen in; its first pixels are the mask
        np.testing.assert_array_equal(r.frames[:-1, 0, :4, 0] == 255, r.masks)
        assert r.masks[np.arange(steps), r.actions].all()
        np.testing.assert_array_equal(r.probs > 0, r.masks)
        np.testing.assert_array_equal(r.rewards, r.actions.astype(np.float32))
        assert (r.actions[-1] == 3) == r.terminated and (r.actions[:-1] != 3).all()
        np.testing.assert_allclose(r.entropies, np.log(r.masks.sum(-1)), rtol=1e-5, atol=1e-6)
    assert len(set(lengths)) > 1


def test_recording_without_pictures_or_masks_and_with_memory() -> None:
    env = driven()
    always = Policy(
        env.spec,
        jnp.int32(4),
        lambda params: jnp.int32(0),
        lambda params, obs, mask, memory, key: (
            jnp.where(memory >= params, 1, 0),
            memory + 1,
            {"value": obs[3], "log_prob": 0.0, "entropy": 0.0, "probs": jnp.ones(4) / 4},
        ),
    )
    r = record(always, env, jax.random.key(0), greedy=True, max_steps=30)
    assert r.actions.tolist() == [0, 0, 0, 0, 1]  # the memory counted the steps
    assert r.values.tolist() == [0, 1, 2, 3, 4]  # obs[3] is the time
    assert r.frames is None and r.masks is None
    assert r.terminated and not r.truncated and isinstance(r.terminated, bool)
    assert r.action_names == env.spec.action_names
    assert r.info["total"] == pytest.approx(r.rewards.sum(), rel=1e-6)
    short = record(always, env, jax.random.key(0), greedy=True, max_steps=3)
    assert short.actions.tolist() == [0, 0, 0] and not short.terminated and not short.truncated
    np.testing.assert_array_equal(evaluate(always, env, 3, jax.random.key(0)).lengths, [5, 5, 5])


def test_an_agents_policy_plays() -> None:
    env = masked()
    agent = ppo(PPOConfig(num_envs=4, num_steps=4, total_timesteps=64, hidden_dim=8, num_layers=1), env)
    policy = Policy(env.spec, agent.init(jax.random.key(0)).policy, agent.memory, agent.act)
    episodes = evaluate(policy, env, 64, jax.random.key(1))
    assert episodes.returns.min() >= 0  # never an illegal action
    assert (episodes.terminated ^ episodes.truncated).all()
    r = record(policy, env, jax.random.key(2), greedy=True)
    best = np.where(r.masks, r.probs, -1).argmax(-1)
    np.testing.assert_array_equal(r.actions, best)


def test_report_with_intervals_and_the_crafter_score() -> None:
    rng = np.random.default_rng(0)
    wood, table = (rng.random((2, 400)) < np.array([[0.9], [0.1]])).astype(np.float32)
    returns = rng.normal(5, 2, 400).astype(np.float32)
    none = np.zeros(400, bool)
    info = {"wood": wood, "table": table, "cause/death": np.ones(400, np.float32), "score": returns}
    found = Episodes(returns, np.full(400, 9), ~none, none, info).report()
    half = 1.96 * returns.std(ddof=1, dtype=np.float64) / 20
    assert found["return"]["low"] == pytest.approx(returns.mean() - half, rel=1e-5)
    assert found["length"] == {"mean": 9.0, "low": 9.0, "high": 9.0} and found["unfinished"] == 0
    assert set(found["rates"]) == {"wood", "table", "cause/death"}  # a score is no rate
    expected = np.exp((np.log1p(100 * wood.mean()) + np.log1p(100 * table.mean())) / 2) - 1
    assert found["crafter_score"] == pytest.approx(expected, rel=1e-4)
    p, n, z = float(wood.mean()), 400, 1.96
    for edge in (found["rates"]["wood"]["low"], found["rates"]["wood"]["high"]):  # Wilson's interval solves this
        assert abs(p - edge) == pytest.approx(z * np.sqrt(edge * (1 - edge) / n), rel=1e-3)
    assert found["rates"]["cause/death"]["high"] == 1 and found["rates"]["cause/death"]["low"] > 0.98
    names = hackmatrix().spec.info
    stages = Episodes(returns, np.full(400, 9), ~none, none, dict.fromkeys(names, wood)).report()
    assert {"reached_2", "reached_8"} <= set(stages["rates"]) and "crafter_score" not in stages
    one = Episodes(returns[:1], np.full(1, 9), none[:1], none[:1]).report()
    assert one["return"]["low"] is None and one["unfinished"] == 1 and "crafter_score" not in one


def test_noop_and_continuous_random_policies() -> None:
    spec = Spec("push-v0", (2,), action_low=(-2.0, 0.0), action_high=(2.0, 1.0))
    act = lambda policy, key: policy.act(policy.params, jnp.zeros(2), None, (), key)[0]
    np.testing.assert_allclose(act(noop_policy(spec), None), [0, 0.5])
    draws = jax.vmap(lambda k: act(random_policy(spec), k))(jax.random.split(jax.random.key(0), 2000))
    assert (np.abs(np.asarray(draws).mean(0) - [0, 0.5]) < [0.1, 0.03]).all()
    assert (np.asarray(draws).min(0) > [-2.01, -0.01]).all() and (np.asarray(draws).max(0) < [2.01, 1.01]).all()
    named = Spec("n-v0", (2,), num_actions=3, action_names=("left", "noop", "right"))
    assert act(noop_policy(named), jax.random.key(0)) == 1
    endless = Spec("push-v0", (1,), action_low=(-np.inf,), action_high=(1.0,))
    with pytest.raises(ValueError, match="give finite bounds in its Spec"):
        random_policy(endless)


def test_periodic_evaluation_repeats_the_same_worlds() -> None:
    env = masked()
    agent = ppo(PPOConfig(num_envs=8, num_steps=8, total_timesteps=64, hidden_dim=8), env)
    params = agent.init(jax.random.key(0)).policy
    numbers = periodic(agent, env, 16)
    assert numbers(params) == numbers(params)
    assert {"return", "length"} <= set(numbers(params)) and "episodes" not in numbers(params)


def test_survival_counts_lives_and_not_their_empty_steps() -> None:
    """The same lives from the environment, the explicit and the collapsed chain; no win and no limit is a death."""
    from mxnb.envs.survival import survival

    env = mxnb.make("cartpole-v1")
    found = []
    for played in (env, survival(env, 30, chain="collapsed"), survival(env, 30)):
        episodes = evaluate(random_policy(played.spec), played, 300, jax.random.key(0))
        found.append(episodes.survival(30))
        assert found[-1]["deaths"] == 300 and found[-1]["limits"] == found[-1]["wins"] == found[-1]["unfinished"] == 0
    for other in found[1:]:  # other draws of the same law
        assert other["life"]["low"] < found[0]["life"]["high"] and found[0]["life"]["low"] < other["life"]["high"]
    direct = evaluate(random_policy(env.spec), env, 300, jax.random.key(0)).lengths
    assert found[0]["alive_steps"] == direct.sum()
    assert found[0]["reward"]["mean"] == pytest.approx(found[0]["gain"]["mean"])  # a pole that stands pays 1 too


def test_a_death_counts_before_its_empty_steps_are_over() -> None:
    """Poles fall after about 20 steps, and the evaluation stops within the 100 empty steps of many."""
    from mxnb.envs.survival import survival

    env = survival(mxnb.make("cartpole-v1"), 100)
    episodes = evaluate(random_policy(env.spec), env, 50, jax.random.key(0), max_steps=110)
    found = episodes.survival(100)
    assert not episodes.terminated.all() and found["deaths"] == 50 and found["unfinished"] == 0


def test_survival_by_hand() -> None:
    flags = lambda *x: np.array(x, bool)
    episodes = Episodes(
        returns=np.zeros(4, np.float32),
        lengths=np.array([10, 20, 30, 40]),
        terminated=flags(True, True, False, False),
        truncated=flags(False, False, True, False),
        info={"cause/win": np.array([0.0, 1.0, 0.0, 0.0])},
    )
    found = episodes.survival(50)
    assert [found[name] for name in ("deaths", "limits", "wins", "unfinished", "alive_steps")] == [1, 1, 1, 1, 100]
    assert found["gain"]["mean"] == pytest.approx(100 / 150) and found["life"]["mean"] == 100
    assert found["median_life"] is None and found["curve"]["times"] == [10.0] and found["curve"]["share"] == [0.75]
    with pytest.raises(ValueError, match="r_reset is -1; a death costs 0 steps or more"):
        episodes.survival(-1)
    alone = replace(
        episodes, **{n: getattr(episodes, n)[:1] for n in ("returns", "lengths", "terminated", "truncated")}
    )
    alone = replace(alone, info={}).survival(50)
    assert (alone["gain"]["low"], alone["gain"]["high"], alone["life"]["high"]) == (0.0, 1.0, None)
    unhurt = replace(episodes, terminated=flags(False, False, False, False))
    told = {"policy": "p", "env": "e", "greedy": False, **unhurt.report(), "survival": unhurt.survival(50)}
    assert told["survival"]["life"] == {"mean": None, "low": pytest.approx(100 / 3), "high": None}
    assert "no death was seen" in as_text(told) and "no end seen" in as_text(told)
