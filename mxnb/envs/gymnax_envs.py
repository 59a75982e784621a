"""gymnax's tasks brought to the contract, without its reset on every step.

Source: Lange 2022, gymnax; package gymnax 1.0 (six results, terminated and truncated apart).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.api import Env, Spec

_BITS = {f"{game}-MinAtar" for game in ("Asterix", "Breakout", "Freeway", "SpaceInvaders")}
_BITS |= {"Catch-bsuite", "DeepSea-bsuite", "FrozenLake-misc"}
"""Tasks whose observations hold nothing but 0 and 1."""


def gymnax_env(name: str) -> Env:
    """The gymnax task `name` (gymnax's own spelling, e.g. "CartPole-v1") with its default parameters."""
    import gymnax

    game, params = gymnax.make(name)
    return from_gymnax(game, params, env_id=name.lower())


def from_gymnax(game: Any, params: Any, *, env_id: str = "") -> Env:
    """Any gymnax 1.0 environment with its parameters as an `Env`.

    env_id: the id in its Spec, by default the name that the environment gives itself. Observations become
    float32; a discrete (scalar) observation becomes one-hot. Actions keep gymnax's meaning: an index, or
    numbers between `Spec.action_low` and `Spec.action_high`.
    """
    from mxnb.envs.gymnax_pictures import picture

    space, actions = game.observation_space(params), game.action_space(params)
    one_hot = getattr(space, "n", 0)
    discrete = int(getattr(actions, "n", 0))
    shape = (one_hot,) if one_hot else tuple(space.shape)
    draw = picture(game, params)

    def look(obs: Any) -> Any:
        if one_hot:
            return jax.nn.one_hot(obs, one_hot)
        return jnp.asarray(obs).astype(jnp.float32).reshape(shape)

    types = _state_types(game, params)

    def reset(key: Any) -> tuple[Any, Any]:
        obs, state = game.reset_env(key, params)
        return look(obs), _like(state, types)

    def step(key: Any, state: Any, action: Any) -> tuple[Any, ...]:
        action = action if discrete else jnp.reshape(action, actions.shape)
        obs, state, reward, terminated, _ = game.step_env(key, state, action, params)
        terminated = jnp.asarray(terminated, bool).reshape(())
        truncated = jnp.asarray(game.is_truncated(state, params), bool).reshape(()) & ~terminated
        return look(obs), _like(state, types), jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated, {}

    low, high = (None, None) if discrete else _bounds(actions)
    spec = Spec(
        id=env_id or str(game.name).lower(),
        obs_shape=shape,
        num_binary=math.prod(shape) if game.name in _BITS else 0,
        num_actions=discrete,
        action_low=low,
        action_high=high,
        max_steps=int(params.max_steps_in_episode),
    )
    return Env(spec, reset, step, render=draw)


def _state_types(game: Any, params: Any) -> Any:
    """Shapes and dtypes that hold every state: what reset and step give, promoted, until a step changes nothing."""

    def after(key: Any, state: Any) -> Any:
        return game.step_env(key, state, game.action_space(params).sample(key), params)[1]

    key = jax.random.key(0)
    with jax.numpy_rank_promotion("allow"):  # some of gymnax's tasks rely on it
        types = jax.eval_shape(lambda k: jax.tree.map(jnp.asarray, game.reset_env(k, params)[1]), key)
        for _ in range(3):
            new = jax.eval_shape(lambda k, s: jax.tree.map(jnp.asarray, after(k, s)), key, types)
            dtype = lambda a, b: jax.ShapeDtypeStruct(a.shape, jnp.promote_types(a.dtype, b.dtype))
            wide = jax.tree.map(dtype, types, new)
            if wide == types:
                break
            types = wide
    return types


def _like(state: Any, types: Any) -> Any:
    """`state` with the dtypes and shapes of `types` and no weak types: gymnax's states change type on the way."""

    def cast(x: Any, like: Any) -> Any:
        return jax.lax.convert_element_type(jnp.asarray(x), like.dtype).reshape(like.shape)

    return jax.tree.map(cast, state, types)


def _bounds(space: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    shape = tuple(space.shape)
    low, high = (np.broadcast_to(np.asarray(x, np.float64), shape).reshape(-1) for x in (space.low, space.high))
    return tuple(low.tolist()), tuple(high.tolist())
