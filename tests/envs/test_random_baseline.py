"""The frozen figures of random play still describe the game: a drift would move every comparison in README."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_env import make_craftax_env_from_name

from mxnb.build import make
from mxnb.envs.api import CAUSES
from mxnb.evaluate import evaluate, random_policy
from mxnb.kernels.lives import renewal_gain

FROZEN = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "random.json").read_text())["results"]
ENV = make("craftax-classic-v1")  # one object, one compiled program for both policies


@pytest.mark.parametrize(("name", "use_mask"), [("all_actions", False), ("open_actions", True)])
def test_random_return_is_the_frozen_one(name: str, use_mask: bool) -> None:
    seen = evaluate(random_policy(ENV.spec, use_mask=use_mask), ENV, 64, jax.random.key(7)).summary()
    frozen = FROZEN[name]
    error = math.hypot(seen["return_standard_error"], frozen["return_standard_error"])
    assert abs(seen["return"] - frozen["return"]) < 4 * error
    assert seen["return_standard_error"] < 0.4  # tight enough to tell the two baselines apart


def test_a_life_pays_its_achievements_and_loses_its_health() -> None:
    """Health begins at 9 and counts a tenth a point: who dies has lost 0.9, whatever happened in between."""
    seen = evaluate(random_policy(ENV.spec), ENV, 64, jax.random.key(7))
    unlocked = np.stack([x for name, x in seen.info.items() if name not in CAUSES])
    assert len(unlocked) == 22 and set(np.unique(unlocked)) <= {0.0, 1.0}
    died = np.asarray(seen.terminated)
    assert died.sum() > 32
    np.testing.assert_allclose(seen.returns[died], unlocked.sum(0)[died] - 0.9, atol=1e-4)


def test_survival_of_random_play_is_that_of_a_plain_simulation() -> None:
    """48 lives stepped by the game itself, without any of our code, against the judge of survival on other worlds."""
    game: Any = make_craftax_env_from_name("Craftax-Classic-Symbolic-v1", auto_reset=False)
    params, lives = game.default_params, 48
    keys = jax.random.split(jax.random.key(11), lives)
    states = jax.lax.map(lambda key: game.reset_env(key, params)[1], keys, batch_size=8)

    def tick(carry: Any, key: Any) -> Any:
        states, alive = carry
        action_key, *step_keys = jax.random.split(key, lives + 1)
        actions = jax.random.randint(action_key, (lives,), 0, 17)
        _, states, _, done, _ = jax.vmap(game.step_env, (0, 0, 0, None))(jnp.stack(step_keys), states, actions, params)
        return (states, alive & ~done), alive

    begin = (states, jnp.ones(lives, bool))
    (_, alive), lived = jax.jit(lambda: jax.lax.scan(tick, begin, jax.random.split(keys[0], 600)))()
    assert not alive.any()
    steps = np.asarray(lived).sum(0)
    mine = renewal_gain(steps, np.ones(lives, bool), 50)
    seen = evaluate(random_policy(ENV.spec), ENV, 64, jax.random.key(7)).survival(50)["gain"]
    halves = mine.high - mine.mean, seen["high"] - seen["mean"]
    assert abs(mine.mean - seen["mean"]) < math.hypot(*halves), (mine, seen)
    assert 0.69 < mine.mean < 0.78 and max(halves) < 0.03  # 0.735 +- 0.014 (one standard error) in earlier runs
