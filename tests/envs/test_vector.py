"""The world queue against a queue written with plain Python lists, on the same keys, bit for bit."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BOTH, GO, TERMINATE, TRUNCATE, assert_same_bits, compilations, driven, host, masked, timed

from mxnb.envs import vector
from mxnb.envs.api import Env, Spec, strong
from mxnb.envs.craftax import craftax
from mxnb.envs.gymnax_envs import gymnax_env
from mxnb.envs.vector import vectorise


class PlainQueue:
    """What `vectorise` promises, with Python lists and one environment's reset at a time."""

    def __init__(
        self,
        reset: Any,
        step: Any,
        num_envs: int,
        size: int,
        key: Any,
        *,
        shards: int = 1,
        autoreset: str = "same_step",
    ) -> None:
        self.make, self.step_all, self.n, self.size = reset, step, num_envs, size
        self.part, self.waits = num_envs // shards, autoreset == "next_step"
        key, first, queue = jax.random.split(key, 3)
        each = lambda key: list(jax.random.split(key, shards)) if shards > 1 else [key]
        self.keys = each(key)
        self.worlds = self.fresh(first, num_envs)
        self.ready = [self.fresh(k, size) for k in each(queue)]
        self.used = list(self.worlds)  # every world ever handed out, in order
        self.returns = np.zeros(num_envs, np.float32)
        self.lengths = np.zeros(num_envs, np.int32)
        self.waiting = np.zeros(num_envs, bool)

    def fresh(self, key: Any, count: int) -> list[Any]:
        return [host(self.make(k)) for k in jax.random.split(key, count)]

    def stacked(self) -> Any:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *self.worlds)

    def states(self) -> Any:
        """As the environment's step takes them: keys are keys again."""

        def typed(x: Any, like: Any) -> Any:
            is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
            return jax.random.wrap_key_data(jnp.asarray(x)) if is_key else x

        return jax.tree.map(typed, self.stacked()[1], jax.eval_shape(self.make, self.keys[0])[1])

    def step(self, action: Any) -> SimpleNamespace:
        step_keys = []
        for s, key in enumerate(self.keys):
            self.keys[s], step_key = jax.random.split(key)
            step_keys.append(jax.random.split(step_key, self.part))
        obs, state, reward, terminated, truncated, info = host(
            self.step_all(jnp.concatenate(step_keys), self.states(), action)
        )
        self.worlds = [jax.tree.map(lambda x, i=i: x[i], (obs, state)) for i in range(self.n)]
        played = ~self.waiting
        reward = np.where(played, reward, np.float32(0))
        terminated, truncated = terminated & played, truncated & played
        self.returns += reward
        self.lengths += played
        done = terminated | truncated
        starts = self.waiting if self.waits else done
        seen = SimpleNamespace(
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            final_obs=obs,
            info=info,
            done=done,
            starts=starts,
        )
        seen.returns, seen.lengths = self.returns.copy(), self.lengths.copy()
        self.returns, self.lengths = np.where(done, np.float32(0), self.returns), np.where(done, 0, self.lengths)
        self.lengths = self.lengths.astype(np.int32)
        for i in np.flatnonzero(starts):
            shard = i // self.part
            if not self.ready[shard]:
                self.keys[shard], key = jax.random.split(self.keys[shard])
                self.ready[shard] = self.fresh(key, self.size)
            self.worlds[i] = self.ready[shard].pop(0)
            self.used.append(self.worlds[i])
        if self.waits:
            seen.final_obs = self.stacked()[0]
            self.waiting = done
        return seen


def check_same(vec: Any, tick: Any, plain: PlainQueue, seen: Any, words: str = "") -> None:
    obs, state = plain.stacked()
    assert_same_bits((vec.obs, vec.env), (obs, state), words)
    assert_same_bits(vec.key, jnp.stack(plain.keys), words)
    queue = host(vec.queue)
    for shard, ready in enumerate(plain.ready):
        head = int(vec.head[shard])
        assert plain.size - head == len(ready), words
        for i, world in enumerate(ready):
            assert_same_bits(jax.tree.map(lambda x, s=shard, j=head + i: x[s, j], queue), world, words)
    ours = (tick.reward, tick.terminated, tick.truncated, tick.final_obs, tick.is_first)
    assert_same_bits(ours, (seen.reward, seen.terminated, seen.truncated, seen.final_obs, seen.starts), words)
    assert_same_bits(
        (tick.info, vec.returns, vec.lengths),
        (
            {"episode_return": seen.returns, "episode_length": seen.lengths, **seen.info},
            plain.returns,
            plain.lengths,
        ),
        words,
    )
    assert_same_bits(vec.needs_reset, plain.waiting, words)


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


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_and_both_modes_equal_a_plain_queue(shards: int, autoreset: str) -> None:
    options: Any = {"shards": shards, "autoreset": autoreset}
    venv = vectorise(ENV, N, queue_size=2, **options)
    step = jax.jit(venv.step)
    vec, plain = jax.jit(venv.init)(jax.random.key(2)), PlainQueue(RESET, STEP, N, 2, jax.random.key(2), **options)
    rng = np.random.default_rng(shards)
    for t in range(80):
        ends = rng.random(N) < rng.choice([0.05, 0.4, 0.9])
        action = np.where(ends, rng.integers(1, 4, N), GO).astype(np.int32)
        seen = plain.step(action)
        vec, tick = step(vec, action)
        check_same(vec, tick, plain, seen, f"step {t}, {shards} shards, {autoreset}:")


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


def test_next_step_keeps_the_last_observation_and_then_ignores_an_action() -> None:
    venv = vectorise(masked(), 4, autoreset="next_step")
    step = jax.jit(venv.step)
    vec = jax.jit(venv.init)(jax.random.key(0))
    resets = ends = 0
    for t in range(60):
        waiting = np.asarray(vec.needs_reset)
        expected = (np.asarray(vec.obs[:, :4]) == 1) | waiting[:, None]  # before a reset everything is legal
        np.testing.assert_array_equal(vec.mask, expected)
        before = vec
        vec, tick = step(vec, jnp.full(4, t % 4, jnp.int32))
        done = np.asarray(tick.terminated | tick.truncated)
        np.testing.assert_array_equal(tick.is_first, waiting)
        np.testing.assert_array_equal(vec.needs_reset, done)
        np.testing.assert_array_equal(tick.final_obs, vec.obs)  # in this mode nothing lies between them
        assert (np.asarray(tick.reward)[waiting] == 0).all() and not (done & waiting).any()
        assert (np.asarray(vec.lengths)[waiting] == 0).all()  # a reset is no step
        np.testing.assert_array_equal(tick.info["episode_length"][done], before.lengths[done] + 1)
        resets, ends = resets + int(waiting.sum()), ends + int(done.sum())
    assert ends > 30 and resets >= ends - 4


def test_both_modes_play_the_same_episodes() -> None:
    """One environment: the same worlds and lengths, whether its resets take a tick or none."""
    seen = {}
    for autoreset in vector.AUTORESET:
        venv = vectorise(timed(9, shortest=2), 1, queue_size=4, autoreset=autoreset)
        init = jax.jit(venv.init)(jax.random.key(0))
        step = jax.jit(lambda v, venv=venv: venv.step(v, jnp.zeros(1, jnp.int32)))
        lengths = []
        for _ in range(200):
            init, tick = step(init)
            if tick.truncated[0]:
                lengths.append(int(tick.info["episode_length"][0]))
        seen[autoreset] = lengths
    # An episode's length is drawn at its reset, from the queue's own keys.
    count = min(map(len, seen.values()))
    assert count > 20 and len(set(seen["same_step"])) > 3
    assert seen["same_step"][:5] == seen["next_step"][:5]


def test_statistics_per_agent_and_continuous_actions() -> None:
    spec = Spec("pair-v0", (1,), action_low=(-1.0, -1.0), action_high=(1.0, 1.0), agents=("a", "b"))

    def reset(key: Any) -> Any:
        return jnp.zeros((2, 1)), jnp.zeros((2, 1))

    def step(key: Any, state: Any, action: Any) -> Any:
        state = state + action.sum(-1, keepdims=True)
        never = jnp.zeros((), bool)
        return state, state, action[:, 0], (state > 3).any(), never, {}

    venv = vectorise(Env(spec, reset, step), 3)
    vec = jax.jit(venv.init)(jax.random.key(0))
    action = jnp.tile(jnp.array([[1.0, 0.0], [0.5, 0.0]])[None], (3, 1, 1)).at[1].mul(0.0)
    step_all = jax.jit(venv.step)
    for _ in range(4):
        vec, tick = step_all(vec, action)
    assert tick.reward.shape == (3, 2)
    assert tick.terminated.tolist() == [True, False, True]
    assert tick.info["episode_return"].tolist() == [[4, 2], [0, 0], [4, 2]]
    assert vec.returns.tolist() == [[0, 0]] * 3 and vec.lengths.tolist() == [0, 4, 0]


@pytest.mark.parametrize("name", ["FrozenLake-misc", "Catch-bsuite", "CartPole-v1"])
def test_episodes_are_as_long_and_pay_as_much_as_with_auto_reset(name: str) -> None:
    """Against gymnax's own resets on every step, in distribution: 3 standard errors, fixed keys."""
    import gymnax

    num_envs, steps = 64, 600
    game, params = gymnax.make(name)
    env = gymnax_env(name)
    venv = vectorise(env, num_envs, queue_size=8)

    @jax.jit
    def ours(key: Any) -> Any:
        def tick(vec: Any, key: Any) -> Any:
            vec, seen = venv.step(vec, jax.random.randint(key, (num_envs,), 0, env.spec.num_actions))
            done = seen.terminated | seen.truncated
            return vec, (done, seen.info["episode_length"], seen.info["episode_return"])

        init_key, key = jax.random.split(key)
        return jax.lax.scan(tick, venv.init(init_key), jax.random.split(key, steps))[1]

    @jax.jit
    def theirs(key: Any) -> Any:
        def tick(carry: Any, key: Any) -> Any:
            state, length, total = carry
            action_key, step_key = jax.random.split(key)
            action = jax.random.randint(action_key, (num_envs,), 0, env.spec.num_actions)
            out = jax.vmap(game.step, (0, 0, 0, None))(jax.random.split(step_key, num_envs), state, action, params)
            length, total = length + 1, total + out[2]
            done = out[3] | out[4]
            return (out[1], jnp.where(done, 0, length), jnp.where(done, 0.0, total)), (done, length, total)

        init_key, key = jax.random.split(key)
        first = jax.vmap(game.reset, (0, None))(jax.random.split(init_key, num_envs), params)[1]
        start = (strong(first), jnp.zeros(num_envs, jnp.int32), jnp.zeros(num_envs))
        return jax.lax.scan(tick, start, jax.random.split(key, steps))[1]

    with jax.numpy_rank_promotion("allow"):
        sides = [jax.device_get(play(jax.random.key(seed))) for seed, play in enumerate((ours, theirs))]
    for which in (1, 2):
        one, two = (side[which][side[0]] for side in sides)
        assert min(len(one), len(two)) > 500
        error = np.sqrt(one.var(ddof=1) / len(one) + two.var(ddof=1) / len(two))
        assert abs(one.mean() - two.mean()) <= 3 * error + 1e-9, (one.mean(), two.mean(), error)


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

    env = Env(Spec("ints-v0", (), num_actions=2), lambda key: (jnp.float32(0), jnp.float32(0)), step)
    venv = vectorise(env, 2)
    vec = venv.init(jax.random.key(0))
    step_ = jax.jit(lambda v: jax.lax.scan(lambda v, _: venv.step(v, jnp.zeros(2, jnp.int32)), v, None, 4))
    vec, tick = step_(vec)
    assert vec.obs.dtype == jnp.float32 and tick.reward.dtype == jnp.float32
    assert tick.terminated[:, 0].tolist() == [False, False, True, False]
    assert tick.info["episode_return"][:, 0].tolist() == [1, 2, 3, 1]


def test_default_queue_size_follows_the_worlds_size(monkeypatch: pytest.MonkeyPatch) -> None:
    size = lambda n: jax.tree.leaves(jax.eval_shape(vectorise(ENV, n).init, jax.random.key(0)).queue)[0].shape[1]
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
    with pytest.raises(ValueError, match=r"autoreset is 'disabled'; use 'same_step' \(PPO\) or 'next_step'"):
        vectorise(ENV, 2, autoreset="disabled")
    with pytest.raises(ValueError, match="shards is 4, which does not divide num_envs = 6; use shards = 3"):
        vectorise(ENV, 6, shards=4)
    with pytest.raises(ValueError, match="queue_size is -1; it must be at least 1, or 0"):
        vectorise(ENV, 2, queue_size=-1)


def test_craftax_equals_a_plain_queue() -> None:
    env, num_envs, ticks = craftax(classic=True), 16, 200
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
