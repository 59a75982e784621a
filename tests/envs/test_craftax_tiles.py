"""The picture made of an observation is the game's own picture of the map, but for night and the inventory."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mxnb.build import make
from mxnb.envs.craftax_tiles import picture


def test_it_is_the_games_own_map() -> None:
    env = make("craftax_classic")
    step, draw = jax.jit(env.step), jax.jit(jax.vmap(lambda k: env.reset(k)))
    obs, state = jax.tree.map(lambda x: x[0], draw(jax.random.split(jax.random.key(3), 1)))
    for t in range(12):
        game = np.asarray(env.render(state))[:112].astype(int)
        mine = picture(obs).astype(int)
        light = float(state.light_level)
        assert mine.shape == game.shape == (112, 144, 3)
        # The game tints by daylight, evenly but for noise at night: without it the two are one picture.
        assert light > 0.7 and np.corrcoef(mine.reshape(-1), game.reshape(-1))[0, 1] > 0.97
        obs, state, *_ = step(jax.random.key(t), state, t % 5)


def test_chances_show_the_likeliest_block_and_black_where_there_is_none() -> None:
    obs = np.zeros(1345, np.float32)
    assert (picture(obs)[:16, :16] == 0).all()
    tiles = obs[: 7 * 9 * 21].reshape(7, 9, 21)
    tiles[0, 0, [2, 3]] = 0.4, 0.9
    sure = np.zeros(1345, np.float32)
    sure[: 7 * 9 * 21].reshape(7, 9, 21)[0, 0, 3] = 1.0
    np.testing.assert_array_equal(picture(obs), picture(sure))
    assert picture(obs)[:16, :16].any()
    cow = obs.copy()
    cow[: 7 * 9 * 21].reshape(7, 9, 21)[0, 0, 18] = 0.8
    assert (picture(cow)[:16, :16] != picture(obs)[:16, :16]).any()


def test_another_observation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has shape \(1345,\); got \(8268,\)"):
        picture(np.zeros(8268))
