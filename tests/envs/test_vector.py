"""The world queue against a queue written with plain Python lists, on the same keys, bit for bit."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BOTH, GO, TERMINATE, TRUNCATE, assert_same_bits, compilations, driven, host, masked

from mxnb.envs import vector
from mxnb.envs.api import Env
from mxnb.envs.craftax import craftax_classic
from mxnb.envs.vector import vectorise


class PlainQueue:
    """What `vectorise` promises, with Python lists and one environment's reset at a time."""

    def __init__(self, reset: Any, step: Any, num_envs: int, size: int, key: Any) -> None:
        self.make, self.step_all, self.n, self.size = reset, step, num_envs, size
        self.key, first, queue = jax.random.split(key, 3)
        self.worlds = self.fresh(first, num_envs)
        self.ready = self.fresh(queue, size)
        self.used = list(self.worlds)  # every world ever handed out, in order
        self.returns = np.zeros(num_envs, np.float32)
        self.lengths = np.zeros(num_envs, np.int32)

    def fresh(self, key: Any, count: int) -> list[Any]:
        return [host(self.make(k)) for k in jax.random.split(key, count)]

    def stacked(self) -> Any:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *self.worlds)

    def states(self) -> Any:
        """As the environment's step takes them: keys are keys again."""

        def typed(x: Any, like: Any) -> Any:
            is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
            return jax.random.wrap_key_data(jnp.asarray(x)) if is_key else x

        return jax.tree.map(typed, self.stacked()[1], jax.eval_shape(self.make, self.key)[1])

    def step(self, action: Any) -> SimpleNamespace:
        self.key, step_key = jax.random.split(self.key)
        keys = jax.random.split(step_key, self.n)
        obs, state, reward, terminated, truncated, info = host(self.step_all(keys, self.states(), action))
        self.worlds = [jax.tree.map(lambda x, i=i: x[i], (obs, state)) for i in range(self.n)]
        self.returns += reward
        self.lengths += 1
        done = terminated | truncated
        seen = SimpleNamespace(
            reward=reward, terminated=terminated, truncated=truncated, final_obs=obs, info=info, done=done
        )
        seen.returns, seen.lengths = self.returns.copy(), self.lengths.copy()
        for i in np.flatnonzero(done):
            if not self.ready:
                self.key, key = jax.random.split(self.key)
                self.ready = self.fresh(key, self.size)
            self.worlds[i] = self.ready.pop(0)
            self.used.append(self.worlds[i])
            self.returns[i], self.lengths[i] = 0, 0
        return seen


def check_same(vec: Any, tick: Any, plain: PlainQueue, seen: Any, words: str = "") -> None:
    obs, state = plain.stacked()
    assert_same_bits((vec.obs, vec.env), (obs, state), words)
    assert_same_bits(vec.key, plain.key, words)
    head = int(vec.head)
    queue = host(vec.queue)
    assert plain.size - head == len(plain.ready), words
    for i, world in enumerate(plain.ready):
        assert_same_bits(jax.tree.map(lambda x, j=head + i: x[j], queue), world, words)
    ours = (tick.reward, tick.terminated, tick.truncated, tick.final_obs, tick.is_first)
    assert_same_bits(ours, (seen.reward, seen.terminated, seen.truncated, seen.final_obs, seen.done), words)
    assert_same_bits(
        (tick.info, vec.returns, vec.lengths),
        (
            {"episode_return": seen.returns, "episode_length": seen.lengths, **seen.info},
            plain.returns,
            plain.lengths,
        ),
        words,
    )
    assert not vec.needs_reset.any()


N = 6
ENV = driven()
RESET = jax.jit(ENV.reset)
STEP = jax.jit(jax.vmap(ENV.step))


@pytest.fixture(scope="module", params=[1, 2, 3, 8])
def sized(request: pytest.FixtureRequest) -> Any:
    venv = vectorise(ENV, N, queue_size=request.param)
    return SimpleNamespace(size=request.param, venv=venv, init=jax.jit(venv.init), step=jax.jit(venv.step))


def test_queue_equals_a_plain_one_for_every_done_pattern(sized: Any) -> None:
    vec, plain = sized.init(jax.random.key(7)), PlainQueue(RESET, STEP, N, sized.size, jax.random.key(7))
    for t, pattern in enumerate(product([False, True], repeat=N)):
        how = [TERMINATE, TRUNCATE, BOTH][t % 3]
        action = np.where(pattern, how, GO).astype(np.int32)
        seen = plain.step(action)
        vec, tick = sized.step(vec, action)
        assert seen.done.tolist() == list(pattern)
        check_same(vec, tick, plain, seen, f"pattern {pattern}, queue of {sized.size}:")


def test_queue_equals_a_plain_one_in_long_random_play(sized: Any) -> None:
    rng = np.random.default_rng(sized.size)
    vec, plain = sized.init(jax.random.key(1)), PlainQueue(RESET, STEP, N, sized.size, jax.random.key(1))
    for t in range(150):
        ends = rng.random(N) < rng.choice([0.02, 0.3, 0.9])
        action = np.where(ends, rng.integers(1, 4, N), GO).astype(np.int32)
        seen = plain.step(action)
        vec, tick = sized.step(vec, action)
        check_same(vec, tick, plain, seen, f"step {t}, queue of {sized.size}:")


def test_every_world_is_used_once_and_none_are_alike(sized: Any) -> None:
    @jax.jit
    def play(vec: Any, actions: Any) -> Any:
        def tick(vec: Any, action: Any) -> Any:
            after, seen = sized.venv.step(vec, action)
            return after, (after.env.id, after.env.t, seen.is_first)

        return jax.lax.scan(tick, vec, actions)

    steps = 400
    actions = np.random.default_rng(0).choice([GO, GO, TERMINATE, TRUNCATE], (steps, N)).astype(np.int32)
    start = sized.init(jax.random.key(3))
    _, (ids, t, first) = jax.device_get(play(start, actions))
    plain = PlainQueue(RESET, STEP, N, sized.size, jax.random.key(3))
    for action in actions[:40]:
        plain.step(action)
    handed_out = np.concatenate([np.asarray(start.env.id), ids[first]])  # row by row: in the order of use
    assert first.sum() > 700
    assert len(set(handed_out.tolist())) == len(handed_out)
    expected = [int(state.id) for _, state in plain.used]
    assert handed_out[: len(expected)].tolist() == expected
    assert (t[first] == 0).all() and (t[~first] > 0).all()
    before = np.concatenate([np.asarray(start.env.id)[None], ids[:-1]])
    assert (ids == before)[~first].all()  # and nobody changes worlds in the middle of an episode


def test_final_obs_is_from_before_the_reset_and_obs_from_after_it() -> None:
    venv = vectorise(ENV, N, queue_size=2)
    step = jax.jit(venv.step)
    vec = jax.jit(venv.init)(jax.random.key(0))
    for _ in range(4):
        vec, _ = step(vec, jnp.zeros(N, jnp.int32))
    after, tick = step(vec, jnp.array([GO, TERMINATE, TRUNCATE, BOTH, GO, TRUNCATE], jnp.int32))
    assert tick.final_obs[:, 3].tolist() == [5] * N
    np.testing.assert_array_equal(tick.final_obs[:, :3], vec.obs[:, :3])
    assert after.obs[:, 3].tolist() == [5, 0, 0, 0, 5, 0]
    assert tick.is_first.tolist() == [False, True, True, True, False, True]
    assert tick.terminated.tolist() == [False, True, False, True, False, False]
    assert tick.truncated.tolist() == [False, False, True, True, False, True]
    assert tick.info["episode_length"].tolist() == [5] * N
    np.testing.assert_allclose(tick.info["episode_return"], tick.info["total"], rtol=1e-6)
    assert after.lengths.tolist() == [5, 0, 0, 0, 5, 0]
    assert after.returns[1:4].tolist() == [0, 0, 0] and after.returns[0] == tick.info["episode_return"][0]
    later, tick = step(after, jnp.zeros(N, jnp.int32))
    assert later.lengths.tolist() == [6, 1, 1, 1, 6, 1]
    np.testing.assert_array_equal(later.returns[1:4], tick.reward[1:4])


def test_mask_is_that_of_the_observation_in_the_state() -> None:
    venv = vectorise(masked(), 4)
    step = jax.jit(venv.step)
    vec = jax.jit(venv.init)(jax.random.key(0))
    resets, seen_masks = 0, set()
    for t in range(40):
        np.testing.assert_array_equal(vec.mask, np.asarray(vec.obs[:, :4]) == 1)  # bits 0..3 are the mask
        seen_masks |= {tuple(row) for row in np.asarray(vec.mask).tolist()}
        vec, tick = step(vec, jnp.full(4, t % 4, jnp.int32))
        resets += int(tick.is_first.sum())
    assert resets > 20 and len(seen_masks) == 8
    assert vectorise(ENV, 2).init(jax.random.key(0)).mask is None


def test_one_environment_never_leaks_into_another_before_a_reset() -> None:
    venv = vectorise(ENV, N, queue_size=8)
    step = jax.jit(venv.step)
    start = jax.jit(venv.init)(jax.random.key(5))
    for j in range(N):
        ours = theirs = start
        for t in range(4):
            action = jnp.zeros(N, jnp.int32)
            changed = action.at[j].set(TERMINATE if t == 3 else 7)  # 7: like GO, but not the same number
            ours, one = step(ours, action)
            theirs, two = step(theirs, changed)
            others = np.arange(N) != j
            pick = lambda tree: jax.tree.map(lambda x: np.asarray(x)[others], tree)  # noqa: B023
            lanes = lambda v: (v.env, v.obs, v.returns, v.lengths)
            assert_same_bits(pick(lanes(ours)), pick(lanes(theirs)), f"env {j} changed, step {t}:")
            assert_same_bits(pick(tuple(one)), pick(tuple(two)), f"env {j} changed, step {t}:")
        assert bool(two.is_first[j]) and not bool(one.is_first[j])


@pytest.mark.parametrize("env", [ENV, masked()], ids=lambda env: env.spec.id)
def test_state_keeps_its_types_and_the_step_compiles_once(env: Env) -> None:
    venv = vectorise(env, 4)
    init, step = jax.jit(venv.init), jax.jit(venv.step)
    action = jnp.zeros(4, jnp.int32)
    shapes = jax.eval_shape(venv.init, jax.random.key(0))
    after, _ = jax.eval_shape(venv.step, shapes, action)
    assert jax.tree.structure(shapes) == jax.tree.structure(after)
    kinds = lambda tree: [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]
    assert kinds(shapes) == kinds(after)
    assert not any(weak for *_, weak in kinds(shapes))
    vec = init(jax.random.key(0))
    with compilations() as first:
        vec, _ = step(vec, action)
    with compilations() as later:
        for _ in range(3):
            vec, _ = step(vec, action)
    assert len(first) == 1 and later == []
    carry, _ = jax.lax.scan(lambda v, a: venv.step(v, a), vec, jnp.zeros((3, 4), jnp.int32))
    assert jax.tree.structure(carry) == jax.tree.structure(vec)


def test_integer_rewards_and_observations_keep_the_contract() -> None:
    """What an environment returns may drift in type; the state's types are those of its reset."""

    def step(key: Any, state: Any, action: Any) -> Any:
        return jnp.int32(state + 1), state + 1, 1, state >= 2, jnp.zeros((), bool), {}

    env = Env(ENV.spec.__class__("ints-v0", (), num_actions=2), lambda key: (jnp.float32(0), jnp.float32(0)), step)
    venv = vectorise(env, 2)
    vec = venv.init(jax.random.key(0))
    step_ = jax.jit(lambda v: jax.lax.scan(lambda v, _: venv.step(v, jnp.zeros(2, jnp.int32)), v, None, 4))
    vec, tick = step_(vec)
    assert vec.obs.dtype == jnp.float32 and tick.reward.dtype == jnp.float32
    assert tick.terminated[:, 0].tolist() == [False, False, True, False]
    assert tick.info["episode_return"][:, 0].tolist() == [1, 2, 3, 1]


def test_default_queue_size_follows_the_worlds_size(monkeypatch: pytest.MonkeyPatch) -> None:
    size = lambda n: jax.tree.leaves(jax.eval_shape(vectorise(ENV, n).init, jax.random.key(0)).queue)[0].shape[0]
    assert size(3) == 3 and size(20) == 20
    monkeypatch.setattr(vector, "_LARGE_WORLD", 3)  # now a driven world is large
    assert size(3) == 8 and size(20) == 8


def test_large_worlds_are_the_same_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    key = jax.random.key(0)
    at_once = vector.make_worlds(ENV, key, 20)
    monkeypatch.setattr(vector, "_LARGE_WORLD", 3)
    assert_same_bits(vector.make_worlds(ENV, key, 20), at_once)


def test_wrong_sizes_and_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_envs is 0; it must be at least 1"):
        vectorise(ENV, 0)
    with pytest.raises(ValueError, match="autoreset is 'next_step'; only 'same_step' is available"):
        vectorise(ENV, 2, autoreset="next_step")
    with pytest.raises(ValueError, match="queue_size is -1; it must be at least 1, or 0"):
        vectorise(ENV, 2, queue_size=-1)


def test_craftax_equals_a_plain_queue() -> None:
    env, num_envs, ticks = craftax_classic(), 16, 200
    reset, step = jax.jit(env.reset), jax.jit(jax.vmap(env.step))
    venv = vectorise(env, num_envs)
    ours = jax.jit(venv.step)
    vec = jax.jit(venv.init)(jax.random.key(11))
    plain = PlainQueue(reset, step, num_envs, 8, jax.random.key(11))
    rng = np.random.default_rng(0)
    resets = 0
    for t in range(ticks):
        if t == 100:  # random play seldom dies this early: some players are set to their last breath
            health = jnp.where(jnp.arange(num_envs) % 2 == 0, 0, vec.env.player_health)
            vec = vec.replace(env=vec.env.replace(player_health=health))
            for i in range(0, num_envs, 2):
                obs, state = plain.worlds[i]
                plain.worlds[i] = (obs, state.replace(player_health=np.zeros_like(state.player_health)))
        action = rng.integers(0, 17, num_envs).astype(np.int32)
        seen = plain.step(action)
        vec, tick = ours(vec, action)
        check_same(vec, tick, plain, seen, f"tick {t}:")
        resets += int(seen.done.sum())
    assert resets > num_envs  # more than one queue was used up
