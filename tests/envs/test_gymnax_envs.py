"""gymnax's classic tasks: the same numbers as gymnax itself, and cut-offs told apart from ends."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_same_bits

from mxnb.build import ENVS, make
from mxnb.envs.gymnax_envs import CLASSIC_CONTROL, gymnax_env

LIMITS = {"CartPole-v1": 500, "Acrobot-v1": 500, "MountainCar-v0": 200}


@cache
def both(name: str) -> Any:
    env = gymnax_env(name)
    game, params = gymnax.make(name)
    theirs = jax.jit(jax.vmap(lambda key, state, action: game.step_env(key, state, action, params)))
    return SimpleNamespace(env=env, game=game, params=params, theirs=theirs, ours=jax.jit(jax.vmap(env.step)))


@pytest.mark.parametrize("name", CLASSIC_CONTROL)
def test_spec_says_what_the_environment_does(name: str) -> None:
    b = both(name)
    spec = b.env.spec
    obs, _ = b.env.reset(jax.random.key(0))
    assert (obs.shape, obs.dtype) == (spec.obs_shape, spec.obs_dtype)
    assert spec.num_actions == {"CartPole-v1": 2, "Acrobot-v1": 3, "MountainCar-v0": 3}[name]
    assert spec.max_steps == LIMITS[name] == b.params.max_steps_in_episode
    assert spec.id == name.lower() and spec.id in ENVS and make(name).spec == spec
    assert b.env.action_mask(None) is None and b.env.render(None) is None


@pytest.mark.parametrize("name", CLASSIC_CONTROL)
def test_steps_equal_gymnax(name: str) -> None:
    b, n = both(name), 16
    keys = jax.random.split(jax.random.key(1), n)
    ours = jax.vmap(b.env.reset)(keys)
    assert_same_bits(ours, jax.vmap(lambda key: b.game.reset_env(key, b.params))(keys))
    rng = np.random.default_rng(0)
    state, ended = ours[1], 0
    for t in range(120):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(2), t), n)
        action = rng.integers(0, b.env.spec.num_actions, n).astype(np.int32)
        obs, after, reward, terminated, truncated, info = b.ours(keys, state, action)
        obs_, after_, reward_, terminated_, _ = b.theirs(keys, state, action)
        assert_same_bits((obs, after, reward, terminated), (obs_, after_, reward_, terminated_), f"step {t}:")
        assert not truncated.any() and info == {}
        state, ended = after, ended + int(terminated.sum())
    assert (ended > 0) == (name == "CartPole-v1")  # random play falls over, but solves neither of the others


@pytest.mark.parametrize("name", CLASSIC_CONTROL)
def test_the_limit_truncates_and_does_not_terminate(name: str) -> None:
    b = both(name)
    keys = jax.random.split(jax.random.key(0), 16)
    _, state = jax.vmap(b.env.reset)(keys)
    for left in (2, 1, 0):
        at = state.replace(time=jnp.full(16, LIMITS[name] - 1 - left, jnp.int32))
        *_, terminated, truncated, _ = b.ours(keys, at, jnp.zeros(16, jnp.int32))
        assert not terminated.any()
        assert truncated.tolist() == [left == 0] * 16


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("CartPole-v1", {"x": 3.0}),
        ("Acrobot-v1", {"joint_angle1": np.pi, "joint_angle2": 0.0}),
        ("MountainCar-v0", {"position": 0.59, "velocity": 0.07}),
    ],
)
def test_an_end_terminates_even_at_the_limit(name: str, end: dict[str, float]) -> None:
    b = both(name)
    keys = jax.random.split(jax.random.key(0), 16)
    _, state = jax.vmap(b.env.reset)(keys)
    state = state.replace(**{field: jnp.full(16, value, jnp.float32) for field, value in end.items()})
    for time in (3, LIMITS[name] - 1):
        at = state.replace(time=jnp.full(16, time, jnp.int32))
        *_, terminated, truncated, _ = b.ours(keys, at, jnp.ones(16, jnp.int32))
        assert terminated.all() and not truncated.any()


def test_a_whole_episode_of_doing_nothing_is_cut_off_at_the_limit() -> None:
    env = gymnax_env("MountainCar-v0")
    _, state = env.reset(jax.random.key(0))

    def tick(state: Any, key: Any) -> Any:
        _, state, reward, terminated, truncated, _ = env.step(key, state, jnp.int32(1))
        return jax.tree.map(lambda x: jnp.asarray(x), state), (reward, terminated, truncated)

    state = jax.tree.map(jnp.asarray, state)
    _, (reward, terminated, truncated) = jax.lax.scan(tick, state, jax.random.split(jax.random.key(1), 200))
    assert reward.sum() == -200 and not terminated.any()
    assert np.flatnonzero(truncated).tolist() == [199]
