"""The judge of world models: windows, returns and areas by hand, and what it says of models that know or do not."""

from __future__ import annotations

from typing import Any

import dreams
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dreams import counter, nets_of, small
from tiny import masked

from mxnb.agents import foresight
from mxnb.agents.foresight import Foresight, auc, expect, held_out, judge_model, nats_of_bits, open_loop, windows
from mxnb.agents.replay import Row

pytestmark = pytest.mark.brief


def flags(**at: list[int]) -> Row:
    """20 rows of one environment: row t has obs t and reward t; `first`, `last`, `terminal` where they are said."""
    t = jnp.arange(20.0)[:, None]
    flag = lambda name: jnp.zeros((20, 1), bool).at[jnp.array(at.get(name, []), int)].set(True)
    return Row(t[..., None], jnp.zeros((20, 1), int), t, flag("first"), flag("last"), flag("terminal"))


def test_what_came_by_hand() -> None:
    """Death at row 3, first row 4; a limit at row 9, first row 10; horizon 3, discount 0.5."""
    rows = flags(first=[0, 4, 10], last=[3, 9], terminal=[3])
    reward = rows.reward.at[jnp.array([0, 4, 10])].set(0.0)
    config = small(horizon=3, discount=0.5)
    came = foresight._reached(config, rows._replace(reward=reward))[:, 0]
    assert came.shape == (17,)
    assert came[0] == 1 + 2 / 2 + 3 / 4
    assert came[1] == 2 + 3 / 2, "nothing after a death"
    assert came[2] == 3
    assert np.isnan(came[3]), "a last row has no future"
    assert came[5] == 6 + 7 / 2 + 8 / 4
    assert np.isnan(came[[7, 8, 9]]).all(), "nobody knows what a limit cut off"
    assert came[6] == 7 + 8 / 2 + 9 / 4
    assert came[10] == 11 + 12 / 2 + 13 / 4


@pytest.mark.parametrize(
    ("score", "has", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
    ],
)
def test_auc_counts_pairs(score: list[int], has: list[int], expected: float) -> None:
    assert auc(score, np.array(has, bool)) == expected


def test_auc_needs_both_kinds() -> None:
    assert np.isnan(auc([1, 2], np.array([True, True])))


def test_windows_lie_within_an_episode_after_their_context() -> None:
    """Of two windows of 18 rows, the one whose foreseen part holds a reset is left out; within the context it may."""
    rows = jax.tree.map(lambda x: jnp.concatenate([x, x[:16]]), flags(first=[5]))
    assert windows(rows, 18).reward.shape == (18, 2)
    late = rows._replace(is_first=rows.is_first.at[17].set(True))
    np.testing.assert_array_equal(windows(late, 18).reward[:, 0], rows.reward[18:, 0])
    never = rows._replace(is_first=jnp.ones_like(rows.is_first))
    with pytest.raises(ValueError, match="no window of 18 rows lies within one episode"):
        windows(never, 18)


def test_a_model_that_knows_beats_the_simple_predictors() -> None:
    """Bits that flip with chance 0.1 a row: knowing it is worth the entropy, not knowing anything 4 ln 2."""
    rng = np.random.default_rng(0)
    truth = (rng.random((1, 4000, 4)) < 0.5).astype(np.float32)
    last = np.where(rng.random((4000, 4)) < 0.1, 1 - truth[0], truth[0]).astype(np.float32)
    rows = Row(jnp.asarray(truth), *[jnp.zeros((1, 4000))] * 2, *[jnp.zeros((1, 4000), bool)] * 3)
    chance = np.abs(last - 0.1)[None]
    told = Foresight(None, jnp.asarray(chance), None, None, rows, jnp.asarray(last))
    nats = nats_of_bits(told, 4, rows)
    entropy = -4 * (0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    np.testing.assert_allclose([nats["model"][0], nats["repeat"][0]], entropy, rtol=0.03)
    np.testing.assert_allclose(nats["marginal"][0], 4 * np.log(2), rtol=0.01)
    sure = told._replace(mean=jnp.asarray(truth))
    assert nats_of_bits(sure, 4, rows)["model"][0] < 1e-3


def test_repeating_knows_each_bit_and_its_direction() -> None:
    """Bit 0 goes out in half of the cases and never on, bit 1 never changes: only the first costs anything."""
    rng = np.random.default_rng(1)
    last = (rng.random((4000, 2)) < 0.5).astype(np.float32)
    truth = last * np.stack([rng.random(4000) < 0.5, np.ones(4000)], -1).astype(np.float32)
    rows = Row(jnp.asarray(truth[None]), *[jnp.zeros((1, 4000))] * 2, *[jnp.zeros((1, 4000), bool)] * 3)
    told = Foresight(None, jnp.asarray(truth[None]), None, None, rows, jnp.asarray(last))
    np.testing.assert_allclose(nats_of_bits(told, 2, rows)["repeat"][0], np.log(2) * last[:, 0].mean(), rtol=0.02)


def test_foresight_starts_from_what_was_seen_and_follows_the_actions() -> None:
    """Shapes and bounds; other actions change what is foreseen, the same key does not."""
    env, config = masked(limit=30), small()
    _, params = nets_of(config, env)
    rows = held_out(config, env, params, jax.random.key(0), num_envs=4, steps=120)
    assert rows.reward.shape == (120, 4) and not rows.is_terminal[0].any()
    told = open_loop(config, env, params, rows, jax.random.key(1), horizon=3, futures=4)
    many = told.truth.reward.shape[1]
    assert told.obs.shape == told.mean.shape == (3, many, *env.spec.obs_shape)
    assert told.reward.shape == told.cont.shape == (3, many)
    bits = told.mean[..., : env.spec.num_binary]
    assert (np.asarray(bits) >= 0).all() and (np.asarray(bits) <= 1).all()
    # The action at the second foreseen row leads to the third: only that may change with it.
    cut = windows(rows, 19)
    other = cut._replace(action=cut.action.at[foresight.CONTEXT + 1].set((cut.action[foresight.CONTEXT + 1] + 1) % 4))
    plain, moved = (open_loop(config, env, params, x, jax.random.key(1), horizon=3, futures=4) for x in (cut, other))
    np.testing.assert_array_equal(moved.obs[:2], plain.obs[:2])
    assert (np.asarray(moved.obs[2]) != np.asarray(plain.obs[2])).any()
    again = open_loop(config, env, params, rows, jax.random.key(1), horizon=3, futures=4)
    np.testing.assert_array_equal(again.obs, told.obs)
    last = windows(rows, 19)
    np.testing.assert_array_equal(told.last, last.obs[15])
    np.testing.assert_array_equal(told.truth.reward, last.reward[16:])


def test_an_untrained_model_knows_nothing_and_is_told_so() -> None:
    env, config = masked(limit=40), small()
    params = dreams.dreamer_module.first_params(dreams.dreamer_module.networks(config, env.spec), jax.random.key(0))
    rows = held_out(config, env, params, jax.random.key(0), num_envs=8, steps=200)
    found = judge_model(config, env, params, rows, jax.random.key(1))
    assert found["rows"] == 1600 and found["reward_auc"] == found["reward_before_auc"] == 0.5
    assert found["reward_share"] == 0 == found["reward_before_share"] and found["kl"] >= 0
    assert found["bits_model_1"] > found["bits_marginal_1"] - 0.1
    told = expect(config, env, params, rows, jax.random.key(1))
    assert told.reward.shape == (200, 8) and told.reached.shape == (196, 8) and (told.value == 0).all()


@pytest.mark.learn
def test_a_trained_model_knows_a_counter() -> None:
    """obs and reward follow from the step alone: after 300 updates the rewards are foreseen and the end is known."""
    env = counter()
    config = small(train_ratio=32, lr=3e-3, total_timesteps=64 + 4 * 300, horizon=3)
    agent = dreams.dreamer_module.dreamer(config, env)
    train = jax.jit(lambda s: jax.lax.fori_loop(0, agent.num_updates, lambda _, s: agent.step(s)[0], s))
    params: Any = train(agent.init(jax.random.key(0))).policy["params"]
    rows = held_out(config, env, params, jax.random.key(5), num_envs=4, steps=100)
    found = judge_model(config, env, params, rows, jax.random.key(1))
    assert found["reward_before_auc"] > 0.85 and found["cont_auc"] > 0.95
    assert 0.8 < found["reward_share"] < 1.25
    assert 0.8 < found["reward_before_share"] < 1.25
    assert found["cont_before_auc"] > 0.8
    assert found["dream_rank"] > 0.8 and 0.5 < found["dream_slope"] < 2


def test_episodes_too_short_for_a_window_are_judged_without_one() -> None:
    env, config = masked(limit=7), small()
    _, params = nets_of(config, env)
    rows = held_out(config, env, params, jax.random.key(0), num_envs=4, steps=40)
    found = judge_model(config, env, params, rows, jax.random.key(1))
    assert "reward_auc" in found and not any(name.startswith("bits_") for name in found)
