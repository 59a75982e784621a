"""A stream of lives: what each step pays, what a death costs, and what is no death."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import mxnb
from mxnb.envs import chains
from mxnb.envs.api import Env, Spec
from mxnb.envs.survival import survival
from mxnb.envs.vector import vectorise

DIE, LIVE, CUT = 0, 1, 2


@struct.dataclass
class Clock:
    """Steps lived."""

    t: Any


def clock(shape: tuple[int, ...] = (2,), dtype: Any = jnp.float32) -> Env:
    """Counts; action 0 dies, 2 is cut off. Paid 10 + t; t is never 0, so that an empty observation is told apart."""

    def look(state: Clock) -> Any:
        return jnp.broadcast_to(state.t + 1, shape).astype(dtype)

    def reset(key: Any) -> Any:
        state = Clock(jnp.zeros((), jnp.int32))
        return look(state), state

    def step(key: Any, state: Clock, action: Any) -> Any:
        state = Clock(state.t + 1)
        info = {"minutes": state.t.astype(jnp.float32)}
        return look(state), state, 10.0 + state.t, action == DIE, action == CUT, info

    spec = Spec("clock-v0", shape, dtype, num_actions=3, info=("minutes",))
    return Env(spec, reset, step, lambda state: jnp.array([True, True, False]), lambda state: jnp.full((4, 4, 3), 90))


def play(env: Env, actions: Any) -> list[dict[str, Any]]:
    """One row a step: what was paid, how it stands, and what is seen then."""
    venv = vectorise(env, 1)
    envs, rows = venv.init(jax.random.key(0)), []
    step = jax.jit(venv.step)
    for action in actions:
        mask = envs.mask
        envs, seen = step(envs, jnp.array([action]))
        rows.append(
            {
                "paid": float(seen.reward[0]),
                "ends": bool(seen.terminated[0]),
                "cut": bool(seen.truncated[0]),
                "obs": np.asarray(envs.obs[0]).tolist(),
                "final": np.asarray(seen.final_obs[0]).tolist(),
                "mask": None if mask is None else np.asarray(mask[0]).tolist(),
                **{name: float(value[0]) for name, value in seen.info.items()},
            }
        )
    return rows


def test_a_death_costs_its_chain() -> None:
    """Two steps lived, a death with the second, three empty steps, and a new life."""
    rows = play(survival(clock(), 3), [LIVE, DIE, LIVE, CUT, DIE, LIVE])
    assert [row["paid"] for row in rows] == [1, 1, 0, 0, 0, 1]
    assert [row["ends"] for row in rows] == [False, False, False, False, True, False]
    assert not any(row["cut"] for row in rows)
    empty = lambda left: [0.0, 0.0, pytest.approx(left / 3)]
    assert [row["obs"] for row in rows] == [[2, 2, 0], empty(3), empty(2), empty(1), [1, 1, 0], [2, 2, 0]]
    assert [row["tick/alive"] for row in rows] == [1, 1, 0, 0, 0, 1] and {row["tick/tau"] for row in rows} == {1.0}
    assert [row["life"] for row in rows] == [1, 2, 2, 2, 2, 1]
    assert [row["cause/death"] for row in rows] == [0, 1, 1, 1, 1, 0]  # still known when the chain ends
    assert [row["minutes"] for row in rows] == [1, 2, 2, 2, 2, 1]
    assert [row["mask"] for row in rows] == [[True, True, False]] * 2 + [[True] * 3] * 3 + [[True, True, False]]
    assert rows[4]["episode_return"] == 2 and rows[4]["episode_length"] == 5


def test_a_collapsed_death_is_one_transition() -> None:
    rows = play(survival(clock(), 3, chain="collapsed"), [LIVE, DIE, LIVE, DIE])
    assert [row["paid"] for row in rows] == [1, 1, 1, 1] and [row["tick/tau"] for row in rows] == [1, 4, 1, 4]
    assert [row["ends"] for row in rows] == [False, True, False, True]
    assert [row["obs"] for row in rows] == [[2, 2, 0], [1, 1, 0]] * 2 and {row["tick/alive"] for row in rows} == {1.0}


@pytest.mark.parametrize("chain", ["explicit", "collapsed"])
def test_a_limit_is_no_death(chain: str) -> None:
    rows = play(survival(clock(), 3, chain=chain), [LIVE, CUT, LIVE])
    assert [row["cut"] for row in rows] == [False, True, False] and not any(row["ends"] for row in rows)
    assert rows[1]["final"] == [3, 3, 0] and rows[1]["obs"] == [1, 1, 0] and rows[1]["cause/limit"] == 1
    assert [row["paid"] for row in rows] == [1, 1, 1] and rows[1]["tick/tau"] == 1


def test_a_death_that_costs_nothing() -> None:
    rows = play(survival(clock(), 0), [LIVE, DIE, LIVE])
    assert [row["ends"] for row in rows] == [False, True, False] and [row["paid"] for row in rows] == [1, 1, 1]
    assert rows[1]["obs"] == [1, 1, 0]


def test_the_native_reward() -> None:
    rows = play(survival(clock(), 2, reward="native"), [LIVE, DIE, LIVE, LIVE, LIVE])
    assert [row["paid"] for row in rows] == [11, 12, 0, 0, 11]


def test_an_empty_step_tells_of_nothing() -> None:
    """What an environment tells of a step alone is 0 in empty ones; what it tells at the end stays."""
    base = clock()
    step = lambda key, state, action: (*(out := base.step(key, state, action))[:5], out[5] | {"ticks": jnp.ones(())})
    spec = replace(base.spec, step_means=(("train/ticks", "ticks"),), step_maxima=(("stats/latest", "minutes"),))
    rows = play(survival(replace(base, spec=spec, step=step), 2), [LIVE, DIE, LIVE, LIVE, LIVE])
    assert [row["ticks"] for row in rows] == [1, 1, 0, 0, 1] and [row["minutes"] for row in rows] == [1, 2, 2, 2, 1]


def test_a_win_is_no_death() -> None:
    base = clock()

    def step(key: Any, state: Clock, action: Any) -> Any:
        obs, state, paid, over, _, info = base.step(key, state, action)
        stands = {"cause/alive": ~over, "cause/death": over & False, "cause/limit": over & False, "cause/win": over}
        return obs, state, paid, over, over & False, info | {k: v.astype(jnp.float32) for k, v in stands.items()}

    causes = ("cause/alive", "cause/death", "cause/limit", "cause/win")
    spec = Spec("won-v0", (2,), num_actions=3, info=("minutes", *causes))
    env = survival(Env(spec, base.reset, step), 3)
    rows = play(env, [LIVE, DIE, LIVE])
    assert [row["cut"] for row in rows] == [False, True, False] and rows[1]["cause/win"] == 1
    assert env.spec.info == ("minutes", *causes, "life", "tick/alive", "tick/tau")


@pytest.mark.parametrize(("dtype", "full"), [(jnp.uint8, 255), (jnp.float32, 1.0)])
def test_pictures_get_a_channel(dtype: Any, full: Any) -> None:
    env = survival(clock((4, 5, 3), dtype), 2)
    assert env.spec.obs_shape == (4, 5, 4)
    key = jax.random.key(0)
    obs, state = env.reset(key)
    assert obs.dtype == dtype and obs.shape == (4, 5, 4) and not obs[..., 3].any()
    obs, state, *_ = env.step(key, state, jnp.int32(DIE))
    assert not obs[..., :3].any() and (obs[..., 3] == full).all()
    obs, state, *_ = env.step(key, state, jnp.int32(LIVE))
    np.testing.assert_allclose(obs[..., 3], full / 2, atol=0.51 if full == 255 else 1e-6)
    assert int(env.render(state).max()) == 30  # darkened


@pytest.mark.parametrize("shape", [(), (2,)])
@pytest.mark.parametrize("dtype", [jnp.int32, bool])
def test_whole_numbers_still_tell_how_much_is_left(shape: Any, dtype: Any) -> None:
    env = survival(clock(shape, dtype), 4)
    key = jax.random.key(0)
    obs, state = env.reset(key)
    assert (
        (obs.shape, obs.dtype)
        == (env.spec.obs_shape, env.spec.obs_dtype)
        == ((max(shape, default=1) + 1,), jnp.float32)
    )
    seen = []
    for action in (DIE, LIVE, LIVE, LIVE):
        obs, state, *_ = env.step(key, state, jnp.int32(action))
        seen.append(float(obs[-1]))
    assert seen == [1.0, 0.75, 0.5, 0.25]


def test_pictures_of_bits_are_not_packed() -> None:
    """The new channel lies between their bits; packed, it would come back as 0 or 1."""
    env = mxnb.make("asterix")
    assert env.spec.num_binary and survival(env, 5).spec.num_binary == 0
    report = mxnb.check(survival(env, 5))
    assert report.ok, report


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"r_reset": -1}, "r_reset is -1; a death costs a whole number of steps"),
        ({"r_reset": 2.5}, "r_reset is 2.5; a death costs a whole number"),
        ({"chain": "no"}, "chain is 'no'; use 'explicit' or 'collapsed'"),
        ({"reward": "no"}, "reward is 'no'; use 'alive' or 'native'"),
    ],
)
def test_bad_input(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        survival(clock(), **given)


def test_a_stream_is_made_once() -> None:
    with pytest.raises(ValueError, match="survival-clock-v0 is an endless stream already"):
        survival(survival(clock()))


@pytest.mark.parametrize("death", [[[0.1]], [[0.1, 2.0]]])
def test_deaths_that_are_no_probabilities_are_told(death: Any) -> None:
    mdp = chains.MDP(np.ones((1, 2, 1)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="death must be 1 x 2 probabilities"):
        chains.from_table("mortal", mdp, death=death)


@pytest.mark.parametrize("chain", ["explicit", "collapsed"])
def test_the_gain_is_that_of_renewal(chain: str) -> None:
    """A hazard of 0.1 and 9 empty steps: 1 / (1 + 0.1 * 9), within 5 standard errors."""
    mdp = chains.MDP(np.ones((1, 1, 1)), np.ones((1, 1)))
    env = survival(chains.from_table("mortal", mdp, death=[[0.1]]), 9, chain=chain)
    venv = vectorise(env, 64)

    def tick(envs: Any, _: Any) -> Any:
        envs, seen = venv.step(envs, jnp.zeros(64, jnp.int32))
        return envs, (seen.reward.sum(), seen.info["tick/tau"].sum(), seen.terminated.sum())

    paid, took, deaths = (float(x.sum()) for x in jax.lax.scan(tick, venv.init(jax.random.key(1)), None, 2000)[1])
    expected = 1 / (1 + 0.1 * 9)
    error = expected * (1 - expected) * np.sqrt(0.9 / deaths)  # geometric lives: cv = sqrt(1 - hazard)
    assert paid / took == pytest.approx(expected, abs=5 * error + 0.002)


def test_it_passes_the_checks_of_an_environment() -> None:
    for chain in ("explicit", "collapsed"):
        report = mxnb.check(survival(mxnb.make("cartpole-v1"), 5, chain=chain))
        assert report.ok, report


def test_chains_walk_as_their_tables_say() -> None:
    """Frequencies of next states against the table, within 5 standard errors."""
    mdp = chains.river_swim()
    env = chains.chain("river-swim")
    keys = jax.random.split(jax.random.key(0), 4000)
    for state in range(6):
        for action in (0, 1):
            at = chains.ChainState(jnp.int32(state))
            obs, _, paid, ends, cut, _ = jax.vmap(env.step, in_axes=(0, None, None))(keys, at, jnp.int32(action))
            p = mdp.transition[state, action]
            assert (np.abs(np.asarray(obs.mean(0)) - p) <= 5 * np.sqrt(p * (1 - p) / 4000) + 1e-9).all()
            np.testing.assert_allclose(paid, mdp.reward[state, action])
            assert not ends.any() and not cut.any()
    with pytest.raises(ValueError, match="there is no chain 'x'; choose from two-states"):
        chains.chain("x")
    with pytest.raises(ValueError, match="must be probabilities that sum to 1"):
        chains.from_table("half", chains.MDP(np.full((1, 1, 1), 0.5), np.zeros((1, 1))))


def test_the_loop_of_the_memory_task() -> None:
    env = chains.memory_loop()
    key = jax.random.key(3)
    obs, state = env.reset(key)
    cue = int(state.cue)
    assert obs.tolist() == [1.0 - 2.0 * cue, 0.0]
    for t in range(1, 6):
        obs, state, _, ends, _, _ = env.step(key, state, jnp.int32(1 - cue))  # nothing counts yet
        assert obs.tolist() == [0.0, 0.0] and not ends, t
    obs, state, *_ = env.step(key, state, jnp.int32(0))
    assert obs.tolist() == [0.0, 1.0]
    assert bool(env.step(key, state, jnp.int32(1 - cue))[3]) and not bool(env.step(key, state, jnp.int32(cue))[3])
    assert int(env.step(key, state, jnp.int32(cue))[1].t) == 0
