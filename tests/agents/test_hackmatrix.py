"""Masked PPO on HackMatrix: what is reported of every step adds up."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.agents.api import Max
from mxnb.agents.on_policy import tick_sums
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.build import AGENTS, build, make
from mxnb.envs.hackmatrix import action_mask, make_state
from mxnb.envs.hackmatrix.tables import COMPONENTS
from mxnb.envs.vector import VecStep
from mxnb.kernels.masked import sample_masked

SIZES = {
    "env_id": "hackmatrix-v1", "num_envs": 8, "num_steps": 32, "num_minibatches": 2, "update_epochs": 1,
    "hidden_dim": 16, "num_layers": 1, "shared_layers": 1, "total_timesteps": 256,
}  # fmt: skip


@cache
def built() -> Any:
    """(agent, its compiled step)."""
    agent = ppo(PPOConfig(**SIZES, cell_dim=4, reward_scale={"damage_penalty": 0.5}), make("HackMatrix-v1"))
    return agent, jax.jit(agent.step)


def test_no_illegal_action_in_a_million_draws() -> None:
    """The masks of play, half of them with all programs owned, and logits that would rather have what is illegal."""
    agent, step = built()
    state, masks = jax.jit(agent.init)(jax.random.key(1)), []
    for number in range(20):
        state, metrics = step(state)
        game = state.envs.env
        rich = game.replace(
            owned_programs=jnp.ones((8, 23), bool),
            credits=jnp.full(8, 2 + number // 4), energy=jnp.full(8, 1 + number // 4),
            hp=jnp.full(8, 2 + number % 2), data_siphons=jnp.full(8, number % 2), snapshot_valid=jnp.arange(8) < 4,
        )  # fmt: skip
        masks += [state.envs.mask, jax.vmap(action_mask)(rich)]
        assert float(metrics["train/invalid_frac"].total) == 0
    mask = jnp.concatenate(masks)
    assert mask.shape == (320, 28) and mask.any(1).all() and len(np.unique(np.asarray(mask), axis=0)) > 100
    assert mask.any(0).all() and not mask.all(0).any()

    @jax.jit
    def illegal(key: Any) -> Any:
        logit_key, draw_key = jax.random.split(key)
        logits = jax.random.normal(logit_key, mask.shape) + jnp.where(mask, 0.0, 50.0)
        action = sample_masked(draw_key, logits, mask)
        return (~jnp.take_along_axis(mask, action[:, None], 1)).sum()

    assert int(jax.lax.map(illegal, jax.random.split(jax.random.key(2), 3125)).sum()) == 0


def test_an_updates_metrics_add_up() -> None:
    agent, step = built()
    _, metrics = step(jax.jit(agent.init)(jax.random.key(0)))
    values = {k: float(m.value if isinstance(m, Max) else m.total / m.count) for k, m in metrics.items()}
    parts = [values[f"reward/{name}"] for name in COMPONENTS]
    assert np.isfinite(parts).all() and abs(sum(parts) - values["train/mean_reward"]) < 1e-5
    assert abs(values["reward/step_penalty"] + 0.01) < 1e-7
    groups = [values[f"actions/{name}_frac"] for name in ("move", "siphon", "program")]
    assert abs(sum(groups) - 1) < 1e-6 and groups[0] > 0.5
    single = [values[f"actions/{name}"] for name in agent.spec.action_names]
    assert abs(sum(single[:4]) - groups[0]) < 1e-6 and abs(sum(single[5:]) - groups[2]) < 1e-6
    assert values["train/invalid_frac"] == 0 and isinstance(metrics["stats/highest_stage"], Max)


def test_a_ticks_metrics_tell_what_happened() -> None:
    """Three games: an illegal action on stage 4, a game won, and one lost on stage 3."""
    env, right, siphon = make("HackMatrix-v1"), 3, 4
    boards = [
        make_state(stage=4),
        make_state(stage=8, player=(5, 4), exit=(5, 5)),
        make_state(stage=3, player=(0, 0), hp=1, enemies=[{"type": 1, "row": 1, "col": 1, "hp": 3}]),
    ]
    state, action = jax.tree.map(lambda *leaves: jnp.stack(leaves), *boards), jnp.array([siphon, right, right])
    keys = jax.random.split(jax.random.key(0), 3)
    seen, _, reward, terminated, truncated, info = jax.jit(jax.vmap(env.step))(keys, state, action)
    assert terminated.tolist() == [False, True, True] and not truncated.any()
    info |= {"episode_return": jnp.array([1.0, 2.0, 4.0]), "episode_length": jnp.array([10.0, 20.0, 40.0])}
    tick = VecStep(reward, terminated, truncated, seen, terminated, info)
    metrics = tick_sums(env.spec, action, jax.vmap(env.action_mask)(state), tick)
    values = {k: float(m.value if isinstance(m, Max) else m.total / m.count) for k, m in metrics.items()}
    assert values["stats/highest_stage"] == 9 and values["stats/stage"] == 6
    assert [values[f"stats/reached_{stage}"] for stage in range(2, 9)] == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert [values[f"stats/cause/{cause}"] for cause in ("win", "death", "limit")] == [0.5, 0.5, 0]
    assert values["train/invalid_frac"] == pytest.approx(1 / 3) and values["train/mean_episode_return"] == 3
    parts = sum(values[f"reward/{name}"] for name in COMPONENTS)
    assert parts == pytest.approx(values["train/mean_reward"]) and values["reward/victory"] == pytest.approx(500 / 3)
    assert [values[f"actions/{name}_frac"] for name in ("move", "siphon", "program")] == pytest.approx(
        [2 / 3, 1 / 3, 0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo_rnn", "average_reward"])
def test_other_agents_read_the_board_too(name: str) -> None:
    """One update with `cell_dim`: everything is finite, and the layer of the cells learns."""
    config_class, _ = AGENTS[name]()
    agent, _ = build(config_class(**SIZES, cell_dim=4))
    state = jax.jit(agent.init)(jax.random.key(0))
    after, metrics = jax.jit(agent.step)(state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics))
    cells = [
        (old, new)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(state.policy), jax.tree.leaves(after.policy), strict=True
        )
        if "cell" in jax.tree_util.keystr(path) and "kernel" in jax.tree_util.keystr(path)
    ]
    assert cells and all((np.asarray(old) != np.asarray(new)).any() for old, new in cells)
