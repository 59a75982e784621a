"""Masked PPO on HackMatrix: what is reported of every step adds up."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.agents.api import Max
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.build import AGENTS, build, make
from mxnb.envs.hackmatrix.tables import COMPONENTS
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
    """The masks of real play, and logits that would rather have what is illegal."""
    agent, step = built()
    state, masks = jax.jit(agent.init)(jax.random.key(1)), []
    for _ in range(40):
        state, metrics = step(state)
        masks.append(state.envs.mask)
        assert float(metrics["train/invalid_frac"].total) == 0
    mask = jnp.concatenate(masks)
    assert mask.shape == (320, 28) and mask.any(1).all() and len(np.unique(np.asarray(mask), axis=0)) > 10

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
