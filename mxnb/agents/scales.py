"""Scales that agents learn beside their parameters: of observations, and of values (PopArt).

Both live in the policy, because acting needs them, and change only between rollouts.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from mxnb.envs.api import Spec
from mxnb.kernels.packing import unpack
from mxnb.kernels.running import Running, deviation, empty, merge

_REACH = 100  # rollouts that the value targets' statistics reach back


def first_policy(config: Any, spec: Spec, variables: Any) -> Any:
    """What `act` needs, before anything was seen: the network's params and, where asked for, empty statistics."""
    policy = {"params": variables["params"]}
    if config.normalise_obs:
        policy["obs_stats"] = empty(spec.obs_shape)
    if config.normalise_value:
        if "value" not in variables["params"]:
            raise ValueError(
                'normalise_value moves the last layer of the critic: call that nn.Dense "value" (name="value")'
            )
        policy["value_stats"] = empty(())
    return policy


def standardise(policy: Any, obs: Any) -> Any:
    """(obs - mean) / deviation within -10 to 10, where the policy holds obs_stats."""
    if "obs_stats" not in policy:
        return obs
    stats = policy["obs_stats"]
    lead = (1,) * (obs.ndim - stats.mean.ndim)
    wide = lambda x: x.reshape(*lead, *x.shape)
    return jnp.clip((obs - wide(stats.mean)) / wide(deviation(stats)), -10.0, 10.0)


def in_units(policy: Any, value: Any) -> Any:
    """The critic's output in units of the reward, where the policy holds value_stats."""
    if "value_stats" not in policy:
        return value
    return policy["value_stats"].mean + deviation(policy["value_stats"]) * value


def learn_scales(config: Any, spec: Spec, policy: Any, data: Any) -> Any:
    """The policy with the rollout's observations and value targets in its statistics.

    Only between rollouts, so that acting and learning see the same scales. When the targets' scale moves, the
    value layer moves against it, and no value changes: w' = w s / s', b' = (s b + m - m') / s'. Source: van Hasselt
    et al. 2016, arXiv:1602.07714 (PopArt).
    """
    transitions, (_, value_target) = data
    policy = dict(policy)
    if config.normalise_obs:
        obs = unpack(transitions.obs, spec.num_binary, spec.obs_shape)
        stats = merge(policy["obs_stats"], obs.reshape(-1, *spec.obs_shape).astype(jnp.float32))
        bit = (jnp.arange(math.prod(spec.obs_shape)) < spec.num_binary).reshape(spec.obs_shape)
        mean_, variance = jnp.where(bit, 0.0, stats.mean), jnp.where(bit, 1.0, stats.variance)
        policy["obs_stats"] = Running(stats.count, mean_, variance)
    if config.normalise_value:
        old = policy["value_stats"]
        new = merge(old, value_target.reshape(-1), horizon=float(_REACH * value_target.size))
        layer, ratio = policy["params"]["value"], deviation(old) / deviation(new)
        moved = {
            "kernel": layer["kernel"] * ratio,
            "bias": layer["bias"] * ratio + (old.mean - new.mean) / deviation(new),
        }
        policy |= {"value_stats": new, "params": {**policy["params"], "value": moved}}
    return policy
