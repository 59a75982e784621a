"""gymnax's classic control tasks brought to the contract, without its reset on every step.

Source: Lange 2022, gymnax; package gymnax 1.0 (six results, terminated and truncated apart).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mxnb.envs.api import Env, Spec

CLASSIC_CONTROL = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")


def gymnax_env(name: str) -> Env:
    """The gymnax task `name` (gymnax's own spelling, e.g. "CartPole-v1") with discrete actions."""
    import gymnax

    game, params = gymnax.make(name)
    space = game.observation_space(params)

    def reset(key: Any) -> tuple[Any, Any]:
        return game.reset_env(key, params)

    def step(key: Any, state: Any, action: Any) -> tuple[Any, ...]:
        obs, state, reward, terminated, _ = game.step_env(key, state, action, params)
        truncated = game.is_truncated(state, params) & ~terminated
        return obs, state, reward, terminated, truncated, {}

    spec = Spec(
        id=name.lower(),
        obs_shape=tuple(space.shape),
        obs_dtype=np.dtype(space.dtype),
        num_actions=int(game.num_actions),
        max_steps=int(params.max_steps_in_episode),
    )
    return Env(spec, reset, step)
