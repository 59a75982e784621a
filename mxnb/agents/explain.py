"""One update of PPO taken apart: what it did to every sample of one minibatch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mxnb.agents.on_policy import distribution
from mxnb.agents.ppo import PPOConfig, State, advantages, forward, parts, rollout, update
from mxnb.envs.api import Env
from mxnb.kernels.losses import normalise
from mxnb.kernels.packing import unpack


class Explained(NamedTuple):
    """B samples of one rollout, before and after the update that learned from it."""

    obs: Any  # float32[B, *obs_shape]
    mask: Any  # bool[B, A] or None
    action: Any  # int32[B] or float32[B, D]
    probs: Any  # float32[B, A] before, exactly 0 where masked; [B, 0] for continuous actions
    probs_after: Any  # the same, after
    ratio: Any  # float32[B]: pi_after(action) / pi_before(action)
    clipped: Any  # bool[B]: the clipped side was the smaller one, so that this sample pushed no further
    advantage: Any  # float32[B], normalised over these samples as in the loss
    value: Any  # float32[B]: what the critic expected before
    value_after: Any  # float32[B]
    value_target: Any  # float32[B]: what it should have expected


def explain_update(config: PPOConfig, env: Env, state: State) -> Explained:
    """The next update of `state`, as `ppo(config, env).step` makes it, seen from one of its minibatches.

    state: of a checkpoint, or `agent.init(key)`; left as it is. The samples are as many as a minibatch holds, drawn
    by the state's key. Ratios are those after all epochs: before the first one every ratio is 1.
    """
    config, spec = config.resolve(), env.spec
    network, venv, optimiser = parts(config, env)

    @jax.jit
    def play_and_learn(state: State) -> Any:
        envs, key, seen, last_value, _ = rollout(network, config, venv, state)
        data = (seen, advantages(config, seen, last_value))
        learned, _ = update(network, config, optimiser, spec, replace(state, envs=envs, key=key), data)
        size = config.num_envs * config.num_steps
        rows = jnp.argsort(jax.random.bits(key, (size,)))[: size // config.num_minibatches]
        seen, (advantage, target) = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:])[rows], data)
        obs = unpack(seen.obs, spec.num_binary, spec.obs_shape)
        (before, value), (after, value_after) = (forward(network, of.policy, obs) for of in (state, learned))
        old, new = (distribution(spec, head, seen.mask) for head in (before, after))
        ratio = jnp.exp(new.log_prob(seen.action) - seen.log_prob)
        if config.normalise_advantage:
            advantage = normalise(advantage, seen.weight)
        outside = jnp.where(advantage > 0, ratio > 1 + config.clip_eps, ratio < 1 - config.clip_eps)
        probs = (old.probs, new.probs) if spec.num_actions else (jnp.zeros((len(rows), 0)),) * 2
        return Explained(
            obs=obs,
            mask=seen.mask,
            action=seen.action,
            probs=probs[0],
            probs_after=probs[1],
            ratio=ratio,
            clipped=outside,
            advantage=advantage,
            value=value,
            value_after=value_after,
            value_target=target,
        )

    return jax.device_get(play_and_learn(state))
