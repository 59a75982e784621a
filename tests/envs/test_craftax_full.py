"""Full Craftax against the game itself, its endings told apart, and pixel observations of both games."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax import constants as full
from craftax.craftax.envs.craftax_symbolic_env import CraftaxSymbolicEnvNoAutoReset
from craftax.craftax_classic import constants as classic
from tiny import assert_same_bits

from mxnb.build import make
from mxnb.envs.api import CAUSES
from mxnb.envs.craftax import craftax
from mxnb.envs.vector import make_worlds
from mxnb.kernels.packing import pack, unpack

N, STEPS = 8, 250
ENV = craftax(classic=False)
GAME = CraftaxSymbolicEnvNoAutoReset()
ACHIEVEMENTS = tuple(name for name in ENV.spec.info if name not in CAUSES)


@jax.jit
@jax.vmap
def both(key: Any, state: Any, action: Any) -> Any:
    return ENV.step(key, state, action), GAME.step_env(key, state, action, GAME.default_params)


@pytest.fixture(scope="module")
def worlds() -> Any:
    return jax.jit(lambda key: make_worlds(ENV, key, N))(jax.random.key(0))


def keys_at(t: int) -> Any:
    return jax.random.split(jax.random.fold_in(jax.random.key(3), t), N)


@pytest.fixture(scope="module")
def played(worlds: Any) -> Any:
    actions = np.random.default_rng(0).integers(0, 43, (STEPS, N)).astype(np.int32)
    obs, state = worlds
    ticks = [SimpleNamespace(obs=np.asarray(obs))]
    for t in range(STEPS):
        a, b = both(keys_at(t), state, actions[t])
        ticks.append(SimpleNamespace(obs=np.asarray(a[0]), ours=a, theirs=b))
        state = a[1]
    return ticks


def test_steps_equal_the_game(played: Any) -> None:
    for t, tick in enumerate(played[1:]):
        obs, state, reward, terminated, truncated, info = tick.ours
        obs_, state_, reward_, done_, info_ = tick.theirs
        assert_same_bits((obs, state, reward), (obs_, state_, reward_), f"step {t}:")
        assert_same_bits(terminated | truncated, done_, f"step {t}:")
        for name in ACHIEVEMENTS:  # the game reports percents, and only on an episode's last step
            np.testing.assert_array_equal(info[name] * 100 * done_, info_[f"Achievements/{name}"], name)


def test_spec_and_packing(played: Any) -> None:
    spec = ENV.spec
    assert (spec.id, spec.obs_shape, spec.num_binary, spec.num_actions, spec.max_steps) == (
        "craftax-symbolic-v1",
        (8268,),
        8217,
        43,
        100_000,
    )
    assert len(ACHIEVEMENTS) == 67 and make("Craftax").spec == spec
    obs = np.stack([tick.obs for tick in played])  # 2,008 observations
    bits = obs[..., :8217]
    assert ((bits == 0) | (bits == 1)).all() and not np.isin(obs[..., 8217:], (0, 1)).all()
    packed = pack(jnp.asarray(obs), 8217)
    assert packed.bits.shape[-1] == 1028 and packed.rest.shape[-1] == 51
    assert_same_bits(unpack(packed, 8217), obs)


def test_achievements_carry_their_own_names(worlds: Any) -> None:
    """Full Craftax lists its achievements out of order; each name must follow its number."""
    state = worlds[1]
    for name in ("collect_sapphire", "make_diamond_sword", "defeat_archer"):
        at = full.Achievement[name.upper()].value
        changed = state.replace(achievements=jnp.zeros_like(state.achievements).at[:, at].set(True))
        info = both(keys_at(0), changed, jnp.zeros(N, jnp.int32))[0][5]
        assert {n for n in ACHIEVEMENTS if info[n].all()} == {name}


def ending(state: Any) -> str:
    *_, terminated, truncated, info = both(keys_at(0), state, jnp.zeros(N, jnp.int32))[0]
    causes = np.stack([np.asarray(info[name]) for name in CAUSES])
    assert (causes.sum(0) == 1).all() and (causes == causes[:, :1]).all()
    cause = CAUSES[int(causes[:, 0].argmax())]
    assert terminated.all() == (cause in ("cause/death", "cause/win")) and truncated.all() == (cause == "cause/limit")
    return cause


def test_death_limit_and_win_are_told_apart(worlds: Any) -> None:
    whole = lambda x: jnp.full(N, x, jnp.int32)
    alive = worlds[1]
    dying = alive.replace(
        player_health=jnp.full(N, 0.5, jnp.float32),
        player_food=whole(0),
        player_drink=whole(0),
        player_recover=jnp.full(N, -14.9, jnp.float32),
    )
    late = lambda state: state.replace(timestep=whole(99_999))
    won = alive.replace(boss_progress=whole(8))
    assert ending(alive) == "cause/alive"
    assert ending(late(alive)) == "cause/limit"
    assert ending(dying) == ending(late(dying)) == "cause/death"
    assert ending(won) == ending(late(won)) == "cause/win"
    assert ending(dying.replace(boss_progress=whole(8))) == "cause/death"


@pytest.mark.parametrize("is_classic", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_pixels_show_the_state_rounded(is_classic: bool) -> None:
    from craftax.craftax.renderer import make_craftax_pixel_renderer as draw_full
    from craftax.craftax_classic.renderer import make_craftax_pixel_renderer as draw_classic

    constants: Any = classic if is_classic else full
    env = craftax(classic=is_classic, pixels=True)
    size = constants.BLOCK_PIXEL_SIZE_AGENT
    assert env.spec.obs_shape == ((63, 63, 3) if is_classic else (130, 110, 3))
    assert env.spec.obs_dtype == jnp.uint8 and env.spec.num_binary == 0
    key, step_key = jax.random.split(jax.random.key(1))
    draw = jax.jit((draw_classic if is_classic else draw_full)(size))

    @jax.jit
    def two(key: Any, step_key: Any) -> Any:
        obs, state = env.reset(key)
        return (obs, state), env.step(step_key, state, jnp.int32(5))[:2]

    for obs, state in two(key, step_key):
        assert obs.shape == env.spec.obs_shape and obs.dtype == jnp.uint8
        np.testing.assert_array_equal(obs, np.round(np.asarray(draw(state))).astype(np.uint8))
        assert 10 < np.asarray(obs).mean() < 245
    symbolic = craftax(classic=is_classic)
    state = jax.jit(symbolic.reset)(key)[1]
    assert_same_bits(two(key, step_key)[0][1], state)  # the same key makes the same world
    frame = np.asarray(symbolic.render(state))
    assert frame.dtype == np.uint8 and frame.shape[0] > obs.shape[0]
