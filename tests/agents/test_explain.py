"""An update taken apart is the update that training makes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny import PPO_SIZES, masked

from mxnb.agents.explain import explain_update
from mxnb.agents.ppo import PPOConfig, forward, parts, ppo
from mxnb.kernels.losses import ppo_policy_loss

pytestmark = pytest.mark.brief

CONFIG = PPOConfig(**(PPO_SIZES | {"lr": 1e-2, "num_minibatches": 2})).resolve()


def test_it_is_the_update_of_training() -> None:
    """After `step`, the policy gives the same probabilities and values; before, every ratio would be 1."""
    env = masked()
    agent = ppo(CONFIG, env)
    state = jax.jit(agent.init)(jax.random.key(1))
    kept = jax.device_get(state.policy)
    told = explain_update(CONFIG, env, state)
    size = CONFIG.num_envs * CONFIG.num_steps // CONFIG.num_minibatches
    assert {len(x) for x in told} == {size}
    jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(state.policy))
    learned, metrics = jax.jit(agent.step)(state)
    network, _, _ = parts(CONFIG, env)
    head, value = forward(network, learned.policy, jnp.asarray(told.obs))
    np.testing.assert_allclose(told.value_after, value, rtol=1e-4, atol=1e-5)
    _, before = forward(network, kept, jnp.asarray(told.obs))
    np.testing.assert_allclose(told.value, before, rtol=1e-4, atol=1e-5)
    assert np.corrcoef(told.value_target - told.value, told.advantage)[0, 1] > 0.999  # the target is V + advantage
    logits = np.where(told.mask, head, -np.inf)
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    np.testing.assert_allclose(told.probs_after, probs, rtol=1e-3, atol=1e-6)
    assert (told.probs[~told.mask] == 0).all() and (told.probs_after[~told.mask] == 0).all()
    rows = np.arange(size)
    np.testing.assert_allclose(
        told.ratio, told.probs_after[rows, told.action] / told.probs[rows, told.action], rtol=1e-3
    )
    assert np.abs(told.ratio - 1).max() > 1e-3, "nothing was learned: the test says nothing"
    assert abs(told.advantage.mean()) < 1e-5 and abs(told.advantage.std() - 1) < 1e-2
    assert float(metrics["train/total_loss"].total) != 0


def test_what_is_clipped_pushes_no_further() -> None:
    """The policy loss's slope in each sample's probability is 0 exactly there."""
    env = masked()
    config = replace(CONFIG, lr=0.1, clip_eps=0.05)
    told = explain_update(config, env, ppo(config, env).init(jax.random.key(2)))
    advantage = jnp.asarray(told.advantage)
    loss = lambda log_prob: ppo_policy_loss(log_prob, jnp.zeros(len(log_prob)), advantage, clip_eps=0.05).loss
    slope = jax.grad(loss)(jnp.log(told.ratio))
    assert 0 < told.clipped.sum() < len(told.clipped)
    np.testing.assert_array_equal(told.clipped, np.asarray(slope) == 0)
