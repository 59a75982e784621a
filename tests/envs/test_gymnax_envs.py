"""gymnax's classic tasks: the same numbers as gymnax itself, and cut-offs told apart from ends."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces
from tiny import assert_same_bits

from mxnb.build import ENVS, make
from mxnb.config import GYMNAX
from mxnb.envs.check import check
from mxnb.envs.gymnax_envs import from_gymnax, gymnax_env
from mxnb.kernels.packing import pack, unpack

LIMITS = {"CartPole-v1": 500, "Acrobot-v1": 500, "MountainCar-v0": 200}


CLASSIC_CONTROL = tuple(LIMITS)


@pytest.fixture(autouse=True)
def _gymnax_promotes() -> Iterator[None]:
    """Some of gymnax's tasks rely on rank promotion, which our own code may not."""
    with jax.numpy_rank_promotion("allow"):
        yield


BITS = ("Asterix", "Breakout", "Freeway", "SpaceInvaders", "Catch", "DeepSea", "FrozenLake")
SLOW = ("Asterix-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar")  # they compile for half a minute each


def tasks(names: Any) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


@cache
def both(name: str) -> Any:
    env = gymnax_env(name)
    game, params = gymnax.make(name)
    theirs = jax.jit(jax.vmap(lambda key, state, action: game.step(key, state, action, params)))

    def look(obs: Any) -> Any:
        if name.startswith("FrozenLake"):
            return jax.nn.one_hot(obs, 16)
        return jnp.asarray(obs, jnp.float32).reshape(-1, *env.spec.obs_shape)

    ours = jax.jit(jax.vmap(env.step))
    return SimpleNamespace(env=env, game=game, params=params, theirs=theirs, ours=ours, look=look)


def assert_numbers(a: Any, b: Any, words: str) -> None:
    """Equal but for the last bit: the two are compiled in different programs."""
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=words)


@pytest.mark.parametrize("name", tasks(GYMNAX))
def test_spec_says_what_the_environment_does(name: str) -> None:
    b = both(name)
    spec, actions = b.env.spec, b.game.action_space(b.params)
    obs, state = b.env.reset(jax.random.key(0))
    assert (obs.shape, obs.dtype) == (spec.obs_shape, spec.obs_dtype) and spec.obs_dtype == jnp.float32
    assert spec.num_actions == getattr(actions, "n", 0)
    if not spec.num_actions:
        assert spec.action_low is not None and spec.action_high is not None
        np.testing.assert_array_equal(np.broadcast_to(actions.low, actions.shape), np.float32(spec.action_low))
        np.testing.assert_array_equal(np.broadcast_to(actions.high, actions.shape), np.float32(spec.action_high))
    assert spec.max_steps == b.params.max_steps_in_episode
    assert spec.id == name.lower() and spec.id in ENVS and make(name).spec == spec
    assert b.env.action_mask(state) is None


@pytest.mark.parametrize("name", tasks(GYMNAX))
def test_steps_equal_gymnax(name: str) -> None:
    """Step by step with gymnax's own step, which splits its key and resets: its last observation is ours."""
    b, n = both(name), 8
    keys = jax.random.split(jax.random.key(1), n)
    obs, state = jax.jit(jax.vmap(b.env.reset))(keys)
    assert_numbers(obs, b.look(jax.jit(jax.vmap(lambda key: b.game.reset_env(key, b.params)))(keys)[0]), "reset:")
    sample = jax.jit(jax.vmap(b.game.action_space(b.params).sample))
    ended = 0
    for t in range(60):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(2), t), n)
        action = sample(keys)
        step_keys = jax.vmap(jax.random.split)(keys)[:, 0]
        obs, after, reward, terminated, truncated, info = b.ours(step_keys, state, action)
        _, after_, reward_, terminated_, truncated_, info_ = b.theirs(keys, state, action)
        words = f"step {t}:"
        assert_numbers(obs, b.look(info_["final_observation"]), words)
        assert_numbers(reward, jnp.asarray(reward_, jnp.float32).reshape(n), words)
        assert_same_bits((terminated, truncated), (terminated_, truncated_ & ~terminated_), words)
        assert info == {}
        done = np.asarray(terminated | truncated)
        # On from gymnax's state, which begins an episode where one ended; elsewhere it must be ours.
        state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype).reshape(like.shape), after_, after)
        rows = lambda tree, on=~done: jax.tree.map(lambda x: np.asarray(x)[on], tree)
        jax.tree.map(partial(assert_numbers, words=words), rows(state), rows(after))
        ended += int(done.sum())
    if name in ("CartPole-v1", "Catch-bsuite", "DeepSea-bsuite", "FrozenLake-misc", "Breakout-MinAtar"):
        assert ended > 0


@pytest.mark.parametrize("name", tasks(sorted(n for n in GYMNAX if n.partition("-")[0] in BITS)))
def test_bits_are_bits(name: str) -> None:
    b = both(name)
    shape = b.env.spec.obs_shape
    assert b.env.spec.num_binary == np.prod(shape)

    @jax.jit
    def look(key: Any) -> Any:
        def tick(state: Any, key: Any) -> Any:
            action = jax.random.randint(key, (), 0, b.env.spec.num_actions)
            obs, after, _, terminated, truncated, _ = b.env.step(key, state, action)
            fresh = b.env.reset(key)[1]
            done = terminated | truncated
            return jax.tree.map(lambda x, y: jnp.where(done, y, x), after, fresh), obs

        return jax.lax.scan(tick, b.env.reset(key)[1], jax.random.split(key, 2000))[1]

    obs = look(jax.random.key(0))
    assert np.isin(obs, (0, 1)).all()
    packed = pack(obs, b.env.spec.num_binary, shape)
    assert packed.bits.nbytes == 2000 * -(-int(np.prod(shape)) // 8)
    assert_same_bits(unpack(packed, b.env.spec.num_binary, shape), obs)


@pytest.mark.parametrize("name", tasks(GYMNAX))
def test_every_task_has_a_picture(name: str) -> None:
    b = both(name)
    _, state = b.env.reset(jax.random.key(3))
    frame = b.env.render(state)
    assert frame.shape == (240, 240, 3) and frame.dtype == np.uint8
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 2  # not an empty sheet


def test_pictures_follow_the_state() -> None:
    env = both("CartPole-v1").env
    _, state = env.reset(jax.random.key(0))
    left, right = (env.render(state.replace(x=jnp.float32(x))) for x in (-1.5, 1.5))
    dark = lambda frame: np.argwhere(frame.sum(-1) < 150)[:, 1].mean()
    assert dark(left) < 100 < 140 < dark(right)


def test_a_state_that_changes_type_keeps_its_numbers() -> None:
    """Counts that begin as whole numbers and go on in halves; gymnax's Python states allow it."""

    @struct.dataclass
    class Half:
        x: Any
        time: Any

    class Game:
        name = "Half"
        observation_space = staticmethod(lambda params: spaces.Box(-9, 9, (1,)))
        action_space = staticmethod(lambda params: spaces.Box(-1, 1, (2, 1)))
        is_truncated = staticmethod(lambda state, params: state.time >= 3)

        def reset_env(self, key: Any, params: Any) -> Any:
            return jnp.zeros(1), Half(0, 0)

        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            state = Half(state.x + 0.5 * action.sum(), state.time + 1)
            return state.x[None], state, 0.0, False, {}

    env = from_gymnax(Game(), SimpleNamespace(max_steps_in_episode=3))
    obs, state = env.reset(jax.random.key(0))
    for _ in range(3):
        obs, state, _, _, truncated, _ = env.step(jax.random.key(0), state, jnp.ones(2))
    assert float(state.x) == float(obs[0]) == 3.0 and bool(truncated) and env.spec.action_low == (-1.0, -1.0)


def test_ones_own_gymnax_environment() -> None:
    from gymnax.environments.misc.frozen_lake import FrozenLake

    game = FrozenLake(map_name="8x8")
    env = from_gymnax(game, game.default_params, env_id="lake-8x8-v0")
    assert env.spec.id == "lake-8x8-v0" and env.spec.obs_shape == (64,) and env.spec.max_steps == 200
    obs, _state = env.reset(jax.random.key(0))
    assert obs.sum() == 1 and obs[0] == 1 and check(env).ok


def test_a_task_that_downloads_is_refused() -> None:
    with pytest.raises(ValueError, match="downloads its images when it is made; mxnb runs without a network"):
        make("MNISTBandit-bsuite")


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
